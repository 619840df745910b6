"""What the coordinator holds and the few moves that everything else is made of.

    subscribe ─► JOINING ──status──► LIVE ◄──────────────┐
                    ▲                 │ other epoch      │ EPOCH_ENDED: rewind, go on
                    │ other store     ▼                  │
                    └──────────────  ENDING ─────────────┘

A turn of a stream sends at most one request: its status while JOINING or when something looks wrong, else the
rows that are missing. Turns come from `Schedule`; with all `MAX_ASKS` in flight they wait in line.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np

from flux.limits import MAX_ASKS, MAX_REPLY_ROWS, MAX_STREAM_ID
from flux.model import Cursor, Gap, StreamKey
from flux.protocol.effects import (
    Ask,
    AskKind,
    Deliver,
    DeliverGap,
    Effect,
    Fail,
    Rewind,
    SetAside,
    SetExpected,
    Tell,
)
from flux.protocol.repair import next_range
from flux.protocol.schedule import MS, Schedule, backoff_ns
from flux.protocol.stream_state import (
    ENDING,
    FAILED,
    HOLDING,
    JOINING,
    LIVE,
    NONE,
    RECEIVING,
    STALLED,
    Columns,
    RingLike,
    Stream,
    StreamState,
    state_of,
)

CONFLICT = "{}: a sequence came again with other bytes; the first was kept: call resync(key)"
RESYNC = "resync"
VERIFY_NS = 1_000 * MS  # the same doubt about a stream is settled at most this often
RECENT_NS = 2_000 * MS  # rows within this: receiving


class Core:
    """State and primitive moves. `now` is monotonic ns throughout."""

    def __init__(
        self, random: Random, max_asks: int = MAX_ASKS, *, live: str = "", requests: str = ""
    ) -> None:
        self.random = random
        self.live = live or "the publisher"  # in messages: where rows come from, and where requests go
        self.requests = requests or "the server"
        self.wanted = False  # something was subscribed
        self.unanswered = False  # the last request that ended got no answer at all
        self.refusal = ""  # the error that the last one ended with
        self.cut = ""  # why this side ended the live connection, until the server shows that it lives
        self.unknown: dict[int, str] = {}  # slots of streams that the server does not know, and what it said
        self.max_asks = max_asks
        self.streams: dict[int, Stream] = {}
        self.slots: dict[StreamKey, int] = {}
        self.columns = Columns()
        self.schedule = Schedule()
        self.effects: list[Effect] = []
        self.in_flight: dict[int, Ask] = {}
        self.waiting: dict[int, None] = {}  # in line for a free request, in order
        self.version = 2
        self.linked = False
        self.was_linked = False
        self.ready = False  # proof of life was seen on this link, or waited for long enough
        self.beats_missing = False
        self.failed = ""
        self._number = 0

    # -- streams ---------------------------------------------------------------------------------------------

    def add(
        self, key: StreamKey, slot: int, ring: RingLike, start: str | int | None, cursor: Cursor | None
    ) -> Stream:
        """Take a stream on."""
        stream = Stream(key, slot, ring, start, cursor)
        stream.conflicts = ring.conflicts
        # From the first row on nothing may be evicted that was not delivered.
        stream.delivered = ring.keep = ring.first - 1
        self.streams[slot] = stream
        self.slots[key] = slot
        self.columns.hold(slot)
        return stream

    def remove(self, slot: int) -> None:
        """Forget a stream; an answer that is still to come finds nobody."""
        stream = self.streams.pop(slot)
        del self.slots[stream.key]
        if stream.stream_id:
            self.columns.learn(stream.stream_id, -1)
        self.schedule.drop(slot)
        self.waiting.pop(slot, None)
        self.unknown.pop(slot, None)

    def expect(self, stream: Stream, store_id: int, epoch: int) -> None:
        """Only rows of this store and epoch are this stream's."""
        if (stream.store_id, stream.epoch) != (store_id, epoch):
            stream.store_id, stream.epoch = store_id, epoch
            self.effects.append(SetExpected(stream.slot, store_id, epoch))

    def identify(self, stream: Stream, stream_id: int) -> None:
        """Heartbeat marks of `stream_id` are about this stream. A number that no server gives is not learnt."""
        if 0 < stream_id <= MAX_STREAM_ID and stream_id != stream.stream_id:
            if stream.stream_id:
                self.columns.learn(stream.stream_id, -1)
            stream.stream_id = stream_id
            self.columns.learn(stream_id, stream.slot)

    def restart(self, stream: Stream, first: int) -> None:
        """Go on at `first` with an empty ring: what is before was delivered, or will never be."""
        stream.ring.reset(first)
        stream.ring.keep = first - 1
        stream.delivered = first - 1
        self.columns.seen[stream.slot] = first - 1

    def set_aside(self, stream: Stream, first: int, reason: str) -> None:
        """What is kept of the stream is of no use here; fill it anew from `first`."""
        had = stream.delivered >= stream.begin or stream.cursor is not None
        void = stream.delivered if had and reason != RESYNC else 0
        self.effects.append(SetAside(stream.slot, stream.key, reason, void))
        stream.gap = None
        stream.proof, stream.proof_row = NONE, None
        stream.suspect = stream.claim = False
        stream.left_at = 0
        stream.begin = first
        stream.open_start = True
        stream.fault = ""
        stream.halted = False
        stream.ahead = 0
        stream.earlier.clear()
        self.columns.head[stream.slot] = 0
        self.restart(stream, first)

    def rewind(self, stream: Stream, end: int) -> None:
        """The epoch ended at `end`: drop what is above, keep the ring when nothing in it is."""
        stream.gap = None
        stream.ends_at(end)
        stream.left_at = 0
        if stream.proof_at > end:
            stream.proof = NONE
        done = stream.delivered
        self.columns.head[stream.slot] = 0
        if done < stream.begin and stream.cursor is None:
            # Nothing was delivered. A start in the future stays; one at the lost head moves down with it.
            first = stream.begin if isinstance(stream.start, int) else min(stream.begin, end + 1)
            stream.begin = first
            self.restart(stream, first)
            return
        if done > end:
            self.effects.append(Rewind(stream.slot, stream.key, end, done))
            stream.begin = min(stream.begin, end + 1)
        if max(done, stream.ring.top) > end:
            self.restart(stream, min(done, end) + 1)

    # -- rows ------------------------------------------------------------------------------------------------

    def head(self, stream: Stream) -> int:
        """The highest sequence known to exist."""
        return max(int(self.columns.head[stream.slot]), stream.ring.top)

    def behind(self, stream: Stream) -> bool:
        """Rows are known to exist that are not here."""
        return self.head(stream) > stream.ring.contiguous

    def raise_head(self, stream: Stream, sequence: int) -> None:
        """`sequence` exists."""
        if sequence > int(self.columns.head[stream.slot]):
            self.columns.head[stream.slot] = sequence

    def check(self, stream: Stream) -> None:
        """See whether a sequence came with other bytes."""
        if stream.ring.conflicts != stream.conflicts:
            stream.conflicts = stream.ring.conflicts
            if self.version == 1 or stream.proof is not NONE:
                # A version 1 server that began again explains it, and is found out by its head or a row.
                stream.suspect = stream.verify = True
            else:
                stream.fault = CONFLICT.format(stream.key)

    def offer(self, stream: Stream) -> None:
        """Offer newly contiguous rows; between epochs they are held back, for they may be void."""
        self.check(stream)
        if stream.phase is not LIVE or stream.proof is HOLDING:
            return
        contiguous, seen = stream.ring.contiguous, int(self.columns.seen[stream.slot])
        if contiguous > seen:
            self.columns.seen[stream.slot] = contiguous
            self.effects.append(Deliver(stream.slot, seen + 1, contiguous))

    def give_up(self, stream: Stream, last: int, reason: str, now: int) -> None:
        """What is missing up to `last` will never come."""
        stream.gap = (last, reason)
        self.close_gap(stream, now)

    def close_gap(self, stream: Stream, now: int) -> None:
        """Pass a gap, once all rows before it are delivered (the ring cannot hold rows on both sides of
        it).
        """
        ring = stream.ring
        if stream.gap is None or stream.delivered < ring.contiguous:
            return
        last, reason = stream.gap
        stream.gap = None
        first = ring.contiguous + 1
        if ring.top >= first:
            last = min(last, int(ring.gaps()[0][1]))
        if last >= first:
            self.effects.append(DeliverGap(stream.slot, Gap(stream.key, first, last, reason)))
            ring.skip(last + 1)
            ring.keep = stream.delivered = last
            self.columns.seen[stream.slot] = last
            self.offer(stream)
        self.schedule.by(stream.slot, now)

    # -- turns and requests ----------------------------------------------------------------------------------

    def turn(self, slot: int, now: int) -> None:
        """Let a stream send the request it needs, if any."""
        stream = self.streams.get(slot)
        if stream is None or stream.asking or stream.halted or self.failed or not self.ready:
            return
        if len(self.in_flight) >= self.max_asks:
            self.waiting[slot] = None
            return
        ask = self.next_ask(stream)
        if ask is not None:
            stream.asking = ask.number
            self.send(ask)
        self.show(stream, now)

    def next_ask(self, stream: Stream) -> Ask | None:
        """The request that gets this stream on, or None while it has all there is or waits for its
        consumer.
        """
        if (stream.phase is JOINING or stream.verify) and not stream.claim:
            return Ask(self.number(), AskKind.STATUS, self.version, stream.slot, stream.key)
        if stream.phase is LIVE and stream.proof is not NONE and not stream.claim:
            at = stream.proof_at
            return self._rows(stream, AskKind.PROOF, at - 1, at)
        contiguous = stream.ring.contiguous
        wanted: tuple[int, int] | None
        if stream.claim:
            wanted = contiguous, contiguous + 1
        elif stream.phase is ENDING:
            # Asked in the old epoch, only to be told where it ended.
            wanted = contiguous, contiguous + 1
        elif stream.gap is not None:
            return None
        else:
            ring, head = stream.ring, int(self.columns.head[stream.slot])
            gaps = ring.gaps() if ring.top > contiguous else _NO_GAPS
            wanted = next_range(contiguous, ring.top, head, gaps, stream.room(), ring.capacity)
        if wanted is None:
            return None
        return self._rows(stream, AskKind.ROWS, *wanted)

    def _rows(self, stream: Stream, kind: AskKind, after: int, last: int) -> Ask:
        return Ask(
            self.number(),
            kind,
            self.version,
            stream.slot,
            stream.key,
            from_sequence=0 if stream.from_oldest and kind is AskKind.ROWS else after,
            to_sequence=last,
            limit=min(last - after, MAX_REPLY_ROWS),
            epoch=stream.epoch,
            store_id=stream.store_id,
        )

    def number(self) -> int:
        """The next request's number."""
        self._number += 1
        return self._number

    def send(self, ask: Ask) -> None:
        """Send a request."""
        self.in_flight[ask.number] = ask
        self.effects.append(ask)

    def serve_waiting(self, now: int) -> None:
        """Give free requests to those in line."""
        while self.waiting and len(self.in_flight) < self.max_asks:
            slot = next(iter(self.waiting))
            del self.waiting[slot]
            self.turn(slot, now)

    def retry(self, stream: Stream, now: int, at_least_ms: int = 0) -> None:
        """An answer that brought nothing: the next turn comes after a growing pause."""
        stream.failures += 1
        self.schedule.at(stream.slot, now + backoff_ns(stream.failures, self.random, at_least_ms))

    def progress(self, stream: Stream, now: int) -> None:
        """An answer that brought something: go on at once if there is more to get."""
        stream.failures = 0
        wants = stream.verify or stream.claim or stream.proof is not NONE
        if wants or stream.phase is not LIVE or self.behind(stream):
            self.schedule.by(stream.slot, now)

    def lag(self, stream: Stream, due: int) -> None:
        """Rows may be missing: a turn at `due`, unless a pause after a failure is still running."""
        if stream.asking or stream.phase is not LIVE or not self.behind(stream):
            return
        if stream.failures == 0 or not self.schedule.pending(stream.slot):
            self.schedule.by(stream.slot, due)

    def doubt(self, stream: Stream, now: int) -> None:
        """The store or the epoch may have changed: let the status tell, at most once a second."""
        if stream.phase is not JOINING and not stream.verify:
            stream.verify = True
            self.schedule.by(stream.slot, max(now, stream.verified_ns + VERIFY_NS))

    # -- states ----------------------------------------------------------------------------------------------

    def state(self, stream: Stream, now: int) -> StreamState:
        """C4."""
        behind = self.behind(stream)
        blocked = behind and not stream.asking and stream.room() <= 0
        return state_of(
            fault=bool(stream.fault or self.failed),
            linked=self.linked,
            was_linked=self.was_linked,
            ready=self.ready,
            beats_missing=self.beats_missing,
            joining=(stream.phase is not LIVE or (stream.proof is HOLDING and stream.failures > 0))
            and stream.known,
            behind=behind,
            progressing=not blocked and stream.failures == 0,
            arrived_recently=now - int(self.columns.arrived_ns[stream.slot]) < RECENT_NS,
        )

    def show(self, stream: Stream, now: int) -> None:
        """Tell the stream's state if it changed."""
        state = self.state(stream, now)
        if state != self.columns.state[stream.slot]:
            self.columns.state[stream.slot] = state
            self.effects.append(Tell(stream.slot, stream.key, state, self.why(stream, state)))

    def show_all(self, now: int) -> None:
        """After something that concerns every stream."""
        for stream in self.streams.values():
            self.show(stream, now)

    def why(self, stream: Stream, state: StreamState) -> str:
        """The reason that goes with a state."""
        if state is FAILED:
            return stream.fault or self.failed
        if not self.linked:
            return self.unlinked()
        if state is StreamState.CONNECTING:
            return self.cut or f"{self.live} is connected: its first heartbeat is waited for"
        if state is STALLED:
            if self.unanswered:
                return f"{self.requests} does not answer requests"
            if self.beats_missing:
                return "heartbeats are missing"
            if stream.room() <= 0:
                return "the consumer is behind"
            missing = self.head(stream) - stream.ring.contiguous
            return f"{missing} rows are missing and requests fail" + (self.refusal and f": {self.refusal}")
        if stream.known:
            return ""
        return self.unknown.get(stream.slot) or "the server does not know this stream (yet)"

    def unlinked(self) -> str:
        """Why the link is not there."""
        if self.cut:
            return self.cut
        if self.was_linked:
            return (
                f"the connection to {self.live} broke: it is made again as soon as somebody publishes there"
            )
        return f"nobody publishes at {self.live}: no server there, or another address"

    def fail(self, reason: str, now: int, *, wrong_version: bool) -> None:
        """Stop for good: no request follows."""
        if not self.failed:
            self.failed = reason
            self.effects.append(Fail(reason, wrong_version))
            self.show_all(now)

    def idle_since(self, now: int) -> Iterator[Stream]:
        """Streams shown as receiving to which nothing came lately."""
        columns = self.columns
        stale = (columns.state == RECEIVING) & (now - columns.arrived_ns >= RECENT_NS)
        for slot in np.flatnonzero(stale).tolist():
            stream = self.streams.get(slot)
            if stream is not None:
                yield stream


_NO_GAPS: Any = np.zeros((0, 2), np.uint64)
