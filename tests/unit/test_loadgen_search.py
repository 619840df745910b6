"""The search of --find-max: against rates that are sharp, against noise, and never without an end."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.loadgen.search import RESOLUTION, Trial, confirmations, highest_confirmed, most_trials, search

CEILING = 100_000_000


def searched(
    passes: Callable[[Trial], bool], start: int, ceiling: int = CEILING, resolution: float = RESOLUTION
) -> tuple[int | None, list[tuple[Trial, bool]]]:
    """What a search answers, and its trials with their verdicts; fails when it has too many."""
    steps = search(start, ceiling, resolution)
    trials: list[tuple[Trial, bool]] = []
    trial = next(steps)
    while True:
        assert start <= trial.rate <= ceiling
        trials.append((trial, passes(trial)))
        assert len(trials) <= most_trials(start, ceiling, resolution)
        try:
            trial = steps.send(trials[-1][1])
        except StopIteration as end:
            return end.value, trials


@given(limit=st.integers(1, CEILING * 2), start=st.integers(1, 1_000_000))
def test_a_sharp_limit_is_found_to_the_resolution(limit: int, start: int) -> None:
    found, trials = searched(lambda trial: trial.rate <= limit, start)
    if limit < start:
        assert found is None
        assert [trial.rate for trial, _ in trials] == [start, start]
    else:
        assert found is not None
        assert found <= limit
        # A rate of three digits is 1 % wide at most; below 100 it is a whole number.
        assert found == CEILING or limit <= found * (1 + RESOLUTION) + max(1, found * 0.01)
        assert trials[-1] == (Trial(found, True), True)


@given(
    limit=st.integers(1_000, 10_000_000),
    longer=st.floats(0.05, 1.0),
    start=st.integers(100, 10_000),
)
def test_what_only_short_runs_keep_is_lowered_until_a_long_one_does(
    limit: int, longer: float, start: int
) -> None:
    found, trials = searched(
        lambda trial: trial.rate <= (limit * longer if trial.confirming else limit), start
    )
    if limit < start or limit * longer < start:
        assert found is None
    else:
        assert found is not None
        assert found <= limit * longer <= found * (1 + RESOLUTION) + max(1, found * 0.01)
        assert (Trial(found, True), True) in trials


@given(
    limit=st.integers(5_000, 5_000_000),
    noise=st.floats(0, 0.6),
    seed=st.integers(0, 2**32),
)
def test_noise_ends_and_its_answer_was_confirmed(limit: int, noise: float, seed: int) -> None:
    rng = random.Random(seed)
    # A busy machine: what could pass fails now and then; what is too much never passes.
    found, trials = searched(lambda trial: trial.rate <= limit and rng.random() >= noise, 1_000)
    if found is not None:
        assert found <= limit
        assert found == highest_confirmed(trials)


@given(verdicts=st.randoms(use_true_random=False), start=st.integers(1, 10**6))
def test_verdicts_without_sense_end_as_well(verdicts: random.Random, start: int) -> None:
    found, trials = searched(lambda _: verdicts.random() < 0.5, start)
    long = [(trial.rate, held) for trial, held in trials if trial.confirming]
    for rate in {rate for rate, _ in long}:
        held = [verdict for at, verdict in long if at == rate]
        assert len(held) <= 3
        assert (held.count(True) >= 2) != (held.count(False) >= 2), "confirmed or refuted, by two of three"
    kept = [rate for rate, _ in long if long.count((rate, True)) >= 2]
    assert found == highest_confirmed(trials) == max(kept, default=None)


def test_one_stall_costs_one_run_and_not_the_answer() -> None:
    def stalling(at: int) -> int | None:
        count = 0

        def passes(trial: Trial) -> bool:
            nonlocal count
            count += 1
            return trial.rate <= 600_000 and count != at

        return searched(passes, 10_000)[0]

    clean = stalling(0)
    assert clean is not None
    assert 582_000 <= clean <= 600_000
    assert {stalling(at) for at in range(1, 40)} == {clean}


@pytest.mark.parametrize("resolution", [0.01, 0.1])
def test_the_resolution_is_kept(resolution: float) -> None:
    found, trials = searched(lambda trial: trial.rate <= 777_777, 10_000, resolution=resolution)
    assert found is not None
    assert found <= 777_777 <= found * (1 + resolution)
    assert len(trials) < 30


def test_nothing_above_the_ceiling() -> None:
    found, trials = searched(lambda _: True, 30_000, ceiling=100_000)
    assert found == 100_000
    assert [tuple(trial) for trial, _ in trials] == [
        (30_000, False),
        (60_000, False),
        (100_000, False),
        (100_000, True),
        (100_000, True),
    ]


@pytest.mark.parametrize("verdicts", ["pp", "pfp", "fpp"])
def test_two_of_three_long_runs_confirm(verdicts: str) -> None:
    told = iter(verdicts)
    found, trials = searched(lambda trial: not trial.confirming or next(told) == "p", 9, ceiling=9)
    assert found == 9
    assert confirmations(trials, 9) == (2, len(verdicts))


@pytest.mark.parametrize("verdicts", ["ff", "pff", "fpf"])
def test_one_of_three_refutes(verdicts: str) -> None:
    told = iter(verdicts)
    found, trials = searched(lambda trial: not trial.confirming or next(told) == "p", 9, ceiling=9)
    assert found is None
    assert len(trials) == 1 + len(verdicts)
    assert highest_confirmed(trials) is None
