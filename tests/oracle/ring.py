"""The ring in plain Python, row by row: the specification of ext/ring.h."""

from __future__ import annotations

MAX_SEQUENCE = 2**63 - 1
FREE = 2**64 - 1


class Ring:
    def __init__(self, capacity: int, first: int = 1) -> None:
        self.capacity = capacity
        self.keep = FREE
        self.duplicates = self.conflicts = self.beyond = self.stale = 0
        self.reset(first)

    def reset(self, first: int) -> None:
        self.rows: dict[int, bytes] = {}
        self.first = first
        self.contiguous = first - 1
        if self.keep != FREE:
            self.keep = first - 1

    @property
    def top(self) -> int:
        return max(self.rows, default=self.contiguous)

    def place(self, start: int, rows: list[bytes]) -> tuple[int, int, int, int, int]:
        before = (self.duplicates, self.conflicts, self.beyond, self.stale)
        placed = sum(self._place_one(start + i, row) for i, row in enumerate(rows))
        after = (self.duplicates, self.conflicts, self.beyond, self.stale)
        duplicates, conflicts, beyond, stale = (new - old for new, old in zip(after, before, strict=True))
        return placed, duplicates, conflicts, beyond, stale

    def _place_one(self, sequence: int, row: bytes) -> bool:
        if sequence < self.first:
            self.stale += 1
        elif sequence in self.rows:
            if self.rows[sequence] == row:
                self.duplicates += 1
            else:
                self.conflicts += 1
        elif sequence > self._limit(sequence):
            self.beyond += 1
        else:
            self.rows[sequence] = row
            self._drop_below(max(self.first, sequence - self.capacity + 1))
            self._advance()
            return True
        return False

    def _limit(self, sequence: int) -> int:
        floor = max(self.keep, self.first - 1)
        if sequence != self.contiguous + 1:
            floor = min(floor, self.contiguous)
        return min(floor + self.capacity, MAX_SEQUENCE)

    def _drop_below(self, first: int) -> None:
        self.first = first
        self.rows = {sequence: row for sequence, row in self.rows.items() if sequence >= first}

    def _advance(self) -> None:
        self.contiguous = max(self.contiguous, self.first - 1)
        while self.contiguous + 1 in self.rows:
            self.contiguous += 1

    def skip(self, first: int) -> None:
        if first > self.first:
            self._drop_below(first)
            self._advance()

    def window(self, first: int, last: int) -> list[bytes]:
        if first < self.first:
            return []
        return [self.rows[sequence] for sequence in range(first, min(last, self.contiguous) + 1)]

    def gaps(self) -> list[tuple[int, int]]:
        out: list[tuple[int, int]] = []
        last = self.contiguous
        for sequence in sorted(s for s in self.rows if s > self.contiguous):
            if sequence > last + 1:
                out.append((last + 1, sequence - 1))
            last = sequence
        return out
