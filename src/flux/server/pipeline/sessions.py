"""The feeds' runs that the receiver knows, by name: how far each was taken, and how far it is committed.

The loop adds; any thread may ask what is committed. Compiled code writes their SOURCE records (`ext/journal.h`), so
it is told how such a record begins.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from flux.journal.records import Position, count_claims, feed_name, source_begins, worth
from flux.limits import MAX_REFUSED_LISTED, MAX_RUNS
from flux.model import REFUSED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux.transport.pump import Receiver


class Runs:
    """The receiver's table of runs: MAX_RUNS places. The run that goes for a new one is that of the longest silence:
    no row of it came, and nobody asked how far it is. Durable runs go last (`records.worth`)."""

    def __init__(self, receiver: Receiver) -> None:
        self.receiver = receiver
        self._names: list[str] = []
        self._places: dict[str, int] = {}
        self._added = 0
        self._seen: list[int] = []  # rows taken of each run when it was last looked at
        self._contact: list[int] = []  # what `_added` was when each run was last heard of
        self._left: dict[
            str, Position
        ] = {}  # lost their place: committed so far, until the journal has their last

    def find(self, source: bytes, run: int) -> int | None:
        """The place of a run that the receiver knows."""
        return self.receiver.kernel.find_run(source, run)

    def add(self, source: bytes, run: int, position: Position, owner: int) -> tuple[int, dict[str, Position]]:
        """Its place, where so much of it is known; and how far the run is that had this place before, if any."""
        name = feed_name(source.decode(), run)
        gone: dict[str, Position] = {}
        self._hear()
        if len(self._names) == MAX_RUNS:
            at = {name: self.taken(place) for name, place in self._places.items()}
            claims = count_claims(at)
            before = min(
                self._names,
                key=lambda name: (worth(name, at[name], claims), self._contact[self._places[name]]),
            )
            place = self._places[before]
            gone[before] = at[before]
            self._left[before] = self.receiver.kernel.run_committed(place)
            del self._places[before]
            self._names[place], self._seen[place], self._contact[place] = name, position[0], self._added
        else:
            place = len(self._names)
            self._names.append(name)
            self._seen.append(position[0])
            self._contact.append(self._added)
        begins = source_begins(name)
        added = self.receiver.kernel.add_run(source, run, position[0], owner, begins, position[1], place)
        assert added == place
        self._added += 1
        self._places[name] = place
        return place, gone

    def _hear(self) -> None:
        """Rows came of these runs since the last run was added."""
        for place, seen in enumerate(self._seen):
            taken = self.receiver.kernel.run_taken(place)
            if taken != seen:
                self._seen[place], self._contact[place] = taken, self._added

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
        return self.taken(place)

    def committed(self, name: str) -> Position | None:
        """How far it is in the journal, as far as this table knows; who asks keeps it here. From any thread."""
        place = self._places.get(name)
        found: Position | None = None
        if place is not None:
            self._contact[place] = self._added
            found = self.receiver.kernel.run_committed(place)
            if self._places.get(name) != place:  # another has the place now, and it may be another's position
                found = None
        if found is None:
            found = self._left.get(name)
        return found if found is not None and found[0] else None

    def settled(self, names: Iterable[str]) -> None:
        """The journal has where these runs were when they lost their place; of the committer's thread."""
        for name in names:
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
        """The same of every run of which rows were committed; from any thread."""
        found = dict(self._left)
        found |= {
            name: self.receiver.kernel.run_committed(place) for name, place in list(self._places.items())
        }
        return {name: position for name, position in found.items() if position[0]}
