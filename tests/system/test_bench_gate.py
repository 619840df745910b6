"""The gate itself: quiet on the tree as it is, and not on one with a planted slow-down or a planted wrong result."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import building
from benchmarks.gate import baseline, instructions
from tests.system.gated import clone, commit_all, failed, gate, git, planted, replace

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("valgrind") is None or shutil.which("gcc") is None, reason="needs valgrind and gcc"
    ),
]

ROOT = building.ROOT

CHECKSUM = "    return flux_crc_in_hardware ? flux_crc32c_hardware(crc, data, size)"
A_TENTH_AGAIN = "    static volatile uint32_t sink;\n    sink = flux_crc32c_hardware(crc, data, size / 10);\n"
"""A tenth of each checksum is calculated twice."""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A baseline of the kernels as they are, in C."""
    out = tmp_path_factory.mktemp("gate")
    return baseline.of("for this test", "0" * 40, instructions.measure(ROOT, out, ["c"]))


def test_an_unchanged_tree_is_quiet(tmp_path: Path, recorded: dict[str, Any]) -> None:
    done = gate(ROOT, tmp_path, recorded)
    assert done.returncode == 0, done.stdout + done.stderr
    assert failed(tmp_path) == ""
    assert "the gate holds" in done.stdout


def test_a_slow_down_of_a_tenth_is_caught(tmp_path: Path, recorded: dict[str, Any]) -> None:
    root = planted(tmp_path, "crc32c.c", CHECKSUM, A_TENTH_AGAIN + CHECKSUM)
    done = gate(root, tmp_path, recorded)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "crc 64 KB" in failed(tmp_path)
    line = next(line for line in failed(tmp_path).splitlines() if line.startswith("crc 64 KB"))
    assert 0.08 < float(line.split("%")[0].split()[-1]) / 100 < 0.14


@pytest.mark.parametrize(
    ("file", "before", "after", "named"),
    [
        (  # the ring keeps one row fewer than it says
            "ring.h",
            "flux_ring_store(&ring->first, last - ring->capacity + 1);",
            "flux_ring_store(&ring->first, last - ring->capacity + 2);",
            "ring 1 row in order",
        ),
        (  # the last batch of a group is not sent
            "record.h",
            "i < count && !sent->error; i++) {\n        const flux_entry *e = &g->entries[order",
            "i + 1 < count && !sent->error; i++) {\n        const flux_entry *e = &g->entries[order",
            "pump publish 1 record",
        ),
    ],
)
def test_an_off_by_one_is_caught(
    tmp_path: Path, recorded: dict[str, Any], file: str, before: str, after: str, named: str
) -> None:
    done = gate(planted(tmp_path, file, before, after), tmp_path, recorded)
    assert done.returncode == 5, done.stdout + done.stderr
    assert failed(tmp_path).startswith("wrong result: ")
    assert named in failed(tmp_path)


def test_what_is_no_longer_counted_fails(recorded: dict[str, Any]) -> None:
    now = dict(recorded["instructions"])
    now["new"] = now.pop("crc 64 KB")
    lines = {line.name: line for line in baseline.judge(recorded, now, ["c"])}
    assert lines["crc 64 KB"].failed
    assert not lines["new"].failed
    assert sum(line.failed for line in lines.values()) == 1


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory, recorded: dict[str, Any]) -> Path:
    """A clone whose history was rewritten: no commit of the baseline's name is there. Its baseline is of another
    compiler and of the folders as they are, and something was committed behind it. Three commits."""
    made = clone(tmp_path_factory.mktemp("landed"))
    folders = {
        name: git(made, "rev-parse", f"HEAD:{name}")
        for name in ("ext", "CMakeLists.txt", "benchmarks/gate", "benchmarks/building.py")
    }
    other = recorded | {"environment": recorded["environment"] | {"compiler": "gcc 1.0"}, "trees": folders}
    (made / "benchmarks" / "baseline.json").write_text(json.dumps(other))
    commit_all(made, "a baseline")
    replace(made / "ext" / "ring.h", "#ifndef", "/* landed later */\n#ifndef")
    commit_all(made, "a comment")
    return made


@pytest.fixture
def slower(landed: Path) -> Iterator[Path]:
    """That clone with a slow-down of a tenth, and as it was again behind the test."""
    replace(landed / "ext" / "crc32c.c", CHECKSUM, A_TENTH_AGAIN + CHECKSUM)
    yield landed
    git(landed, "checkout", "--", ".")


def in_clone(made: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gate", "--only", "instructions", "--part", "c", *flags]
    return subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)


def test_a_baseline_of_another_compiler_finds_its_tree_in_a_rewritten_history(landed: Path) -> None:
    done = in_clone(landed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the tree that was measured is built and measured here" in done.stdout
    assert "compiler: baseline gcc 1.0" in done.stdout


def test_a_slow_down_beside_that_tree_is_caught(slower: Path) -> None:
    done = in_clone(slower)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "FAILED crc 64 KB" in done.stderr


def test_a_baseline_without_folders_is_of_the_commit_that_brought_it(slower: Path) -> None:
    file = slower / "benchmarks" / "baseline.json"
    kept = json.loads(file.read_text())
    del kept["trees"]
    file.write_text(json.dumps(kept))
    done = in_clone(slower)
    assert "which brought the baseline is built" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 5
    assert "FAILED crc 64 KB" in done.stderr


def test_a_shallow_clone_judges_nothing_and_says_so(landed: Path, tmp_path: Path) -> None:
    """Neither passed nor failed: exit code 1, and what to do. Everything that changed since is still not in it."""
    shallow = tmp_path / "shallow"
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{landed}", str(shallow))
    done = in_clone(shallow)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "git fetch --unshallow" in done.stderr
    assert "a part only" in done.stdout


def test_a_tree_against_a_commit(slower: Path, tmp_path: Path) -> None:
    """Side by side with HEAD, from a folder of its own that is gone afterwards."""
    told = tmp_path / "told.json"
    done = in_clone(slower, "--against", "HEAD~1", "--json", str(told))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "REGRESSION crc 64 KB" in done.stderr
    assert "is worse than HEAD~1" in done.stdout
    changes = {change["name"]: change for change in json.loads(told.read_text())["changes"]}
    assert 0.08 < changes["crc 64 KB"]["change"] < 0.14
    assert changes["ring 1 row in order"]["change"] == 0
    assert not changes["ring 1 row in order"]["beyond_noise"]
    assert len(git(slower, "worktree", "list").splitlines()) == 1


def test_a_commit_that_is_not_there_is_no_verdict(landed: Path) -> None:
    done = in_clone(landed, "--against", "nobody")
    assert done.returncode == 1
    assert "git rev-parse" in done.stderr


def test_the_committed_baseline_says_where_it_came_from() -> None:
    kept = baseline.load(baseline.FILE)
    assert kept["why"]
    assert len(kept["commit"]) == 40
    assert {"compiler", "python", "cython", "numpy"} <= set(kept["environment"])
    pins = (ROOT / "tools" / "pins.txt").read_text().split()
    assert f"cython=={kept['environment']['cython']}" in pins
    assert f"numpy=={kept['environment']['numpy']}" in pins
