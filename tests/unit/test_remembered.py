"""Which runs of feeds are remembered: some of each kind, and of each those that moved last."""

from __future__ import annotations

from pathlib import Path

from flux.journal.records import feed_name, source_begins
from flux.journal.remembered import Order, Sources
from flux.limits import MAX_ROWLESS_RUNS, MAX_RUNS, ONE_LIFE_PLACES, ONE_LIFE_RUNS
from tests.unit.live_server import eventually
from tests.unit.lives import BTC, Life


def named(number: int) -> str:
    return feed_name("SIM", number + 1)


def unnamed(number: int) -> str:
    return feed_name("SIM", ONE_LIFE_RUNS + number)


def test_of_feeds_runs_those_that_moved_last_are_remembered() -> None:
    sources = Sources({"csv:a": (1, 2)})
    for run in range(1, MAX_RUNS + 5):
        sources.note({feed_name("SIM", run): (run, 0), feed_name("SIM", 1): (run, 0)})
        assert sources.full == (run >= MAX_RUNS)
    assert len(sources) == MAX_RUNS + 1
    assert sources["csv:a"] == (1, 2), "files are not forgotten: replayed again they must add nothing"
    assert feed_name("SIM", 1) in sources
    assert feed_name("SIM", 5) not in sources
    assert feed_name("SIM", 6) in sources


def test_what_was_known_is_bounded_too() -> None:
    sources = Sources({unnamed(n): (1, 1) for n in range(3 * MAX_RUNS)})
    assert list(sources) == [unnamed(n) for n in range(2 * MAX_RUNS, 3 * MAX_RUNS)]


def test_a_share_is_for_runs_of_one_process_however_many_durable_ones_there_are() -> None:
    sources = Sources({named(n): (10, 1) for n in range(MAX_RUNS)})
    for n in range(3 * ONE_LIFE_PLACES):
        sources.note({unnamed(n): (0, 1)})
        assert sources[unnamed(n)] == (0, 1)
    assert all(named(n) in sources for n in range(MAX_RUNS)), "no run that others go on with had to go"
    assert len(sources) == MAX_RUNS + ONE_LIFE_PLACES


def test_durable_runs_are_bounded_too() -> None:
    sources = Sources({unnamed(n): (1, 1) for n in range(MAX_RUNS)})
    sources.note({named(n): (1, 1) for n in range(MAX_RUNS + 3)})
    assert [n for n in range(MAX_RUNS + 3) if named(n) not in sources] == [0, 1, 2]
    assert len(sources) == MAX_RUNS + ONE_LIFE_PLACES


def test_runs_without_rows_push_out_few_that_have_rows() -> None:
    for name, kept in ((unnamed, named), (named, unnamed), (unnamed, unnamed)):
        sources = Sources({kept(10**6 + n): (5, 1) for n in range(MAX_RUNS)})
        for n in range(5 * MAX_RUNS):
            sources.note({name(n): (0, 1)})
            assert name(n) in sources
        left = sum(kept(10**6 + n) in sources for n in range(MAX_RUNS))
        assert left >= MAX_RUNS - MAX_ROWLESS_RUNS - 1


def test_the_line_that_a_run_stands_in_changes_with_it() -> None:
    order = Order()
    order.put(named(0), (0, 1))
    order.put(unnamed(0), (0, 1))
    order.put(unnamed(1), (1, 1))
    assert (len(order), order.one_life, order.least()) == (3, 2, named(0))
    order.put(named(0), (1, 1))
    assert order.least() == named(0), "there is a share for the others"
    for n in range(2, ONE_LIFE_PLACES + 1):
        order.put(unnamed(n), (1, 1))
    assert order.least() == unnamed(1)
    order.put(unnamed(1), (2, 1))
    assert order.least() == unnamed(2), "heard of again"
    for n in range(2, ONE_LIFE_PLACES + 1):
        order.drop(unnamed(n))
        order.drop(unnamed(n))
    assert (len(order), order.one_life, order.least()) == (3, 2, named(0))
    order.drop(named(0))
    assert order.least() == unnamed(1)


def test_those_that_moved_last_are_remembered_over_a_restart() -> None:
    """As HEADS has them: the order in which names were first seen says nothing."""
    sources = Sources({"csv:a": (1, 2)} | {unnamed(n): (1, 1) for n in range(MAX_RUNS)})
    sources.note({unnamed(0): (2, 1)})
    again = Sources(Sources(sources.in_order()))
    assert again == sources
    again.note({unnamed(MAX_RUNS): (1, 1)})
    assert unnamed(0) in again
    assert unnamed(1) not in again


def test_a_start_remembers_no_more_than_a_running_server(tmp_path: Path) -> None:
    """A flood leaves records of far more runs in the journal than there are places."""
    with Life(tmp_path) as life:
        for first in range(0, 3 * MAX_RUNS, 256):
            with life._exchange.fill() as filled:
                names = [unnamed(number) for number in range(first, first + 256)]
                for name in names:
                    filled.group.append_source(source_begins(name), (1, 1))
                filled.sources.update(dict.fromkeys(names, (1, 1)))
            eventually(lambda last=first + 255: life.committer.source_position(unnamed(last)) is not None)
            life.write(BTC, 1)
    with Life(tmp_path) as life:
        assert len(life.recovered.sources) == MAX_RUNS + 1
        assert unnamed(3 * MAX_RUNS - 1) in life.recovered.sources
        assert "file:BTC" in life.recovered.sources
