"""flux-loadgen as a user runs it: two processes over TCP loopback, at rates any machine holds."""

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
from flux.loadgen.faults import Faults
from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.report import exit_code, report
from flux.loadgen.run import run
from tests.patience import PATIENCE_S
from tests.system.verdicts import check_verdict

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "flux.cli.loadgen"]
SHORT = ["--duration", "1500ms", "--warmup", "200ms"]


def loadgen(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *flags], capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )


def check_latency(times: dict[str, float]) -> None:
    values = [times[name] for name in ("min", "p50", "p90", "p99", "p99.9", "p99.99", "max")]
    assert values[0] > 0
    assert values == sorted(values)
    assert times["min"] <= times["mean"] <= times["max"]


def test_a_short_run_accounts_for_every_row(tmp_path: Path) -> None:
    hdr = tmp_path / "latency.hgrm"
    done = loadgen(
        *("--rate", "2k", *SHORT, "--streams", "7", "--rows", "3", "--seed", "5", "--json", "-"),
        *("--hdr", str(hdr), "--fail-if", "missing>0", "--fail-if", "corrupt>0"),
    )
    made: dict[str, Any] = json.loads(done.stdout)
    check_verdict(made, done.returncode)
    rows = 3400 * 3
    assert made["complete"] is True
    assert made["rate"]["held"] == (done.returncode == 0)
    assert made["counts"] == {
        "scheduled": rows,
        "sent": rows,
        "received": rows,
        "missing": 0,
        "duplicate": 0,
        "reordered": 0,
        "corrupt": 0,
        "unread": 0,
        "send_blocked": None,
    }
    assert [gate["pass"] for gate in made["gates"]] == [True, True]
    check_latency(made["latency_ns"]["from_schedule"])
    check_latency(made["latency_ns"]["from_send"])
    assert made["config"]["hwm"] == 200_000
    assert [second["t_s"] for second in made["intervals"]] == [1, 1.5]
    assert sum(second["sent"] for second in made["intervals"]) <= rows
    assert made["generator"]["cpu"]["publisher"] > 0
    assert f"Total count    = {3000 * 3:>12}]" in hdr.read_text()
    assert "HELD" in done.stderr
    assert "(warm-up)" in done.stderr


def test_the_text_report_and_a_gate_that_fails() -> None:
    done = loadgen("--rate", "500", *SHORT, "--fail-if", "received>0")
    assert done.returncode in (5, 6), done.stderr
    assert "HELD: " in done.stdout
    assert "missing 0" in done.stdout
    assert "FAIL  fail if received>0" in done.stdout


def test_what_is_lost_is_missing_to_the_row() -> None:
    lines: list[str] = []
    plan = Plan(
        rate=10_000, duration_ns=NS_PER_S, warmup_ns=NS_PER_S // 2, streams=16, faults=Faults(drop=1000)
    ).checked()
    made = report(run(plan, say=lines.append))
    counts = made["counts"]
    assert (counts["scheduled"], counts["sent"]) == (15_000, 15_000)
    assert (counts["missing"], counts["received"]) == (15, 14_985)
    assert (counts["duplicate"], counts["reordered"], counts["corrupt"]) == (0, 0, 0)
    assert len(lines) == 2
    check_verdict(made, exit_code(made))


def test_a_loss_beyond_what_a_rate_allows_is_not_held() -> None:
    plan = Plan(rate=2000, duration_ns=NS_PER_S, warmup_ns=0, streams=3, faults=Faults(drop=50)).checked()
    made = report(run(plan, say=lambda _: None))
    assert made["counts"]["missing"] == 40
    assert made["rate"]["held"] is False
    assert exit_code(made) == 6


def test_ctrl_c_ends_with_the_numbers_so_far() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--rate", "1k", "--duration", "60s", "--warmup", "0s", "--json", "-"],
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
    assert made["complete"] is False
    assert made["rate"]["held"] is False
    counts = made["counts"]
    assert 1000 <= counts["sent"] == counts["received"]
    assert counts["missing"] == 0


def test_a_process_that_dies_is_an_error_that_names_it() -> None:
    def kill_the_subscriber(_: str) -> None:
        for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split():
            if b"flux.loadgen.workers.subscriber" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)

    plan = Plan(rate=100, duration_ns=60 * NS_PER_S, warmup_ns=0).checked()
    with pytest.raises(FluxError, match="the subscriber process ended early, with code -9"):
        run(plan, say=kill_the_subscriber)


def test_nothing_stays_behind_a_killed_load_generator() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--rate", "100", "--duration", "60s", "--warmup", "0s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert "received" in process.stderr.readline()
    finally:
        process.kill()
        process.wait()
    # Its processes hold the other end of this pipe: it ends when they have.
    process.communicate(timeout=PATIENCE_S)
