"""What a damaged journal still holds, and what its database has of the rest: `flux rebuild --salvage`.

    HEADS group group x x x x x group group x x x zeros          before
    HEADS group group [ HOLE  ] group group [HOLE] zeros         after: every group that reads stays where it is

A HOLE record says which sequences are lost in its place, so the heads after it are what they were. What the old
database has of them goes into the new one; the rest is a hole to whoever asks. Where nobody knows how far the rows went
that are lost, the fence is put ahead of the journal: the next start begins a new epoch.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from flux import journal
from flux.errors import DataError, FluxError, StorageError
from flux.journal import Fence, Group, Journal, JournalFile, Position
from flux.journal.records import (
    FIRST_EPOCH,
    EpochRecord,
    HeadsRecord,
    HoleRecord,
    StreamRecord,
    pack,
    unpack,
)
from flux.limits import MIB, PROJECT_MAX_ROWS
from flux.model import StreamKey
from flux.server.storage.damage import Damage, stretches
from flux.server.storage.scan import Scanned, heads_of, scan_file
from flux.store.base import StoreBatch
from flux.store.duck import DuckStore

_RECORD_HEADER: Final = 12
_COMMIT_BYTES: Final = 40
_MOST: Final = 8 * MIB  # bytes of one HOLE record
_ROWS: Final = 100_000  # read of the old database at once

Spans = dict[int, tuple[int, int]]


class _Kept(NamedTuple):
    """A group that reads, after the damage."""

    start: int
    end: int
    born: list[StreamRecord]
    moved: dict[int, tuple[int, int]]
    """Of a stream, the first and the last sequence in it."""
    dense: bool
    epochs: list[int]


class Hole(NamedTuple):
    """A place in the journal where sequences are missing: a projection that stands `at` goes on `after` it."""

    at: Position | None
    after: Position
    spans: Spans
    streams: dict[int, StreamKey]
    epochs: list[EpochRecord]


def open_old(path: Path, scanned: Scanned) -> DuckStore | None:
    """The database as it is; None where there is none that opens."""
    if not path.exists():
        return None
    store = None
    try:
        store = DuckStore(path, scanned.heads.store_id, also=scanned.heads.parent_store_id)
        store.heads()
    except FluxError:
        if store is not None:
            store.close()
        return None
    return store


# ---------------------------------------------------------------------- a file with holes


def salvage(damage: Damage, scanned: Scanned, following: JournalFile | None, old: DuckStore | None) -> int:
    """Put HOLEs in the place of what does not read after `damage.kept`, and cut what stands after the last group
    that does: how many groups were kept. `scanned` is the file up to the damage."""
    path, number = damage.file.path, damage.file.number
    data = journal.read_file(path)
    version = journal.scan(data).version
    kept = list(_kept(data, damage.kept, version, scanned, _names(following, old)))
    heads = {stream: head.head for stream, head in scanned.streams.items()}
    known = set(scanned.streams) | {stream.stream_id for group in kept for stream in group.born}
    names = _names(following, old)
    writes, at = [], damage.kept
    for group in kept:
        if group.start > at:
            spans = {
                stream: (heads.get(stream, 0) + 1, first - 1)
                for stream, first in _firsts(kept, group.start).items()
                if first - 1 > heads.get(stream, 0)
            }
            born = [names[stream] for stream in spans if stream not in known]
            known |= spans.keys()
            heads |= {stream: last for stream, (_, last) in spans.items()}
            writes.append((at, _hole(at, group.start, spans, born, version)))
        heads |= {stream: last for stream, (_, last) in group.moved.items()}
        at = group.end
    gone = damage.kept + damage.bytes  # where the last of it ends
    if at >= gone and writes:  # nothing but zeros after the last group that reads
        gone = writes[-1][0] + len(writes[-1][1])
    position = None if old is None else old.position()
    if following is None and (position is None or Position(*position) < Position(number, gone)):
        put_fence_ahead(path.parent.parent, scanned)
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        for start, group_bytes in writes:
            os.pwrite(fd, group_bytes, start)
        os.fsync(fd)
    except OSError as error:
        raise StorageError.of(path, error) from error
    finally:
        os.close(fd)
    journal.truncate(path.parent.parent, Position(number, at))
    return len(kept)


def _firsts(kept: list[_Kept], start: int) -> dict[int, int]:
    """Of every stream that comes again from `start` on, the first sequence."""
    found: dict[int, int] = {}
    for group in kept:
        if group.start >= start:
            for stream, (first, _) in group.moved.items():
                found.setdefault(stream, first)
    return found


def _kept(
    data: mmap.mmap | bytes, at: int, version: int, scanned: Scanned, names: Mapping[int, StreamRecord]
) -> Iterator[_Kept]:
    """The groups after `at` that read, and whose rows come after those before them."""
    heads = {stream: head.head for stream, head in scanned.streams.items()}
    end, since = at, set(heads)  # streams whose place has been known since the last hole
    for group in _groups(data, at, version):
        known = since if group.start == end else set[int]()
        heads_after = dict.fromkeys((stream.stream_id for stream in group.born), 0) | heads
        follows = group.dense and all(
            first > heads_after.get(stream, 0)
            and (stream in heads_after or stream in names)
            and (stream not in known or first == heads_after.get(stream, 0) + 1)
            for stream, (first, _) in group.moved.items()
        )
        if not follows:
            continue
        if any(epoch > scanned.epoch for epoch in group.epochs):
            raise DataError("an epoch began where the journal is damaged: `--cut` is what is left")
        heads = heads_after | {stream: last for stream, (_, last) in group.moved.items()}
        end, since = group.end, known | group.moved.keys() | {stream.stream_id for stream in group.born}
        yield group


def _groups(data: mmap.mmap | bytes, at: int, version: int) -> Iterator[_Kept]:
    for start, end in stretches(data, at, version):
        with memoryview(data) as view, view[:end] as part:
            records = journal.scan(part, start, version).records
            for commit in records["at"][records["kind"] == journal.COMMIT].tolist():
                behind = commit - _RECORD_HEADER + _COMMIT_BYTES
                with view[:behind] as group:
                    yield _read(group, start)
                start = behind


def _read(data: memoryview, start: int) -> _Kept:
    born: list[StreamRecord] = []
    moved: Spans = {}
    epochs: list[int] = []
    dense, at, gather = True, start, journal.Gatherer(PROJECT_MAX_ROWS)
    while at < len(data):
        gathered = gather(data, at)
        at = gathered.stopped
        for record in gathered.records:
            body = data[int(record["first"]) :][: int(record["count"])] if record["kind"] == 0 else None
            if body is None:
                stream, first = int(record["stream_id"]), int(record["first"])
                last = first + int(record["count"]) - 1
                epochs.append(int(record["epoch"]))
                if stream in moved:
                    dense &= first == moved[stream][1] + 1
                    first = moved[stream][0]
                moved[stream] = (first, last)
            elif record["epoch"] == journal.STREAM:
                born.append(unpack(body, StreamRecord))
            elif record["epoch"] == journal.HOLE:
                hole = unpack(body, HoleRecord)
                born += hole.streams
                moved |= hole.spans
            elif record["epoch"] == journal.EPOCH:
                epochs.append(unpack(body, EpochRecord).epoch)
    return _Kept(start, len(data), born, moved, dense, epochs)


def _names(following: JournalFile | None, old: DuckStore | None) -> dict[int, StreamRecord]:
    """Streams by their number, from where the journal goes on and from the database."""
    found: dict[int, StreamRecord] = {}
    if old is not None:
        with suppress(FluxError):
            found |= {number: StreamRecord(number, *key) for number, key in old.streams().items()}
    if following is not None:
        found |= {head.stream.stream_id: head.stream for head in _first_record(following).streams}
    return found


def _first_record(file: JournalFile) -> HeadsRecord:
    data = journal.read_file(file.path)
    record = journal.scan(data).records[0]
    return unpack(data[int(record["at"]) :][: int(record["size"])], HeadsRecord)


def _hole(start: int, end: int, spans: Spans, born: list[StreamRecord], version: int) -> bytes:
    """A group of HOLE records that reaches from `start` to `end`."""
    left = end - start - _COMMIT_BYTES
    group = Group(end - start, left // _MOST + 8)
    record = HoleRecord(spans, born)
    while left:
        size = left if left <= _MOST + 64 else _MOST
        body = _filled(record, size)
        if body is None:
            raise DataError(
                f"what is lost in {end - start} bytes cannot be said in as many: `--cut` is what is left"
            )
        group.append(journal.HOLE, body)
        left, record = left - size, HoleRecord({}, [])
    return journal.sealed(group, start, start, version)


def _filled(record: HoleRecord, size: int) -> bytes | None:
    """The record's content, so long that the record takes `size` bytes."""
    room = size - _RECORD_HEADER - 4
    for fill in range(room - len(pack(record)), max(-1, room - len(pack(record)) - 16), -1):
        body = pack(HoleRecord(record.spans, record.streams, bytes(fill)))
        if -(-(_RECORD_HEADER + len(body) + 4) // 8) * 8 == size:
            return body
    return None


# ---------------------------------------------------------------------- after the journal's end


def go_on_from(directory: Path, old: DuckStore) -> int:
    """What the database has from after the journal's end stays in it: a HOLE says so, at the end. How many rows."""
    file = journal.files(directory)[-1]
    scanned, _ = scan_file(file)
    assert scanned is not None, "what does not read was cut"
    spans, born = {}, []
    names = _names(None, old)
    for stream, head in old.heads().items():
        known = scanned.streams.get(stream)
        if head.last_sequence > (known.head if known else 0):
            spans[stream] = (known.head + 1 if known else 1, head.last_sequence)
            born += [] if known else [names[stream]]
    if spans:
        body = pack(HoleRecord(spans, born))
        group = Group(len(body) + 4_096)
        group.append(journal.HOLE, body)
        size = file.path.stat().st_size
        log = Journal.open(directory, file=file.number, offset=scanned.end.offset, file_bytes=size)
        try:
            if not log.fits(group):
                heads = list(scanned.streams.values())
                log.rotate(
                    pack(
                        HeadsRecord(
                            scanned.heads.format, scanned.heads.store_id, scanned.epoch, heads, scanned.epochs,
                            scanned.sources.in_order(), scanned.heads.parent_store_id, scanned.heads.branch_epoch,
                        )
                    )
                )  # fmt: skip
            log.commit(group, sync=True)
        finally:
            log.close(clean=False)
    return sum(last - first + 1 for first, last in spans.values())


def put_fence_ahead(directory: Path, scanned: Scanned) -> None:
    """The next start begins a new epoch: rows may be lost that nobody knows of."""
    fence = Fence(directory)
    try:
        fence.store(scanned.heads.store_id, scanned.epoch, scanned.end.file + 2, 0)
        fence.sync()
    finally:
        fence.close()


# ---------------------------------------------------------------------- rows of the old database


def has_holes(files: list[JournalFile]) -> bool:
    """Whether a salvage left a HOLE in the journal: what the database has there, only the database has."""
    return any(True for file in files for _ in _records(file))


def holes(files: list[JournalFile], *, said: bool = False) -> Iterator[Hole]:
    """Where the journal lacks sequences, in its order: before its first file, between files, where a HOLE says so;
    with `said` these last ones alone (elsewhere a cut took rows away, which are not to come back)."""
    ends: dict[int, int] = {}
    at = None
    for file in files:
        scanned, _ = scan_file(file)
        assert scanned is not None, "what does not read was cut"
        keys = {stream: head.stream.key for stream, head in scanned.streams.items()}
        after = Position(file.number, journal.FILE_HEADER_BYTES)
        begins = heads_of(file).items()
        spans = {
            stream: (ends.get(stream, 0) + 1, head) for stream, head in begins if head > ends.get(stream, 0)
        }
        if spans and not said:
            yield Hole(at, after, spans, keys, scanned.epochs)
        for start, end, record in _records(file):
            yield Hole(
                Position(file.number, start), Position(file.number, end), record.spans, keys, scanned.epochs
            )
        ends = {stream: head.head for stream, head in scanned.streams.items()}
        at = scanned.end


def _records(file: JournalFile) -> Iterator[tuple[int, int, HoleRecord]]:
    """The HOLE records with spans: where their group begins and ends."""
    data = journal.read_file(file.path)
    records = journal.scan(data).records
    commits = np.flatnonzero(records["kind"] == journal.COMMIT)
    for i in np.flatnonzero(records["kind"] == journal.HOLE).tolist():
        record = unpack(data[int(records["at"][i]) :][: int(records["size"][i])], HoleRecord)
        behind = int(np.searchsorted(commits, i))
        before = int(records["at"][commits[behind - 1]])
        end = int(records["at"][commits[behind]])
        if record.spans:
            yield before - _RECORD_HEADER + _COMMIT_BYTES, end - _RECORD_HEADER + _COMMIT_BYTES, record


def fill(store: DuckStore, old: DuckStore, hole: Hole) -> int:
    """Put into `store` what `old` has of a hole, in one transaction with the position after it: how many rows."""
    batches = [
        batch
        for stream, (first, last) in hole.spans.items()
        for batch in _rows(old, stream, hole.streams[stream], first, last, hole.epochs)
    ]
    store.commit(batches, {stream: hole.streams[stream] for stream in hole.spans}, hole.after)
    return sum(len(batch.rows) for batch in batches)


def _rows(
    old: DuckStore, stream: int, key: StreamKey, first: int, last: int, epochs: list[EpochRecord]
) -> Iterator[StoreBatch]:
    while first <= last:
        found, rows = old.read(stream, key.kind, first - 1, last, _ROWS)
        if not len(rows):
            return
        sequences = np.arange(found, found + len(rows), dtype=np.uint64)
        numbered = np.full(len(rows), FIRST_EPOCH, np.uint32)
        for record in epochs:
            numbered[sequences > record.ends.get(stream, 0)] = record.epoch
        ids = np.full(len(rows), stream, np.uint32)
        yield StoreBatch(key.kind, ids, sequences, numbered, rows)
        first = found + len(rows)
