"""Ramp, burst, replay and several processes, as real runs: what is sent when, the verdict, and an early end.

The constant rate is in `test_loadgen.py`.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from flux.loadgen.faults import Faults
from flux.loadgen.plan import NS_PER_S, Audience, Plan
from flux.loadgen.report import EXIT_INTERRUPTED, EXIT_NOT_HELD, exit_code, report, to_text
from flux.loadgen.run import run
from flux.loadgen.schedule import Burst, Ramp, Replay
from tests.system.verdicts import check_verdict

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SHORT = Plan(duration_ns=NS_PER_S, warmup_ns=NS_PER_S // 2, streams=6)


@pytest.fixture(params=["ramp", "burst", "replay", "several"])
def plan(request: pytest.FixtureRequest, tmp_path: Path) -> Plan:
    """Some 3,000 to 5,000 messages in each shape."""
    match request.param:
        case "ramp":
            made = dataclasses.replace(SHORT, ramp=Ramp(1000, 5000, NS_PER_S))
        case "burst":
            made = dataclasses.replace(SHORT, burst=Burst(300, NS_PER_S // 10))
        case "replay":
            file = tmp_path / "day.csv"
            lines = (f"{1_600_000_020 + t * 60}000,1,1,1,1,1" for t in range(5_000))
            file.write_text("ts_ms,open,high,low,close,volume\n" + "\n".join(lines) + "\n")
            made = dataclasses.replace(SHORT, replay=Replay(str(file), speed=200_000))
        case _:
            audience = Audience(steady=2, slow=1, pause_ns=20_000_000)
            made = dataclasses.replace(SHORT, rate=3000, publishers=3, audience=audience)
    return made.checked()


def test_every_message_of_a_shape_arrives(plan: Plan) -> None:
    lines: list[str] = []
    outcome = run(plan, say=lines.append)
    made = report(outcome)
    takers, total = plan.audience.steady, plan.messages
    counts = made["counts"]
    assert counts["scheduled"] == counts["sent"] == total
    assert counts["received"] == takers * total
    assert (counts["missing"], counts["duplicate"], counts["reordered"], counts["corrupt"]) == (0, 0, 0, 0)
    check_verdict(made, exit_code(made))
    assert made["rate"]["target"] == plan.target
    measured = total - plan.warmup_messages
    for each in outcome.subscribers:
        assert (each.received, each.measured, each.from_schedule.total) == (total, measured, measured)
        assert each.from_schedule.refused == each.from_send.refused == 0
        assert each.faulty_streams == 0
    assert [each["kind"] for each in made["subscribers"]] == plan.audience.kinds
    assert len(made["publishers"]) == plan.publishers
    assert sum(each["counts"]["sent"] for each in made["publishers"]) == total
    seconds = [second["t_s"] for second in made["intervals"]]
    assert seconds == [t_s for t_s, _ in plan.seconds() if t_s > 0]
    assert len(lines) == len(list(plan.seconds()))
    assert sum(second["sent"] for second in made["intervals"]) <= total
    assert len(to_text(made).splitlines()) >= (9 if takers > 1 else 6)


def test_a_loss_beyond_what_a_rate_allows_is_not_held_in_any_shape(plan: Plan) -> None:
    made = report(run(dataclasses.replace(plan, faults=Faults(drop=50)).checked(), say=lambda _: None))
    lost = sum(plan.shared(plan.messages, part) // 50 for part in range(plan.publishers))
    assert made["counts"]["missing"] == lost * plan.audience.steady
    assert made["rate"]["held"] is False
    assert exit_code(made) == EXIT_NOT_HELD


def test_an_early_end_gives_the_numbers_so_far_in_any_shape(plan: Plan) -> None:
    lines: list[str] = []
    if plan.replay is not None:  # which ends with its file
        plan = dataclasses.replace(plan, replay=dataclasses.replace(plan.replay, speed=5_000))
    plan = dataclasses.replace(plan, duration_ns=60 * NS_PER_S).checked()
    made = report(run(plan, say=lines.append, interrupted=lambda: bool(lines)))
    counts = made["counts"]
    assert made["complete"] is False
    assert made["rate"]["held"] is False
    assert exit_code(made) == EXIT_INTERRUPTED
    assert 0 < counts["sent"] < plan.messages
    assert counts["received"] == counts["sent"] * plan.audience.steady
    assert counts["missing"] == 0
    assert made["intervals"][-1]["t_s"] < 30


def test_the_command_line_knows_the_shapes() -> None:
    command = [
        sys.executable,
        "-m",
        "flux.cli.loadgen",
        "--duration",
        "500ms",
        "--warmup",
        "0s",
        "--json",
        "-",
    ]
    command += ["--burst", "200/100ms", "--fault", "duplicate=100", "--subscribers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    made = json.loads(done.stdout)
    check_verdict(made, done.returncode)
    assert made["config"]["schedule"] == {"shape": "burst", "messages": 200, "period_s": 0.1}
    assert made["config"]["faults"]["duplicate"] == 100
    assert made["counts"]["duplicate"] == 2 * 10
    assert "subscriber, steady" in done.stderr
