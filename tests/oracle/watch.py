"""How a stream of somebody else's is accounted for, in plain Python: the specification that runs."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Watched:
    """One stream: a set of the sequences that came, of which the last `window` below the highest can be told."""

    window: int
    came: set[int] = field(default_factory=set)
    first: int = 0
    next: int = 0
    whose: tuple[int, int] | None = None
    missing_before: int = 0
    received: int = 0
    duplicate: int = 0
    reordered: int = 0
    outside: int = 0
    foreign: int = 0
    restarts: int = 0

    def message(self, start: int, count: int, store_id: int = 0, epoch: int = 0) -> int:
        """How many of its rows are new."""
        whose = (store_id, epoch)
        if whose != self.whose:
            if self.whose is not None and (
                whose == (0, 0) or (store_id == self.whose[0] and epoch < self.whose[1])
            ):
                self.foreign += count
                return 0
            if self.whose is not None:
                self.missing_before += self._holes()
                self.restarts += 1
            self.whose, self.came, self.first, self.next = whose, set(), start, start
        oldest, before = max(self.first, self.next - self.window), self.received
        for sequence in range(start, start + count):
            if sequence >= self.next:
                self.received += 1
            elif sequence < oldest:
                self.outside += 1
                continue
            elif sequence in self.came:
                self.duplicate += 1
            else:
                self.received += 1
                self.reordered += 1
            self.came.add(sequence)
        self.next = max(self.next, start + count)
        return self.received - before

    def _holes(self) -> int:
        return self.next - self.first - len(self.came)

    @property
    def missing(self) -> int:
        return self.missing_before + self._holes()
