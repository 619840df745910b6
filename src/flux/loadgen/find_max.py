"""`--find-max`: the highest rate at which a plan keeps an objective, by one run after the other.

`search` says which rate is next; here its rates are run. A run passes when its rate was HELD and the objective
is true of its report. The report that comes out is that of the last run that confirmed the rate, and says in `find_max`
what was tried; where no rate was confirmed it is that of the last run, and `find_max.rate` is null.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from flux.loadgen.gates import Gate, met
from flux.loadgen.outcome import Outcome
from flux.loadgen.plan import MAX_RATE, NS_PER_S, Plan
from flux.loadgen.report import value_text
from flux.loadgen.search import RESOLUTION, Trial, confirmations, highest_confirmed, search

SLO: Final = "p99<1ms,missing==0"
START_RATE: Final = 10_000  # messages per second
TRIAL_NS: Final = 3 * NS_PER_S  # measured time of a short run
WARMUP_NS: Final = 1 * NS_PER_S
CONFIRMING: Final = 3  # times as long


def short_runs(plan: Plan) -> Plan:
    """The plan of a search where nothing else was said."""
    return dataclasses.replace(plan, rate=START_RATE, duration_ns=TRIAL_NS, warmup_ns=WARMUP_NS)


class Measured(NamedTuple):
    """A run and its report."""

    outcome: Outcome
    report: dict[str, Any]


def _record(trial: Trial, plan: Plan, made: Mapping[str, Any], objective: Sequence[Gate]) -> dict[str, Any]:
    return {
        "rate": trial.rate,
        "achieved": made["rate"]["achieved"],
        "held": made["rate"]["held"],
        "pass": made["rate"]["held"] and met(objective, made),
        "values": {part.name: part.value(made) for part in objective},
        "confirming": trial.confirming,
        "duration_s": plan.duration_ns / NS_PER_S,
        "other_cpu": made["env"].get("other_cpu"),
    }


def trial_line(record: Mapping[str, Any], objective: Sequence[Gate]) -> str:
    """What stderr shows of a run."""
    parts = []
    for part in objective:
        value = record["values"][part.name]
        parts.append(f"{part.name} {value_text(part, value)}{'' if part.true_of(value) else ' (!)'}")
    if not record["held"]:
        parts.insert(0, f"not held: {record['achieved']:,.0f}")
    if record["other_cpu"] is not None:
        parts.append(f"others' CPU {record['other_cpu']:.0%}")
    return (
        f"{record['rate']:>13,}/s  {record['duration_s']:>4g} s  {'pass' if record['pass'] else 'FAIL'}"
        f"  {'  '.join(parts)}{'  (confirming)' if record['confirming'] else ''}"
    )


def find_max(
    plan: Plan,
    slo: str,
    objective: Sequence[Gate],
    *,
    measure: Callable[[Plan], Measured],
    say: Callable[[str], None],
    resolution: float = RESOLUTION,
) -> Measured:
    """Search from `plan.rate` upwards; `plan.duration_ns` is that of a short run, `slo` the objective's text.

    `measure` does one run; `say` gets a line for each. A run that was interrupted ends the search: its report
    is shown, with what was confirmed by then (two of three long runs).
    """
    dataclasses.replace(plan, duration_ns=plan.duration_ns * CONFIRMING).checked()  # before the first run
    trials: list[dict[str, Any]] = []
    verdicts: list[tuple[Trial, bool]] = []
    confirming: dict[int, Measured] = {}
    steps = search(plan.rate, MAX_RATE, resolution)
    trial = next(steps)
    complete = True
    while True:
        duration_ns = plan.duration_ns * (CONFIRMING if trial.confirming else 1)
        tried = dataclasses.replace(plan, rate=trial.rate, duration_ns=duration_ns).checked()
        last = measure(tried)
        if not last.report["complete"]:
            complete = False
            break
        trials.append(_record(trial, tried, last.report, objective))
        say(trial_line(trials[-1], objective))
        passed = trials[-1]["pass"]
        verdicts.append((trial, passed))
        if passed and trial.confirming:
            confirming[trial.rate] = last
        try:
            trial = steps.send(passed)
        except StopIteration:
            break
    rate = highest_confirmed(verdicts)
    shown = confirming[rate] if rate and complete else last
    passes, tries = confirmations(verdicts, rate) if rate else (0, 0)
    shown.report["find_max"] = {
        "slo": slo,
        "rate": rate,
        "passes": passes,
        "tries": tries,
        "resolution": resolution,
        "trials": trials,
    }
    return shown
