"""The committer: owns the journal and the PUB socket, and decides what the kernel (`ext/commit.h`) cannot.

    take a group ─► journal (write, sync) ─► fence ─► committed marks, position ─► publish ─► give it back

In that order, whoever filled the group. The kernel comes back for a file that is full, for a disk that refuses (the
group stays, nothing of it is published, and it is tried again until there is space), for what a subscriber says, and,
where Python put a stream or a source into the group, between the fence and the marks: then it takes note of them.
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
from flux.server.pipeline.exchange import Exchange
from flux.server.pipeline.heartbeat import Heart
from flux.server.pipeline.syncer import Syncer
from flux.server.pipeline.v1_publishing import Version1
from flux.server.vitals import Vitals
from flux.transport import sockets
from flux.transport.bridge import Commits, Committed, Order, Why
from flux.transport.pump import Streams
from flux.transport.topics import BEAT

if TYPE_CHECKING:
    from flux.journal import Group
    from flux.journal.records import Position as SourcePosition
    from flux.server.pipeline.sessions import Runs

_LOG = logging.getLogger("flux.server")

LOOK_S: Final = 5.0  # Python looks at what was counted and synced this often
RETRY_S: Final = 0.25

Faults = Callable[["Group"], "Order | None"]
"""How a group is sent, with faults on purpose (flux.testing.faults)."""


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
        self._streams = streams
        self._exchange = exchange
        self._vitals = vitals
        self._runs = runs
        self._records = records
        self._sources = Sources(sources)
        self._faults = faults
        self._closing = threading.Event()
        self._syncer = Syncer(journal, exchange.handover, vitals, disk=disk, failed=failed)
        self.heart = Heart(identity, streams, vitals, exchange.handover)
        self._version1 = Version1(streams, publisher)
        self.counts = Counts()
        exchange.handover.committed(journal.position)
        self._commits = Commits(
            exchange.handover,
            journal,
            fence,
            runs.receiver,
            streams,
            publisher.socket,
            store_id=identity.store_id,
            epoch=identity.epoch,
            disk=disk,
            ask_always=faults is not None,
        )
        self._order: Order | None = None  # how the group that is held is sent
        self._refused = False  # the disk did not take the group that is held

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
        while self._turn():
            pass
        self._syncer.stop()
        self._sync()
        self._vitals.set("closing", State.CLOSING, "the server is stopping")
        self._commits.send_beat()
        for frame in self.heart.frames():
            sockets.send(self._publisher.socket, [BEAT, frame])
        try:
            self._journal.close(clean=self._exchange.empty)
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

    def _turn(self) -> bool:
        """Commit until something is to be decided, and decide it. False at the end: closed, and all is committed or the
        disk refuses (what comes after a group that is not in the journal must not get there either)."""
        self._journal.synced_to(self._syncer.reached)
        soon = self._refused or self._version1.behind
        done = self._commits.run(0 if soon else LOOK_S, self._order)
        self._order = None
        try:
            self._see_to(done)
        except StorageError as error:
            self._refused = True
            self.counts.commit_failures += 1
            self._vitals.set("journal", State.UNHEALTHY, f"the journal does not take rows: {error}")
            if self._closing.wait(RETRY_S):
                _LOG.error("stopping with rows that were never published: %s", error)
                return False
        return not (self._closing.is_set() and self._exchange.empty)

    def _see_to(self, done: Committed) -> None:
        """Whatever the kernel came back for. Raises `StorageError` where the disk refuses the group that is held."""
        if self._refused and (done.groups or done.why is Why.ASKED):
            self._refused = False
            self._vitals.clear("journal")
        self.counts.groups += done.groups
        self.counts.messages += done.sent.sent
        self.counts.messages_v1 += done.sent.sent_v1
        self.counts.bytes += done.sent.bytes
        self.counts.heartbeats = self._commits.beats
        self._version1.follow(done.heard)
        if done.why is Why.ASKED:
            self._order = self._take_note()
        elif done.why is Why.NO_ROOM:
            self._journal.rotate(pack(self._heads()))
            self._fence.sync()
        elif done.refused:
            path = self._fence.path if done.why is Why.UNMARKED else self._journal.path
            raise StorageError.of(path, OSError(done.refused, os.strerror(done.refused)))

    def _take_note(self) -> Order | None:
        """Streams and sources of the group that is in the journal and is shown next, and how it is sent."""
        filled = self._exchange.taken()
        self._sources.note(filled.sources)
        self._runs.recorded(filled.sources)
        self._records.update((record.stream_id, record) for record in filled.streams)
        return self._faults(filled.group) if self._faults else None

    def _sync(self) -> None:
        try:
            self._journal.sync()
        except StorageError as error:
            self._vitals.set("sync", State.UNHEALTHY, f"the journal does not sync: {error}")

    def _heads(self) -> HeadsRecord:
        """The committed state of the store, for the first record of a file."""
        heads = self._streams.heads()
        live = self._runs.all_committed()
        self._sources.note({name: at for name, at in live.items() if at > self._sources.get(name, (0, 0))})
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
            self._sources.in_order(),
        )

    def _committed_records(self) -> list[tuple[int, StreamRecord]]:
        found = []
        for record in self._records.values():
            slot = self._streams.slot(record.key)
            if slot is not None:
                found.append((slot, record))
        return found
