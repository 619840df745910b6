"""What a start makes of what it found: all is well, an epoch ended, or the directory is another store now.

    loss    somebody may have seen rows that are gone: epoch + 1 for the whole store, in an EPOCH record
    copy    another may go on from the same rows: a new store_id and epoch + 1, in the HEADS of a new journal file

Both say where every stream stood, and are read again at each start: nothing that fails later can forget them.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from flux import journal
from flux.journal import Fence, FenceMark, Journal, Position
from flux.journal.records import EpochRecord, pack
from flux.server.identity import Identity
from flux.server.storage.directory import IdentityFile, machine_boot

if TYPE_CHECKING:
    from flux.server.storage.scan import Scanned


class Loss(NamedTuple):
    """Why rows are gone that somebody may have seen, empty when all is well; and the highest epoch ever spoken of."""

    reason: str
    epoch: int


class Beyond(NamedTuple):
    """A database that was filled beyond the journal's end: the name it has now, and its rows' highest epoch."""

    name: str
    epoch: int


def loss_of(
    scanned: Scanned,
    fence: Fence,
    projected: FenceMark | None,
    said: IdentityFile | None,
    beyond: Beyond | None,
) -> Loss:
    """Whether rows that somebody may have seen are gone, and the highest epoch that anything here speaks of."""
    mark = fence.load()
    if projected is not None and projected.store_id not in (
        scanned.heads.store_id,
        scanned.heads.parent_store_id,
    ):
        projected = None  # of a directory that this one was put together from
    epoch = max(scanned.epoch, mark.epoch if mark else 0, projected.epoch if projected else 0)
    if beyond is not None:
        why = f"{_ends(scanned)}, the database had rows from beyond that: {beyond.name}"
        return Loss(why, max(epoch, beyond.epoch))
    if projected is not None and _is_past(projected, scanned):
        return Loss(f"{_ends(scanned)}, {_upto(projected)} were on their way into the database", epoch)
    if mark is not None and mark.epoch < scanned.epoch:
        return Loss("", epoch)  # what was lost is in the journal as an epoch, and nothing was shown since
    if mark is None and any(head.head for head in scanned.streams.values()):
        return Loss("the fence is gone: nothing says how far the journal had come", epoch)
    if mark is not None and _is_past(mark, scanned):
        return Loss(f"{_ends(scanned)}, {_upto(mark)} were shown", epoch)
    if (
        said is not None
        and said.shown_before_sync
        and said.machine_boot != machine_boot()
        and not _closed(scanned, said)
    ):
        return Loss("the machine went down before the last rows were on the disk", epoch)
    return Loss("", epoch)


def _closed(scanned: Scanned, said: IdentityFile) -> bool:
    """Whether the last life ended cleanly. One that went on after a clean end may have left nothing on the disk but
    that it began there."""
    return scanned.closed and (said.began is None or Position(*said.began) < scanned.end)


def _is_past(mark: FenceMark, scanned: Scanned) -> bool:
    """Whether the journal once reached further than it does."""
    return (mark.epoch, mark.file, mark.offset) > (scanned.epoch, *scanned.end)


def _upto(mark: FenceMark) -> str:
    return f"rows up to file {mark.file} byte {mark.offset}"


def _ends(scanned: Scanned) -> str:
    return f"the journal ends at file {scanned.end.file} byte {scanned.end.offset}"


def begin_epoch(identity: Identity, log: Journal, scanned: Scanned, loss: Loss) -> None:
    """Journal the new epoch with the last sequence of every stream in the old one; synced before anybody sees it."""
    record = _epoch_record(scanned, loss.epoch + 1, loss.reason)
    body = pack(record)
    group = journal.Group(len(body) + 4_096)
    group.append(journal.EPOCH, body)
    if not log.fits(group):
        log.rotate(pack(identity.heads(list(scanned.streams.values()), scanned.sources.in_order())))
    log.commit(group, sync=True)
    identity.epoch = record.epoch
    identity.epochs.append(record)


def branch(identity: Identity, log: Journal, scanned: Scanned, loss: Loss, copy: str) -> None:
    """Become another store: a new file whose HEADS say so. What the older files hold stays, and is its past."""
    parent = identity.store_id
    identity.store_id, identity.parent_store_id = secrets.randbits(62) + 1, parent
    lost = f"; {loss.reason}" if loss.reason else ""
    record = _epoch_record(
        scanned,
        loss.epoch + 1,
        f"the data directory is a copy or a restore of store {parent:016x} ({copy}), and another may have gone on from "
        f"the same rows: it is store {identity.store_id:016x} now{lost}",
    )
    identity.epoch = identity.branch_epoch = record.epoch
    identity.epochs.append(record)
    log.rotate(pack(identity.heads(list(scanned.streams.values()), scanned.sources.in_order())))


def _epoch_record(scanned: Scanned, epoch: int, reason: str) -> EpochRecord:
    return EpochRecord(epoch, {i: head.head for i, head in scanned.streams.items()}, reason)
