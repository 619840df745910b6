"""Which trials there are, and in which order: rounds of every peer in turn, then everybody's search for its maximum.

    rounds    saturation, then each rate, of one peer after the other; again and again
    search    the next trial of one peer's search after the other's, until all have ended

So each number of a peer has numbers of all others around it: what the machine does to one it does to all. The search is
that of `flux-loadgen --find-max`, with its objective; it starts at a share of what the peer carried at saturation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from benchmarks.peers.bus.peers import Run
from benchmarks.peers.bus.spec import Result, Spec
from flux.loadgen.plan import NS_PER_S
from flux.loadgen.search import Trial, search

MS: Final = NS_PER_S // 1_000
SLO_P99_NS: Final = MS  # with nothing missing and the rate held: 'p99<1ms,missing==0'
LOWEST: Final = 1_000  # messages per second that a search tries
CEILING: Final = 10_000_000
START_SHARE: Final = (
    1 / 64
)  # of saturation: where a search starts to double; from below, where a soft edge costs least
LOWER: Final = 8  # what its start is divided by where that is too high
HOPELESS: Final = 0.8  # of a rate: a peer that came no nearer is not asked again

Say = Callable[[str, Result], None]  # the part of the measurement, and what came out


class Size(NamedTuple):
    """How much is measured. Times in ns of measured time, behind a quarter of it as warm-up."""

    rounds: int
    rates: tuple[int, ...]
    saturation_ns: int
    rate_ns: int
    search_ns: int  # of a short trial; 0: no search
    confirming: int  # times as long
    resolution: float


FULL: Final = Size(3, (10_000, 100_000), 2 * NS_PER_S, 2 * NS_PER_S, 1_200 * MS, 3, 0.08)
QUICK: Final = Size(1, (1_000,), 200 * MS, 200 * MS, 0, 1, 1.0)


def spec(rate: int, duration_ns: int) -> Spec:
    return Spec(rate, duration_ns, duration_ns // 4)


@dataclass(slots=True)
class Measured:
    """All that was measured of one peer."""

    saturation: list[Result] = field(default_factory=list)
    rates: dict[int, list[Result]] = field(default_factory=dict)
    best: Result | None = (
        None  # the last trial that confirmed the highest rate: nothing else is ever published
    )
    searched: bool = False

    @property
    def carried(self) -> float:
        """Messages per second at best."""
        return max((result.achieved for result in self.saturation), default=0.0)

    def at(self, rate: int) -> Result | None:
        """The median of each number at this rate; None without a trial that gave numbers."""
        good = [result for result in self.rates.get(rate, ()) if not result.error]
        return middle(good) if good else None

    @property
    def error(self) -> str:
        """Why there is nothing."""
        return next((result.error for result in self.saturation if result.error), "")


def middle(results: list[Result]) -> Result:
    """Median of each number; held if most were; of the counts the worst."""
    made = Result(results[0].peer, results[0].rate)
    for name in ("achieved", "p50", "p99", "p999", "max"):
        setattr(made, name, statistics.median(getattr(result, name) for result in results))
    made.held = 2 * sum(result.held for result in results) > len(results)
    made.missing = max(result.missing for result in results)
    made.disorder = max(result.disorder for result in results)
    made.cpu_us = {
        who: statistics.median(result.cpu_us.get(who, 0.0) for result in results) for who in results[0].cpu_us
    }
    return made


def met(result: Result) -> bool:
    """Whether a trial keeps the objective."""
    return not result.error and result.held and result.missing == 0 and result.p99 < SLO_P99_NS


def rounds(runs: dict[str, Run], size: Size, say: Say) -> dict[str, Measured]:
    """The first part."""
    all_measured = {name: Measured() for name in runs}
    for _ in range(size.rounds):
        for name, run in runs.items():
            measured = all_measured[name]
            if measured.error:
                continue
            result = run(spec(0, size.saturation_ns))
            measured.saturation.append(result)
            say("saturation", result)
            for rate in size.rates if not result.error else ():
                before = measured.rates.setdefault(rate, [])
                if before and before[0].achieved < HOPELESS * rate:
                    continue
                before.append(run(spec(rate, size.rate_ns)))
                say("rate", before[-1])
    return all_measured


class Searching:
    """One peer's search, a trial at a time."""

    def __init__(self, run: Run, measured: Measured, size: Size) -> None:
        self._run, self._measured, self._size = run, measured, size
        self._confirming: dict[int, Result] = {}
        start = int(float(f"{measured.carried * START_SHARE:.2g}"))
        self._begin(max(LOWEST, start))

    def _begin(self, start: int) -> None:
        self._start = start
        self._steps = search(start, CEILING, self._size.resolution)
        self._next: Trial | None = next(self._steps)

    def step(self) -> Result | None:
        """Do the next trial; None when the search is over."""
        trial, measured, size = self._next, self._measured, self._size
        if trial is None:
            return None
        duration_ns = size.search_ns * (size.confirming if trial.confirming else 1)
        result = self._run(spec(trial.rate, duration_ns))
        passed = met(result)
        if passed and trial.confirming:
            self._confirming[trial.rate] = result
        try:
            self._next = self._steps.send(passed)
        except StopIteration as end:
            self._next = None
            measured.best = self._confirming[end.value] if end.value else None
            if end.value is None and self._start > LOWEST:  # saturation said little about this one
                self._begin(max(LOWEST, self._start // LOWER))
        return result


def searches(runs: dict[str, Run], all_measured: dict[str, Measured], size: Size, say: Say) -> None:
    """The second part: fills `best`."""
    under_way = [
        Searching(runs[name], measured, size) for name, measured in all_measured.items() if not measured.error
    ]
    for measured in all_measured.values():
        measured.searched = True
    while under_way:
        for one in list(under_way):
            result = one.step()
            if result is None:
                under_way.remove(one)
            else:
                say("search", result)
