"""What the load generator sends and how it accounts for it, in plain Python: the specification that runs."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

FIRST_TS_MS = 1_600_000_000_000
MASK = 2**64 - 1


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def intended(rate: int, start_ns: int, k: int) -> int:
    """When message k is intended at a constant rate."""
    return start_ns + k * 10**9 // rate


def due(rate: int, start_ns: int, now_ns: int) -> int:
    """How many messages are intended at or before now: the k's with k * 10**9 // rate <= elapsed."""
    elapsed = now_ns - start_ns
    return 0 if elapsed < 0 else -(-(elapsed + 1) * rate // 10**9)


def ramped(first: int, last: int, flat_ns: int, over_ns: int, ns: int) -> Fraction:
    """Messages that fit under the line of a ramp until `ns`: a flat part, a trapezoid, a flat part."""
    flat = Fraction(min(ns, flat_ns))
    rising = Fraction(min(max(0, ns - flat_ns), over_ns))
    behind = Fraction(max(0, ns - flat_ns - over_ns))
    top = first + (last - first) * rising / over_ns
    return (first * flat + (first + top) / 2 * rising + last * behind) / 10**9


def ramp_due(first: int, last: int, flat_ns: int, over_ns: int, elapsed: int) -> int:
    """How many messages of a ramp are intended at or before `elapsed`: k is, where more than k fit by its end."""
    return -int(-ramped(first, last, flat_ns, over_ns, elapsed + 1) // 1) if elapsed >= 0 else 0


def burst_due(messages: int, period_ns: int, elapsed: int) -> int:
    return (elapsed // period_ns + 1) * messages if elapsed >= 0 else 0


def replay_due(times: list[int], elapsed: int) -> int:
    return sum(time <= elapsed for time in times)


def at_once_due(elapsed: int) -> int:
    """All there ever are, from the start on."""
    return 2**63 - 1 if elapsed >= 0 else 0


def first_ns(due_at: Callable[[int], int], k: int, limit: int) -> int:
    """When message k is intended: the first ns at which it is due, searched for below `limit`."""
    return bisect.bisect_right(range(limit), k, key=due_at)


@dataclass
class Load:
    rate: int
    streams: int
    rows: int
    seed: int
    part: int = 0
    parts: int = 1

    def row(self, stream: int, sequence: int, sent_ns: float) -> tuple[Any, ...]:
        k = self.message(stream, sequence)
        bits = mix((self.seed + 0x9E3779B97F4A7C15 * (sequence * self.streams + stream + 1)) & MASK)
        price = 100.0 + (bits >> 44) / 1024
        prices = (price, price + 1, price - 1, price + 0.5)
        due = float(intended(self.rate, 0, k))
        return (FIRST_TS_MS + sequence * 1000, *prices, sent_ns, due, k % 2**32, 1 + 4 + 32)

    def message(self, stream: int, sequence: int) -> int:
        """The number of the message that carries this sequence."""
        return (sequence - 1) // self.rows * self.streams + stream

    def runs(self, first: int, count: int) -> list[tuple[int, int, list[int]]]:
        """(stream, first sequence, message numbers) of each stream that this part's messages `first` and on touch.

        All are numbers of the run; what the part itself counts from 0 is number // parts.
        """
        touched: dict[int, list[int]] = {}
        for own in range(first, first + count):
            k = own * self.parts + self.part
            touched.setdefault(k % self.streams, []).append(k)
        return [(s, ks[0] // self.streams * self.rows + 1, ks) for s, ks in sorted(touched.items())]


@dataclass
class Tally:
    """By sequence, from whole messages (stream, first sequence): no ring and no window."""

    load: Load
    seen: set[tuple[int, int]] = field(default_factory=set)
    highest: dict[int, int] = field(default_factory=dict)
    duplicate: Counter[int] = field(default_factory=Counter)
    reordered: Counter[int] = field(default_factory=Counter)

    def arrive(self, stream: int, start: int) -> None:
        rows = [(stream, start + i) for i in range(self.load.rows)]
        if rows[0] in self.seen:
            self.duplicate[stream] += len(rows)
            return
        if start < self.highest.get(stream, 0):
            self.reordered[stream] += len(rows)
        self.seen.update(rows)
        self.highest[stream] = max(self.highest.get(stream, 0), rows[-1][1])

    @property
    def received(self) -> int:
        return len(self.seen)

    def received_of(self, stream: int) -> int:
        return sum(of == stream for of, _ in self.seen)

    @property
    def reached(self) -> int:
        return sum(self.highest.values())
