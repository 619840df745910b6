"""--find-max over runs that nobody made: which runs it asks for, what it says, what comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from flux.errors import ConfigError
from flux.loadgen import report as reports
from flux.loadgen.find_max import CONFIRMING, Measured, find_max, short_runs
from flux.loadgen.gates import parse_objective
from flux.loadgen.plan import MAX_RUN_NS, NS_PER_S, Plan
from tests.unit.outcomes import histogram, outcome
from tests.unit.report_schema import check

PLAN = Plan(rate=10_000, duration_ns=2 * NS_PER_S, warmup_ns=0)


def machine(most: int, interrupted_in: int = 0) -> Callable[[Plan], Measured]:
    """Runs that hold any rate, with a p99 of 1 ms up to `most` messages/s and of 3 ms above."""
    runs = 0

    def measure(plan: Plan) -> Measured:
        nonlocal runs
        runs += 1
        p99_ns = 1_000_000 if plan.rate <= most else 3_000_000
        messages = plan.rate * plan.duration_ns // NS_PER_S
        ran = outcome(measured=messages, last_ns=plan.run_ns, from_schedule=histogram(p99_ns))
        ran = dataclasses.replace(ran, plan=plan, complete=runs != interrupted_in)
        return Measured(ran, reports.report(ran, surroundings={"other_cpu": 0.25}))

    return measure


def found_by(
    measure: Callable[[Plan], Measured], slo: str = "p99<2ms,missing==0", plan: Plan = PLAN
) -> tuple[dict[str, Any], list[str]]:
    lines: list[str] = []
    made = find_max(plan, slo, parse_objective(slo), measure=measure, say=lines.append).report
    check(made)
    return made, lines


def test_the_highest_rate_with_the_report_of_its_confirming_run() -> None:
    made, lines = found_by(machine(most=70_000))
    found = made["find_max"]
    assert found["slo"] == "p99<2ms,missing==0"
    assert found["rate"] == made["rate"]["target"] == made["config"]["rate"]
    assert 68_000 <= found["rate"] <= 70_000
    assert made["config"]["duration_s"] == 2 * CONFIRMING
    assert [t["rate"] for t in found["trials"][:6]] == [10_000, 20_000, 40_000, 80_000, 80_000, 60_000]
    assert found["trials"][3] == {
        "rate": 80_000,
        "achieved": 80_000.0,
        "held": True,
        "pass": False,
        "values": {"p99": 3_000_000, "missing": 0},
        "confirming": False,
        "duration_s": 2.0,
        "other_cpu": 0.25,
    }
    assert found["trials"][-1]["confirming"]
    assert found["trials"][-1]["pass"]
    assert len(lines) == len(found["trials"])
    assert " ".join(lines[3].split()) == "80,000/s 2 s FAIL p99 3.00 ms (!) missing 0 others' CPU 25%"
    assert lines[-1].endswith("(confirming)")
    assert reports.exit_code(made) == 0
    text = reports.to_text(made)
    assert (found["passes"], found["tries"]) == (2, 2)
    assert text.startswith(
        f"FOUND: {found['rate']:,} messages/s keep p99<2ms,missing==0 in 2 of 2 long runs; "
    )
    assert "HELD: " in text


def test_not_even_the_lowest_rate() -> None:
    made, lines = found_by(machine(most=9_999))
    assert made["find_max"]["rate"] is None
    assert [t["rate"] for t in made["find_max"]["trials"]] == [10_000, 10_000]
    assert len(lines) == 2
    assert made["rate"]["held"] is True
    assert reports.exit_code(made) == 6
    assert reports.to_text(made).startswith("NOT FOUND: no rate from 10,000 messages/s up keeps p99<2ms")


def test_a_number_that_no_report_has_is_never_met() -> None:
    made, _ = found_by(machine(most=10**9), slo="stolen_cpu<50%")
    assert made["find_max"]["rate"] is None
    assert made["find_max"]["trials"][0]["values"] == {"stolen_cpu": None}


@pytest.mark.parametrize("run", [1, 4])
def test_an_interrupted_search_is_an_interrupted_report(run: int) -> None:
    made, lines = found_by(machine(most=70_000, interrupted_in=run))
    assert made["complete"] is False
    assert made["find_max"]["rate"] is None
    assert len(made["find_max"]["trials"]) == len(lines) == run - 1
    assert reports.exit_code(made) == 130
    assert "had confirmed nothing" in reports.to_text(made)


def test_the_confirming_run_must_be_possible_before_the_first_is_done() -> None:
    plan = dataclasses.replace(PLAN, duration_ns=MAX_RUN_NS // 2)
    with pytest.raises(ConfigError, match="--duration"):
        found_by(machine(most=1), plan=plan)


def test_short_runs_are_the_default() -> None:
    assert short_runs(Plan()) == Plan(rate=10_000, duration_ns=3 * NS_PER_S, warmup_ns=NS_PER_S)


def test_what_one_long_run_of_three_keeps_is_not_found() -> None:
    """The last trial of a rate may have passed, and be no confirmation."""
    clean, long = machine(most=70_000), 0

    def measure(plan: Plan) -> Measured:
        nonlocal long
        if plan.duration_ns == PLAN.duration_ns:
            return clean(plan)
        long += 1
        return machine(most=10**9 if long % 3 == 2 else 0)(plan)  # no, yes, no

    made, _ = found_by(measure)
    assert made["find_max"]["rate"] is None
    assert made["find_max"]["passes"] == made["find_max"]["tries"] == 0
    assert any(trial["confirming"] and trial["pass"] for trial in made["find_max"]["trials"])
    assert reports.to_text(made).startswith("NOT FOUND")
    assert reports.exit_code(made) == 6
