"""A coordinator with one stream and a clock that is moved by hand, for the tests of its promises."""

from __future__ import annotations

from random import Random
from typing import Any, TypeVar

import numpy as np

from flux.model import Cursor, StreamKey
from flux.protocol.coordinator import Coordinator
from flux.protocol.effects import (
    Ask,
    AskKind,
    Effect,
)
from flux.protocol.replies import (
    Beat,
    Page,
    Reply,
    Status,
)
from tests.unit.plain_ring import PlainRing, arrival
from tests.unit.simulated import MARK, SECOND

KEY = StreamKey("SIM", "BTCUSDT", "1m")
STORE, EPOCH = 7, 1
T = TypeVar("T", bound=Effect)


class Bench:
    """One coordinator, one stream on slot 0, and a clock that is moved by hand."""

    def __init__(
        self, start: str | int | None = None, *, cursor: Cursor | None = None, capacity: int = 64
    ) -> None:
        self.now = 5_000 * SECOND
        self.machine = Coordinator(Random(1))
        self.ring = PlainRing(capacity)
        self.effects: list[Effect] = []
        self.beats = 0
        self.machine.subscribe(KEY, 0, self.ring, start, self.now, cursor)

    def wait(self, ns: int) -> None:
        """Let time pass, ticking when the machine wants it."""
        until = self.now + ns
        while (due := self.machine.next_ns()) is not None and due <= until:
            self.now = max(self.now, due)
            self.machine.tick(self.now)
            self.collect()
        self.now = until
        self.machine.tick(self.now)
        self.collect()

    def collect(self) -> None:
        self.effects += self.machine.take()

    def of(self, kind: type[T]) -> list[T]:
        """The effects of a kind so far; they are forgotten."""
        self.collect()
        found = [effect for effect in self.effects if isinstance(effect, kind)]
        self.effects = [effect for effect in self.effects if not isinstance(effect, kind)]
        return found

    def ask(self) -> Ask:
        """The one request that is due now."""
        self.machine.tick(self.now)
        (ask,) = self.of(Ask)
        return ask

    def answer(self, ask: Ask, reply: Reply) -> None:
        self.machine.answer(ask.number, reply, self.now)
        self.collect()

    def beat(
        self, *marks: tuple[int, int], store_id: int = STORE, epoch: int = EPOCH, boot_id: int = 1
    ) -> None:
        """A heartbeat with marks (stream_id, head)."""
        self.beats += 1
        array = np.zeros(len(marks), MARK)
        array["stream_id"] = [stream_id for stream_id, _ in marks]
        array["latest_sequence"] = [head for _, head in marks]
        self.machine.heartbeat(Beat(store_id, epoch, boot_id, self.beats, 1_000, 0, array), self.now)

    def live(self, start: int, count: int = 1, **fields: Any) -> None:
        """A batch that the receive loop placed."""
        placed = self.ring.place(start, np.arange(start, start + count)).placed
        self.machine.arrivals(arrival(0, start, count, rows=placed, **fields), self.now)

    def join(self, head: int = 0, first: int = 1) -> Bench:
        """Up to the point where the stream is live."""
        self.machine.link_up(self.now)
        self.beat()
        ask = self.ask()
        assert ask.kind is AskKind.STATUS
        self.answer(ask, status(head, first))
        return self

    def deliver(self) -> list[int]:
        """The consumer takes all there is."""
        done = self.machine.stream(0).delivered
        rows: list[int] = self.ring.window(done + 1, self.ring.contiguous).tolist()
        self.machine.delivered(0, self.ring.contiguous, self.now)
        self.collect()
        return rows


def status(head: int, first: int = 1, **fields: int) -> Status:
    return Status(KEY, head, first, **{"store_id": STORE, "epoch": EPOCH, "stream_id": 9, **fields})


def page(start: int, count: int, head: int = 0, **fields: Any) -> Page:
    rows = np.arange(start, start + count)
    return Page(start, rows, **{"store_id": STORE, "epoch": EPOCH, "watermark_sequence": head, **fields})
