"""A ring in plain Python for the coordinator's tests: a dict of rows and the rules of the real one, said
slowly.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ARRIVAL = np.dtype(
    [
        ("stream", "<u4"),
        ("rows", "<u4"),
        ("start", "<u8"),
        ("store_id", "<u8"),
        ("epoch", "<u4"),
        ("outcome", "<u2"),
        ("count", "<u4"),
    ]
)
"""The fields of an arrival that the coordinator reads."""


FREE = 2**64 - 1
"""`keep` of a ring that may evict whatever is contiguous, as it is made."""


class Placed(NamedTuple):
    placed: int


class PlainRing:
    """Rows are int64 numbers."""

    def __init__(self, capacity: int = 16) -> None:
        self.capacity = capacity
        self.conflicts = 0
        self.keep = FREE
        self.reset(1)

    def reset(self, first: int) -> None:
        self.first = first
        self.rows: dict[int, int] = {}
        self._top = 0
        self.contiguous = first - 1
        if self.keep != FREE:
            self.keep = first - 1

    def skip(self, first: int) -> None:
        self.rows = {sequence: row for sequence, row in self.rows.items() if sequence >= first}
        self.first = first
        self.contiguous = max(self.contiguous, first - 1)
        self._advance()

    @property
    def top(self) -> int:
        return max(self._top, self.contiguous)

    def place(self, start: int, rows: Any) -> Placed:
        placed = 0
        for sequence, row in enumerate(rows.tolist(), start):
            if sequence in self.rows:
                self.conflicts += self.rows[sequence] != row
            elif sequence > self.contiguous and sequence <= min(self.keep, self.contiguous) + self.capacity:
                self.rows[sequence] = row
                self._top = max(self._top, sequence)
                placed += 1
                self._advance()
        return Placed(placed)

    def _advance(self) -> None:
        while self.contiguous + 1 in self.rows:
            self.contiguous += 1
        for sequence in range(self.first, min(self.keep, self.contiguous - self.capacity) + 1):
            del self.rows[sequence]
            self.first = sequence + 1

    def window(self, first: int, last: int) -> NDArray[np.int64]:
        return np.array([self.rows[s] for s in range(first, last + 1)], np.int64)

    def gaps(self) -> NDArray[np.uint64]:
        out, missing = [], self.contiguous + 1
        for sequence in sorted(s for s in self.rows if s > self.contiguous):
            if sequence > missing:
                out.append((missing, sequence - 1))
            missing = sequence + 1
        return np.array(out, np.uint64).reshape(-1, 2)


def arrival(slot: int, start: int, count: int, *, outcome: int = 0, rows: int | None = None) -> NDArray[Any]:
    """One arrival as the receive loop reports it."""
    out = np.zeros(1, ARRIVAL)
    out["stream"], out["start"], out["count"], out["outcome"] = slot, start, count, outcome
    out["rows"] = count if rows is None else rows
    return out
