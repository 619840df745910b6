"""The gate itself: quiet on the tree as it is, and not on one with a planted slow-down or a planted loss."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import building, ratios
from benchmarks.gate import baseline, instructions

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(
        shutil.which("valgrind") is None or shutil.which("gcc") is None, reason="needs valgrind and gcc"
    ),
]

ROOT = building.ROOT


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A baseline of the kernels as they are, in C."""
    out = tmp_path_factory.mktemp("gate")
    return baseline.of("for this test", "0" * 40, instructions.measure(ROOT, out, ["c"]))


def planted(folder: Path, file: str, before: str, after: str) -> Path:
    """A tree whose kernels differ in one place."""
    root = folder / "tree"
    shutil.copytree(ROOT / "ext", root / "ext")
    shutil.copy(ROOT / "CMakeLists.txt", root)
    sound = (root / "ext" / file).read_text()
    assert sound.count(before) == 1, f"{file} has changed: plant the fault elsewhere"
    (root / "ext" / file).write_text(sound.replace(before, after))
    return root


def gate(root: Path, folder: Path, recorded: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file = folder / "baseline.json"
    file.write_text(json.dumps(recorded))
    flags = ["--only", "instructions", "--part", "c", "--json", folder / "told.json"]
    places = ["--root", root, "--out", folder / "out", "--baseline", file]
    command = [sys.executable, "-m", "benchmarks.gate", *flags, *places]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def failed(folder: Path) -> str:
    return "\n".join(json.loads((folder / "told.json").read_text())["failed"])


def test_an_unchanged_tree_is_quiet(tmp_path: Path, recorded: dict[str, Any]) -> None:
    done = gate(ROOT, tmp_path, recorded)
    assert done.returncode == 0, done.stdout + done.stderr
    assert failed(tmp_path) == ""
    assert "the gate holds" in done.stdout


def test_a_slow_down_of_a_tenth_is_caught(tmp_path: Path, recorded: dict[str, Any]) -> None:
    """A tenth of each checksum is calculated twice."""
    call = "    return flux_crc_in_hardware ? flux_crc32c_hardware(crc, data, size)"
    again = "    static volatile uint32_t sink;\n    sink = flux_crc32c_hardware(crc, data, size / 10);\n"
    root = planted(tmp_path, "crc32c.c", call, again + call)
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


def test_numbers_of_another_compiler_are_not_used(tmp_path: Path, recorded: dict[str, Any]) -> None:
    """The commit is not in this clone, so there is nothing to compare with: neither passed nor failed."""
    other = recorded | {"environment": recorded["environment"] | {"compiler": "gcc 1.0"}}
    done = gate(ROOT, tmp_path, other)
    assert done.returncode == 1
    assert "compiler: baseline gcc 1.0" in done.stdout
    assert "is not in this clone" in done.stderr


def test_what_is_no_longer_counted_fails(recorded: dict[str, Any]) -> None:
    now = dict(recorded["instructions"])
    now["new"] = now.pop("crc 64 KB")
    lines = {line.name: line for line in baseline.judge(recorded, now)}
    assert lines["crc 64 KB"].failed
    assert not lines["new"].failed
    assert sum(line.failed for line in lines.values()) == 1


def test_the_committed_baseline_says_where_it_came_from() -> None:
    kept = baseline.load(baseline.FILE)
    assert kept["why"]
    assert len(kept["commit"]) == 40
    assert {"compiler", "python", "cython", "numpy"} <= set(kept["environment"])
    pins = (ROOT / "tools" / "pins.txt").read_text().split()
    assert f"cython=={kept['environment']['cython']}" in pins
    assert f"numpy=={kept['environment']['numpy']}" in pins


def test_a_ratio_is_held_against_half_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ratios.KEPT_IN, str(tmp_path / "kept"))
    ratios.at_least("as fast", 2.3, 4.5)
    ratios.at_most("no slower", 2.9, 1.5)
    with pytest.raises(AssertionError, match="FAILED"):
        ratios.at_least("as fast", 2.2, 4.5)
    with pytest.raises(AssertionError, match="FAILED"):
        ratios.at_most("no slower", 3.1, 1.5)
    assert [ratio.held for ratio in ratios.kept(tmp_path / "kept")] == [True, True, False, False]
