"""Numbering again: which sequences the admitted rows get. No socket, no clock, no file.

It numbers rows as runs at head + 1, all streams of a turn in a few array operations.
Sequences are dense from 1 for the life of a stream; a new epoch goes on
behind the surviving head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flux.model import MAX_SEQUENCE, RUN

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Sequencer:
    """Heads by slot, and the rule by which they move."""

    def __init__(self) -> None:
        self._heads = np.zeros(64, np.uint64)
        self._count = 0

    def add(self, head: int) -> None:
        """The next slot, whose last sequence is `head` (0 = a stream without rows)."""
        if self._count == len(self._heads):
            self._heads = np.concatenate([self._heads, np.zeros_like(self._heads)])
        self._heads[self._count] = head
        self._count += 1

    def head(self, slot: int) -> int:
        """The last sequence given to a row of this stream."""
        return int(self._heads[slot])

    def number(self, arrivals: NDArray[np.void]) -> NDArray[np.void]:
        """Runs (RUN records sorted by stream, in order of arrival within one) for the arrivals that brought
        rows.
        """
        kept = arrivals[arrivals["rows"] > 0]
        kept = kept[np.argsort(kept["stream"], kind="stable")]
        runs = np.zeros(len(kept), RUN)
        if len(kept) == 0:
            return runs
        for name in ("stream", "rows", "at", "origin_ns"):
            runs[name] = kept[name]
        slots, rows = kept["stream"], kept["rows"].astype(np.uint64)
        begins = np.flatnonzero(np.concatenate([[True], slots[1:] != slots[:-1]]))
        before = np.cumsum(rows) - rows
        within = before - np.repeat(before[begins], np.diff(np.append(begins, len(kept))))
        runs["first"] = self._heads[slots] + 1 + within
        self._heads[slots[begins]] += np.add.reduceat(rows, begins)
        assert int(self._heads[slots[begins]].max()) <= MAX_SEQUENCE
        return runs
