"""The histogram again in plain Python: the specification that runs.

Values are kept as they are; a slot is arithmetic on the value alone, a percentile is a place in the sorted
list.
"""

from __future__ import annotations

import math
from fractions import Fraction

HIGHEST_NS = 100 * 10**9


def slot_of(value: int) -> tuple[int, int]:
    """(lowest, highest) value that shares a slot with `value`: 11 significant bits are told apart."""
    width = 1 << max(0, value.bit_length() - 11)
    lowest = value // width * width
    return lowest, lowest + width - 1


class Histogram:
    def __init__(self) -> None:
        self.values: list[int] = []
        self.refused = 0

    def record(self, value: float) -> None:
        if math.isfinite(value) and 0 <= value < 2**63:
            self.values.append(int(value))
        else:
            self.refused += 1

    @property
    def over(self) -> int:
        return sum(value > HIGHEST_NS for value in self.values)

    def recorded(self) -> list[tuple[int, int]]:
        counts: dict[int, int] = {}
        for value in sorted(self.values):
            if value <= HIGHEST_NS:
                lowest = slot_of(value)[0]
                counts[lowest] = counts.get(lowest, 0) + 1
        return list(counts.items())

    def percentile(self, at: float) -> int:
        if not self.values:
            return 0
        rank = max(1, int(at * len(self.values) / 100 + 0.5))
        value = sorted(self.values)[rank - 1]
        if value > HIGHEST_NS:
            return max(self.values)
        return slot_of(value)[1 if at > 0 else 0]

    @property
    def mean(self) -> float:
        return float(Fraction(sum(self.values), len(self.values))) if self.values else 0.0
