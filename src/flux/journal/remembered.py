"""Which runs of feeds are remembered, and which of them go first where there are too many.

Runs stand in four lines, in each by how long ago they were heard of:

    claimed      durable, without rows: a claim costs one request, so from a quarter of the places on they go first
    registered   of one process, without rows: the same
    one-life     of one process, with rows: they end with their feed, and go next; but a share of the places is kept for
                 runs of one process, so that a feed can begin however many durable runs there are
    durable      with rows: they go last

No call takes longer where there are more of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

from flux.journal.records import FEED, Position, is_durable
from flux.limits import MAX_ROWLESS_RUNS, MAX_RUNS, ONE_LIFE_PLACES

_CLAIMED: Final = 0
_REGISTERED: Final = 1
_ONE_LIFE: Final = 2
_DURABLE: Final = 3


def _line_of(name: str, position: Position) -> int:
    if is_durable(name, position):
        return _DURABLE if position[0] else _CLAIMED
    return _ONE_LIFE if position[0] else _REGISTERED


class Order:
    """Names of runs in the order in which they go. Used by one thread."""

    def __init__(self) -> None:
        self._lines: tuple[dict[str, None], ...] = ({}, {}, {}, {})
        self._line: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._line)

    def __iter__(self) -> Iterator[str]:
        """Of each line in the order in which they were put there."""
        return chain(*self._lines)

    @property
    def one_life(self) -> int:
        """How many are of one process."""
        return len(self._lines[_REGISTERED]) + len(self._lines[_ONE_LIFE])

    def put(self, name: str, position: Position) -> None:
        """It was heard of just now, and is so far: of its line it goes last."""
        self.drop(name)
        line = self._line[name] = _line_of(name, position)
        self._lines[line][name] = None

    def drop(self, name: str) -> None:
        """It is here no more, if it was."""
        line = self._line.pop(name, None)
        if line is not None:
            del self._lines[line][name]

    def least(self) -> str:
        """The one that goes first, of at least one."""
        claimed, registered, one_life, durable = self._lines
        if len(claimed) > MAX_ROWLESS_RUNS:
            line = claimed
        elif self.one_life > ONE_LIFE_PLACES:
            line = registered if len(registered) > MAX_ROWLESS_RUNS or not one_life else one_life
        else:
            line = claimed or durable or one_life or registered
        return next(iter(line))


class Sources(dict[str, Position]):
    """Positions of sources by name. Of feeds' runs MAX_RUNS are remembered, and up to ONE_LIFE_PLACES of one process
    beside as many durable ones; files are never forgotten: replayed again they must add nothing. One thread calls
    `note`, any thread may look a name up."""

    def __init__(self, known: Mapping[str, Position]) -> None:
        super().__init__()
        self._order = Order()
        self.note(known.in_order() if isinstance(known, Sources) else known)

    @property
    def full(self) -> bool:
        """Whether a run may have been forgotten."""
        return len(self._order) >= MAX_RUNS

    def in_order(self) -> dict[str, Position]:
        """All of them; of runs those come last that moved last. Of the thread that notes."""
        files = {name: position for name, position in self.items() if not name.startswith(FEED)}
        return files | {name: self[name] for name in self._order}

    def note(self, moved: Mapping[str, Position]) -> None:
        """Where sources have moved to."""
        for name, position in moved.items():
            self[name] = position
            if name.startswith(FEED):
                self._order.put(name, position)
                while self._too_many():
                    least = self._order.least()
                    self._order.drop(least)
                    del self[least]

    def _too_many(self) -> bool:
        runs, one_life = len(self._order), self._order.one_life
        return runs - one_life > MAX_RUNS or (runs > MAX_RUNS and one_life > ONE_LIFE_PLACES)
