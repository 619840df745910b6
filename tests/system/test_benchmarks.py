"""`python -m pytest benchmarks` run small: that every benchmark runs, that a run is compared with another and with the
table's bounds, and that what README.md of benchmarks shows works; not how fast anything is."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bounds, sizes
from benchmarks.peers.build import missing_for_flatc

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "benchmarks" / "README.md").read_text()
QUICK = "--benchmark-max-time=0.001 --benchmark-min-rounds=2 -p no:cacheprovider"

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def blocks(language: str) -> list[str]:
    """What README.md shows in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of README.md in the project, its files in a folder of the test, small."""
    words = [str(folder / word) if word.endswith(".json") else word for word in shlex.split(command)]
    assert words[0] == "python"
    return subprocess.run(
        [sys.executable, *words[1:]],
        cwd=ROOT,
        env=os.environ | {sizes.SMALL: "1", "PYTEST_ADDOPTS": QUICK},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def commands() -> list[str]:
    """Of the section on comparing: a run, another beside it, and what was reached."""
    (shown,) = [block for block in blocks("sh") if "--benchmark-compare" in block]
    return [line for line in shown.splitlines() if line.startswith("python ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def told(commands: list[str], folder: Path) -> dict[str, Any]:
    """The JSON of a whole run."""
    assert commands[0] == "python -m pytest benchmarks --benchmark-only --benchmark-json before.json"
    done = run(commands[0], folder)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr
    found: dict[str, Any] = json.loads((folder / "before.json").read_text())
    return found


def test_a_run_has_every_line_of_the_table(told: dict[str, Any]) -> None:
    """Of those that follow from pytest-benchmark; each figure is of something that took time."""
    without = "codec in C" if missing_for_flatc() else "nothing"
    wanted = [
        bound for group, those in bounds.BOUNDS.items() if not group.startswith(without) for bound in those
    ]
    found = bounds.lines(told)
    assert [(line.table, line.unit) for line in found] == [(bound.table, bound.unit) for bound in wanted]
    assert not [line.name for line in found if "{" in line.name]
    differences = ("beyond the checksum", "beyond numpy", "beyond the interpreter")
    assert all(line.value > 0 for line in found if not line.name.endswith(differences))
    by_way: dict[str, set[str]] = {}
    for one in told["benchmarks"]:
        by_way.setdefault(one["group"], set()).add((one["params"] or {}).get("way", ""))
    assert by_way["ring: merging"] == {"flux", "memcpy", "polars", "pandas"}
    assert None not in by_way, "each benchmark has a group"


def test_a_run_says_nothing_of_the_host_and_keeps_few_rounds(told: dict[str, Any]) -> None:
    assert "node" not in told["machine_info"]
    assert {one["options"]["min_time"] for one in told["benchmarks"]} == {0.0005}
    assert {one["options"]["max_time"] for one in told["benchmarks"]} == {0.001}, "as the command line says"
    assert max(one["stats"]["rounds"] for one in told["benchmarks"]) < 100


def test_a_run_is_compared_with_a_saved_one(told: dict[str, Any], commands: list[str], folder: Path) -> None:
    """Of the ring alone: the saved figures stand beside those of now."""
    command = commands[1].replace("pytest benchmarks ", "pytest benchmarks/bench_ring.py ")
    assert command != commands[1]
    done = run(command, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^test_merging\[flux\] \(\S*before", done.stdout, re.MULTILINE), done.stdout
    assert re.search(r"^test_merging\[flux\] \(NOW\)", done.stdout, re.MULTILINE), done.stdout
    assert "machine_info is different" not in done.stdout + done.stderr
    assert commands[2] == "python -m benchmarks.bounds after.json"
    reached = run(commands[2], folder)
    assert reached.returncode in (0, bounds.FAILED), reached.stderr
    assert reached.stdout.count("ring: ") == 5


def test_what_regressed_fails_when_that_is_asked_for(told: dict[str, Any], folder: Path) -> None:
    """As a CI asks: the saved run was a thousand times as fast."""
    faster = json.loads(json.dumps(told))
    for one in faster["benchmarks"]:
        one["stats"]["min"] /= 1_000
    (folder / "faster.json").write_text(json.dumps(faster))
    file = "benchmarks/bench_indicator.py"
    for saved, failed in (("faster.json", True), ("before.json", False)):
        allowed = "min:10%" if failed else "min:1000000%"
        done = run(
            f"python -m pytest {file} --benchmark-compare {saved} --benchmark-compare-fail {allowed}", folder
        )
        assert ("Performance has regressed" in done.stdout + done.stderr) is failed, done.stdout
        assert (done.returncode != 0) is failed


def test_the_example_for_other_peoples_code_runs(tmp_path: Path) -> None:
    (example,) = [block for block in blocks("python") if "benchmark" in block]
    (tmp_path / "test_mine.py").write_text(example)
    out = tmp_path / "mine.json"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            *shlex.split(QUICK),
            f"--benchmark-json={out}",
            "test_mine.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(out.read_text())["benchmarks"]


def test_tests_neither_run_benchmarks_nor_need_the_plugin() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert settings["testpaths"] == ["tests"]
    assert not [word for word in settings["addopts"] if "benchmark" in word]
    assert not list((ROOT / "tests").rglob("bench_*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:benchmark", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/test_tidy.py", "-k", "top_level"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def of(
    group: str, way: str, least: float, median: float = 1.0, turn: int = 0, **info: float
) -> dict[str, Any]:
    """A benchmark as the JSON has it."""
    params, stats = {"way": way, "turn": turn}, {"min": least, "median": median}
    return {"group": group, "params": params, "stats": stats, "extra_info": info}


def value(name: str, *benchmarks: dict[str, Any]) -> float:
    (line,) = [line for line in bounds.lines({"benchmarks": benchmarks}) if line.name == name]
    return line.value


def test_how_a_line_follows_from_a_run() -> None:
    merging = "ring: merging"
    both = (of(merging, "flux", 2.0, items=1_000), of(merging, "memcpy", 4.0, items=1_000))
    assert value("ring: merging 1,000 rows, half of them repeats / memcpy", *both) == 0.5
    assert [line.name for line in bounds.lines({"benchmarks": both[:1]})] == [], "a peer that is not there"
    synced = "journal: commit of 64 records, synced"
    pair = of(synced, "flux", 9.0, median=3.0), of(synced, "write + fdatasync", 1.0, median=2.0)
    assert value("journal: commit of 64 records, synced / write + fdatasync", *pair) == 1.5
    taken = {"flux": (1.0, 1.0, 10.0), "pyzmq": (50.0, 5.0, 60.0)}  # in turns: 50, 5, 6
    rounds = [
        of("pump send", way, s, turn=t, items=2) for way, all_ in taken.items() for t, s in enumerate(all_)
    ]
    assert value("pump send: pyzmq / pump", *reversed(rounds)) == 6.0
    assert value("pump send: messages a second", *rounds) == pytest.approx(2e-6)
    assert bounds.lines({"benchmarks": [of(merging, "flux", 1.0) | {"params": None}]}) == []


@pytest.mark.parametrize(("pandas", "code"), [(6.0, 0), (1.6, 0), (1.4, bounds.FAILED)])
def test_a_gate_is_held_against_half_of_the_table(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    pandas: float,
    code: int,
) -> None:
    """Which asks for 3."""
    file, merging = tmp_path / "out.json", "ring: merging"
    told = [of(merging, way, s, items=7) for way, s in (("flux", 1.0), ("pandas", pandas))]
    file.write_text(json.dumps({"benchmarks": told}))
    monkeypatch.setattr("sys.argv", ["bounds", str(file)])
    assert bounds.main() == code
    said = capsys.readouterr().out
    assert ("FAILED" in said) is (code != 0)
    assert ("short of the table" in said) is (pandas == 1.6)
    file.write_text(json.dumps({"benchmarks": []}))
    assert bounds.main() == 1
