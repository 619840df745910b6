"""flux-loadgen that is told to end, or that gets nothing: what is left of its report (L5, L6)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flux.feed import synth
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer
from tests.unit.report_schema import check

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-m", "flux.cli.loadgen"]
LONG = ["--rate", "200", "--duration", "10m", "--warmup", "0s"]


def seconds_said(process: subprocess.Popen[str], count: int) -> None:
    assert process.stderr is not None
    for _ in range(count):
        assert "received" in process.stderr.readline()


@pytest.mark.parametrize("whole_group", [False, True], ids=["the parent", "all processes"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_with_its_report(
    number: signal.Signals, whole_group: bool, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    path.write_text("the one before")
    with subprocess.Popen(
        [*COMMAND, *LONG, "--json", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        seconds_said(process, 2)
        assert path.read_text() == "the one before"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 2
        for pid in [process.pid, *map(int, children if whole_group else [])]:
            os.kill(pid, number)
        _, said = process.communicate(timeout=4 * PATIENCE_S)
    assert process.returncode == 130
    assert "Traceback" not in said
    made = json.loads(path.read_text())
    check(made)
    assert made["complete"] is False
    assert made["counts"]["received"] == made["counts"]["sent"] > 0
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_a_parent_that_is_gone_leaves_no_process_and_no_traceback() -> None:
    with subprocess.Popen(
        [*COMMAND, *LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        seconds_said(process, 1)
        process.kill()
        _, said = process.communicate(timeout=4 * PATIENCE_S)  # until the last of them has closed it
    assert "Traceback" not in said
    assert all("received" in line for line in said.splitlines())


def test_nothing_is_no_measurement(tmp_path: Path) -> None:
    synth.write_csv(tmp_path / "X.csv", synth.candles(100, seed=1))
    with FluxServer(tmp_path / "data", "--replay", f"SIM/X/1m={tmp_path / 'X.csv'}") as server:
        flags = [
            "--mode",
            "sub",
            "--pub",
            server.pub,
            "--warmup",
            "0s",
            "--duration",
            "1500ms",
            "--json",
            "-",
        ]
        for topics, why in (
            (["--topic", "NOPE/S3/1s"], "so the publisher is there, but nothing of NOPE/S3/1s"),
            (["--topic", "candles.NOPE"], "nothing of candles.NOPE"),
        ):
            done = subprocess.run([*COMMAND, *flags, *topics], capture_output=True, text=True, check=False)
            assert done.returncode == 6, done.stderr
            assert "NOTHING CAME: 0 messages/s" in done.stderr
            assert f"warning               {why}" in " ".join(done.stderr.split("\n")) or why in done.stderr
            check(json.loads(done.stdout))


def test_what_is_left_out_on_purpose_is_planned_and_not_sent() -> None:
    flags = ["--rate", "200", "--duration", "1s", "--warmup", "0s"]
    done = subprocess.run(
        [*COMMAND, *flags, "--fault", "drop=1"], capture_output=True, text=True, check=False
    )
    assert "planned 200  received 0  missing 200" in done.stdout
    assert "sent " not in done.stderr
    assert "planned" in done.stderr
    done = subprocess.run([*COMMAND, *flags], capture_output=True, text=True, check=False)
    assert "sent 200  received 200" in done.stdout
    assert "planned" not in done.stdout + done.stderr
