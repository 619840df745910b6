"""Which rate to try next: the search of `--find-max` without a run in it. Rates go out, verdicts come in.

    double     start, 2 start, 4 start ... short runs, until one fails
    bisect     between the last that passed and the first that failed, short runs, down to `resolution`
    confirm    long runs at what was found; where it is refuted, lower in steps that double ...
    bisect     ... until one is confirmed, and then between the two, long runs

A short run that fails is done once more before it counts as failed: one stall of the machine must not halve the way.
A rate is confirmed by two of three long runs, and refuted by two that fail; nothing else is ever the answer. Near the
edge a rate keeps the objective in some runs and not in others: what is confirmed is a rate that keeps it more often
than not. The number of runs is bounded by `most_trials`: every step ends by itself.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Final, NamedTuple

RESOLUTION: Final = 0.03
CONFIRMED: Final = 2  # long runs that pass, of
TRIES: Final = 3
_SIGNIFICANT_DIGITS: Final = 3  # of a rate to try: finer than any resolution that is worth a run


class Trial(NamedTuple):
    """A run to do. The search wants to know whether it passed."""

    rate: int  # messages per second
    confirming: bool  # a long run; else a short one


Search = Generator[Trial, bool, int | None]


def _rounded(rate: float) -> int:
    scale: int = 10 ** max(0, len(str(int(rate))) - _SIGNIFICANT_DIGITS)
    return round(rate / scale) * scale


def _passes(rate: int, confirming: bool) -> Generator[Trial, bool, bool]:
    trial = Trial(rate, confirming)
    if not confirming:
        passed = yield trial
        return passed or (yield trial)
    passes = fails = 0
    while passes < CONFIRMED and fails <= TRIES - CONFIRMED:
        if (yield trial):
            passes += 1
        else:
            fails += 1
    return passes == CONFIRMED


def confirmations(trials: Iterable[tuple[Trial, bool]], rate: int) -> tuple[int, int]:
    """Of the long runs at a rate, how many passed and how many there were."""
    told = [passed for trial, passed in trials if trial == Trial(rate, True)]
    return sum(told), len(told)


def highest_confirmed(trials: Iterable[tuple[Trial, bool]]) -> int | None:
    """The highest rate that these trials confirm, whether the search ended or not."""
    told = list(trials)
    rates = {trial.rate for trial, _ in told}
    return max((rate for rate in rates if confirmations(told, rate)[0] >= CONFIRMED), default=None)


def _bisect(
    passed: int, failed: int, resolution: float, confirming: bool
) -> Generator[Trial, bool, tuple[int, int]]:
    """The highest rate that passed and the lowest above it that failed, at most `resolution` apart."""
    while failed > passed * (1 + resolution):
        middle = _rounded((passed + failed) / 2)
        if not passed < middle < failed:
            break
        if (yield from _passes(middle, confirming)):
            passed = middle
        else:
            failed = middle
    return passed, failed


def search(start: int, ceiling: int, resolution: float = RESOLUTION) -> Search:
    """Yields trials, is sent whether each passed, and returns the highest confirmed rate, or None.

    None: not even `start`, the lowest rate that is tried, passed (and was confirmed). No rate above `ceiling`
    is tried. `resolution` is the share of a rate below which nothing is told apart.
    """
    passed, failed = 0, start
    while (yield from _passes(failed, False)):
        passed, failed = failed, min(failed * 2, ceiling)
        if passed == ceiling:
            break
    if not passed:
        return None
    if passed < ceiling:
        passed, failed = yield from _bisect(passed, failed, resolution, False)
    step = resolution
    confirmed, refuted = passed, 0
    while not (yield from _passes(confirmed, True)):
        if confirmed == start:
            return None
        refuted = confirmed
        confirmed = max(start, min(refuted - 1, _rounded(refuted * (1 - step))))
        step = min(2 * step, 0.5)
    if refuted:
        confirmed, _ = yield from _bisect(confirmed, refuted, resolution, True)
    return confirmed


def most_trials(start: int, ceiling: int, resolution: float = RESOLUTION) -> int:
    """No search has more runs than this."""
    doublings = (ceiling // start).bit_length() + 1
    halvings = int(1 / resolution).bit_length() + 1  # of a range whose end is twice its begin
    lowerings = halvings + doublings
    return doublings + 1 + 2 * halvings + TRIES * (lowerings + halvings)
