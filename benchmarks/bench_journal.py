"""The journal beside its floors: append, scan, and a commit against a bare write and a bare fdatasync."""

from __future__ import annotations

import itertools
import os
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.sizes import of
from flux import journal
from flux.codec import crc32c
from flux.journal import Group, Journal
from flux.limits import MIB

ROUNDS = of(2, 5)  # of what writes 16 MiB
SYNCS = of(5, 200)
PAYLOAD = bytes(240)
BATCH = b"\x04\x00t.t." + PAYLOAD + crc32c(PAYLOAD).to_bytes(4, "little")


def full_group() -> Group:
    group = Group(16 * MIB)
    while group.used + 512 < group.capacity:
        group._kernel.append(journal.BATCH, BATCH, 0, 0)
    return group


@pytest.mark.gate
@pytest.mark.benchmark(group="journal: append")
@pytest.mark.parametrize("way", ["flux", "bytearray +="])
def test_append(benchmark: Any, way: str) -> None:
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

    benchmark.extra_info.update(items=count, bytes=len(BATCH))
    benchmark(appended if way == "flux" else joined)


@pytest.mark.gate
@pytest.mark.benchmark(group="journal: scan")
@pytest.mark.parametrize("way", ["flux", "one checksum"])
def test_scan(benchmark: Any, way: str, tmp_path: Path) -> None:
    """From the page cache: the CRC of each record and of each group, against one CRC of all the bytes."""
    log, group = Journal.create(tmp_path, b"heads"), full_group()
    for _ in range(of(1, 8)):
        log.commit(group, sync=False)
    size = log.position.offset
    log.close(clean=False)
    data = journal.read_file(journal.path_of(tmp_path, 1))
    found = journal.scan(data)
    assert (found.committed, found.reason) == (size, "end")
    benchmark.extra_info.update(items=size, mb=size / 1e6)
    with memoryview(data) as whole, whole[:size] as part:
        benchmark(*((journal.scan, data) if way == "flux" else (crc32c, part)))


class Floor:
    """A bare file, preallocated like the journal's; bytes are written behind those before."""

    def __init__(self, folder: Path, size: int) -> None:
        self._file, self._places = os.open(folder / "bare", os.O_RDWR | os.O_CREAT), itertools.count()
        os.posix_fallocate(self._file, 0, size)

    def write(self, data: bytes) -> None:
        os.pwrite(self._file, data, next(self._places) * len(data))

    def sync(self) -> None:
        os.fdatasync(self._file)

    def close(self) -> None:
        os.close(self._file)


@pytest.mark.gate
@pytest.mark.benchmark(group="journal: commit of 16 MiB, not synced")
@pytest.mark.parametrize("way", ["flux", "write + checksum"])
def test_writing_a_group(benchmark: Any, way: str, tmp_path: Path) -> None:
    """A commit that does not wait for the disk, against one bare write and one checksum of the same bytes."""
    log, group = Journal.create(tmp_path, b"heads"), full_group()
    floor, data = Floor(tmp_path, 8 * group.capacity), bytes(group.used + 40)

    def write() -> None:
        crc32c(data)
        floor.write(data)

    def commit() -> None:
        log.commit(group, sync=False)

    with closing(floor):
        benchmark.pedantic(commit if way == "flux" else write, rounds=ROUNDS)
    log.close(clean=False)


@pytest.mark.gate
@pytest.mark.benchmark(group="journal: commit of 64 records, synced")
@pytest.mark.parametrize("way", ["flux", "write + fdatasync"])
def test_commit_against_bare_fdatasync(benchmark: Any, way: str, tmp_path: Path) -> None:
    """The same bytes written and synced by hand. A disk has its moods: each round of the one is behind a round of the
    other, which is not timed, and their medians are compared."""
    log, group = Journal.create(tmp_path, b"heads", file_bytes=64 * MIB), Group(1 * MIB)
    for _ in range(64):
        group.append(journal.BATCH, BATCH)
    floor, data = Floor(tmp_path, 64 * MIB), bytes(group.used + 40)

    def write() -> None:
        floor.write(data)
        floor.sync()

    def commit() -> None:
        log.commit(group, sync=True)

    timed, beside = (commit, write) if way == "flux" else (write, commit)
    with closing(floor):
        benchmark.pedantic(timed, setup=beside, rounds=SYNCS)
    log.close(clean=False)
