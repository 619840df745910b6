"""The journal beside its floors: append, scan, and a commit against a bare write and a bare fdatasync."""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import ratios
from flux import journal
from flux.codec import crc32c
from flux.journal import Group, Journal
from flux.limits import MIB

PAYLOAD = bytes(240)
BATCH = b"\x04\x00t.t." + PAYLOAD + journal._kernel.crc32c(PAYLOAD).to_bytes(4, "little")


def full_group() -> Group:
    group = Group(16 * MIB)
    while group.used + 512 < group.capacity:
        group._kernel.append(journal.BATCH, BATCH, 0, 0)
    return group


def least_ns(*works: Callable[[], object]) -> list[int]:
    """The shortest of some rounds of each, in turns."""
    taken: list[list[int]] = [[] for _ in works]
    for _ in range(5):
        for work, times in zip(works, taken, strict=True):
            start = time.perf_counter_ns()
            work()
            times.append(time.perf_counter_ns() - start)
    return [min(times) for times in taken]


@pytest.mark.gate
def test_append() -> None:
    """A call each from Python: the pump appends inside C (10 ns a record). The floor: bytes joined to a bytearray."""
    group = full_group()
    count = group.count

    def appended() -> None:
        group.clear()
        for _ in range(count):
            group._kernel.append(journal.BATCH, BATCH, 0, 0)

    def joined() -> None:
        out = bytearray()
        for _ in range(count):
            out += BATCH

    ours, floor = least_ns(appended, joined)
    ratios.at_most(f"journal: append of {len(BATCH)} bytes, a call each / bytearray +=", ours / floor, 2)
    ratios.note_at_least("journal: append, a call each from Python", 1e3 * count / ours, 1.0, "M/s")


@pytest.mark.gate
def test_scan(tmp_path: Path) -> None:
    """From the page cache: the CRC of each record and of each group, against one CRC of all the bytes."""
    log, group = Journal.create(tmp_path, b"heads"), full_group()
    for _ in range(8):
        log.commit(group, sync=False)
    size = log.position.offset
    log.close(clean=False)
    data = journal.read_file(journal.path_of(tmp_path, 1))
    found = journal.scan(data)
    assert (found.committed, found.reason) == (size, "end")
    with memoryview(data) as whole, whole[:size] as part:
        ours, floor = least_ns(lambda: journal.scan(data), lambda: crc32c(part))
    ratios.at_most(f"journal: scan of {size / 1e6:.0f} MB / one checksum of them", ours / floor, 4)
    ratios.note_at_least("journal: scan, every checksum", size / ours, 1.0, "GB/s")


@pytest.mark.gate
def test_writing_a_group(tmp_path: Path) -> None:
    """A commit that does not wait for the disk, against one bare write and one checksum of the same bytes."""
    log, group = Journal.create(tmp_path, b"heads"), full_group()
    fd = os.open(tmp_path / "bare", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 8 * group.capacity)
    data, places = bytes(group.used + 40), itertools.count()

    def write() -> None:
        crc32c(data)
        os.pwrite(fd, data, next(places) * len(data))

    ours, bare = least_ns(lambda: log.commit(group, sync=False), write)
    os.close(fd)
    log.close(clean=False)
    ratios.at_most("journal: commit of 16 MiB, not synced / one write + checksum", ours / bare, 1.25)


@pytest.mark.gate
def test_commit_against_bare_fdatasync(tmp_path: Path) -> None:
    """Groups of 64 records; the same bytes written and synced by hand into a file preallocated alike. Medians of
    pairs: a disk has its moods, and both sides of a pair meet the same one."""
    log = Journal.create(tmp_path, b"heads", file_bytes=64 * MIB)
    group = Group(1 * MIB)
    for _ in range(64):
        group.append(journal.BATCH, BATCH)
    fd = os.open(tmp_path / "bare", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, 64 * MIB)
    size, bare, synced = group.used + 40, [], []
    for i in range(200):
        start = time.perf_counter_ns()
        os.pwrite(fd, bytes(size), i * size)
        os.fdatasync(fd)
        middle = time.perf_counter_ns()
        log.commit(group, sync=True)
        bare.append(middle - start)
        synced.append(time.perf_counter_ns() - middle)
    os.close(fd)
    log.close(clean=False)
    medians = [statistics.median(times) / 1e3 for times in (synced, bare)]
    print("\ncommit synced {:.0f} us, write + fdatasync {:.0f} us".format(*medians))
    ratio = statistics.median(ours / theirs for ours, theirs in zip(synced, bare, strict=True))
    ratios.at_most("journal: commit of 64 records, synced / write + fdatasync", ratio, 1.25)
