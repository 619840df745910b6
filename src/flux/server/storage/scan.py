"""A journal file followed from its HEADS to its end, and whether every file goes on where the one before it ends."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from flux import journal
from flux.errors import DataError
from flux.journal import JournalFile, Position
from flux.journal.records import (
    EpochRecord,
    HeadsRecord,
    HoleRecord,
    SourceRecord,
    StreamHead,
    StreamRecord,
    pack,
    unpack,
)
from flux.journal.remembered import Sources
from flux.limits import PROJECT_MAX_ROWS
from flux.model import RowKind
from flux.server.storage.damage import Damage, Missing, assess

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG = logging.getLogger("flux.server")

_ORDER: Final = {RowKind.CANDLE: "ts_ms", RowKind.TRADE: "trade_id", RowKind.QUOTE: "ts_ns"}
_TIME: Final = {RowKind.CANDLE: "ts_ms", RowKind.TRADE: "ts_ns", RowKind.QUOTE: "ts_ns"}
_HEADER_BYTES: Final = 12  # of a record, as ext/journal.h draws it
_COMMIT_BYTES: Final = 40


@dataclass(slots=True)
class Scanned:
    """A file of the journal, read up to its last good group."""

    heads: HeadsRecord
    streams: dict[int, StreamHead]
    sources: Sources
    epoch: int
    epochs: list[EpochRecord]
    end: Position
    closed: bool
    holed: set[int] = field(default_factory=set)
    """Streams of which a HOLE names sequences: how new those rows are only the database knows."""
    holed_now: set[int] = field(default_factory=set)
    """Of them those of this epoch: what is lost of the others was reported when theirs ended."""


def scan_file(
    file: journal.JournalFile, following: journal.JournalFile | None = None
) -> tuple[Scanned | None, Damage | None]:
    """What a journal file says up to its last good group (None: not even its first one reads), and its damage.

    After the last group of the last file may stand a torn tail; a file with a `following` one ends in zeros.
    """
    data = journal.read_file(file.path)
    found = journal.scan(data)
    if found.number not in (0, file.number):
        raise DataError(
            f"{file.path} says that it is file {found.number}: somebody renamed or copied it; give it its name back"
        )
    scanned, out_of_order = _scanned(file, data, found) if len(found.records) else (None, None)
    if out_of_order is not None:
        found = _up_to(found, out_of_order)
        scanned, _ = _scanned(file, data, found)
    whole = scanned is not None and not found.resumes
    if following is None and whole and found.tail > found.committed:
        _LOG.warning("%s: %d bytes after the last commit", file.path.name, found.tail - found.committed)
    if whole and (following is None or (found.reason == "end" and found.tail == found.committed)):
        return scanned, None
    before = {} if scanned is None else {number: head.head for number, head in scanned.streams.items()}
    return scanned, assess(file, data, found, before, heads_of(following))


def _up_to(found: journal.Scan, index: int) -> journal.Scan:
    """As if the group with that record did not read."""
    records = found.records
    commits = np.flatnonzero(records["kind"][:index] == journal.COMMIT)
    kept = int(commits[-1]) + 1
    committed = int(records["at"][kept - 1]) - _HEADER_BYTES + _COMMIT_BYTES
    at = int(records["at"][index]) - _HEADER_BYTES
    return found._replace(
        records=records[:kept], committed=committed, end=at, reason="sequence", resumes=True
    )


def _scanned(
    file: journal.JournalFile, data: mmap.mmap | bytes, found: journal.Scan
) -> tuple[Scanned, int | None]:
    """What those records say, and the first of them that holds not the sequence it must, if there is one."""
    records = found.records
    with memoryview(data) as view:
        heads = unpack(view[int(records[0]["at"]) :][: int(records[0]["size"])], HeadsRecord)
        scanned = Scanned(
            heads=heads,
            streams={head.stream.stream_id: head for head in heads.streams},
            sources=Sources(heads.sources),
            epoch=heads.epoch,
            epochs=list(heads.epochs),
            end=Position(file.number, found.committed),
            closed=len(records) > 1 and int(records[-2]["kind"]) == journal.CLOSE,
        )
        with view[: found.committed] as committed:
            return scanned, _walk(committed, scanned)


def heads_of(file: journal.JournalFile | None) -> dict[int, int]:
    """The head of each stream where a file begins."""
    if file is None:
        return {}
    data = journal.read_file(file.path)
    records = journal.scan(data).records
    if not len(records):
        return {}
    heads = unpack(data[int(records[0]["at"]) :][: int(records[0]["size"])], HeadsRecord)
    return {head.stream.stream_id: head.head for head in heads.streams}


def _walk(data: memoryview, scanned: Scanned) -> int | None:
    """Follow the records, HEADS first: which of them is the first that does not go on at its stream's head + 1."""
    at, before, gather = journal.FILE_HEADER_BYTES, 0, journal.Gatherer(PROJECT_MAX_ROWS)
    while at < len(data):
        gathered = gather(data, at)
        assert gathered.stopped > at, "a scanned file walks to its end"
        at = gathered.stopped
        for record in gathered.records[gathered.records["kind"] == 0]:
            _apply(data[int(record["first"]) :][: int(record["count"])], int(record["epoch"]), scanned)
        holes = _holes(data, gathered.records)
        wrong = _out_of_order(gathered.records, holes, scanned.streams)
        if wrong is not None:
            return before + wrong
        for kind in gathered.rows:
            _advance(kind, gathered, scanned)
        for hole in holes.values():
            for stream, (_, last) in hole.spans.items():
                head = scanned.streams[stream]
                scanned.streams[stream] = msgspec.structs.replace(head, head=max(head.head, last))
                scanned.holed.add(stream)
        before += len(gathered.records)
    return None


def _holes(data: memoryview, records: NDArray[np.void]) -> dict[int, HoleRecord]:
    """The HOLE records among these, by their index."""
    (at,) = np.nonzero((records["kind"] == 0) & (records["epoch"] == journal.HOLE))
    return {
        int(i): unpack(data[int(records["first"][i]) :][: int(records["count"][i])], HoleRecord) for i in at
    }


def _out_of_order(
    records: NDArray[np.void], holes: Mapping[int, HoleRecord], streams: Mapping[int, StreamHead]
) -> int | None:
    """The index of the first batch that begins anywhere else than after the one before it of its stream, or after
    what is known to be lost."""
    (at,) = np.nonzero((records["kind"] != 0) & (records["count"] > 0))
    spans = np.zeros((len(at), 4), np.uint64)
    for column, name in enumerate(("stream_id", "first", "count")):
        spans[:, column] = records[name][at]
    spans[:, 3] = at
    lost = [
        (stream, first, last - first + 1, i)
        for i, hole in holes.items()
        for stream, (first, last) in hole.spans.items()
    ]
    if lost:
        spans = np.concatenate((spans, np.array(lost, np.uint64)))
    spans = spans[np.lexsort((spans[:, 3], spans[:, 0]))]
    ids, first, index = spans[:, 0], spans[:, 1], spans[:, 3]
    expected = np.zeros(len(spans), np.uint64)
    expected[1:] = first[:-1] + spans[:-1, 2]
    for i in np.flatnonzero(np.diff(ids, prepend=~ids[:1])).tolist():
        head = streams.get(int(ids[i]))
        expected[i] = 0 if head is None else head.head + 1
    wrong = index[first != expected]
    return int(wrong.min()) if len(wrong) else None


def _apply(body: memoryview, kind: int, scanned: Scanned) -> None:
    if kind == journal.STREAM:
        stream = unpack(body, StreamRecord)
        lowest = -(2**63) if stream.key.kind is RowKind.CANDLE else 0
        scanned.streams[stream.stream_id] = StreamHead(stream, 0, 0, lowest)
    elif kind == journal.SOURCE:
        source = unpack(body, SourceRecord)
        scanned.sources.note({source.name: source.position})
    elif kind == journal.HOLE:
        hole = unpack(body, HoleRecord)
        scanned.holed_now |= hole.spans.keys()
        for stream in hole.streams:
            _apply(memoryview(pack(stream)), journal.STREAM, scanned)
    elif kind == journal.EPOCH:
        epoch = unpack(body, EpochRecord)
        scanned.epoch = epoch.epoch
        scanned.epochs.append(epoch)
        scanned.holed_now.clear()


def _advance(kind: RowKind, gathered: journal.Gathered, scanned: Scanned) -> None:
    """Move the heads of one kind's streams to what these batches hold."""
    rows, records = gathered.rows[kind], gathered.records[gathered.records["kind"] == kind]
    records = records[records["count"] > 0]
    if len(records) == 0:
        return
    counts = records["count"].astype(np.intp)
    ends = np.cumsum(counts)
    highest = np.maximum.reduceat(rows[_ORDER[kind]], ends - counts)
    latest = rows[_TIME[kind]][ends - 1]
    last = records["first"] + records["count"] - 1
    ids, which = np.unique(records["stream_id"], return_inverse=True)
    peaks = np.full(len(ids), np.iinfo(highest.dtype).min, highest.dtype)
    np.maximum.at(peaks, which, highest)
    newest = np.zeros(len(ids), np.intp)
    np.maximum.at(newest, which, np.arange(len(records)))
    for i, stream_id in enumerate(ids.tolist()):
        head = scanned.streams[stream_id]
        at = newest[i]
        scanned.streams[stream_id] = StreamHead(
            head.stream,
            max(head.head, int(last[at])),
            int(latest[at]),
            higher(kind, head.highest, int(peaks[i])),
            head.first_kept,
        )


def higher(kind: RowKind, one: int, other: int) -> int:
    """The higher of two orders. Trade ids have 64 bits, kept as the signed number of those bits."""
    if kind is not RowKind.TRADE:
        return max(one, other)
    highest = max(one % 2**64, other)
    return highest if highest < 2**63 else highest - 2**64


# ---------------------------------------------------------------------- between files


def missing_between(files: list[JournalFile], *, thorough: bool = False) -> Iterator[Missing]:
    """Where a file does not go on where the one before it ends, newest first: one between them is missing, or one is
    an older copy.

    A file names the COMMIT that it goes on from. One that does not (format 1) has the next number; `thorough`: and its
    heads are those at the end of the one before, which is read for that.
    """
    for before, after in reversed(list(pairwise(files))):
        header = journal.header_of(after.path)
        if header is None:
            continue  # damaged, which is another matter
        if header.before:
            broken = header.before != journal.last_commit_of(before.path)
        else:
            broken = bool(_gone(before, after))
            if thorough and not broken:
                broken = heads_of(after) != _ends_of(before)
        if broken:
            yield _missing(before, after)


def _gone(before: JournalFile, after: JournalFile) -> list[int]:
    """The numbers between two files of which nothing is left: no file that `--cut` set aside either."""
    numbers = range(before.number + 1, after.number)
    folder = before.path.parent
    return [n for n in numbers if not (folder / f"{n:08}.fluxlog.damaged").exists()]


def _ends_of(file: JournalFile) -> dict[int, int]:
    scanned, _ = scan_file(file)
    return {} if scanned is None else {stream: head.head for stream, head in scanned.streams.items()}


def _missing(before: JournalFile, after: JournalFile) -> Missing:
    ends = _ends_of(before)
    lost = [head - ends.get(stream, 0) for stream, head in heads_of(after).items()]
    rows = [count for count in lost if count > 0]
    return Missing(before, after, _gone(before, after), sum(rows), len(rows))
