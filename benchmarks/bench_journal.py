"""The journal: append, scan, and a commit against a bare fdatasync (`pytest -s` shows them)."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest

from benchmarks import ratios
from flux import journal
from flux.journal import Group, Journal
from flux.limits import MIB

PAYLOAD = bytes(240)
BATCH = b"\x04\x00t.t." + PAYLOAD + journal._kernel.crc32c(PAYLOAD).to_bytes(4, "little")


def full_group() -> Group:
    group = Group(16 * MIB)
    while group.used + 512 < group.capacity:
        group._kernel.append(journal.BATCH, BATCH, 0, 0)
    return group


@pytest.mark.gate
def test_append() -> None:
    """Table: 1 M records a second. From Python, a call each: the pump appends inside C (10 ns a record)."""
    taken = []
    for _ in range(5):
        start = time.perf_counter_ns()
        group = full_group()
        taken.append((time.perf_counter_ns() - start) / group.count)
    rate = 1e3 / min(taken)
    ratios.at_least(f"journal: append of {len(BATCH)} bytes, a call each, M records/s", rate, 1.0)


@pytest.mark.gate
def test_scan(tmp_path: Path) -> None:
    """Table: 1 GB/s, every CRC checked, from the page cache."""
    log, group = Journal.create(tmp_path, b"heads"), full_group()
    for _ in range(8):
        log.commit(group, sync=False)
    size = log.position.offset
    log.close(clean=False)
    data = journal.map_file(journal.path_of(tmp_path, 1))
    taken = []
    for _ in range(5):
        start = time.perf_counter_ns()
        found = journal.scan(data)
        taken.append(time.perf_counter_ns() - start)
    assert (found.committed, found.reason) == (size, "end")
    rate = size / min(taken)
    ratios.at_least(f"journal: scan of {size / 1e6:.0f} MB, GB/s", rate, 1.0)


@pytest.mark.informational
def test_commit_against_bare_fdatasync(tmp_path: Path) -> None:
    """Groups of 64 records; the same bytes written and synced by hand into a file preallocated alike."""
    log = Journal.create(tmp_path, b"heads", file_bytes=64 * MIB)
    group = Group(1 * MIB)
    for _ in range(64):
        group.append(journal.BATCH, BATCH)
    fd = os.open(tmp_path / "bare", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 64 * MIB)
    size, bare, synced, written = group.used + 40, [], [], []
    for i in range(200):
        start = time.perf_counter_ns()
        os.pwrite(fd, bytes(size), i * size)
        os.fdatasync(fd)
        middle = time.perf_counter_ns()
        log.commit(group, sync=True)
        end = time.perf_counter_ns()
        log.commit(group, sync=False)
        written.append(time.perf_counter_ns() - end)
        bare.append(middle - start)
        synced.append(end - middle)
    os.close(fd)
    medians = [statistics.median(times) / 1e3 for times in (bare, synced, written)]
    print(
        "\nwrite + fdatasync {:.0f} µs, commit synced {:.0f} µs, commit unsynced {:.1f} µs".format(*medians)
    )
