"""`--rate max` as a user runs it: a closed loop carries what the machine can, and loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from flux.errors import FluxError
from flux.loadgen.plan import MAX_UNDER_WAY, NS_PER_S, Audience, Plan
from flux.loadgen.report import exit_code, report
from flux.loadgen.run import run
from tests.patience import PATIENCE_S
from tests.unit.report_schema import check

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "flux.cli.loadgen", "--rate", "max", "--json", "-"]


def check_nothing_lost(made: dict[str, Any], takers: int) -> None:
    counts = made["counts"]
    assert counts["scheduled"] == counts["sent"] > 0
    assert counts["received"] == takers * counts["sent"]
    for name in ("missing", "duplicate", "reordered", "corrupt", "unread"):
        assert counts[name] == 0, name


def test_the_command(tmp_path: Path) -> None:
    csv, hdr = tmp_path / "run.csv", tmp_path / "run.hgrm"
    flags = ["--duration", "1500ms", "--warmup", "300ms", "--csv", str(csv), "--hdr", str(hdr)]
    done = subprocess.run(
        [*COMMAND, *flags], capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    check(made)
    check_nothing_lost(made, 1)
    assert made["complete"] is True
    assert made["rate"]["target"] is None
    assert made["rate"]["held"] is True
    assert made["config"]["schedule"] == {"shape": "closed", "under_way": MAX_UNDER_WAY}
    assert made["latency_ns"]["from_schedule"] is None
    measured = made["rate"]["achieved"] * 1.5
    assert 0 < measured <= made["counts"]["received"]
    assert "CARRIED" in done.stderr
    assert [second["t_s"] for second in made["intervals"]] == [1, 1.5]
    assert len(csv.read_text().splitlines()) == 3
    assert f"Total count    = {round(measured):>12}]" in hdr.read_text()


def test_several_publishers_share_what_may_be_under_way() -> None:
    lines: list[str] = []
    plan = Plan(
        saturate=True,
        duration_ns=NS_PER_S,
        warmup_ns=0,
        streams=6,
        rows=3,
        publishers=2,
        audience=Audience(steady=2),
    ).checked()
    outcome = run(plan, say=lines.append)
    made = report(outcome)
    check(made)
    check_nothing_lost(made, 2)
    assert exit_code(made) == 0
    assert all(each.sent > 0 for each in outcome.publishers)
    assert len(lines) == len(plan.seconds())


def test_ctrl_c_ends_with_the_numbers_so_far() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--duration", "60s", "--warmup", "0s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert "received" in process.stderr.readline()  # a second has gone by
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    made = json.loads(out)
    check(made)
    check_nothing_lost(made, 1)
    assert made["complete"] is False
    assert made["rate"]["held"] is False


def test_a_subscriber_that_dies_ends_the_run() -> None:
    """The window never opens again; the run does not wait for it."""

    def kill_the_subscriber(_: str) -> None:
        for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split():
            if b"flux.loadgen.workers.subscriber" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)

    plan = Plan(saturate=True, duration_ns=60 * NS_PER_S, warmup_ns=0).checked()
    with pytest.raises(FluxError, match="the subscriber process ended early, with code -9"):
        run(plan, say=kill_the_subscriber)
