"""The committer: owns the journal and the PUB socket, and lends both to the loop while it waits itself.

    take a group ─► journal (write, sync) ─► fence ─► committed marks ─► publish ─► give it back

In that order, so that what is published or read is in the journal, and no subscriber is ahead of the head. Once a
second it says how things are in a heartbeat, with the heads that moved. When the disk refuses, the group stays,
nothing of it is published, and it is tried again until there is space.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flux.errors import StorageError
from flux.journal import Fence, Journal, Position
from flux.journal.records import (
    FEED,
    HeadsRecord,
    StreamHead,
    StreamRecord,
    is_durable,
    pack,
)
from flux.journal.remembered import Sources
from flux.limits import MAX_RUNS
from flux.model import State
from flux.server.identity import Identity
from flux.server.pipeline.exchange import Exchange, Filled
from flux.server.pipeline.heartbeat import Heart
from flux.server.pipeline.syncer import Syncer
from flux.server.pipeline.v1_publishing import Version1
from flux.server.vitals import Vitals
from flux.transport import sockets
from flux.transport.bridge import Commits
from flux.transport.pump import Sender, Sent, Streams
from flux.transport.topics import BEAT

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from flux.journal import Group
    from flux.journal.records import Position as SourcePosition
    from flux.server.pipeline.sessions import Runs

_LOG = logging.getLogger("flux.server")

LOOK_S: Final = 5.0  # Python looks at what was counted and synced this often
RETRY_S: Final = 0.25

Order = tuple["NDArray[np.uint32]", "NDArray[np.uint8]"]
Faults = Callable[["Group"], "Order | None"]
"""Which entries of a group to send in which order, and which of them to spoil (flux.testing.faults)."""


@dataclass(slots=True)
class Counts:
    """What the committer did since the start."""

    groups: int = 0
    messages: int = 0
    messages_v1: int = 0
    bytes: int = 0
    heartbeats: int = 0
    commit_failures: int = 0


class Committer:
    """See the module; `run` is the thread's body, `close` ends it once everything filled is committed."""

    def __init__(
        self,
        *,
        identity: Identity,
        journal: Journal,
        fence: Fence,
        publisher: sockets.Publisher,
        streams: Streams,
        exchange: Exchange,
        vitals: Vitals,
        runs: Runs,
        records: dict[int, StreamRecord],
        sources: dict[str, SourcePosition],
        disk: bool,
        failed: Callable[[BaseException], None],
        faults: Faults | None = None,
    ) -> None:
        self._identity = identity
        self._journal = journal
        self._fence = fence
        self._publisher = publisher
        self._sender = Sender(publisher.socket, streams)
        self._streams = streams
        self._exchange = exchange
        self._vitals = vitals
        self._runs = runs
        self._records = records
        self._sources = Sources(sources)
        self._disk = disk
        self._faults = faults
        self._closing = threading.Event()
        self._syncer = Syncer(journal, exchange.handover, vitals, disk=disk, failed=failed)
        self.heart = Heart(identity, streams, vitals, exchange.handover)
        self._version1 = Version1(streams, publisher)
        self.counts = Counts()
        exchange.handover.committed(journal.position)
        self._commits = Commits(
            exchange.handover,
            runs.receiver,
            streams,
            publisher.socket,
            store_id=identity.store_id,
            epoch=identity.epoch,
            disk=disk,
            by_python=faults is not None,
        )

    @property
    def committed(self) -> Position:
        """How far the journal is committed; from any thread."""
        return self._exchange.handover.position

    def heads(self) -> dict[int, int]:
        """The committed head of each stream by stream_id; from any thread."""
        heads = self._streams.heads()
        return dict(zip(heads["stream_id"].tolist(), heads["committed"].tolist(), strict=True))

    def source_position(self, name: str) -> SourcePosition | None:
        """The committed position of a source; from any thread."""
        live = self._runs.committed(name)  # first: a run comes into `_sources` before it is gone from there
        found = [at for at in (live, self._sources.get(name)) if at is not None]
        return max(found, default=None)

    def claimed(self, name: str) -> int:
        """The last incarnation of a feed's run whose claim is committed; from any thread."""
        position = self.source_position(name)
        return 0 if position is None else position[1]

    def is_known(self, name: str) -> bool:
        """Whether a feed's run has a place or a position; from any thread."""
        return self._runs.knows(name) or name in self._sources  # in this order, as in `source_position`

    def may_have_forgotten(self, name: str) -> bool:
        """Whether a feed's run of that name may have been here: it is not known, and older ones had to go (from any
        thread)."""
        return not self.is_known(name) and self._sources.full

    def may_have_forgotten_durable(self, name: str) -> bool:
        """The same of a durable run with rows, which goes only where nearly all others are such ones too."""
        if not self.may_have_forgotten(name):
            return False
        live = self._runs.all_committed()
        kept = self._sources | live
        durable = sum(
            name.startswith(FEED) and at[0] > 0 and is_durable(name, at) for name, at in kept.items()
        )
        return durable >= MAX_RUNS - 1

    def run(self) -> None:
        """Commit until closed and empty, then say goodbye."""
        self._syncer.start()
        while True:
            filled = self._next()
            if filled is not None:
                if not self._commit_until_it_holds(filled):
                    break  # what comes after a group that is not in the journal must not get there either
                self._exchange.give_back(filled)
            elif self._closing.is_set() and self._exchange.empty:
                break
        self._syncer.stop()
        self._sync()
        self._vitals.set("closing", State.CLOSING, "the server is stopping")
        self._commits.send_beat()
        for frame in self.heart.frames():
            sockets.send(self._publisher.socket, [BEAT, frame])
        try:
            self._journal.close(clean=not self._exchange_holds())
        except StorageError as error:  # its last record says only that nothing follows
            self._vitals.set("journal", State.UNHEALTHY, f"the journal's end is not written: {error}")

    def close(self) -> None:
        """No more groups will be filled; the thread ends when all are committed."""
        self._closing.set()
        self._exchange.close()

    def wait_past(self, position: Position, timeout: float) -> Position:
        """The committed position, once it is past `position` or `timeout` seconds have gone by."""
        return self._exchange.handover.wait_past(position, timeout)

    # ------------------------------------------------------------------ groups

    def _next(self) -> Filled | None:
        """The next group that Python has to commit; the others are committed and published meanwhile. None when
        there is none for a while, or will be none."""
        self._journal.synced_to(self._syncer.reached)
        done = self._commits.run(0 if self._version1.behind else LOOK_S, self._journal, self._fence)
        self._version1.follow(done.heard)
        self.counts.groups += done.groups
        self._count(done.sent)
        self.counts.heartbeats = self._commits.beats
        if done.refused:
            self._refused(
                StorageError.of(self._journal.path, OSError(done.refused, os.strerror(done.refused)))
            )
        return self._exchange.taken() if done.noted else None

    def _exchange_holds(self) -> bool:
        return not self._exchange.empty

    def _commit_until_it_holds(self, filled: Filled) -> bool:
        """Whether the group is in the journal and published; False when it was closed while the disk refused."""
        while True:
            try:
                self._commit(filled)
            except StorageError as error:
                self._refused(error)
                if self._closing.wait(RETRY_S):
                    _LOG.error("stopping with rows that were never published: %s", error)
                    return False
                self._commits.send_beat()
                continue
            self._vitals.clear("journal")
            self._publish(filled)
            return True

    def _refused(self, error: StorageError) -> None:
        """The disk did not take a group; it is tried again."""
        self.counts.commit_failures += 1
        self._vitals.set("journal", State.UNHEALTHY, f"the journal does not take rows: {error}")

    def _commit(self, filled: Filled) -> None:
        if not self._journal.fits(filled.group):
            self._journal.rotate(pack(self._heads()))
            self._fence.sync()
        before = self._journal.position
        position = self._journal.commit(filled.group, self._disk)
        try:
            self._fence.store(self._identity.store_id, self._identity.epoch, *position)
        except StorageError:
            self._journal.take_back(before)
            raise
        self._sources.note(filled.sources)
        self._runs.recorded(filled.sources)
        for record in filled.streams:
            self._records[record.stream_id] = record
        self._commits.mark_runs(filled.group)
        self._exchange.handover.committed(position)
        self.counts.groups += 1

    def _publish(self, filled: Filled) -> None:
        # The marks first: a subscriber that is quick to ask after what it just got must not be ahead of the head.
        self._sender.mark_committed(filled.group)
        order = self._faults(filled.group) if self._faults else None
        self._count(self._sender.send(filled.group, *(order or ())))

    def _count(self, sent: Sent) -> None:
        self.counts.messages += sent.sent
        self.counts.messages_v1 += sent.sent_v1
        self.counts.bytes += sent.bytes

    def _sync(self) -> None:
        try:
            self._journal.sync()
        except StorageError as error:
            self._vitals.set("sync", State.UNHEALTHY, f"the journal does not sync: {error}")

    def _heads(self) -> HeadsRecord:
        """The committed state of the store, for the first record of a file."""
        heads = self._streams.heads()
        live = self._runs.all_committed()
        self._sources.note(
            {name: at for name, at in live.items() if at > self._sources.get(name, (0, 0))}
        )
        return self._identity.heads(
            [
                StreamHead(
                    record,
                    int(heads["committed"][slot]),
                    int(heads["committed_ts"][slot]),
                    int(heads["highest"][slot]),
                )
                for slot, record in self._committed_records()
            ],
            dict(self._sources),
        )

    def _committed_records(self) -> list[tuple[int, StreamRecord]]:
        found = []
        for record in self._records.values():
            slot = self._streams.slot(record.key)
            if slot is not None:
                found.append((slot, record))
        return found
