"""What a server takes of a feed's run, in plain Python: the specification of `flux_take` in ext/take.h."""

from __future__ import annotations

from collections.abc import Sequence


class Run:
    """Rows of one run, numbered from 1 by the feed: each is taken once, in order, whatever is sent how often."""

    def __init__(self, taken: int = 0) -> None:
        self.taken = taken
        self.rows: list[bytes] = []
        self.ahead = self.resent = 0

    def message(self, start: int, rows: Sequence[bytes]) -> None:
        """A message is dropped whole when it leaves rows out; of an overlapping one the rest is taken."""
        if start > self.taken + 1:
            self.ahead += len(rows)
            return
        fresh = rows[self.taken + 1 - start :]
        self.resent += len(rows) - len(fresh)
        self.taken += len(fresh)
        self.rows += fresh
