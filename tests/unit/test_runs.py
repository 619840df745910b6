"""The receiver's table of runs: who goes for a new one, and what is committed of those that are just losing a place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flux.journal.records import Position, feed_name
from flux.limits import MAX_ROWLESS_RUNS, MAX_RUNS, ONE_LIFE_PLACES, ONE_LIFE_RUNS
from flux.server.pipeline.sessions import Runs
from flux.transport.pump import Receiver, Streams


def unnamed(number: int) -> str:
    return feed_name("SIM", ONE_LIFE_RUNS + number)


class Table:
    """A full table of runs that have rows; the kernel says what is `committed` of the run that has a place."""

    def __init__(self, rows: int = 1) -> None:
        self.runs = Runs(Receiver(None, Streams(), server=True))
        self.committed: dict[str, Position] = {}
        self.looked: Callable[[], None] = lambda: None
        self._kernel: Any = self.runs.receiver.kernel
        for number in range(MAX_RUNS):
            self.add(number, rows)
        self.runs.receiver = self  # type: ignore[assignment]  # its kernel

    @property
    def kernel(self) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def run_committed(self, place: int) -> Position:
        looked, self.looked = self.looked, lambda: None
        looked()
        return self.committed.get(self.runs.name(place), (0, 0))

    def add(self, number: int, rows: int = 1) -> dict[str, Position]:
        return self.runs.add(b"SIM", ONE_LIFE_RUNS + number, (rows, 1), 1)[1]


def test_the_run_of_the_longest_silence_goes() -> None:
    table = Table()
    table.runs.committed(unnamed(0))
    assert table.runs.committed(unnamed(1)) is None
    table.runs.hear()
    assert table.add(MAX_RUNS) == {unnamed(2): (1, 1)}
    table.runs.committed(unnamed(3))
    table.runs.hear()
    assert table.add(MAX_RUNS + 1) == {unnamed(4): (1, 1)}


def test_registrations_push_out_few_runs_that_have_rows() -> None:
    table = Table()
    for number in range(3 * MAX_RUNS):
        table.add(MAX_RUNS + number, 0)
    assert sum(table.runs.knows(unnamed(n)) for n in range(MAX_RUNS)) >= MAX_RUNS - MAX_ROWLESS_RUNS - 1


def test_there_are_places_for_runs_of_one_process_among_durable_ones() -> None:
    runs = Runs(Receiver(None, Streams(), server=True))
    for number in range(MAX_RUNS):
        runs.add(b"SIM", number + 1, (5, 1), 1)
    for number in range(ONE_LIFE_PLACES):
        runs.add(b"SIM", ONE_LIFE_RUNS + number, (0, 1), 1)
    assert all(runs.knows(unnamed(number)) for number in range(ONE_LIFE_PLACES))


def test_a_run_that_is_just_losing_its_place_is_committed_as_far_as_it_was() -> None:
    """Its place is another's by the time that it is looked at: what stands there is not its."""
    table = Table()
    table.committed = {unnamed(0): (500, 1), unnamed(MAX_RUNS): (7, 1)}
    assert table.runs.all_committed() == {unnamed(0): (500, 1)}

    def leaves() -> None:
        assert unnamed(0) in table.add(MAX_RUNS)

    table.looked = leaves
    assert table.runs.all_committed()[unnamed(0)] == (500, 1)
    assert table.runs.all_committed() == table.committed
    assert table.runs.committed(unnamed(0)) == (500, 1)


def test_a_run_that_loses_its_place_before_it_is_looked_at_is_not_missed() -> None:
    """It leaves after those that left were read, were they read first."""
    table = Table()
    table.committed = {unnamed(0): (500, 1)}

    class Left(dict[str, Position]):
        def __iter__(self) -> Any:
            found = list(super().__iter__())
            if not found:
                table.add(MAX_RUNS)
            return iter(found)

        keys = __iter__  # type: ignore[assignment]  # as dict() asks

    table.runs._left = Left()
    assert table.runs.all_committed()[unnamed(0)] == (500, 1)


def test_what_is_committed_of_a_run_never_goes_back_when_it_comes_again() -> None:
    """It has another place, of which no row is committed yet, and the journal gets its records one after another."""
    table = Table()
    table.committed = {unnamed(0): (500, 1)}
    gone = table.add(MAX_RUNS)
    table.add(0, 500)
    table.committed = {}
    assert table.runs.committed(unnamed(0)) == (500, 1)
    table.runs.recorded({unnamed(0): (20, 1)})
    assert table.runs.committed(unnamed(0)) == (500, 1), "an older record of it"
    for number in range(1, MAX_RUNS + 1):
        table.add(MAX_RUNS + number)
    assert table.runs.committed(unnamed(0)) == (500, 1), "without a place again"
    table.runs.recorded({unnamed(0): (500, 1)})
    assert not table.runs.knows(unnamed(0))
    assert gone == {unnamed(0): (1, 1)}


def test_a_run_that_has_a_place_is_claimed_as_the_journal_has_it() -> None:
    table = Table()
    place = table.runs.find(b"SIM", ONE_LIFE_RUNS)
    assert place is not None
    position = table.runs.claim(place)
    assert table.runs.committed(unnamed(0)) is None, "the journal does not have it yet"
    table.runs.recorded({unnamed(0): position})
    assert table.runs.committed(unnamed(0)) == position == (1, 2)
    table.committed = {unnamed(0): (9, 2)}
    assert table.runs.committed(unnamed(0)) == (9, 2)
