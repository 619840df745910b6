"""flux-loadgen's files, search and contract, by real runs: each report follows the published schema."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_S
from tests.system.verdicts import check_verdict
from tests.unit.report_schema import check

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "flux.cli.loadgen"]
SHORT = ["--duration", "1s", "--warmup", "200ms"]


def loadgen(*flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *flags], capture_output=True, text=True, timeout=280, check=False)


def seconds(file: Path) -> list[dict[str, str]]:
    with file.open() as lines:
        return list(csv.DictReader(lines))


def test_a_run_with_all_its_files(tmp_path: Path) -> None:
    files = {kind: tmp_path / f"run.{kind}" for kind in ("json", "csv", "hgrm", "png")}
    done = loadgen(
        *("--rate", "1k", *SHORT, "--json", str(files["json"]), "--csv", str(files["csv"])),
        *("--hdr", str(files["hgrm"]), "--plot", str(files["png"])),
        *("--fail-if", "missing>0", "--fail-if", "cpu.publisher>10", "--fail-if", "received>=0"),
    )
    assert done.returncode in (5, 6), done.stderr  # 6: a machine that stalls at the very end
    made: dict[str, Any] = json.loads(files["json"].read_text())
    check(made)
    assert [gate["pass"] for gate in made["gates"]] == [True, True, False]
    assert {"started", "load_1m", "other_cpu", "stolen_cpu"} <= set(made["env"])
    assert [int(second["received_rows"]) for second in seconds(files["csv"])] == [
        second["received"] for second in made["intervals"]
    ]
    assert files["hgrm"].read_text().split()[:3] == ["Value", "Percentile", "TotalCount"]
    assert files["png"].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "flags",
    [
        ("--mode", "codec"),
        ("--mode", "codec", "--rate", "200"),
        ("--mode", "rpc", "--rate", "50", "--streams", "4"),
        ("--rate", "500", "--publishers", "2", "--slow", "1", "--stopped", "1", "--stop", "200ms@300ms"),
        ("--ramp", "200:1k:500ms"),
        ("--burst", "50/100ms"),
    ],
)
def test_every_kind_of_run_follows_the_schema(flags: tuple[str, ...]) -> None:
    done = loadgen(*flags, *SHORT, "--json", "-")
    made = json.loads(done.stdout)
    check(made)
    check_verdict(made, done.returncode)
    assert made["config"]["mode"] == (flags[1] if flags[0] == "--mode" else "pubsub")


def test_a_rate_that_is_not_held_is_a_report_too() -> None:
    done = loadgen("--rate", "2k", *SHORT, "--fault", "drop=50", "--json", "-", "--fail-if", "missing>0")
    assert done.returncode == 6, done.stderr
    made = json.loads(done.stdout)
    check(made)
    assert made["rate"]["held"] is False
    assert made["gates"][0]["pass"] is False


def test_an_interrupted_run_has_its_seconds_so_far(tmp_path: Path) -> None:
    file = tmp_path / "run.csv"
    process = subprocess.Popen(
        [*COMMAND, "--rate", "1k", "--duration", "60s", "--warmup", "0s", "--json", "-", "--csv", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert "received" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=2 * PATIENCE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    made = json.loads(out)
    check(made)
    assert made["complete"] is False
    assert [float(second["t_s"]) for second in seconds(file)] == [s["t_s"] for s in made["intervals"]]
    assert len(made["intervals"]) >= 1


def test_find_max_finds_a_rate_that_was_run_and_kept() -> None:
    # An objective that says itself where the end is, far below what any machine sends.
    done = loadgen(
        *("--find-max", "--slo", "target<2.5k,missing==0", "--rate", "1k"),
        *("--duration", "300ms", "--warmup", "0s", "--json", "-"),
    )
    made = json.loads(done.stdout)
    check(made)
    found = made["find_max"]
    assert done.returncode == (6 if found["rate"] is None else 0), done.stderr
    assert len(done.stderr.splitlines()) >= len(found["trials"])
    if found["rate"] is not None:  # else the machine stalled in both of the last runs
        assert 1_000 <= found["rate"] < 2_500
        assert made["rate"]["held"] is True
        assert made["rate"]["target"] == found["rate"]
        last = [trial for trial in found["trials"] if trial["confirming"] and trial["pass"]][-1]
        assert (last["rate"], last["achieved"]) == (found["rate"], made["rate"]["achieved"])


def test_find_max_says_when_not_even_the_lowest_rate_keeps_the_objective() -> None:
    done = loadgen(
        *("--find-max", "--slo", "missing>0", "--rate", "100", "--duration", "100ms", "--warmup", "0s"),
        *("--json", "-"),
    )
    assert done.returncode == 6, done.stderr
    made = json.loads(done.stdout)
    check(made)
    assert made["find_max"]["rate"] is None
    assert [trial["pass"] for trial in made["find_max"]["trials"]] == [False, False]
    assert "NOT FOUND: no rate from 100 messages/s up" in done.stderr
