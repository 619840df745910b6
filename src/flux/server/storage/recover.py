"""The start, step by step: from a directory in any state to a store that may go on.

    1 lock       one owner; a second server is told the pid
    2 identity   is this the original, or a copy of it?
    3 scan       every file goes on where the one before it ends; then from the HEADS of the last one: heads, epochs,
                 positions of sources
    4 database   opened, so that everything that somebody else may hold is ours before anything is written
    5 compare    did the journal once reach further, by the fence, by `projected` or by the database? then rows that
                 somebody may have seen are lost
    6 cut        what stands after the last COMMIT was shown to nobody
    7 project    what the store lacks
      ready      whatever else can refuse the start: ports are held, files to replay are opened
    8 epoch      after a loss: a new one for the whole store, said loudly until it is acknowledged
      branch     of a copy, since another may go on from the same rows: another store, in a new journal file
    9 sync       journal and fence, before anything of them is shown: whoever wrote them may have been killed before
                 they were on the disk
   10 identity   last, after all that can refuse a start

Warming the rings, listening at the ports and the first heartbeat follow in `service.py`.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from flux import journal
from flux.errors import ConfigError, DamagedError, DataError, FluxError, StorageError
from flux.journal import Fence, Journal, Position, Projected, projected_mark
from flux.journal.fence import sync_folder
from flux.journal.records import (
    FIRST_EPOCH,
    HeadsRecord,
    StreamHead,
    pack,
)
from flux.journal.records import Position as SourcePosition
from flux.model import State
from flux.named_files import no_database_name
from flux.server.identity import Identity
from flux.server.storage.damage import decision
from flux.server.storage.directory import DirectoryLock, Found, read_identity, write_identity
from flux.server.storage.lineage import Beyond, begin_epoch, branch, loss_of
from flux.server.storage.losses import JOURNAL, Losses
from flux.server.storage.projection import without_database
from flux.server.storage.scan import Scanned, higher, missing_between, scan_file
from flux.store.duck import DuckStore
from flux.store.projection import Projection

_LOG = logging.getLogger("flux.server")

DATABASE: Final = "flux.duckdb"


@dataclass(slots=True)
class Recovered:
    """What a start found, and what it opened; the caller closes `journal`, `store` and `lock`."""

    lock: DirectoryLock
    identity: Identity
    journal: Journal
    fence: Fence
    store: DuckStore
    projection: Projection
    projected: Projected
    losses: Losses
    streams: dict[int, StreamHead]
    sources: dict[str, SourcePosition]
    without: str = ""
    """Why there is no database for now."""

    @property
    def conditions(self) -> list[tuple[str, State, str]]:
        """What is not as it should be; the losses until they are acknowledged."""
        known = self.losses.open(
            self.identity.epochs, self.identity.store_id, self.identity.parent_store_id
        ).items()
        found = [(name, State.DEGRADED, why) for name, why in known]
        return [*found, ("store", State.DEGRADED, self.without)] if self.without else found


Ready = Callable[[Mapping[str, SourcePosition]], None]


def recover(
    directory: Path, *, disk: bool, file_bytes: int, ready: Ready = lambda _sources: None
) -> Recovered:
    """Bring a directory to life, making it where there is none. `ready`, which gets the positions of sources, may still
    refuse the start.

    Raises ConfigError (exit 2: no name for a database), InUseError (exit 3), DataError (exit 4: newer format, damage in
    the journal), StorageError, and what `ready` raises. Until the last thing that can refuse is past, nothing was
    changed but the tail after the last COMMIT and the database: no identity, no epoch.
    """
    if why := no_database_name(directory / DATABASE):
        raise ConfigError(why)
    with ExitStack() as undo:
        try:
            recovered = _recover(directory, undo, ready, disk=disk, file_bytes=file_bytes)
        except OSError as error:
            raise StorageError.of(error.filename or directory, error) from error
        undo.pop_all()
        return recovered


def _recover(directory: Path, undo: ExitStack, ready: Ready, *, disk: bool, file_bytes: int) -> Recovered:
    lock = DirectoryLock(directory)
    undo.callback(lock.release)
    found = read_identity(directory)
    fence = Fence(directory)
    undo.callback(fence.close)
    losses = Losses(directory)
    files = journal.files(directory)
    if not files:
        return _begin(directory, undo, lock, fence, losses, found, ready, disk=disk, file_bytes=file_bytes)
    for missing in missing_between(files):
        raise DataError(decision(directory, missing))
    scanned, damage = scan_file(files[-1])
    if damage is not None or scanned is None:
        raise DataError(decision(directory, damage))
    if found and not found.copy:
        _compare(directory, scanned.heads, found, fence)
    copy = "" if found and not found.copy else found.copy if found else "identity is missing"
    store, beyond, unread = _open_store(directory, scanned)
    undo.callback(store.close)
    loss = loss_of(scanned, fence, projected_mark(directory), found.said if found else None, beyond)
    if (loss.reason or copy) and unread is not None:
        store = _set_aside_unread(directory, scanned, store, unread)
        undo.callback(store.close)
    log = Journal.open(directory, file=scanned.end.file, offset=scanned.end.offset, file_bytes=file_bytes)
    undo.callback(log.close, clean=False)
    projected = Projected(directory)
    undo.callback(projected.close)
    first = Position(files[0].number, journal.FILE_HEADER_BYTES)
    projection = Projection(directory, store, first, log.position, projected, scanned.epoch)
    without, unknown = _project(projection, log.position, scanned, store)
    if not loss.reason and unknown & scanned.holed_now:
        loss = loss._replace(
            reason="rows that the journal lost, and only the database had, cannot be read there: those that come again "
            "are numbered again"
        )
    ready(scanned.sources)
    identity = Identity(
        scanned.heads.store_id,
        scanned.epoch,
        secrets.randbits(63),
        scanned.epochs,
        scanned.heads.parent_store_id,
        scanned.heads.branch_epoch,
    )
    if copy:
        branch(identity, log, scanned, loss, copy)
    elif loss.reason:
        begin_epoch(identity, log, scanned, loss)
    if store.store_id != identity.store_id:
        store.adopt(identity.store_id)
    projection.epoch = identity.epoch
    fence.store(identity.store_id, identity.epoch, *log.position)
    fence.sync()  # a fence of an earlier epoch than the journal's says that nothing was shown in this one
    write_identity(directory, identity.store_id, process=not disk, began=log.position)
    return Recovered(
        lock,
        identity,
        log,
        fence,
        store,
        projection,
        projected,
        losses,
        scanned.streams,
        scanned.sources,
        without,
    )


def _project(
    projection: Projection, end: Position, scanned: Scanned, store: DuckStore
) -> tuple[str, set[int]]:
    """Bring the database up to the journal's end: why it is not, if so, and the streams of whose newest rows nobody
    knows."""
    try:
        while projection.position < end:
            projection.step(end)
        return "", _newest_of_holes(scanned, store)
    except (StorageError, DamagedError) as error:  # the server goes on without it, and tries again
        return without_database(projection.directory, error), scanned.holed


def _newest_of_holes(scanned: Scanned, store: DuckStore) -> set[int]:
    """How new the rows are that a salvage found in the database alone: else they would be new when they come again.
    Returns the streams of which it does not have the last row, so that nobody knows."""
    unknown = set()
    for number in scanned.holed:
        head = scanned.streams[number]
        found = store.newest(number, head.stream.key.kind)
        if found is None or found[0] < head.head:
            unknown.add(number)
        if found is not None:
            last, latest, highest = found
            scanned.streams[number] = msgspec.structs.replace(
                head,
                latest_ts=latest if last == head.head else head.latest_ts,
                highest=higher(head.stream.key.kind, head.highest, highest),
            )
    return unknown


def _begin(
    directory: Path,
    undo: ExitStack,
    lock: DirectoryLock,
    fence: Fence,
    losses: Losses,
    found: Found | None,
    ready: Ready,
    *,
    disk: bool,
    file_bytes: int,
) -> Recovered:
    """A new store, with a new store_id: whatever an identity says, its sequences begin again at 1."""
    mark = fence.load()
    if mark is not None:
        raise DataError(
            f"{directory} had a journal (epoch {mark.epoch}) and has none now: bring it back, or move the whole "
            "directory away to begin a new store"
        )
    ready({})
    identity = Identity(secrets.randbits(62) + 1, FIRST_EPOCH, secrets.randbits(63))
    path = directory / DATABASE
    if path.exists():
        of = f"store {found.said.store_id:016x}" if found else "another store"
        losses.note(
            JOURNAL,
            f"the journal of {of} is gone, and store {identity.store_id:016x} was begun in its place; the database was "
            f"set aside in {directory}",
        )
        _moved(path, f"before-{identity.store_id:016x}")
    write_identity(directory, identity.store_id, process=not disk)
    log = Journal.create(directory, pack(identity.heads([], {})), file_bytes=file_bytes)
    undo.callback(log.close, clean=False)
    store = DuckStore(path, identity.store_id, patient=True)
    undo.callback(store.close)
    fence.store(identity.store_id, identity.epoch, *log.position)
    fence.sync()
    projected = Projected(directory)
    undo.callback(projected.close)
    first = Position(1, journal.FILE_HEADER_BYTES)
    projection = Projection(directory, store, first, log.position, projected, identity.epoch)
    return Recovered(lock, identity, log, fence, store, projection, projected, losses, {}, {})


def _compare(directory: Path, heads: HeadsRecord, found: Found, fence: Fence) -> None:
    """Whether identity and fence of an original are of the journal's store. Raises DataError.

    A copy becomes another store, whatever they say; one that was killed on the way left its parent's id in both.
    """
    mark = fence.load()
    for name, store_id in (("identity", found.said.store_id), ("fence", mark.store_id if mark else None)):
        if store_id not in (heads.store_id, None):
            raise DataError(
                f"{directory} holds parts of two stores: its journal is of {heads.store_id:016x}, its {name} of "
                f"{store_id:016x}. Bring back the one that belongs to it, or move {directory / name} away"
            )


def _open_store(directory: Path, scanned: Scanned) -> tuple[DuckStore, Beyond | None, FluxError | None]:
    """The database, what it proves of rows that the journal lost, and why it could not be asked for that, if so. One
    that was filled beyond the journal's end is set aside, and another begun.

    The name it gets says of which store it is and where the journal ended: as long as that is still the end, a start
    that failed meanwhile has not told anybody of the loss.
    """
    path, end = directory / DATABASE, scanned.end
    of, also, epoch = scanned.heads.store_id, scanned.heads.parent_store_id, scanned.epoch
    suffix = f"beyond-{of:016x}-{end.file}-{end.offset}"
    store = DuckStore(path, of, also=also, patient=True)
    position, unread = None, None
    try:
        position = store.position()
    except (StorageError, DamagedError) as error:  # it is asked when it opens; the journal has the rows
        unread = error
    if position is not None and Position(*position) > end:
        with suppress(StorageError, DamagedError):  # then the marks alone say it
            epoch = store.highest_epoch()
        store.close()
        aside = _moved(path, suffix)
        _LOG.error("%s holds rows that the journal lost; set aside as %s and filled anew", path, aside.name)
        store = DuckStore(path, of, also=also, patient=True)
    aside = path.with_name(f"{path.name}.{suffix}")
    return store, Beyond(aside.name, epoch) if aside.exists() else None, unread


def _set_aside_unread(directory: Path, scanned: Scanned, store: DuckStore, unread: FluxError) -> DuckStore:
    """Begin another database beside one that does not read, where an epoch ends: nobody knows whether it has rows of
    that epoch which the journal lost, and it must not be asked for them once it opens."""
    path, of, also = directory / DATABASE, scanned.heads.store_id, scanned.heads.parent_store_id
    store.close()
    if path.exists():
        aside = _moved(path, f"unread-{of:016x}-{scanned.end.file}-{scanned.end.offset}")
        _LOG.error(
            "%s does not read, and may hold rows that the journal lost; set aside as %s and filled anew: %s",
            *(path, aside.name, unread),
        )
    return DuckStore(path, of, also=also, patient=True)


def _moved(path: Path, suffix: str) -> Path:
    """Rename a database that is closed. Its write-ahead log goes along: beside another one it would do harm."""
    aside = path.with_name(f"{path.name}.{suffix}")
    log = path.with_name(f"{path.name}.wal")
    if log.exists():
        log.replace(aside.with_name(f"{aside.name}.wal"))
    path.replace(aside)
    sync_folder(path.parent)
    return aside
