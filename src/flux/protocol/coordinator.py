"""The client's machine: subscribe first and buffer, find out what was missed, get it, go on in order.

    link, heartbeats, arrivals ─►┌─────────────┐─► Ask        (status, rows, list: one per stream at a time)
    answers, the consumer's pace │ Coordinator │─► Deliver, DeliverGap, Rewind, SetAside (consumer and cache)
    the time ───────────────────►└─────────────┘─► SetExpected, Join, Speak, Tell, Fail

No socket, no clock, no file: times are monotonic ns given by the caller, chance is a seeded `random.Random`.
Rows live in rings, which the receive loop fills before it reports an arrival; nothing here is done per row or
per message.

When a message is lost, the ring's top stands above its contiguous mark (or a heartbeat's mark above both):
after a short grace the missing rows are asked for. When the server is killed, heartbeats stop, the link
breaks, requests time out and are repeated with growing pauses; what was published before is in the server's
journal and comes by request. When the consumer is slow, nothing is evicted that it has not taken: the ring
fills, live rows fall out as `beyond`, and are asked for when there is room.
"""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flux.errors import FluxError
from flux.limits import (
    BEATS_MISSED,
    MARK_GRACE_MS,
    MAX_ASKS,
    MAX_RELINK_ASKS,
    PROBE_MS,
    REORDER_GRACE_MS,
)
from flux.model import MAX_SEQUENCE, Cursor, StreamKey
from flux.protocol import history
from flux.protocol.answers import answered
from flux.protocol.core import RECENT_NS, RESYNC, Core
from flux.protocol.effects import AskKind, Deliver, Effect
from flux.protocol.lookout import Lookout
from flux.protocol.replies import Beat, Refusal, Reply, TimedOut
from flux.protocol.schedule import MS
from flux.protocol.stream_state import HOLDING, JOINING, LIVE, RECEIVING, RingLike, Stream, StreamState
from flux.protocol.wildcards import Wildcards

# Outcomes of an arrival, as in ext/receiver.h. Rows PLACED, in CONFLICT or BEYOND are of the expected store and
# epoch.
PLACED = 0
OTHER_EPOCH = 1
CONFLICT = 2


class Coordinator:
    """See the module. Effects pile up in order; `take` hands them out."""

    def __init__(
        self, random: Random, *, max_asks: int = MAX_ASKS, live: str = "", requests: str = ""
    ) -> None:
        """`live` and `requests` name the two endpoints in messages."""
        self._core = Core(random, max_asks, live=live, requests=requests)
        self._lookout = Lookout(self._core)
        self._wildcards = Wildcards(self._core)
        self._linked_ns = 0
        self._beat_ns: int | None = None
        self._beat_interval_ns = 0
        self._beat_from: tuple[int, int] | None = None  # store and epoch of the last heartbeat
        self._boot_id = 0
        self._swept_ns = 0

    def take(self) -> list[Effect]:
        """The effects since the last call, in order."""
        effects = self._core.effects
        self._core.effects = []
        return effects

    # -- subscriptions ---------------------------------------------------------------------------------------

    def subscribe(
        self,
        key: StreamKey,
        slot: int,
        ring: RingLike,
        start: str | int | None,
        now: int,
        cursor: Cursor | None = None,
        last_row: NDArray[Any] | None = None,
    ) -> None:
        """Follow a stream whose rows the receive loop lays into `ring`.

        `start`: None (from the head at the join on), "cache" (behind `cursor`; without one as "oldest"),
        "oldest", or the first sequence wanted. `last_row`: an array of the row at the cursor, to compare
        with the server's. Raises `FluxError` when the stream or the slot is already
        followed.
        """
        core = self._core
        if key in core.slots or slot in core.streams:
            raise FluxError(f"{key} is already subscribed")
        stream = core.add(key, slot, ring, start, cursor)
        core.wanted = True
        if start == "cache" and cursor is not None:
            # Live rows of the cursor's epoch may be laid behind it before the server was asked anything.
            core.expect(stream, cursor.store_id, cursor.epoch)
            core.restart(stream, cursor.sequence + 1)
            stream.proof_row = last_row
        core.schedule.by(slot, now)

    def subscribe_all(self, source_id: str, interval: str, start: str | int | None, now: int) -> None:
        """Follow every symbol of a source and an interval: those the server lists (`Join`) and those first
        seen live.
        """
        self._core.wanted = True
        self._wildcards.add(source_id, interval, start, now)

    def first_seen(
        self,
        key: StreamKey,
        slot: int,
        ring: RingLike,
        now: int,
        *,
        start_sequence: int,
        store_id: int,
        epoch: int,
        stream_id: int = 0,
    ) -> None:
        """A stream under a wildcard without a start showed itself: it begins with this message."""
        core = self._core
        stream = core.add(key, slot, ring, None, None)
        stream.begin = start_sequence
        core.restart(stream, start_sequence)
        core.expect(stream, store_id, epoch)
        core.identify(stream, stream_id)
        stream.phase = LIVE
        core.raise_head(stream, start_sequence)
        self._alive(now)
        core.lag(stream, now + REORDER_GRACE_MS * MS)

    def unsubscribe(self, slot: int) -> None:
        """Follow a stream no longer; its slot may be given to another."""
        self._core.remove(slot)

    def resync(self, slot: int, now: int) -> None:
        """Forget what is kept of a stream and fetch all that the server keeps."""
        core = self._core
        stream = core.streams[slot]
        core.set_aside(stream, 1, RESYNC)
        stream.phase = JOINING
        stream.start, stream.cursor = "oldest", None
        stream.failures = 0
        core.expect(stream, 0, 0)
        core.schedule.at(slot, now)

    # -- the link --------------------------------------------------------------------------------------------

    def link_up(self, now: int) -> None:
        """The live socket is connected. Requests wait for proof of life: a heartbeat, a batch, or a
        second.
        """
        core = self._core
        if not core.linked:
            core.linked = core.was_linked = True
            self._linked_ns = now
            core.show_all(now)

    def link_down(self, now: int, why: str = "") -> None:
        """The live socket lost its peer, or this side dropped it and says why; it reconnects by itself."""
        core = self._core
        core.cut = why or core.cut
        core.linked = core.ready = core.beats_missing = False
        for stream in core.streams.values():
            stream.left_at = stream.left_at or stream.ring.contiguous
        self._beat_ns = None
        core.show_all(now)

    def _alive(self, now: int) -> None:
        """Proof of life, or the end of waiting for it: requests may go out, beginning with what may have been
        missed.
        """
        core = self._core
        if core.ready or not core.linked:
            return
        core.ready = True
        self._wildcards.resume(now)
        if core.version == 1:
            history.want_all(core, now)
        few = len(core.streams) <= MAX_RELINK_ASKS
        for slot, stream in core.streams.items():
            if stream.phase is not JOINING and few:
                stream.verify = True
            if stream.verify or stream.phase is not LIVE or core.behind(stream):
                core.schedule.by(slot, now)
        core.show_all(now)

    def heartbeat(self, beat: Beat, now: int) -> None:
        """A heartbeat: the link lives, its server is this one, and these are committed heads."""
        core = self._core
        source = (beat.store_id, beat.epoch)
        if self._beat_from is not None and self._beat_from[0] == source[0] and source[1] < self._beat_from[1]:
            return  # late, from before the epoch changed
        first_on_link, self._beat_ns = self._beat_ns is None, now
        core.cut = ""
        self._beat_interval_ns = max(1, beat.interval_ms) * MS
        self._alive(now)
        if core.beats_missing:
            core.beats_missing = False
            core.show_all(now)
        if self._boot_id and beat.boot_id != self._boot_id:
            history.want_all(core, now)
        elif first_on_link:
            for stream in core.streams.values():
                stream.left_at = 0  # it is the same server
        if source != self._beat_from or beat.boot_id != self._boot_id:
            self._beat_from, self._boot_id = source, beat.boot_id
            for stream in core.streams.values():
                if (stream.store_id, stream.epoch) != source:
                    core.doubt(stream, now)
        if len(beat.marks):
            self._marks(beat.marks, source, now)

    def _marks(self, marks: NDArray[Any], source: tuple[int, int], now: int) -> None:
        columns = self._core.columns
        ids = marks["stream_id"]
        known = (ids < len(columns.slot_of_id)) & (marks["latest_sequence"] <= MAX_SEQUENCE)
        slots = columns.slot_of_id[ids[known]]
        mine = slots >= 0
        slots, latest = slots[mine], marks["latest_sequence"][known][mine]
        ahead = latest > columns.seen[slots]
        for slot, sequence in zip(slots[ahead].tolist(), latest[ahead].tolist(), strict=True):
            stream = self._core.streams[slot]
            if (stream.store_id, stream.epoch) == source:
                self._core.raise_head(stream, sequence)
                self._core.lag(stream, now + MARK_GRACE_MS * MS)

    # -- rows ------------------------------------------------------------------------------------------------

    def arrivals(self, batch: NDArray[Any], now: int) -> None:
        """Messages of one turn of the receive loop; their rows are already in the rings (dtype ARRIVAL)."""
        if not len(batch):
            return
        self._alive(now)
        core, columns = self._core, self._core.columns
        core.cut = ""
        outcome = batch["outcome"]
        strays = outcome == OTHER_EPOCH
        ours = batch[~strays] if strays.any() else batch
        slots = ours["stream"]
        np.maximum.at(columns.head, slots, ours["start"] + ours["count"] - 1)
        touched = np.unique(slots)
        columns.arrived_ns[touched] = now
        self._look(touched, now)
        if outcome.any():
            for stream in self._of(batch[outcome == CONFLICT]):
                core.check(stream)
                if stream.suspect:
                    core.schedule.by(stream.slot, now)
                core.show(stream, now)
            for stream in self._of(batch[strays]):
                self._stray(stream, now)

    def _of(self, batch: NDArray[Any]) -> list[Stream]:
        streams = self._core.streams
        return [streams[slot] for slot in np.unique(batch["stream"]).tolist() if slot in streams]

    def _look(self, slots: NDArray[np.uint32], now: int) -> None:
        """Offer what became contiguous in these streams and see who lacks rows: the client's busiest loop."""
        core, columns = self._core, self._core.columns
        due = now + REORDER_GRACE_MS * MS
        seen = columns.seen[slots].tolist()
        looks = zip(slots.tolist(), columns.head[slots].tolist(), columns.state[slots].tolist(), strict=True)
        for at, (slot, head, state) in enumerate(looks):
            stream = core.streams.get(slot)
            if stream is None or stream.phase is not LIVE or stream.proof is HOLDING:
                continue
            ring = stream.ring
            contiguous = ring.contiguous
            if contiguous > seen[at]:
                core.effects.append(Deliver(slot, seen[at] + 1, contiguous))
                seen[at] = contiguous
            if head > contiguous or ring.top > contiguous:
                core.lag(stream, due)
            elif state != RECEIVING:
                core.show(stream, now)
        columns.seen[slots] = seen

    def _stray(self, stream: Stream, now: int) -> None:
        """Rows of another store or epoch than expected."""
        core = self._core
        if stream.phase is JOINING:
            if not stream.known and not stream.asking:
                stream.known = True  # the stream has come: no need to wait for the next look
                core.schedule.by(stream.slot, now)
        else:
            core.doubt(stream, now)

    def delivered(self, slot: int, sequence: int, now: int) -> None:
        """The consumer took the stream's rows up to `sequence`; the ring may evict them."""
        core = self._core
        stream = core.streams.get(slot)
        if stream is None or sequence <= stream.delivered:
            return
        stream.delivered = sequence
        stream.ring.keep = sequence
        if stream.gap is not None:
            core.close_gap(stream, now)
        else:
            core.lag(stream, now + REORDER_GRACE_MS * MS)

    # -- answers and time ------------------------------------------------------------------------------------

    def answer(self, number: int, reply: Reply, now: int) -> None:
        """The answer to the request of this number, or that none came. Late answers are nobody's."""
        core = self._core
        ask = core.in_flight.pop(number, None)
        if ask is None:
            return
        core.unanswered = isinstance(reply, TimedOut)
        core.refusal = reply.message if isinstance(reply, Refusal) else ""
        if ask.kind is AskKind.LIST:
            self._wildcards.answered(ask, reply, now)
        else:
            stream = core.streams.get(ask.slot)
            if stream is not None and stream.asking == number:
                stream.asking = 0
                answered(core, stream, ask, reply, now)
                core.show(stream, now)
        core.serve_waiting(now)

    def spoke(self, schema_version: int, now: int) -> None:
        """A message with a right checksum of another major version came."""
        reason = f"server speaks schema {schema_version}, this client 2: upgrade flux"
        self._core.fail(reason, now, wrong_version=True)

    def refuse(self, reason: str, now: int, *, wrong_version: bool = False) -> None:
        """The server refused this client for good: its keys, or what it speaks."""
        self._core.fail(reason, now, wrong_version=wrong_version)

    def tick(self, now: int) -> None:
        """Time passed: give turns to those that are due."""
        core = self._core
        if core.linked and not core.ready and now >= self._linked_ns + PROBE_MS * MS:
            self._alive(now)
        late = self._beat_ns is not None and now - self._beat_ns > BEATS_MISSED * self._beat_interval_ns
        if late != core.beats_missing:
            core.beats_missing = late
            core.show_all(now)
        self._lookout.look(now, self._beat_from[0] if self._beat_from is not None else 0)
        if now - self._swept_ns >= RECENT_NS // 2:
            self._swept_ns = now
            for stream in core.idle_since(now):
                core.show(stream, now)
        for slot in core.schedule.pop(now):
            if slot < 0:
                self._wildcards.turn(slot, now)
                continue
            due = core.streams.get(slot)
            if due is not None and core.version == 1 and core.ready and not due.asking:
                # No marks: the head is asked for.
                due.verify = due.verify or not (core.behind(due) or due.proof)
            core.turn(slot, now)

    def next_ns(self) -> int | None:
        """When `tick` has something to do at the latest (monotonic ns); None: not before the next input."""
        core = self._core
        times = [core.schedule.next_ns(), self._lookout.next_ns()]
        if core.linked and not core.ready:
            times.append(self._linked_ns + PROBE_MS * MS)
        if self._beat_ns is not None and not core.beats_missing:
            times.append(self._beat_ns + BEATS_MISSED * self._beat_interval_ns + 1)
        return min((at for at in times if at is not None), default=None)

    # -- what is shown ---------------------------------------------------------------------------------------

    def stream(self, slot: int) -> Stream:
        """The record of a stream: to read, not to change."""
        return self._core.streams[slot]

    def slot(self, key: StreamKey) -> int | None:
        """The slot of a stream that is followed."""
        return self._core.slots.get(key)

    def state(self, slot: int, now: int) -> tuple[StreamState, str]:
        """A stream's state and the reason for it."""
        core = self._core
        stream = core.streams[slot]
        state = core.state(stream, now)
        return state, core.why(stream, state)

    def head(self, slot: int) -> int:
        """The highest sequence that is known to exist of a stream."""
        return self._core.head(self._core.streams[slot])
