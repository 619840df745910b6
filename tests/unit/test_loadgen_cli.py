"""The flags of flux-loadgen: what they mean, and what a wrong one gets."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from flux.cli.loadgen import main
from flux.cli.loadgen_flags import parser, plan_of
from flux.loadgen.faults import Faults
from flux.loadgen.plan import NS_PER_S, Audience, Plan, Servers
from flux.loadgen.schedule import Burst, Ramp, Replay


def test_the_flags_make_the_plan() -> None:
    flags = ["--rate", "1.5k", "--duration", "500ms", "--warmup", "0s"]
    flags += ["--streams", "1k", "--rows", "4", "--seed", "9"]
    assert plan_of(parser().parse_args(flags)) == Plan(
        rate=1500, duration_ns=NS_PER_S // 2, warmup_ns=0, streams=1000, rows=4, seed=9
    )
    assert plan_of(parser().parse_args(["--rate", "7"])) == Plan(rate=7)
    assert plan_of(parser().parse_args(["--rate", "max"])) == Plan(saturate=True)


def planned(*flags: str) -> Plan:
    return plan_of(parser().parse_args(flags))


def test_the_flags_of_shapes_processes_and_faults(tmp_path: Path) -> None:
    assert planned("--ramp", "10k:1M:20s").ramp == Ramp(10_000, 1_000_000, 20 * NS_PER_S)
    assert planned("--burst", "5k/100ms").burst == Burst(5000, NS_PER_S // 10)
    file = tmp_path / "day.csv"
    file.write_text(
        "ts_ms,open,high,low,close,volume\n" + "".join(f"{1600000000 + t}000,1,1,1,1,1\n" for t in range(60))
    )
    made = planned("--replay", str(file), "--speed", "2.5", "--warmup", "0s")
    assert made.replay == Replay(str(file), 2.5)
    assert made.duration_ns == 59 * NS_PER_S * 2 // 5 + 1  # the file's end
    made = planned("--rate", "10", "--publishers", "4", "--subscribers", "2", "--slow", "1", "--pause", "3ms")
    assert (made.publishers, made.audience) == (4, Audience(steady=2, slow=1, pause_ns=3_000_000))
    made = planned("--rate", "10", "--stopped", "1", "--stop", "50ms@2s")
    assert made.audience == Audience(stopped=1, stop_ns=50_000_000, stop_at_ns=2 * NS_PER_S)
    made = planned("--mode", "sub", "--pub", "tcp://h:1", "--rpc", "tcp://h:2", "--ingest", "tcp://h:3")
    assert (made.mode, made.servers) == ("sub", Servers("tcp://h:1", "tcp://h:2", "tcp://h:3"))
    made = planned("--rate", "10", "--fault", "drop=1k", "--fault", "duplicate=7")
    assert made.faults == Faults(drop=1000, duplicate=7)
    assert Plan.of(json.loads(json.dumps(dataclasses.asdict(made)))) == made


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--rate, --ramp, --burst or --replay"),
        (["--rate", "10", "--ramp", "1:2:3s"], "both say how fast"),
        (["--burst", "5/1s", "--ramp", "1:2:3s"], "both say how fast"),
        (["--ramp", "1:2"], "10k:1M:20s"),
        (["--ramp", "0:2:1s"], "--ramp"),
        (["--burst", "5"], "5k/100ms"),
        (["--burst", "1M/100us"], "--burst"),
        (["--replay", "/nonexistent/day.csv"], "/nonexistent/day.csv"),
        (["--rate", "10", "--speed", "10"], "--replay"),
        (["--replay", "day.csv", "--speed", "fast"], "'fast'"),
        (["--replay", "day.csv", "--speed", "0"], "--speed"),
        (["--replay", "day.csv", "--speed", "nan"], "--speed"),
        (["--rate", "10", "--mode", "telepathy"], "pubsub through sub rpc codec"),
        (["--rate", "10", "--publishers", "3"], "evenly"),
        (["--rate", "10", "--subscribers", "0"], "--subscribers"),
        (["--rate", "10", "--slow", "60", "--stopped", "9"], "--slow and --stopped"),
        (["--rate", "10", "--stopped", "1", "--stop", "2s"], "200ms@1s"),
        (["--rate", "10", "--stopped", "1", "--stop", "2s@29s"], "--duration"),
        (["--rate", "10", "--pub", "tcp://127.0.0.1:1"], "own sockets"),
        (["--rate", "10", "--fault", "lie=3"], "drop corrupt reorder duplicate"),
        (["--rate", "10", "--fault", "drop=0"], "1 or more"),
        (["--rate", "10", "--fault", "drop=5", "--rows", "2"], "one row"),
        (["--rate", "fast"], "'fast'"),
        (["--rate", "max", "--ramp", "1:2:3s"], "both say how fast"),
        (["--rate", "max", "--mode", "through"], "--mode pubsub, not of through"),
        (["--rate", "max", "--mode", "codec"], "--mode pubsub, not of codec"),
        (["--rate", "max", "--slow", "1"], "slowest subscriber"),
        (["--rate", "max", "--stopped", "1"], "slowest subscriber"),
        (["--rate", "max", "--fault", "drop=5"], "no --fault"),
        (["--rate", "max", "--find-max"], "--rate max"),
        (["--rate", "0"], "--rate"),
        (["--rate", "10", "--duration", "20"], "'20'"),
        (["--rate", "10", "--rows", "65"], "--rows"),
        (["--rate", "10", "--fail-if", "p98>1ms"], "p98"),
        (["--rate", "10", "--json", "/nonexistent/report.json"], "/nonexistent/report.json"),
        (["--rate", "10", "--csv", "/nonexistent/run.csv"], "/nonexistent/run.csv"),
        (["--rate", "10", "--plot", "/nonexistent/run.png"], "/nonexistent/run.png"),
        (["--rate", "10", "--plot", "run.svg"], "ends in .png"),
        (["--rate", "10", "--slo", "p99<1ms"], "--find-max"),
        (["--find-max", "--slo", "p99<1"], "--slo"),
        (["--find-max", "--slo", "p98<1ms"], "did you mean p99"),
        (["--find-max", "--burst", "5/1s"], "--burst"),
        (["--find-max", "--mode", "sub", "--pub", "tcp://127.0.0.1:1"], "another publisher"),
        (["--rate", "10", "--hdr", "/nonexistent/report.hgrm"], "/nonexistent/report.hgrm"),
    ],
)
def test_what_cannot_be_is_exit_2(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err


def test_an_unknown_flag_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--rate", "10", "--spin"])
    assert left.value.code == 2
    assert "--spin" in capsys.readouterr().err


def test_a_directory_is_no_report_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rate", "10", "--json", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    assert "130 interrupted" in capsys.readouterr().out.replace("\n", " ")
