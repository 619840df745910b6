"""The feeds' runs that the receiver knows, by name: how far each was taken, and how far it is committed.

The loop adds; any thread may ask what is committed. Compiled code writes their SOURCE records (`ext/journal.h`), so
it is told how such a record begins.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np

from flux.journal.records import Position, feed_name, source_begins
from flux.journal.remembered import Order
from flux.limits import MAX_REFUSED_LISTED, MAX_RUNS
from flux.model import REFUSED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux.transport.pump import Receiver


_NOTHING: Final = (0, 0)


class Runs:
    """The receiver's table of runs: MAX_RUNS places. The run that goes for a new one is that of the longest silence (no
    row of it came, and nobody asked how far it is) in the line that goes first (`journal.remembered`). The loop adds;
    the committer reports what the journal has; any thread may ask."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._order = Order()
        self._seen: list[int] = []  # rows taken of each run when it was last looked at
        self._asked: list[bool] = []  # whether somebody asked for it since
        self._recorded: list[
            tuple[str, Position]
        ] = []  # by place: what the journal's last record of it by name has
        self._left: dict[
            str, Position
        ] = {}  # lost their place: committed so far, until the journal has their last
        self._leaving = threading.Lock()

    def find(self, source: bytes, run: int) -> int | None:
        """The place of a run that the receiver knows."""
        return self.receiver.kernel.find_run(source, run)

    def hear(self) -> None:
        """Look which runs rows came of, or somebody asked for, since the last time: they go last."""
        for place, (name, seen) in enumerate(zip(self._names, self._seen, strict=True)):
            taken = self.receiver.kernel.run_taken(place)
            if taken != seen or self._asked[place]:
                self._seen[place], self._asked[place] = taken, False
                self._order.put(name, self.taken(place))

    def add(self, source: bytes, run: int, position: Position, owner: int) -> tuple[int, dict[str, Position]]:
        """Its place, where so much of it is known; and how far the run is that had this place before, if any."""
        name = feed_name(source.decode(), run)
        gone: dict[str, Position] = {}
        place = len(self._names)
        if place == MAX_RUNS:
            before = self._order.least()
            place = self._places[before]
            gone[before] = self.taken(place)
            with self._leaving:
                self._left[before] = max(self._left.get(before, _NOTHING), self._committed(before, place))
            self._order.drop(before)
            del self._places[before]
            self._names[place], self._seen[place], self._asked[place] = name, position[0], False
            self._recorded[place] = ("", _NOTHING)
        else:
            self._names.append(name)
            self._seen.append(position[0])
            self._asked.append(False)
            self._recorded.append(("", _NOTHING))
        begins = source_begins(name)
        added = self.receiver.kernel.add_run(source, run, position[0], owner, begins, position[1], place)
        assert added == place
        self._order.put(name, position)
        self._places[name] = place
        return place, gone

    def knows(self, name: str) -> bool:
        """Whether the run has a place, or had it until lately; from any thread."""
        return name in self._places or name in self._left

    def name(self, place: int) -> str:
        return self._names[place]

    def taken(self, place: int) -> Position:
        """How far the receiver has taken it, and from which incarnation of it."""
        return (self.receiver.kernel.run_taken(place), self.receiver.kernel.run_incarnation(place))

    def claim(self, place: int) -> Position:
        """Give it to another process; how far it is, and which incarnation that is."""
        self.receiver.kernel.claim_run(place)
        position = self.taken(place)
        self._order.put(self._names[place], position)
        return position

    def committed(self, name: str) -> Position | None:
        """How far it is in the journal, and which incarnation, as far as this table knows; who asks keeps it here. From
        any thread."""
        place = self._places.get(name)
        if place is not None:
            self._asked[place] = True
        return self._find_committed(name, place)

    def _find_committed(self, name: str, place: int | None) -> Position | None:
        """The same, of a run that had this place a moment ago: places first, then those that left theirs."""
        found = _NOTHING
        if place is not None:
            found = self._committed(name, place)
            if self._places.get(name) != place:  # another has the place now, and it may be another's position
                found = _NOTHING
        found = max(found, self._left.get(name, _NOTHING))
        return None if found == _NOTHING else found

    def _committed(self, name: str, place: int) -> Position:
        rows, incarnation = self.receiver.kernel.run_committed(place)
        of, recorded = self._recorded[place]
        # Where no row was committed since it has its place the kernel's incarnation is one that it was given.
        return max((rows, incarnation) if rows else _NOTHING, recorded if of == name else _NOTHING)

    def recorded(self, sources: Mapping[str, Position]) -> None:
        """The journal has these positions of runs; of the committer's thread."""
        for name, position in sources.items():
            place = self._places.get(name)
            if place is not None:
                self._recorded[place] = (name, position)
            with self._leaving:
                if position >= self._left.get(name, position):
                    self._left.pop(name, None)

    def refused(self, name: str, after: int, upto: int) -> tuple[int, NDArray[np.void]]:
        """(rows of it refused since this server began, the last of those numbered above `after` and at most `upto`:
        REFUSED rows); from any thread."""
        out = np.zeros(MAX_REFUSED_LISTED, REFUSED)
        place = self._places.get(name)
        if place is None:
            return 0, out[:0]
        total, listed = self.receiver.kernel.run_refused(place, after, upto, out.view(np.uint8))
        if self._places.get(name) != place:  # another's
            return 0, out[:0]
        return total, out[:listed]

    def all_committed(self) -> dict[str, Position]:
        """The same as `committed` of every run of which anything is, without keeping it here; from any thread."""
        found = {name: self._find_committed(name, place) for name, place in list(self._places.items())}
        for name in list(self._left):
            found[name] = self._find_committed(name, self._places.get(name))
        return {name: position for name, position in found.items() if position is not None}
