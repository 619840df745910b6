"""Mode `through` in each shape of load: what a ramp, bursts and a replayed file ask for is fed, numbered, stored and
received to the row. The constant rate is in `test_through.py`."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.report import EXIT_INTERRUPTED, EXIT_NOT_HELD, EXIT_OK, exit_code, report
from flux.loadgen.run import run
from flux.loadgen.schedule import Burst, Ramp, Replay
from tests.patience import PATIENCE_S
from tests.unit.report_schema import check

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SHORT = Plan(mode="through", duration_ns=NS_PER_S, warmup_ns=NS_PER_S // 2, streams=6, rows=2)
SHAPES = ("ramp", "burst", "replay")
REPLAYED, REPLAY_STEP_S = 3_000, 60


@pytest.fixture(params=SHAPES)
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> Plan:
    """1.5 s of some thousand messages."""
    match request.param:
        case "ramp":
            made = dataclasses.replace(SHORT, ramp=Ramp(1_000, 3_000, NS_PER_S))
        case "burst":
            made = dataclasses.replace(SHORT, burst=Burst(300, NS_PER_S // 10))
        case _:
            file = tmp_path / "day.csv"
            lines = (f"{1_600_000_020 + t * REPLAY_STEP_S}000,1,1,1,1,1" for t in range(REPLAYED))
            file.write_text("ts_ms,open,high,low,close,volume\n" + "\n".join(lines) + "\n")
            made = dataclasses.replace(SHORT, replay=Replay(str(file), speed=120_000))
    return made.checked()


def expected(plan: Plan) -> int:
    """Messages of the whole run, by hand."""
    if plan.ramp:
        return 500 + 2_000  # half a second at the first rate, then their mean for a second
    if plan.burst:
        return 15 * 300
    return REPLAYED


def test_every_row_of_a_shape_goes_through(plan: Plan) -> None:
    lines: list[str] = []
    outcome = run(plan, say=lines.append)
    made = report(outcome)
    check(made)
    total = expected(plan)
    assert plan.messages == total
    counts, rows = made["counts"], total * plan.rows
    assert (counts["scheduled"], counts["sent"], counts["received"]) == (rows, rows, rows)
    assert not any(counts[name] for name in ("missing", "duplicate", "reordered", "corrupt", "unread"))
    assert (made["server"]["journalled"], made["server"]["stored"]) == (rows, rows)
    measured = (total - plan.warmup_messages) * plan.rows
    times = outcome.subscriber.from_schedule, outcome.subscriber.from_send, outcome.publisher.slip
    assert [(each.total, each.refused) for each in times] == [(measured, 0)] * 3
    assert made["config"]["schedule"]["shape"] == (
        "ramp" if plan.ramp else "burst" if plan.burst else "replay"
    )
    assert made["rate"]["target"] == plan.target
    assert exit_code(made) in (EXIT_OK, EXIT_NOT_HELD)  # a machine that stalls at the very end says so
    assert [second["t_s"] for second in made["intervals"]] == [t_s for t_s, _ in plan.seconds() if t_s > 0]
    assert len(lines) == len(plan.seconds())


def test_an_early_end_gives_the_numbers_so_far(plan: Plan) -> None:
    if plan.replay is not None:  # which ends with its file
        plan = dataclasses.replace(plan, replay=dataclasses.replace(plan.replay, speed=3_000))
    plan = dataclasses.replace(plan, duration_ns=50 * NS_PER_S).checked()
    lines: list[str] = []
    made = report(run(plan, say=lines.append, interrupted=lambda: bool(lines)))
    check(made)
    counts = made["counts"]
    assert (made["complete"], made["rate"]["held"], exit_code(made)) == (False, False, EXIT_INTERRUPTED)
    assert 0 < counts["sent"] < plan.messages * plan.rows
    assert counts["received"] == counts["sent"] == made["server"]["journalled"]
    assert counts["missing"] == 0


@pytest.mark.parametrize(
    ("flags", "messages", "schedule"),
    [
        (["--ramp", "1k:3k:1s"], 2_500, {"shape": "ramp", "from": 1_000, "to": 3_000, "over_s": 1.0}),
        (["--burst", "300/100ms"], 4_500, {"shape": "burst", "messages": 300, "period_s": 0.1}),
    ],
    ids=["ramp", "burst"],
)
def test_the_command_line(flags: list[str], messages: int, schedule: dict[str, object]) -> None:
    command = [sys.executable, "-m", "flux.cli.loadgen", "--mode", "through", "--streams", "6", *flags]
    command += ["--duration", "1s", "--warmup", "500ms", "--fail-if", "missing>0", "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE_S, check=False)
    assert done.returncode in (EXIT_OK, EXIT_NOT_HELD), done.stderr
    made = json.loads(done.stdout)
    check(made)
    assert made["config"]["schedule"] == schedule
    assert (made["counts"]["sent"], made["counts"]["received"]) == (messages, messages)
    assert [gate["pass"] for gate in made["gates"]] == [True]
