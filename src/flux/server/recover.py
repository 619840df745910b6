"""The start, step by step: from a directory in any state to a store that may go on.

    1 lock       one owner; a second server is told the pid
    2 identity   is this the original, or a copy of it?
    3 scan       from the HEADS of the last file: heads, epochs, positions of sources
    4 compare    did the journal once reach further, by the fence or by the database? then rows that somebody
                 may have seen are lost: a new epoch for the whole store, said loudly
    5 cut        what stands behind the last COMMIT was shown to nobody
    6 sync       journal and fence, before anything of them is shown: whoever wrote them may have been killed
                 before they were on the disk
    7 project    what the store lacks

Warming the rings, binding and the first heartbeat follow in `service.py`.
"""

from __future__ import annotations

import logging
import mmap
import secrets
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from flux import journal
from flux.errors import DamagedError, DataError, StorageError
from flux.fence import sync_folder
from flux.journal import Fence, Journal, Position
from flux.limits import PROJECT_MAX_ROWS
from flux.model import RowKind, State
from flux.server.committer import Identity
from flux.server.damage import Damage, assess
from flux.server.directory import DirectoryLock, machine_boot, read_identity, write_identity
from flux.server.project import Projection, without_database
from flux.server.records import (
    FORMAT,
    EpochRecord,
    HeadsRecord,
    SourceRecord,
    StreamHead,
    StreamRecord,
    pack,
    unpack,
)
from flux.server.records import Position as SourcePosition
from flux.store.duck import DuckStore
from flux.transport.pump import Gathered, Gatherer

_LOG = logging.getLogger("flux.server")

_ORDER: Final = {RowKind.CANDLE: "ts_ms", RowKind.TRADE: "trade_id", RowKind.QUOTE: "ts_ns"}
_TIME: Final = {RowKind.CANDLE: "ts_ms", RowKind.TRADE: "ts_ns", RowKind.QUOTE: "ts_ns"}


@dataclass(slots=True)
class Recovered:
    """What a start found, and what it opened; the caller closes `journal`, `store` and `lock`."""

    lock: DirectoryLock
    identity: Identity
    journal: Journal
    fence: Fence
    store: DuckStore
    projection: Projection
    streams: dict[int, StreamHead]
    sources: dict[str, SourcePosition]
    conditions: list[tuple[str, State, str]] = field(default_factory=list)


@dataclass(slots=True)
class Scanned:
    """A file of the journal, read up to its last good group."""

    heads: HeadsRecord
    streams: dict[int, StreamHead]
    sources: dict[str, SourcePosition]
    epoch: int
    epochs: list[EpochRecord]
    end: Position
    closed: bool


def recover(directory: Path, *, disk: bool, file_bytes: int) -> Recovered:
    """Bring a directory to life, making it where there is none.

    Raises InUseError (exit 3), DataError (exit 4: newer format, damage in the journal), StorageError. Until it
    returns, nothing but the tail behind the last COMMIT was changed.
    """
    with ExitStack() as undo:
        recovered = _recover(directory, undo, disk=disk, file_bytes=file_bytes)
        undo.pop_all()
        return recovered


def _recover(directory: Path, undo: ExitStack, *, disk: bool, file_bytes: int) -> Recovered:
    lock = DirectoryLock(directory)
    undo.callback(lock.release)
    said = read_identity(directory)
    fence = Fence(directory)
    undo.callback(fence.close)
    files = journal.files(directory)
    if not files:
        mark = fence.load()
        if said is not None and mark is not None:
            raise DataError(
                f"{directory} had a journal (epoch {mark.epoch}) and has none now: bring it back, or move the whole "
                "directory away to begin a new store"
            )
        store_id = said[0].store_id if said else None
        return _begin(directory, undo, lock, fence, store_id, disk=disk, file_bytes=file_bytes)
    scanned, damage = scan_file(files[-1])
    if damage is not None or scanned is None:
        raise DataError(f"{damage}. `flux rebuild {directory} --cut` does that and keeps all before it")
    identity = Identity(scanned.heads.store_id, scanned.epoch, secrets.randbits(63), scanned.epochs)
    store, beyond = _open_store(directory, identity.store_id, scanned.end)
    undo.callback(store.close)
    log = Journal.open(directory, file=scanned.end.file, offset=scanned.end.offset, file_bytes=file_bytes)
    undo.callback(log.close, clean=False)
    conditions = []
    loss = _loss(scanned, fence, said[0].store_id if said else None, original=bool(said and said[1]))
    loss = loss or beyond
    if loss is None and said and said[0].shown_before_sync and said[0].machine_boot != machine_boot():
        loss = None if scanned.closed else "the machine went down before the last rows were on the disk"
    if loss is not None:
        conditions.append(("epoch", State.DEGRADED, f"epoch {identity.epoch + 1} begins: {loss}"))
        _begin_epoch(identity, log, scanned, loss)
    write_identity(directory, identity.store_id, process=not disk)
    fence.store(identity.store_id, identity.epoch, *log.position)
    fence.sync()
    projection = Projection(directory, store, Position(files[0].number, journal.FILE_HEADER_BYTES))
    try:
        while projection.position < log.position:
            projection.step(log.position)
    except (StorageError, DamagedError) as error:  # the server goes on without it, and tries again
        conditions.append(("store", State.DEGRADED, without_database(directory, error)))
    return Recovered(
        lock, identity, log, fence, store, projection, scanned.streams, scanned.sources, conditions
    )


def _begin(
    directory: Path,
    undo: ExitStack,
    lock: DirectoryLock,
    fence: Fence,
    store_id: int | None,
    *,
    disk: bool,
    file_bytes: int,
) -> Recovered:
    """A new store, or one whose making was cut short before its journal had a name."""
    identity = Identity(store_id or secrets.randbits(62) + 1, 1, secrets.randbits(63))
    write_identity(directory, identity.store_id, process=not disk)
    heads = HeadsRecord(FORMAT, identity.store_id, identity.epoch, [], [], {})
    log = Journal.create(directory, pack(heads), file_bytes=file_bytes)
    undo.callback(log.close, clean=False)
    fence.store(identity.store_id, identity.epoch, *log.position)
    fence.sync()
    store, _ = _open_store(directory, identity.store_id, log.position)
    undo.callback(store.close)
    projection = Projection(directory, store, Position(1, journal.FILE_HEADER_BYTES))
    return Recovered(lock, identity, log, fence, store, projection, {}, {})


def _open_store(directory: Path, store_id: int, end: Position) -> tuple[DuckStore, str | None]:
    """The database, and what it proves of rows that the journal lost: one that was filled beyond the journal's end is
    set aside, and another begun.

    The name it gets says where the journal ended: as long as that is still the end, a start that failed meanwhile has
    not told anybody of the loss.
    """
    path = directory / "flux.duckdb"
    aside = path.with_name(f"flux.duckdb.beyond-{end.file}-{end.offset}")
    store = DuckStore(path, store_id, patient=True)
    position = None
    with suppress(StorageError, DamagedError):  # else it is asked when it opens; the journal has the rows
        position = store.position()
    if position is not None and Position(*position) > end:
        store.close()
        # Its write-ahead log goes first: alone it harms nothing, beside a new database it would.
        with suppress(FileNotFoundError):
            path.with_name(path.name + ".wal").replace(aside.with_name(aside.name + ".wal"))
        path.replace(aside)
        sync_folder(directory)
        _LOG.error("%s holds rows that the journal lost; set aside as %s and filled anew", path, aside.name)
        store = DuckStore(path, store_id, patient=True)
    if not aside.exists():
        return store, None
    return store, (
        f"the journal ends at file {end.file} byte {end.offset}, the database had rows from beyond that: {aside.name}"
    )


# ---------------------------------------------------------------------- scan


def scan_file(
    file: journal.JournalFile, following: journal.JournalFile | None = None
) -> tuple[Scanned | None, Damage | None]:
    """What a journal file says up to its last good group (None: not even its first one reads), and its damage.

    Behind the last group of the last file may stand a torn tail; a file with a `following` one ends in zeros.
    """
    data = journal.read_file(file.path)
    found = journal.scan(data)
    scanned = _scanned(file, data, found) if len(found.records) else None
    whole = scanned is not None and not found.resumes
    if following is None and whole and found.tail > found.committed:
        _LOG.warning("%s: %d bytes behind the last commit", file.path.name, found.tail - found.committed)
    if whole and (following is None or (found.reason == "end" and found.tail == found.committed)):
        return scanned, None
    before = {} if scanned is None else {number: head.head for number, head in scanned.streams.items()}
    return scanned, assess(file, data, found, before, _heads_of(following))


def _scanned(file: journal.JournalFile, data: mmap.mmap | bytes, found: journal.Scan) -> Scanned:
    records = found.records
    with memoryview(data) as view:
        heads = unpack(view[int(records[0]["at"]) :][: int(records[0]["size"])], HeadsRecord)
        scanned = Scanned(
            heads=heads,
            streams={head.stream.stream_id: head for head in heads.streams},
            sources=dict(heads.sources),
            epoch=heads.epoch,
            epochs=list(heads.epochs),
            end=Position(file.number, found.committed),
            closed=len(records) > 1 and int(records[-2]["kind"]) == journal.CLOSE,
        )
        with view[: found.committed] as committed:
            _walk(committed, scanned)
    return scanned


def _heads_of(file: journal.JournalFile | None) -> dict[int, int]:
    """The head of each stream where a file begins."""
    if file is None:
        return {}
    data = journal.read_file(file.path)
    records = journal.scan(data).records
    if not len(records):
        return {}
    heads = unpack(data[int(records[0]["at"]) :][: int(records[0]["size"])], HeadsRecord)
    return {head.stream.stream_id: head.head for head in heads.streams}


def _walk(data: memoryview, scanned: Scanned) -> None:
    """Follow the records behind HEADS."""
    at, gather = journal.FILE_HEADER_BYTES, Gatherer(PROJECT_MAX_ROWS)
    while at < len(data):
        gathered = gather(data, at)
        assert gathered.stopped > at, "a scanned file walks to its end"
        at = gathered.stopped
        for record in gathered.records[gathered.records["kind"] == 0]:
            _apply(data[int(record["first"]) :][: int(record["count"])], int(record["epoch"]), scanned)
        for kind in gathered.rows:
            _advance(kind, gathered, scanned)


def _apply(body: memoryview, kind: int, scanned: Scanned) -> None:
    if kind == journal.STREAM:
        stream = unpack(body, StreamRecord)
        lowest = -(2**63) if stream.key.kind is RowKind.CANDLE else 0
        scanned.streams[stream.stream_id] = StreamHead(stream, 0, 0, lowest)
    elif kind == journal.SOURCE:
        source = unpack(body, SourceRecord)
        scanned.sources[source.name] = source.position
    elif kind == journal.EPOCH:
        epoch = unpack(body, EpochRecord)
        scanned.epoch = epoch.epoch
        scanned.epochs.append(epoch)


def _advance(kind: RowKind, gathered: Gathered, scanned: Scanned) -> None:
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
            int(last[at]),
            int(latest[at]),
            _higher(kind, head.highest, int(peaks[i])),
            head.first_kept,
        )


def _higher(kind: RowKind, one: int, other: int) -> int:
    """The higher of two orders. Trade ids have 64 bits, kept as the signed number of those bits."""
    if kind is not RowKind.TRADE:
        return max(one, other)
    highest = max(one % 2**64, other)
    return highest if highest < 2**63 else highest - 2**64


# ---------------------------------------------------------------------- epochs


def _loss(scanned: Scanned, fence: Fence, store_id: int | None, *, original: bool) -> str | None:
    """Why rows that somebody may have seen are gone, or may be; None when all is well."""
    if store_id is None or not original:
        return (
            "the data directory is a copy (restored or cloned): another may have gone on from the same rows"
        )
    mark = fence.load()
    if mark is None:
        if not any(head.head for head in scanned.streams.values()):
            return None  # killed before the first row
        return "the fence is gone: nothing says how far the journal had come"
    if mark.epoch > scanned.epoch or Position(mark.file, mark.offset) > scanned.end:
        return (
            f"the journal ends at file {scanned.end.file} byte {scanned.end.offset}, rows up to file {mark.file} byte "
            f"{mark.offset} were shown"
        )
    return None


def _begin_epoch(identity: Identity, log: Journal, scanned: Scanned, reason: str) -> None:
    """Journal the new epoch with the last sequence of every stream in the old one; synced before anybody sees it."""
    record = EpochRecord(identity.epoch + 1, {i: head.head for i, head in scanned.streams.items()}, reason)
    body = pack(record)
    group = journal.Group(len(body) + 4_096)
    group.append(journal.EPOCH, body)
    if not log.fits(group):
        heads = HeadsRecord(
            FORMAT,
            identity.store_id,
            identity.epoch,
            list(scanned.streams.values()),
            identity.epochs,
            scanned.sources,
        )
        log.rotate(pack(heads))
    log.commit(group, sync=True)
    identity.epoch += 1
    identity.epochs.append(record)
