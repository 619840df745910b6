"""How many rows are due when: an absolute schedule, whatever the turns are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.errors import ConfigError
from flux.feed.pacing import Pacing

MINUTES = 1_640_991_660_000 + 60_000 * np.arange(100, dtype=np.int64)
SECOND = 1_000_000_000
T0 = 123 * SECOND


def test_max_lets_everything_go() -> None:
    pacing = Pacing.parse("max")
    assert pacing.due(MINUTES, T0) == 100
    assert pacing.wait_ns(MINUTES, T0) == 0
    assert pacing.due(MINUTES[:0], T0) == 0


def test_speed_follows_the_rows_own_times() -> None:
    pacing = Pacing.parse("10")
    assert pacing.due(MINUTES, T0) == 1
    pacing.took(1)
    rest = MINUTES[1:]
    assert pacing.due(rest, T0 + 6 * SECOND - 1) == 0
    assert pacing.wait_ns(rest, T0 + 2 * SECOND) == 4 * SECOND
    assert pacing.due(rest, T0 + 6 * SECOND) == 1
    assert pacing.due(rest, T0 + 61 * SECOND) == 10  # a late turn is made up
    assert pacing.wait_ns(rest, T0 + 61 * SECOND) == 0


def test_a_tick_lets_a_batch_go() -> None:
    pacing = Pacing.parse("max", tick_ns=SECOND // 4, batch_rows=7)
    assert pacing.due(MINUTES, T0) == 7
    assert pacing.wait_ns(MINUTES, T0) == 0
    pacing.took(7)
    assert pacing.due(MINUTES, T0) == 0
    assert pacing.wait_ns(MINUTES, T0 + 1) == SECOND // 4 - 1
    assert pacing.due(MINUTES, T0 + SECOND) == 28
    pacing.took(3)  # fewer than were due, for instance because the ring is full
    assert pacing.due(MINUTES, T0 + SECOND) == 25
    assert pacing.due(MINUTES[:5], T0 + SECOND) == 5


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "inf", "fast", ""])
def test_a_speed_is_above_zero(speed: str) -> None:
    with pytest.raises(ConfigError, match="speed"):
        Pacing.parse(speed)


def test_tick_and_batch_are_above_zero() -> None:
    with pytest.raises(ConfigError, match="tick"):
        Pacing(tick_ns=0)
    with pytest.raises(ConfigError, match="batch-rows"):
        Pacing(tick_ns=1, batch_rows=0)


@given(
    st.lists(st.integers(1, 10**8), min_size=1, max_size=50),
    st.sampled_from([0.5, 1.0, 3.0, 10.0, 1e4]),
    st.booleans(),
)
def test_waiting_as_told_lets_every_row_go_on_time(steps: list[int], speed: float, by_tick: bool) -> None:
    times = MINUTES[0] + np.cumsum(steps)
    pacing = Pacing(tick_ns=999, batch_rows=3) if by_tick else Pacing(speed)
    now, at = T0, 0
    while at < len(times):
        wait = pacing.wait_ns(times[at:], now)
        assert wait == 0 or pacing.due(times[at:], now + wait - 1) == 0
        now += wait
        due = pacing.due(times[at:], now)
        assert due > 0
        if not by_tick:
            assert abs((now - T0) - (int(times[at]) - int(times[0])) * 1e6 / speed) <= 256
        pacing.took(due)
        at += due
