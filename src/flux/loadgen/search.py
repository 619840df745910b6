"""Which rate to try next: the search of `--find-max` without a run in it. Rates go out, verdicts come in.

    double     start, 2 start, 4 start ... short runs, until one fails
    bisect     between the last that passed and the first that failed, short runs, down to `resolution`
    confirm    a long run at what was found; where it fails, lower in steps that double ...
    bisect     ... until one passes, and then between the two, long runs

What fails is run once more before it counts as failed: one stall of the machine must not halve the answer.
A rate that passes long is the answer, so noise can only make the answer too low, but for the chance that a
rate gets by being run twice. The number of runs is bounded by `most_trials`: each step ends by itself.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final, NamedTuple

RESOLUTION: Final = 0.03
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
    passed = yield trial
    if not passed:
        passed = yield trial
    return passed


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
    return doublings + 1 + 2 * (halvings + lowerings + halvings)
