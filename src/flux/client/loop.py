"""The client's loop: one thread that receives, repairs and hands over.

    SUB ──► pump.receive ──► rings ──► Coordinator ──► batches ──► Handover ──► consumers
    DEALER ◄── requests ──────────────────┘                                       │
    Keeper (cache) ◄───────────────── ack(batch) ─────────────────────────────────┘

A turn: drain the socket in batches, tell the coordinator what arrived, what was answered and what time it is,
carry out its effects, hand over what became contiguous. Other threads post functions to it; it never waits
for them.
"""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from flux import codec
from flux.batch import Batch
from flux.client import asking
from flux.client.deliver import Delivery, Handover, LiveStatus, Notices, StateChange, Tenure
from flux.client.outbox import Outbox
from flux.codec.bounds import beyond_bounds
from flux.errors import DecodeError, FluxError, InvalidNameError, VersionError
from flux.limits import CLIENT_QUEUE_BYTES, MAX_STREAMS, MAX_TURNS
from flux.model import Cursor, RowKind, StreamKey
from flux.protocol import effects as fx
from flux.protocol.coordinator import Coordinator
from flux.transport.drops import DropLog
from flux.transport.intake import Watched
from flux.transport.pump import Drained, Receiver, Streams, UnknownStream
from flux.transport.requester import Requester
from flux.transport.sockets import LinkEvent, Poller, Sockets, Wake, subscribe
from flux.transport.topics import BEAT, TopicKind, stream_topic, v1_topic, v2_prefix

if TYPE_CHECKING:
    from flux.client.keeper import Keeper
    from flux.client.warmup import Past
    from flux.config import Endpoints

_LOG: Final = logging.getLogger("flux.client")

_TOPICS: Final[dict[RowKind, TopicKind]] = {
    RowKind.CANDLE: "candles",
    RowKind.TRADE: "trades",
    RowKind.QUOTE: "quotes",
}

Start = str | int | None


class Loop:
    """Everything here but `post`, `wake` and `call` belongs to the loop's thread."""

    def __init__(
        self, endpoints: Endpoints, handover: Handover, notices: Notices, wake: Wake, keeper: Keeper | None
    ) -> None:
        self._endpoints = endpoints
        self._handover = handover
        self._notices = notices
        self._keeper = keeper
        self._wake = wake
        self._posted: deque[tuple[Callable[[], None], bool]] = (
            deque()
        )  # and whether it is called after the end too
        self._stopping = False
        self._drain = True
        self._closing = threading.Lock()
        self._closed = False

        self.coordinator = Coordinator(random.Random(), live=endpoints.live_pub, requests=endpoints.chunk_rep)
        self.streams = Streams()
        self._receiver = Receiver(None, self.streams)  # `run` gives it a socket
        self._beyond_bounds = self._drops = 0
        outbox = self._outbox = Outbox(self.coordinator, self.streams, handover, keeper)
        self.assumed_source = ""  # that of subscriptions which named none
        self._version = 2
        self._wildcards: dict[tuple[str, str], Start] = {}
        self._asked: dict[int, int] = {}  # the requester's id -> the coordinator's number
        # Streams of which the consumer asked for cached rows first.
        self._warming: deque[tuple[StreamKey, Cursor, Iterator[Batch]]] = deque()
        self._deliveries: dict[type[fx.Effect], Callable[[Any], None]] = {
            fx.Ask: self._ask,
            fx.Deliver: outbox.offer,
            fx.DeliverGap: outbox.gap,
            fx.Rewind: outbox.rewind,
            fx.SetAside: outbox.set_aside,
            fx.SetExpected: lambda effect: self.streams.expect(effect.slot, effect.store_id, effect.epoch),
            fx.Join: self._join,
            fx.Speak: self._speak,
            fx.Tell: self._tell,
            fx.Warn: self._warn,
            fx.Fail: self._fail,
        }

    # -- from other threads ----------------------------------------------------------------------------------

    def post(self, act: Callable[[], None], *, after_end: bool = False) -> None:
        """Have the loop's thread call `act` soon. When the loop has ended there is nothing to act on: then it is
        called at once if `after_end`, else never.
        """
        with self._closing:
            if not self._closed:
                self._posted.append((act, after_end))
                self._wake.set()
                return
        if after_end:
            act()

    def stop(self, drain: bool) -> None:
        """End the loop after this turn; `drain`: what came in order is handed over while there is room."""
        self._drain = self._drain and drain
        self._stopping = True
        self._wake.set()

    # -- the thread ------------------------------------------------------------------------------------------

    def run(self) -> FluxError | None:
        """Until stopped or failed: then what it failed of. Whatever happens, consumers are told the end."""
        error: FluxError | None = FluxError("the client's loop ended by an error of its own: see the log")
        try:
            with Sockets() as sockets:
                self._run(sockets)
            error = None
        except FluxError as failure:
            error = failure
        finally:
            with self._closing:
                self._closed = True
            self._handover.close(error, drop=not self._drain)
            self._notices.close()
            self._do_posted(ended=True)
        return error

    def _run(self, sockets: Sockets) -> None:
        self._live, link = sockets.watched_subscriber(self._endpoints.live_pub, [BEAT])
        self._requester = Requester(sockets, self._endpoints.chunk_rep, look=self._wake.set)
        self._receiver = Receiver(self._live, self.streams)
        intake = sockets.watch(
            self._live,
            Watched(
                self._endpoints.live_pub,
                link.comings,
                self._receiver.taken,
                self._wake.set,
                CLIENT_QUEUE_BYTES,
            ),
        )
        asked = self._requester.socket
        poller = Poller(self._live, link.socket, asked, self._wake)
        drops = DropLog(self, self._endpoints.live_pub)
        while not self._stopping:
            poller.wait(self._patience())
            self._wake.clear()
            for event in link.events():
                self._link(event, intake)
            self._do_posted()
            self._receive()
            drops.look()
            self._answers()
            if asked is not self._requester.socket:
                poller.remove(asked)
                asked = self._requester.socket
                poller.add(asked)
            self.coordinator.tick(time.monotonic_ns())
            self._carry_out()
            self._warm_up()
            self._hand_over()
        self._requester.close()

    def _patience(self) -> float | None:
        """Seconds until something is due, rounded up to what poll can wait."""
        due = self.coordinator.next_ns()
        now = time.monotonic_ns()
        waits = [] if due is None else [(due - now) / 1e9]
        if self._requester.in_flight:
            waits.append(self._requester.next_deadline() - time.monotonic())
        return math.ceil(max(0.0, min(waits)) * 1_000) / 1_000 if waits else None

    def _do_posted(self, *, ended: bool = False) -> None:
        while self._posted:
            act, after_end = self._posted.popleft()
            if after_end or not ended:
                act()

    def _link(self, event: LinkEvent, intake: Watched) -> None:
        now = time.monotonic_ns()
        if event is LinkEvent.UP:
            self.coordinator.link_up(now)
        elif event is LinkEvent.DOWN:
            before, self._drops = self._drops, intake.dropped
            self.coordinator.link_down(now, intake.why if self._drops > before else "")
        else:
            self.coordinator.refuse(
                f"{self._endpoints.live_pub} refused this client's keys: check them on both sides", now
            )

    def _receive(self) -> None:
        self._carry_out()  # what is expected of a stream is set before its rows are looked at
        for _ in range(MAX_TURNS):
            arrivals, status = self._receiver.receive()
            now = time.monotonic_ns()
            self.coordinator.arrivals(arrivals, now)
            for payload in self._receiver.others:
                self._other(payload, now)
            self._carry_out()
            if status is Drained.UNKNOWN_STREAM:
                unknown = self._receiver.unknown
                if unknown is None or not self._first_seen(unknown, now):
                    self._receiver.discard()
                self._carry_out()
            elif status is not Drained.FULL:
                return
            self._hand_over()
        self._wake.set()  # more waits: the other sockets first

    def _other(self, payload: bytes, now: int) -> None:
        try:
            message = codec.decode(payload)
        except DecodeError:
            return  # the pump verified it
        if message.schema_version > 2:
            self.coordinator.spoke(message.schema_version, now)
        elif beyond_bounds(message):
            self._beyond_bounds += 1
        elif isinstance(message, codec.Heartbeat):
            self.coordinator.heartbeat(asking.beat(message), now)

    def _answers(self) -> None:
        for outcome in self._requester.receive():
            number = self._asked.pop(outcome.id)
            now = time.monotonic_ns()
            if isinstance(outcome.error, VersionError) and "unsupported schema_version" not in str(
                outcome.error
            ):
                self.coordinator.refuse(str(outcome.error), now, wrong_version=True)
            self.coordinator.answer(number, asking.read(outcome, self._endpoints.chunk_rep), now)
            self._carry_out()

    # -- subscriptions ---------------------------------------------------------------------------------------

    def follow(self, key: StreamKey, start: Start, past: Past | None = None) -> None:
        """Subscribe one stream: as much of the cached rows as is asked for, then what follows the cursor."""
        if self.streams.slot(key) is not None or self._is_warming(key):
            return
        subscribe(self._live, stream_topic(key) if self._version == 2 else v1_topic(key))
        cursor = self._keeper.cursor(key) if self._keeper is not None and start == "cache" else None
        if cursor is None or past is None or self._keeper is None:
            self._start(key, start, cursor)
        else:
            self._warming.append((key, cursor, self._keeper.pages(key, cursor, past)))

    def follow_all(self, source_id: str, interval: str, start: Start, past: Past | None = None) -> None:
        """Subscribe every symbol of a source and an interval, now and later."""
        if (source_id, interval) in self._wildcards:
            return
        self._wildcards[source_id, interval] = start
        self._subscribe_all(source_id, interval)
        self.coordinator.subscribe_all(source_id, interval, start, time.monotonic_ns())
        if start == "cache" and self._keeper is not None:
            for key in self._keeper.kept():
                if (key.source_id, key.interval) == (source_id, interval):
                    self.follow(key, start, past)

    def _subscribe_all(self, source_id: str, interval: str) -> None:
        kind = StreamKey(source_id, "*", interval).kind
        if self._version == 2:
            subscribe(self._live, v2_prefix(_TOPICS[kind], source_id, interval))
        else:
            subscribe(self._live, f"candles.{source_id}.".encode())

    def _start(self, key: StreamKey, start: Start, cursor: Cursor | None) -> None:
        slot = self.streams.add(key)
        if cursor is None:
            self._outbox.anew(slot)
        last = None if cursor is None or self._keeper is None else self._keeper.last_row(key, cursor)
        self.coordinator.subscribe(
            key, slot, self.streams.ring(slot), start, time.monotonic_ns(), cursor, last
        )

    def _first_seen(self, unknown: UnknownStream, now: int) -> bool:
        """Take a stream that showed itself, if a wildcard asked for it."""
        try:
            key = StreamKey(*(name.decode("ascii") for name in unknown.key)).checked()
        except (UnicodeDecodeError, InvalidNameError):
            return False
        wildcard = (key.source_id, key.interval)
        if wildcard not in self._wildcards or len(self.streams) >= MAX_STREAMS or self._is_warming(key):
            return False
        start = self._wildcards[wildcard]
        if start is not None:
            self._start(key, start, None)
            return True
        slot = self.streams.add(key, first=unknown.start)
        self._outbox.anew(slot)
        self.coordinator.first_seen(
            key,
            slot,
            self.streams.ring(slot),
            now,
            start_sequence=unknown.start,
            store_id=unknown.store_id,
            epoch=unknown.epoch,
            stream_id=unknown.stream_id,
        )
        return True

    def _is_warming(self, key: StreamKey) -> bool:
        return any(key == warming for warming, _, _ in self._warming)

    def _join(self, effect: fx.Join) -> None:
        known = self.streams.slot(effect.key) is not None or self._is_warming(effect.key)
        if not known and len(self.streams) < MAX_STREAMS:
            self._start(effect.key, effect.start, None)

    def _speak(self, effect: fx.Speak) -> None:
        """Only version 1 is understood over there: its topics, from now on."""
        self._version = effect.version
        _LOG.warning("%s speaks schema version %d only", self._endpoints.chunk_rep, effect.version)
        for key in list(self.streams.keys()):
            subscribe(self._live, v1_topic(key))
        for source_id, interval in self._wildcards:
            self._subscribe_all(source_id, interval)

    # -- effects ---------------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        while effects := self.coordinator.take():
            for effect in effects:
                self._deliveries[type(effect)](effect)

    def _ask(self, ask: fx.Ask) -> None:
        self._asked[asking.send(self._requester, ask)] = ask.number

    def _tell(self, effect: fx.Tell) -> None:
        self._notices.put(StateChange(effect.key, effect.state, effect.reason))

    def _warn(self, effect: fx.Warn) -> None:
        assumed = self.assumed_source and f" (no source was given: {self.assumed_source} is the default)"
        _LOG.warning("nothing comes: %s%s", effect.reason, assumed)

    def broke(self, error: FluxError) -> None:
        """Something that belongs to this client failed for good: so does the client."""
        raise error

    def _fail(self, effect: fx.Fail) -> None:
        raise VersionError(effect.reason) if effect.wrong_version else FluxError(effect.reason)

    # -- asked by other threads through `post` ---------------------------------------------------------------

    def resync(self, slot: int) -> None:
        """Fetch a stream anew."""
        if self._keeper is not None:
            self._keeper.forget(self.streams.key(slot))
        self.coordinator.resync(slot, time.monotonic_ns())

    @property
    def counters(self) -> dict[str, int]:
        """What was received and what became of it, since the start, by reason."""
        return self._receiver.counters | {"bounds": self._beyond_bounds}

    def last_refused(self) -> dict[str, str]:
        """Where the last row is that no server numbers."""
        found = self._receiver.last_unsound
        return {} if found is None else {"values": "sequence {1} of {0} ({2})".format(*found)}

    def status(self, slot: int) -> LiveStatus:
        """Where a stream stands."""
        coordinator, ring = self.coordinator, self.streams.ring(slot)
        stream = coordinator.stream(slot)
        now = time.monotonic_ns()
        state, reason = coordinator.state(slot, now)
        since = self._outbox.waiting_since(slot)
        return LiveStatus(
            key=stream.key,
            state=state,
            reason=reason,
            store_id=stream.store_id,
            epoch=stream.epoch,
            delivered=stream.delivered,
            contiguous=ring.contiguous,
            head=coordinator.head(slot),
            duplicates=ring.duplicates,
            conflicts=ring.conflicts,
            beyond=ring.beyond,
            stale=ring.stale,
            consumed=self._outbox.consumed(slot),
            lag_s=0.0 if since is None else (now - since) / 1e9,
        )

    # -- handing over ----------------------------------------------------------------------------------------

    def _warm_up(self) -> None:
        """Hand over cached rows while there is room; a stream whose rows are all out goes on with the
        server.
        """
        while self._warming and self._handover.room():
            key, cursor, pages = self._warming[0]
            batch = next(pages, None)
            if batch is None:
                self._warming.popleft()
                self._start(key, "cache", cursor)
            else:
                self._handover.put(Delivery(batch, Tenure(kept=False), batch.end_sequence))

    def _hand_over(self) -> None:
        self._outbox.hand_over(self._carry_out)
