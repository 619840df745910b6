"""Due times by slot, and pauses after failures."""

from __future__ import annotations

from random import Random

import pytest

from flux.limits import BACKOFF_MAX_MS, BACKOFF_MIN_MS
from flux.protocol.schedule import MS, Schedule, backoff_ns


def test_those_whose_time_has_come_come_once_and_the_earliest_first() -> None:
    schedule = Schedule()
    for slot, due in ((3, 30), (1, 10), (2, 20)):
        schedule.by(slot, due)
    assert schedule.next_ns() == 10
    assert schedule.pop(9) == []
    assert schedule.pop(20) == [1, 2]
    assert (schedule.pending(2), schedule.pending(3), schedule.next_ns()) == (False, True, 30)
    assert schedule.pop(99) == [3]
    assert (schedule.pop(99), schedule.next_ns()) == ([], None)


def test_by_moves_a_turn_forward_and_at_either_way() -> None:
    schedule = Schedule()
    schedule.by(1, 20)
    schedule.by(1, 30)
    assert schedule.next_ns() == 20
    schedule.by(1, 10)
    assert schedule.next_ns() == 10
    schedule.at(1, 40)
    assert (schedule.next_ns(), schedule.pop(39)) == (40, [])
    schedule.at(1, 5)
    assert schedule.pop(5) == [1]
    assert (schedule.pop(99), schedule.next_ns()) == ([], None), "what it was moved from is no turn"


def test_a_turn_that_is_dropped_does_not_come() -> None:
    schedule = Schedule()
    schedule.by(1, 10)
    schedule.by(2, 20)
    schedule.drop(1)
    schedule.drop(7)
    assert (schedule.pending(1), schedule.next_ns(), schedule.pop(99)) == (False, 20, [2])
    schedule.by(1, 10)
    assert schedule.pop(99) == [1]


@pytest.mark.parametrize("failures", [1, 2, 3, 6, 7, 17, 18, 1_000])
def test_pauses_double_up_to_a_bound_and_half_of_each_is_chance(failures: int) -> None:
    full = min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** (failures - 1)) * MS
    random = Random(5)
    pauses = [backoff_ns(failures, random) for _ in range(2_000)]
    assert full // 2 <= min(pauses) < full * 0.52
    assert full * 0.98 < max(pauses) <= full
    assert backoff_ns(failures, random, 2 * BACKOFF_MAX_MS) == 2 * BACKOFF_MAX_MS * MS, (
        "what a server asks for"
    )
