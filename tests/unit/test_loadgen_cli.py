"""The flags of flux-loadgen: what they mean, and what a wrong one gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux.cli.loadgen import main, parser, plan_of
from flux.loadgen.plan import NS_PER_S, Plan


def test_the_flags_make_the_plan() -> None:
    flags = ["--rate", "1.5k", "--duration", "500ms", "--warmup", "0s"]
    flags += ["--streams", "1k", "--rows", "4", "--seed", "9"]
    assert plan_of(parser().parse_args(flags)) == Plan(
        rate=1500, duration_ns=NS_PER_S // 2, warmup_ns=0, streams=1000, rows=4, seed=9
    )
    assert plan_of(parser().parse_args(["--rate", "7"])) == Plan(rate=7)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rate", "fast"], "'fast'"),
        (["--rate", "0"], "--rate"),
        (["--rate", "10", "--duration", "20"], "'20'"),
        (["--rate", "10", "--rows", "65"], "--rows"),
        (["--rate", "10", "--fail-if", "p98>1ms"], "p98"),
        (["--rate", "10", "--json", "/nonexistent/report.json"], "/nonexistent/report.json"),
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
        main(["--rate", "10", "--mode", "rpc"])
    assert left.value.code == 2
    assert "--mode" in capsys.readouterr().err


def test_a_directory_is_no_report_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--rate", "10", "--json", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--help"])
    assert left.value.code == 0
    assert "130 interrupted" in capsys.readouterr().out.replace("\n", " ")
