"""The pacing clock of the load generator against its plain-Python twin, in every shape."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flux.kernels.histogram import Schedule, sleep_until, wait_readable
from tests.high_descriptors import SELECT_ENDS, low_descriptors_taken
from tests.oracle import load as oracle

DAY_NS = 86_400 * 10**9

rates = st.one_of(st.integers(1, 10**9), st.sampled_from([1, 3, 7, 100_000, 999_999_999, 10**9]))
ramp_rates = st.one_of(st.integers(1, 10**8), st.sampled_from([1, 2, 10**8]))
spans = st.one_of(st.integers(0, 100), st.integers(0, 10**10), st.integers(0, DAY_NS), st.just(DAY_NS))
moments = st.one_of(st.integers(-2, 100), st.integers(0, 10**11), st.integers(0, 2 * DAY_NS))


@given(rates, st.integers(0, 2**50), st.integers(0, 2**40))
def test_schedule_like_the_oracle(rate: int, start: int, k: int) -> None:
    schedule = Schedule(rate, start)
    k %= rate * 10_000
    assert schedule.intended(k) == oracle.intended(rate, start, k)
    for now in (start - 1, start, start + k, schedule.intended(k) - 1, schedule.intended(k)):
        assert schedule.due(now) == oracle.due(rate, start, now)


@given(rates, st.integers(0, 2**40))
def test_due_and_intended_agree(rate: int, elapsed: int) -> None:
    schedule = Schedule(rate, 1000)
    due = schedule.due(1000 + elapsed)
    assert schedule.intended(due - 1) <= 1000 + elapsed < schedule.intended(due)


def test_no_drift_in_a_day() -> None:
    schedule = Schedule(99_991, 5)
    assert schedule.intended(99_991 * 86_400) == 5 + 86_400 * 10**9
    assert schedule.due(5 + 86_400 * 10**9) == 99_991 * 86_400 + 1


@pytest.mark.parametrize("rate", [0, -1, 10**9 + 1])
def test_rates_outside(rate: int) -> None:
    with pytest.raises(ValueError, match="a rate is"):
        Schedule(rate, 0)


@given(ramp_rates, ramp_rates, spans, spans.filter(bool), moments, st.integers(0, 2**50))
def test_ramp_like_the_oracle(first: int, last: int, flat: int, over: int, elapsed: int, start: int) -> None:
    schedule = Schedule.ramp(first, last, flat, over, start)
    due = oracle.ramp_due(first, last, flat, over, elapsed)
    assert schedule.due(start + elapsed) == due
    for k in {max(0, due - 1), due}:
        if k >= 2**45:
            continue
        limit = 2**48
        at = oracle.first_ns(lambda ns: oracle.ramp_due(first, last, flat, over, ns), k, limit)
        assert schedule.intended(k) == start + at


@given(ramp_rates, spans.filter(bool), spans, st.integers(0, 2**44))
def test_a_ramp_between_equal_rates_is_the_constant_rate(rate: int, over: int, flat: int, k: int) -> None:
    ramp, constant = Schedule.ramp(rate, rate, flat, over, 7), Schedule(rate, 7)
    k %= rate * 86_400
    assert ramp.intended(k) == constant.intended(k)
    assert ramp.due(k) == constant.due(k)


def test_a_ramp_ends_where_its_numbers_do() -> None:
    schedule = Schedule.ramp(10**8, 10**8, 0, DAY_NS, 5)
    assert schedule.intended(2**45) == schedule.intended(2**62) == 5 + 2**48
    assert Schedule.ramp(1, 1, 0, 1, 0).intended(2**44) == 2**48
    assert schedule.due(2**62) == schedule.due(5 + 2**48)


@example(262_144, 1, 2**45 - 1, 0)
@given(st.integers(1, 10**6), st.integers(1, DAY_NS), moments, st.integers(0, 2**50))
def test_burst_like_the_oracle(messages: int, period: int, elapsed: int, start: int) -> None:
    schedule = Schedule.burst(messages, period, start)
    due = oracle.burst_due(messages, period, elapsed)
    assert schedule.due(start + elapsed) == min(due, 2**63 - 1)
    if 0 < due < 2**63:
        assert schedule.intended(due - 1) == start + elapsed // period * period
        assert schedule.intended(due) == start + (elapsed // period + 1) * period


@given(st.lists(st.integers(0, 10**12), max_size=40), st.integers(-1, 10**12), st.integers(0, 2**50))
def test_replay_like_the_oracle(times: list[int], elapsed: int, start: int) -> None:
    times.sort()
    schedule = Schedule.replay(np.array(times, np.int64), start)
    assert schedule.due(start + elapsed) == oracle.replay_due(times, elapsed)
    assert [schedule.intended(k) - start for k in range(len(times))] == times
    assert schedule.intended(len(times)) == 2**63 - 1


@given(st.integers(0, 2**62), st.integers(0, 2**50), st.integers(-(2**40), 2**40))
def test_at_once_like_the_oracle(k: int, start: int, elapsed: int) -> None:
    schedule = Schedule.at_once(start)
    assert schedule.intended(k) == start
    assert schedule.due(start + elapsed) == oracle.at_once_due(elapsed)


def test_a_schedule_keeps_its_times() -> None:
    times = np.arange(1000, dtype=np.int64)
    schedule = Schedule.replay(times, 0)
    del times
    assert schedule.intended(999) == 999


@pytest.mark.parametrize("times", [[3, 2], [-1]])
def test_times_that_go_back(times: list[int]) -> None:
    with pytest.raises(ValueError, match="before"):
        Schedule.replay(np.array(times, np.int64), 0)


@pytest.mark.parametrize(
    "numbers", [(0, 1, 0, 1), (1, 10**8 + 1, 0, 1), (1, 1, -1, 1), (1, 1, 0, 0), (1, 1, 0, DAY_NS + 1)]
)
def test_ramps_outside(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="ramp"):
        Schedule.ramp(*numbers, 0)


@pytest.mark.parametrize("numbers", [(0, 1), (1, 0), (10**9 + 1, 1), (1, DAY_NS + 1)])
def test_bursts_outside(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="burst"):
        Schedule.burst(*numbers, 0)


def test_sleep_is_absolute_and_releases_the_gil() -> None:
    for pause_ns in (50_000_000, 500_000_000, 5_000_000_000):  # a machine that stalls is given longer
        turns = 0
        until = time.monotonic_ns() + pause_ns
        sleeper = threading.Thread(target=sleep_until, args=(until,))
        sleeper.start()
        while sleeper.is_alive():
            turns += 1
            sleeper.join(0.001)
        assert time.monotonic_ns() >= until
        if turns > 5:
            break
    assert turns > 5
    sleep_until(until)
    sleep_until(-1)


@pytest.fixture
def _alarm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGALRM)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Rang(Exception):  # noqa: N818  it did
    pass


@pytest.mark.usefixtures("_alarm")
def test_a_signal_is_handled_during_the_sleep() -> None:
    def ring(*_: object) -> None:
        raise Rang

    signal.signal(signal.SIGALRM, ring)

    def rung() -> None:  # the timer starts where its signal is awaited, however late that is
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        sleep_until(time.monotonic_ns() + 20 * 10**9)

    with pytest.raises(Rang):
        rung()


def test_a_wait_ends_with_what_can_be_read_whatever_its_number() -> None:
    with low_descriptors_taken():
        read, write = os.pipe()
    assert read >= SELECT_ENDS
    try:
        wait_readable([read], 1_000)
        os.write(write, b"1")
        began = time.monotonic_ns()
        wait_readable([read], 3_600 * 10**9)
        assert time.monotonic_ns() - began < 1_800 * 10**9
        with pytest.raises(ValueError, match="65 descriptors, at most 64"):
            wait_readable([read] * 65, 0)
    finally:
        os.close(read)
        os.close(write)
    wait_readable([], -5)


@pytest.mark.usefixtures("_alarm")
def test_a_signal_ends_a_wait() -> None:
    def ring(*_: object) -> None:
        raise Rang

    signal.signal(signal.SIGALRM, ring)

    def rung() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        wait_readable([], 20 * 10**9)

    with pytest.raises(Rang):
        rung()
