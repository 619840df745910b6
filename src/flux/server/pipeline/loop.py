"""The server's loop: receive, sequence, record. A handful of calls per turn, whatever the number of messages.

    PULL socket ─┐                          ┌─► rings
    inputs ──────┴─► inbox ─► sequencer ─► record
                                            └─► group ─► committer

It owns the table of streams and the feeds' positions as recorded. It waits for messages or a wake-up, for room in a
group, or, when a ring is full of rows that the journal does not have yet, for the committer: then its inputs wait too.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

import numpy as np

from flux import journal, limits
from flux.errors import InvalidNameError
from flux.journal.records import Position, StreamRecord, feed_name, pack, source_begins
from flux.journal.remembered import Sources
from flux.model import StreamKey
from flux.protocol.sequencer import refusal
from flux.server.pipeline.inputs import ReplayInput
from flux.transport.bridge import Turned, Turns
from flux.transport.drops import DropLog
from flux.transport.pump import Streams, UnknownStream
from flux.transport.sockets import Socket, Wake

if TYPE_CHECKING:
    from flux.server.identity import Identity
    from flux.server.pipeline.claims import Claims
    from flux.server.pipeline.exchange import Exchange, Filled
    from flux.server.pipeline.sessions import Runs
    from flux.server.vitals import Vitals

_LOG = logging.getLogger("flux.server")

INGEST_OWNER: Final = 1
"""The input that every feed writes through; replayed files are owners 2 and up."""

TURNS_S: Final = 5.0
IDLE_S: Final = 0.25
HELD_S: Final = 0.05


class Loop:
    """See the module; `run` is the thread's body, `stop` ends it after the turn it is in."""

    def __init__(
        self,
        *,
        identity: Identity,
        streams: Streams,
        runs: Runs,
        exchange: Exchange,
        vitals: Vitals,
        wake: Wake,
        puller: Socket | None,
        next_stream_id: int,
        positions: dict[str, Position],
        claims: Claims,
    ) -> None:
        self._streams = streams
        self._exchange = exchange
        self._vitals = vitals
        self._wake = wake
        self._receiver = runs.receiver
        self._runs = runs
        self._turns = Turns(
            exchange.handover,
            runs.receiver,
            puller,
            wake,
            store_id=identity.store_id,
            epoch=identity.epoch,
        )
        self._inputs: deque[ReplayInput] = deque()
        self._next_stream_id = next_stream_id
        self._positions = Sources(positions)
        self._claims = claims
        self._unrecorded: list[StreamRecord] = []
        self._drops = DropLog(self._receiver, "ingest")
        self._moved: dict[str, Position] = {}  # runs that went on without rows, or lost their place
        self._stopping = threading.Event()
        self._more = False
        self.held = False
        """Whether it waits for the committer to make room in a ring; read by other threads."""
        self.refusals: dict[str, int] = {}

    # ------------------------------------------------------------------ before and after running

    def add_input(self, source: ReplayInput) -> None:
        """Take rows of this input too; it is the owner of its stream, unless an input before it is (S19)."""
        slot = self._streams.slot(source.key)
        if slot is None:
            slot = self._add_stream(source.key, source.owner)
        if all(other.key != source.key for other in self._inputs):
            self._streams.kernel.own(slot, source.owner)
        else:
            _LOG.warning("%s is not written by %s: an input before it has it", source.key, source.name)
        self._inputs.append(source)

    def ring_rows(self, key: StreamKey) -> int:
        """Rows of the ring that this stream has, or would get."""
        slot = self._streams.slot(key)
        return limits.ring_rows(len(self._streams)) if slot is None else self._streams.ring(slot).capacity

    def stop(self) -> None:
        """End `run` after its turn; from any thread or a signal handler."""
        self._stopping.set()
        self._wake.set()

    def turned_ns(self) -> int:
        """When it last came round without Python (monotonic); from any thread."""
        return self._turns.turned_ns

    def look(self) -> None:
        """Say in the log what was dropped since the last look; from one thread."""
        self._drops.look()

    @property
    def counters(self) -> dict[str, int]:
        """What was received and what became of it, since the start."""
        return self._receiver.counters | {f"refused_{why}": n for why, n in self.refusals.items()}

    # ------------------------------------------------------------------ turns

    def run(self) -> None:
        """Turn until stopped."""
        before = self._exchange.handover.position
        while not self._stopping.is_set():
            if self.held:  # by rows that were not committed `before`
                self._exchange.handover.wait_past(before, HELD_S)
            self._carry_out_claims()
            if self._note_moved():
                self.held = False
                before = self._exchange.handover.position
                self._decide(self._turn())
                self._offer_inputs()
            self._vitals.turned()
        self._vitals.ended()

    def _turn(self) -> Turned:
        """Receive until something is to be decided, and once in any case: nobody who wakes it keeps rows waiting."""
        turned = self._turns.run(0 if self._more or self._claims.waiting else TURNS_S)
        self._wake.clear()  # before anything is looked at that it may have been raised for
        return self._turns.run(0) if turned is Turned.WOKEN else turned

    def _carry_out_claims(self) -> None:
        """Give runs to the processes that claim them, a number of them a turn; what they are told stands in the journal
        first. While too many of earlier turns wait for room no others are."""
        due = self._claims.take() if len(self._moved) <= limits.CLAIMS_PER_TURN else []
        if due:
            self._runs.hear()
        for claim in due:
            place = self._runs.find(claim.source_id.encode(), claim.run)
            if place is None:
                place = self._add_run(claim.source_id.encode(), claim.run)
            position = self._runs.claim(place)
            self._moved[self._runs.name(place)] = position
            self._claims.done(claim, position[1])

    def _note_moved(self) -> bool:
        """Put new streams and positions that moved without rows into the group; False while there is no room."""
        while self._unrecorded or self._moved:
            if not self._exchange.wait_for_room(limits.TURN_BYTES, limits.TURN_RECORDS, IDLE_S):
                return False
            with self._exchange.fill() as filled:
                for stream in self._unrecorded[: limits.NOTES_PER_GROUP]:
                    filled.group.append(journal.STREAM, pack(stream))
                    filled.streams.append(stream)
                del self._unrecorded[: limits.NOTES_PER_GROUP]
                names = list(islice(self._moved, limits.NOTES_PER_GROUP))
                self._put(filled, {name: self._moved.pop(name) for name in names})
        return True

    def _put(self, filled: Filled, moved: dict[str, Position]) -> None:
        for name, position in moved.items():
            filled.group.append_source(source_begins(name), position)
        filled.sources.update(moved)
        self._positions.note(moved)

    def _offer_inputs(self) -> None:
        """A turn of what this process reads itself."""
        self._more = False
        if not self._inputs or not self._exchange.wait_for_room(
            limits.TURN_BYTES, limits.TURN_RECORDS, IDLE_S
        ):
            return
        self._receiver.kernel.begin()
        taken = [source for source in self._inputs if self._offer(source)]
        self._inputs.rotate(-1)  # what filled the inbox this time comes last the next time
        if taken:
            with self._exchange.fill() as filled:
                self._turns.record()
                self._put(filled, {source.name: source.take() for source in taken})

    def _offer(self, source: ReplayInput) -> bool:
        """Lay the input's next chunk into the inbox, whole or not at all."""
        chunk = source.peek()
        slot = self._streams.slot(source.key)
        if chunk is None or slot is None:
            return False
        kernel = self._receiver.kernel
        if kernel.arrival_count == limits.MAX_ARRIVALS or kernel.room(slot) < len(chunk.rows):
            self.held = True
            return False
        kernel.offer(slot, np.ascontiguousarray(chunk.rows).view(np.uint8), source.owner)
        self._more = True
        return True

    # ------------------------------------------------------------------ what is out of the ordinary

    def _decide(self, turned: Turned) -> None:
        """See to what ended the turns."""
        if turned is Turned.UNKNOWN_STREAM:
            self._decide_stream()
        elif turned is Turned.UNKNOWN_RUN:
            self._decide_run()
        elif turned is Turned.HELD:
            self.held = True
        elif turned is Turned.SOCKET_ERROR:
            self._receiver.receive()  # raises what it was

    def _decide_stream(self) -> None:
        unknown = self._receiver.unknown
        assert unknown is not None
        decision = refusal(unknown.key, unknown.kind, len(self._streams))
        if isinstance(decision, StreamKey):
            self._add_stream(decision, INGEST_OWNER)
            return
        why = decision.partition(":")[0]
        self.refusals[why] = self.refusals.get(why, 0) + 1
        if self.refusals[why] == 1:
            _LOG.warning("refused a stream: %s", decision)
        self._refuse(unknown)

    def _refuse(self, unknown: UnknownStream) -> None:
        """Drop the held message. A feed's rows after it are not to wait for it: its run goes on."""
        source = unknown.key[0].decode("latin-1")
        try:
            StreamKey(source, "X", "1m").checked()
        except InvalidNameError:
            self._receiver.discard()  # no source that could have a position
            return
        place = self._runs.find(unknown.key[0], unknown.store_id)
        if place is None and self._is_forgotten(unknown):
            self._receiver.discard()
            return
        if place is None:
            self._runs.hear()
            place = self._add_run(unknown.key[0], unknown.store_id)
        self._receiver.kernel.refuse(place)
        self._moved[self._runs.name(place)] = self._runs.taken(place)

    def _decide_run(self) -> None:
        unknown = self._receiver.unknown
        assert unknown is not None
        if self._is_forgotten(unknown):
            self._receiver.discard()  # its feed is told when it asks
        else:
            self._runs.hear()
            self._add_run(unknown.key[0], unknown.store_id)

    def _is_forgotten(self, unknown: UnknownStream) -> bool:
        """Whether rows of that run, which has no place, may have been taken before it was forgotten: a new run begins
        with row 1, and one that was registered (its messages carry an incarnation) was known before its first row."""
        name = feed_name(unknown.key[0].decode(), unknown.store_id)
        began = unknown.start > 1 or unknown.epoch > 0
        return began and name not in self._positions and self._positions.full

    def _add_run(self, source: bytes, run: int) -> int:
        """Go on with a feed's run where the journal has it; its place in the table."""
        position = self._positions.get(feed_name(source.decode(), run), (0, 0))
        place, gone = self._runs.add(source, run, position, INGEST_OWNER)
        self._moved |= gone
        self._positions.note(gone)
        return place

    def _add_stream(self, key: StreamKey, owner: int) -> int:
        slot = self._streams.add(key, stream_id=self._next_stream_id, owner=owner)
        self._streams.ring(slot).keep = 0  # nothing of it is in the journal yet
        self._unrecorded.append(StreamRecord(self._next_stream_id, *key))
        self._next_stream_id += 1
        return slot
