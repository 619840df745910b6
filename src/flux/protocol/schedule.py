"""Who wants a turn when. One due time per entry; looking costs what is due, not what exists."""

from __future__ import annotations

import heapq
from random import Random

from flux.limits import BACKOFF_MAX_MS, BACKOFF_MIN_MS

MS = 1_000_000
"""ns per ms."""


class Schedule:
    """Due times by slot (monotonic ns): a heap whose outdated entries are skipped when they come up."""

    def __init__(self) -> None:
        self._due: dict[int, int] = {}
        self._heap: list[tuple[int, int]] = []

    def by(self, slot: int, due_ns: int) -> None:
        """A turn at `due_ns` at the latest."""
        if self._due.get(slot, due_ns + 1) > due_ns:
            self._due[slot] = due_ns
            heapq.heappush(self._heap, (due_ns, slot))

    def at(self, slot: int, due_ns: int) -> None:
        """The next turn at `due_ns`, not before."""
        if self._due.get(slot) != due_ns:
            self._due[slot] = due_ns
            heapq.heappush(self._heap, (due_ns, slot))

    def drop(self, slot: int) -> None:
        """No turn."""
        self._due.pop(slot, None)

    def pending(self, slot: int) -> bool:
        """A turn is to come."""
        return slot in self._due

    def pop(self, now_ns: int) -> list[int]:
        """Slots whose time has come, earliest first; they are forgotten here."""
        out: list[int] = []
        heap, due = self._heap, self._due
        while heap and heap[0][0] <= now_ns:
            at, slot = heapq.heappop(heap)
            if due.get(slot) == at:
                del due[slot]
                out.append(slot)
        return out

    def next_ns(self) -> int | None:
        """The earliest due time."""
        heap, due = self._heap, self._due
        while heap and due.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None


def backoff_ns(failures: int, random: Random, at_least_ms: int = 0) -> int:
    """Wait after the `failures`-th failure in a row (from 1): 100 ms doubling to 5 s, half of it by
    chance.
    """
    full = min(BACKOFF_MAX_MS, BACKOFF_MIN_MS << min(failures - 1, 16))
    return int(max(full * (0.5 + random.random() / 2), at_least_ms) * MS)
