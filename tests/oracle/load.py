"""What the load generator sends and how it accounts for it, in plain Python: the specification that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.oracle.histogram import intended

FIRST_TS_MS = 1_600_000_000_000
MASK = 2**64 - 1


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


@dataclass
class Load:
    rate: int
    streams: int
    rows: int
    seed: int

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
        """(stream, first sequence, message numbers) of each stream that messages `first` and on touch."""
        touched: dict[int, list[int]] = {}
        for k in range(first, first + count):
            touched.setdefault(k % self.streams, []).append(k)
        return [(s, ks[0] // self.streams * self.rows + 1, ks) for s, ks in sorted(touched.items())]


@dataclass
class Tally:
    """By sequence, from whole messages (stream, first sequence): no ring and no window."""

    load: Load
    seen: set[tuple[int, int]] = field(default_factory=set)
    highest: dict[int, int] = field(default_factory=dict)
    duplicate: int = 0
    reordered: int = 0

    def arrive(self, stream: int, start: int) -> None:
        rows = [(stream, start + i) for i in range(self.load.rows)]
        if rows[0] in self.seen:
            self.duplicate += len(rows)
            return
        if start < self.highest.get(stream, 0):
            self.reordered += len(rows)
        self.seen.update(rows)
        self.highest[stream] = max(self.highest.get(stream, 0), rows[-1][1])

    @property
    def received(self) -> int:
        return len(self.seen)

    @property
    def reached(self) -> int:
        return sum(self.highest.values())
