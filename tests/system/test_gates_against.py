"""`tools/bench_gate --against`: when a change is a regression, what is measured once more, and what is left behind."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from benchmarks.gate import __main__ as gate
from benchmarks.gate import accepted, against
from benchmarks.gate.against import Change
from tests.system.gated import commit_all, git

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

SOUND = Change("ratios", "ring / memcpy", [1.0, 1.1, 1.2], [1.0, 1.1, 1.2])
SLOWER = SOUND._replace(head=[1.5, 1.6, 1.7])
FASTER = SOUND._replace(head=[0.5, 0.6, 0.7])
GONE = SOUND._replace(head=[])


@pytest.mark.parametrize(
    ("change", "regression"),
    [
        (SOUND, False),
        (SLOWER, True),
        (FASTER, False),
        (SLOWER._replace(head=[1.19, 1.6, 1.7]), False),  # one of base's rounds was as slow
        (SLOWER._replace(head=[1.21, 1.22, 1.23], base=[1.1, 1.15, 1.2]), False),  # apart, and within noise
        (SLOWER._replace(less=False), False),
        (FASTER._replace(less=False), True),
        (GONE, True),
        (GONE._replace(base=[], head=[1.0]), False),
        (SLOWER._replace(again=SLOWER), True),
        (SLOWER._replace(again=SOUND), False),
        (SLOWER._replace(again=FASTER), False),
        (GONE._replace(again=GONE), True),
        (GONE._replace(again=SOUND), False),
    ],
)
def test_what_a_regression_is(change: Change, regression: bool) -> None:
    assert change.regression is regression
    assert ("REGRESSION" in str(change)) is regression


def test_what_did_not_show_again_is_told() -> None:
    assert str(SLOWER._replace(again=SOUND)).endswith("+50.00% beyond noise; once more: +0.00%")


class Measuring:
    """In place of the measuring: `_measured`'s answers one after the other, and what was asked for."""

    def __init__(self, *answers: list[Change], wrong: Sequence[str] = ()) -> None:
        self._answers, self._wrong = list(answers), list(wrong)
        self.asked: list[set[str]] = []

    def __call__(self, _: Path, gates: Collection[str], __: Sequence[str]) -> tuple[list[Change], list[str]]:
        self.asked.append(set(gates))
        return self._answers.pop(0), [self._wrong.pop(0)] if self._wrong else []


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with a commit, in the project's place; work trees are put beside it."""
    made = tmp_path / "project"
    git(tmp_path, "init", "-q", str(made))
    (made / "file").write_text("text")
    commit_all(made, "all of it")
    monkeypatch.setattr(accepted, "ROOT", made)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return made


def compared(monkeypatch: pytest.MonkeyPatch, measuring: Measuring, told: Path | None = None) -> bool:
    monkeypatch.setattr(against, "_measured", measuring)
    return against.compare("HEAD", None, (), told)


def test_only_what_a_clock_says_is_worse_is_measured_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = SOUND._replace(name="window / duckdb")
    heavy = SOUND._replace(gate="import", name="ms, flux --help")
    first, told = [SLOWER, other, heavy], tmp_path / "told.json"
    measuring = Measuring(first, [SOUND, other._replace(head=SLOWER.head)])
    assert not compared(monkeypatch, measuring, told)
    assert measuring.asked == [set(against.RULES), {"ratios"}]
    kept = {change["name"]: change for change in json.loads(told.read_text())["changes"]}
    assert kept[SLOWER.name]["again"] == {"base": list(SOUND.base), "head": list(SOUND.head)}
    assert kept[other.name]["again"] is None, "what was sound the first time is not judged by the second"
    assert "no worse than HEAD" in capsys.readouterr().out


def test_what_is_worse_twice_fails(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(monkeypatch, Measuring([SLOWER], [SLOWER]))
    assert "REGRESSION; once more: +50.00%" in capsys.readouterr().out


def test_what_is_counted_is_not_measured_again(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measuring = Measuring([Change("instructions", "crc", [100.0], [110.0])])
    assert compared(monkeypatch, measuring)
    assert len(measuring.asked) == 1


def test_loss_in_either_measuring_fails(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert compared(monkeypatch, Measuring([SOUND], wrong=["load: missing"]))
    assert compared(monkeypatch, Measuring([SLOWER], [SOUND], wrong=["load: missing"]))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_nothing_is_left_behind(
    repository: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[BaseException]
) -> None:
    seen: list[Path] = []

    def interrupted(base: Path, *_: object) -> None:
        assert (base / "file").exists()
        (base / "build").mkdir()  # what git does not know of goes too
        seen.append(base)
        raise error

    monkeypatch.setattr(against, "_measured", interrupted)
    with pytest.raises(error):
        against.compare("HEAD", None, (), None)
    assert not seen[0].parent.exists()
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_ctrl_c_is_no_traceback(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(against, "_measured", interrupted)
    monkeypatch.setattr("sys.argv", ["tools/bench_gate", "--against", "HEAD"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    assert gate.main() == 130
    assert "interrupted" in capsys.readouterr().err
