"""A server, a network that loses, repeats, reorders and delays, and a client around a coordinator, in virtual
time.

One seed decides everything. The consumer's log is checked while it is written: each sequence once and in
order, what is missing told by a gap, what is void told by a rewind.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import numpy as np

from flux.model import Cursor, StreamKey
from flux.protocol import effects as fx
from flux.protocol.coordinator import OTHER_EPOCH, PLACED, Coordinator
from flux.protocol.replies import Beat, Page, PageStatus, Refusal, RefusalStatus, Reply, Status, TimedOut
from flux.protocol.stream_state import JOINING, StreamState
from tests.unit.plain_ring import ARRIVAL, PlainRing, arrival

MS = 1_000_000
SECOND = 1_000 * MS
MARK = np.dtype(
    [("latest_sequence", "<u8"), ("latest_ts_ms", "<i8"), ("stream_id", "<u4"), ("reserved", "<u4")]
)


class World:
    """Virtual time."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 1_000 * SECOND
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def after(self, delay_ns: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + delay_ns, next(self._order), act))

    def run(self, until_ns: int, client: Client) -> None:
        """Let time pass; the client's own timers stand among the events."""
        while True:
            event = self._events[0][0] if self._events else until_ns + 1
            timer = client.coordinator.next_ns()
            at = min(event, max(timer, self.now) if timer is not None else until_ns + 1)
            if at > until_ns:
                break
            self.now = at
            if event <= at:
                heapq.heappop(self._events)[2]()
            client.turn()
        self.now = until_ns


@dataclass
class Faults:
    """How bad the network is."""

    drop: float = 0.0
    duplicate: float = 0.0
    delay_ms: float = 0.1
    jitter_ms: float = 0.0


@dataclass
class Server:
    """Streams of numbers that are never the same twice, so that a row of a lost epoch cannot pass for its
    successor.
    """

    world: World
    store_id: int = 7
    epoch: int = 1
    boot_id: int = 1
    up: bool = True
    ends: dict[int, dict[StreamKey, int]] = field(default_factory=dict)
    rows: dict[StreamKey, dict[int, int]] = field(default_factory=dict)
    first: dict[StreamKey, int] = field(default_factory=dict)
    holes: dict[StreamKey, tuple[int, int]] = field(default_factory=dict)
    value: int = 0
    beats: int = 0
    asked: int = 0

    def head(self, key: StreamKey) -> int:
        return max(self.rows[key], default=0)

    def stream_id(self, key: StreamKey) -> int:
        return 1 + list(self.rows).index(key)

    def produce(self, key: StreamKey, count: int) -> tuple[int, np.ndarray]:
        start = self.head(key) + 1
        values = np.arange(self.value + 1, self.value + 1 + count)
        self.value += count
        self.rows[key].update(zip(range(start, start + count), values.tolist(), strict=True))
        return start, values

    def restart(self, lose: int = 0) -> None:
        """Come back; with rows lost the epoch ends."""
        self.boot_id += 1
        if lose:
            for rows in self.rows.values():
                for sequence in range(max(rows, default=0), max(1, max(rows, default=0) - lose), -1):
                    del rows[sequence]
            self.ends[self.epoch] = {key: self.head(key) for key in self.rows}
            self.epoch += 1

    def answer(self, ask: fx.Ask) -> Reply:
        self.asked += 1
        key = ask.key
        assert key is not None
        if key not in self.rows:
            return Refusal("unknown stream", 404, RefusalStatus.NOT_FOUND)
        head, first = self.head(key), self.first.get(key, 1)
        if ask.kind is fx.AskKind.STATUS:
            return Status(key, head, first, self.store_id, self.epoch, self.stream_id(key))
        base = Page(0, np.zeros(0, np.int64), PageStatus.OK, self.store_id, self.epoch, first, head)

        def but(status: PageStatus, available: int = first, end: int = 0) -> Page:
            return Page(0, base.rows, status, self.store_id, self.epoch, available, head, end)

        if ask.epoch != self.epoch:
            ends = [self.ends[e][key] for e in range(ask.epoch, self.epoch) if key in self.ends.get(e, {})]
            return but(PageStatus.EPOCH_ENDED, end=min(ends))
        if ask.from_sequence > head:
            return but(PageStatus.CURSOR_AHEAD)
        if ask.from_sequence + 1 < first:
            return but(PageStatus.RETENTION_EXCEEDED)
        hole = self.holes.get(key, (0, -1))
        if hole[0] <= ask.from_sequence + 1 <= hole[1]:
            return but(PageStatus.HOLE, available=hole[1] + 1)
        last = min(ask.to_sequence or head, head, ask.from_sequence + ask.limit)
        if ask.from_sequence < hole[0]:
            last = min(last, hole[0] - 1)
        values = [self.rows[key][s] for s in range(ask.from_sequence + 1, last + 1)]
        return Page(
            ask.from_sequence + 1,
            np.array(values, np.int64),
            PageStatus.OK,
            self.store_id,
            self.epoch,
            first,
            head,
        )

    def beat(self) -> Beat:
        self.beats += 1
        marks = np.zeros(len(self.rows), MARK)
        marks["latest_sequence"] = [self.head(key) for key in self.rows]
        marks["stream_id"] = [self.stream_id(key) for key in self.rows]
        return Beat(self.store_id, self.epoch, self.boot_id, self.beats, 1_000, 0, marks)


class Consumer:
    """What a consumer has seen of one stream, checked as it comes."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.rows: dict[int, int] = {}
        self.lost: list[tuple[int, int, str]] = []

    def take(self, first: int, values: np.ndarray) -> None:
        assert self.last is None or first == self.last + 1, f"{first} after {self.last}"
        self.rows.update(zip(range(first, first + len(values)), values.tolist(), strict=True))
        self.last = first + len(values) - 1

    def gap(self, first: int, last: int, reason: str) -> None:
        assert self.last is None or first == self.last + 1, f"gap {first}..{last} after {self.last}"
        assert last >= first
        self.lost.append((first, last, reason))
        self.last = last

    def rewind(self, to: int) -> None:
        assert self.last is not None
        assert to < self.last
        self.rows = {sequence: row for sequence, row in self.rows.items() if sequence <= to}
        self.last = to


class Client:
    """The driver's part: rings, expected epochs, the hand-over to consumers at their pace."""

    def __init__(self, world: World, server: Server, faults: Faults, capacity: int = 64) -> None:
        self.world, self.server, self.faults, self.capacity = world, server, faults, capacity
        self.consumers: dict[StreamKey, Consumer] = {}
        self.joined: dict[
            StreamKey, int
        ] = {}  # the server's head when the stream had joined for the first time
        self.pace = 10**9  # rows per turn that a consumer takes
        self.states: list[tuple[StreamKey, StreamState]] = []
        self.failed = ""
        self.linked = False
        self.generation = 0
        self.asks_sent = 0
        self._fresh()

    def _fresh(self) -> None:
        self.coordinator = Coordinator(Random(self.world.random.random()), max_asks=4)
        self.rings: dict[int, PlainRing] = {}
        self.keys: dict[int, StreamKey] = {}
        self.expected: dict[int, tuple[int, int]] = {}
        self.offered: set[int] = set()
        self.generation += 1

    def follow(self, key: StreamKey, start: str | int | None, cursor: Cursor | None = None) -> int:
        slot = len(self.rings)
        self.rings[slot], self.keys[slot], self.expected[slot] = PlainRing(self.capacity), key, (0, 0)
        self.consumers.setdefault(key, Consumer())
        self.coordinator.subscribe(key, slot, self.rings[slot], start, self.world.now, cursor)
        return slot

    def restart(self) -> None:
        """Killed and started again from cursors that lag behind what was handled."""
        cursors = {}
        for slot, key in self.keys.items():
            consumer, stream = self.consumers[key], self.coordinator.stream(slot)
            if consumer.last is None or stream.epoch == 0:
                continue
            handled = max(min(consumer.rows, default=1) - 1, consumer.last - self.world.random.randrange(30))
            if handled < consumer.last:
                consumer.rewind(handled)
            consumer.lost = [(a, min(b, handled), why) for a, b, why in consumer.lost if a <= handled]
            cursors[key] = Cursor(stream.store_id, stream.epoch, handled)
        keys = list(self.keys.values())
        self._fresh()
        for key in keys:
            self.follow(key, "cache", cursors.get(key))
        if self.linked:
            self.coordinator.link_up(self.world.now)

    def link(self, up: bool) -> None:
        self.linked = up
        (self.coordinator.link_up if up else self.coordinator.link_down)(self.world.now)

    # -- the network -----------------------------------------------------------------------------------------

    def _delay(self) -> int:
        faults = self.faults
        return int((faults.delay_ms + faults.jitter_ms * self.world.random.random() ** 3) * MS)

    def publish(self, deliver: Callable[[], None]) -> None:
        """A message on the live socket: it may be lost, come twice, or late."""
        if not self.linked or self.world.random.random() < self.faults.drop:
            return
        self.world.after(self._delay(), deliver)
        if self.world.random.random() < self.faults.duplicate:
            self.world.after(self._delay(), deliver)

    def live(self, key: StreamKey, start: int, values: np.ndarray) -> None:
        source, generation = (self.server.store_id, self.server.epoch), self.generation

        def come() -> None:
            slot = next((s for s, k in self.keys.items() if k == key), None)
            if slot is None or not self.linked or generation != self.generation:
                return
            outcome = PLACED if self.expected[slot] == source else OTHER_EPOCH
            rows = self.rings[slot].place(start, values).placed if outcome == PLACED else 0
            batch = arrival(slot, start, len(values), outcome=outcome, rows=rows)
            assert batch.dtype == ARRIVAL
            self.coordinator.arrivals(batch, self.world.now)

        self.publish(come)

    def beat(self) -> None:
        beat, generation = self.server.beat(), self.generation
        self.publish(
            lambda: (
                generation == self.generation
                and self.linked
                and self.coordinator.heartbeat(beat, self.world.now)
            )
        )

    def _ask(self, ask: fx.Ask) -> None:
        self.asks_sent += 1
        coordinator, random = self.coordinator, self.world.random

        def lost() -> None:
            coordinator.answer(ask.number, TimedOut(), self.world.now)

        def served() -> None:
            if not self.server.up:
                return
            reply = self.server.answer(ask)
            if random.random() >= self.faults.drop:
                self.world.after(self._delay(), lambda: coordinator.answer(ask.number, reply, self.world.now))

        self.world.after(2 * SECOND, lost)
        if random.random() >= self.faults.drop:
            self.world.after(self._delay(), served)

    # -- effects ---------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Tick, carry out the effects, let the consumers take what they want."""
        self.coordinator.tick(self.world.now)
        while True:
            for effect in self.coordinator.take():
                self._carry_out(effect)
            if not self._hand_over():
                break
        for slot, key in self.keys.items():
            if key not in self.joined and self.coordinator.stream(slot).phase is not JOINING:
                self.joined[key] = self.server.head(key)

    def _carry_out(self, effect: fx.Effect) -> None:
        if isinstance(effect, fx.Ask):
            self._ask(effect)
        elif isinstance(effect, fx.Deliver):
            assert effect.to_sequence >= effect.from_sequence
            self.offered.add(effect.slot)
        elif isinstance(effect, fx.DeliverGap):
            gap = effect.gap
            self.consumers[gap.key].gap(gap.first_sequence, gap.last_sequence, gap.reason)
        elif isinstance(effect, fx.Rewind):
            self.consumers[effect.key].rewind(effect.to_sequence)
        elif isinstance(effect, fx.SetAside):
            self.consumers[effect.key] = Consumer()
        elif isinstance(effect, fx.SetExpected):
            self.expected[effect.slot] = (effect.store_id, effect.epoch)
        elif isinstance(effect, fx.Tell):
            self.states.append((effect.key, effect.state))
        elif isinstance(effect, fx.Fail):
            self.failed = effect.reason

    def _hand_over(self) -> bool:
        moved = False
        for slot in sorted(self.offered):
            ring, done = self.rings[slot], self.coordinator.stream(slot).delivered
            upto = min(ring.contiguous, done + self.pace)
            if upto > done:
                self.consumers[self.keys[slot]].take(done + 1, ring.window(done + 1, upto))
                self.coordinator.delivered(slot, upto, self.world.now)
                moved = True
            if upto == ring.contiguous:
                self.offered.discard(slot)
        return moved and self.pace > 1_000
