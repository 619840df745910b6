"""The gates of what a user meets: the load generator's 20 seconds, what an import costs, how large a package is.

Each is quiet on what is sound and bites on a planted fault; what a machine is like is said to it, not waited for.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import flux.kernels.codec as a_kernel
from benchmarks.gate import __main__ as gate
from benchmarks.gate import history, imports, load, repeat, size
from benchmarks.gate.accepted import NotComparableError
from benchmarks.gate.calm import Calm, Watch
from benchmarks.gate.installed import Installed, environment
from flux.loadgen.plan import HWM, Plan
from tests.system.gated import ROOT, replace

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

STAMP = {"date": "2026-11-29", "commit": "0123456789012+", "environment": {"compiler": "gcc"}}
CALM, BUSY = Calm(0.0, 250_000, 2_000_000), Calm(1.6, 9_000_000, 30_000_000)

Planted = Callable[..., Path]


@pytest.fixture
def installed(tmp_path: Path) -> Planted:
    """The python of an environment whose flux is this one with a part of a file replaced."""

    def made(file: str = "", before: str = "", after: str = "") -> Path:
        python, packages = environment(tmp_path / "environment")
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / "src" / "flux", packages / "flux", ignore=ignored)
        for kernel in Path(a_kernel.__file__).parent.glob("*.so"):
            shutil.copy(kernel, packages / "flux" / "kernels")
        if file:
            replace(packages / "flux" / file, before, after)
        return python

    return made


def run(
    p99_ms: float = 0.8, seen: Calm = CALM, held: bool = True, max_ms: float = 20, **counts: int
) -> load.Run:
    """A run of the load generator as it could be."""
    plan = dataclasses.replace(Plan(rate=load.RATE), duration_ns=20 * 10**9, warmup_ns=10**9)
    all_counts = dict.fromkeys(("missing", "duplicate", "reordered", "corrupt", "unread"), 0)
    all_counts |= {"scheduled": plan.messages, "sent": plan.messages} | counts
    all_counts.setdefault("received", plan.messages - all_counts["missing"])
    times = {"p99": p99_ms * 1e6, "max": max_ms * 1e6}
    made = {
        "rate": {"target": plan.rate, "achieved": plan.rate, "held": held},
        "counts": all_counts,
        "latency_ns": {"from_schedule": times},
        "generator": {"slip_ns": {"p99": 1e5}},
        "config": plan.config(),
    }
    return load.Run(made, "", seen)


def judged(*runs: load.Run) -> tuple[list[str], list[str], int]:
    """What failed, what was left open, and how many runs it took."""
    left = list(runs)
    found = load.judge(lambda: left.pop(0))
    return found.failed, found.unjudged, len(runs) - len(left)


def test_a_run_that_holds_has_passed_on_any_machine() -> None:
    assert judged(run()) == ([], [], 1)
    assert judged(run(seen=BUSY)) == ([], [], 1)


def test_late_twice_on_a_calm_machine_fails() -> None:
    failed, unjudged, runs = judged(run(p99_ms=3.1), run(p99_ms=3.2), run())
    assert (len(failed), unjudged, runs) == (2, [], 2)
    assert "p99 3.10 ms" in failed[0]
    assert judged(run(held=False), run(p99_ms=5))[0]


def test_late_once_is_repeated() -> None:
    assert judged(run(p99_ms=3.1), run()) == ([], [], 2)
    failed, _, runs = judged(run(p99_ms=9), run(p99_ms=9, seen=BUSY), run(p99_ms=9))
    assert (len(failed), runs) == (2, 3)


def test_late_beside_others_says_nothing_and_says_so() -> None:
    failed, unjudged, runs = judged(run(p99_ms=9, seen=BUSY), run(held=False, seen=BUSY), run())
    assert (failed, runs) == ([], 2)
    assert unjudged == ["load: rate and latency, on a busy machine"]


@pytest.mark.parametrize("seen", [CALM, BUSY])
@pytest.mark.parametrize("counts", [{"duplicate": 1}, {"corrupt": 1}, {"missing": 1}, {"received": 7}])
def test_loss_repeats_corruption_and_wrong_sums_fail_at_once(seen: Calm, counts: dict[str, int]) -> None:
    failed, _, runs = judged(run(seen=seen, **counts), run())
    assert (len(failed), runs) == (1, 1)


def test_what_a_full_queue_drops_is_the_machines_where_it_was_busy() -> None:
    """A queue of HWM messages holds two seconds of them; the first second is warm-up."""
    full_ms = (HWM / load.RATE - load.WARMUP_S) * 1e3
    assert judged(run(missing=9, max_ms=full_ms - 1, seen=BUSY))[0]
    late = run(missing=9, max_ms=full_ms + 1, seen=BUSY)
    assert judged(late, late) == ([], ["load: rate and latency, on a busy machine"], 2)
    at_home = run(missing=9, max_ms=full_ms + 1)
    assert len(judged(at_home, at_home)[0]) == 2


def test_a_generator_that_gave_up_is_late() -> None:
    gone = load.Run(None, "the subscriber process did not get ready", CALM)
    assert "gave up: the subscriber" in judged(gone, gone)[0][0]
    assert judged(gone._replace(seen=BUSY), gone._replace(seen=BUSY))[1]


def test_a_planted_loss_is_caught(installed: Planted) -> None:
    """Each thousandth message is numbered and not sent."""
    python = installed("loadgen/faults.py", "drop: int = 0", "drop: int = 1000")
    failed = load.judge(lambda: load.run(python, rate=2_000, seconds=2)).failed
    assert len(failed) == 1
    assert "missing, while no queue was full" in failed[0]


def test_a_planted_late_generator_is_caught(installed: Planted) -> None:
    """It sends each 20 ms, not each 100 µs: late by its own fault, whatever the machine; so what the machine is like
    is said here. Its slip cannot excuse it."""
    python = installed("loadgen/plan.py", "TICK_NS: Final = 100_000 ", "TICK_NS: Final = 20_000_000 ")
    found = load.judge(lambda: load.run(python, rate=2_000, seconds=2)._replace(seen=CALM))
    assert len(found.failed) == 2
    assert found.measured["generator"]["slip_ns"]["p99"] > 15e6


def test_spinners_make_a_machine_busy() -> None:
    """What a spinner takes is not ours; wake-ups are counted beside it too."""
    with repeat.spinners() as count, Watch() as beside:
        subprocess.run(["sleep", "1"], check=True)
    assert beside.seen.others > count / 4
    assert not beside.seen.calm
    assert beside.seen.late_max_ns >= beside.seen.late_p99_ns > 0
    assert str(beside.seen).startswith("busy machine: others used")


def test_the_imports_of_this_tree_are_its_own(installed: Planted) -> None:
    found = imports.measure(installed(), turns=2)
    assert found["strangers"] == {"import flux.codec": [], "flux --help": []}
    assert min(found["ms"].values()) > 0


@pytest.mark.parametrize(
    ("file", "before", "after", "loads"),
    [
        (
            "codec/__init__.py",
            "from flux import limits\n",
            "import duckdb\nfrom flux import limits\n",
            "duckdb",
        ),
        ("batch.py", "import struct\n", "import asyncio\nimport struct\n", "asyncio"),
        ("codec/__init__.py", "from flux import limits\n", "from flux import limits, zone\n", "flux.zone"),
        ("cli/main.py", "    import difflib\n", "    import difflib\n    import numpy\n", "numpy"),
    ],
)
def test_a_planted_import_is_caught(
    installed: Planted, file: str, before: str, after: str, loads: str
) -> None:
    python = installed(file, before, after)
    found = {start.name: imports.strangers(python, start) for start in imports.STARTS}
    verdict = imports.judge({"ms": SOUND, "wall_ms": SOUND, "strangers": found})
    assert len(verdict.failed) == 1
    assert loads in verdict.failed[0].replace(",", "").split()


SOUND = {"import numpy": 80.0, "import flux.codec": 90.0, "flux --help": 40.0}


@pytest.mark.parametrize("slow", [{"import flux.codec": 105.1}, {"flux --help": 100.1}])
def test_a_slow_import_is_caught(slow: dict[str, float]) -> None:
    assert not imports.judge({"ms": SOUND, "wall_ms": SOUND, "strangers": {}}).failed
    assert len(imports.judge({"ms": SOUND | slow, "wall_ms": SOUND, "strangers": {}}).failed) == 1


def test_a_fat_package_is_caught(tmp_path: Path) -> None:
    """A file that packs well: the wheel hardly grows by it, what is installed does."""

    def wheel(name: str, **files: bytes) -> dict[str, int]:
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, data in files.items():
                archive.writestr(file, data)
        return size.measure(Installed(tmp_path, tmp_path, path))

    noise = random.Random(1).randbytes(100_000)
    sound = wheel("sound", kernel=noise)
    assert sound["installed"] == len(noise)
    assert size.judge(sound, sound).failed == []
    assert size.judge(sound, wheel("a little more", kernel=noise, notes=b"x" * 4000)).failed == []
    fat = size.judge(sound, wheel("fat", kernel=noise, notes=b"x" * 6000)).failed
    assert [line.split()[1] for line in fat] == ["installed"]


def test_a_repetition_tells_quiet_from_loud(capsys: pytest.CaptureFixture[str]) -> None:
    quiet = {"failed": [], "nothing": [], "unjudged": []}
    told = iter([quiet, quiet | {"unjudged": ["load"]}, quiet | {"failed": ["a slow ring"]}])
    assert repeat.repeated(3, 1, lambda: next(told))
    said = capsys.readouterr().out
    assert "2 quiet, 1 loud; rate and latency were left open in 1" in said
    assert "run 3 of 3, beside spinners" in said
    assert "a slow ring" in said
    assert not repeat.repeated(2, 0, lambda: quiet)


def test_what_is_recorded_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "FILE", tmp_path / "history.jsonl")
    found = run().measured() | {"machine": CALM._asdict()}
    found["generator"]["slip_ns"]["p99"] = 1e5
    for count in (100.0, 103.0):
        told = history.stamp() | {"instructions": {"crc": count}, "load": found, "size": {"wheel": 7}}
        told["verdicts"] = {"size": size.judge({"wheel": 7}, {"wheel": 7}).verdict()}
        history.record(told)
    kept = history.lines(history.FILE)
    assert [line["measured"]["instructions"]["crc"] for line in kept] == [100, 103]
    assert kept[0]["measured"]["load"]["p99_ns"] == 8e5
    assert "ratios" not in kept[0]["measured"]
    assert history.draw(tmp_path / "page.png", history.FILE) == 0
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(NotComparableError, match="nothing is recorded"):
        history.draw(tmp_path / "page.png", tmp_path / "none")


def test_why_a_recorded_run_passed_has_an_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gate's own run: one gate that fails, one that is left open, one that holds; then another run that holds."""
    monkeypatch.setattr(history, "FILE", tmp_path / "history.jsonl")
    sound = size.judge({"wheel": 100}, {"wheel": 104})
    busy = load.judge(lambda: run(p99_ms=9, seen=BUSY))
    for version, wheel in (("0.1.0", size.judge({"wheel": 100}, {"wheel": 106})), ("0.2.0", sound)):
        gates = {"size": lambda _, wheel=wheel: wheel, "load": lambda _: busy, "sound": lambda _: sound}
        monkeypatch.setattr(gate, "GATES", gates)
        monkeypatch.setattr(history, "stamp", lambda version=version: STAMP | {"version": version})
        given = gate.argparse.Namespace(only=None, json=None, record=True)
        assert gate.run(given) == (gate.FAILED if version == "0.1.0" else 0)
    capsys.readouterr()
    assert history.explain("0.1.0") == 1
    said = capsys.readouterr().out
    assert "== size: failed\n  size: wheel" in said
    assert "+6.00%  FAILED" in said
    assert "== load: not judged\n  load: rate and latency, on a busy machine" in said
    assert history.explain() == 0
    said = capsys.readouterr().out
    assert said.startswith("0.2.0, commit 012345678901, ")
    assert "== sound: holds\nbytes" in said, "the bound that it was held against is told"
    assert history.explain("01234") == 0
    with pytest.raises(NotComparableError, match=r"no verdicts of 9\.9"):
        history.explain("9.9")


def test_what_is_committed_of_the_history_can_be_drawn() -> None:
    kept = history.lines(ROOT / "benchmarks" / "history.jsonl")
    assert kept
    for line in kept:
        assert {"date", "commit", "environment", "measured"} == set(line) - {"version", "verdicts"}
        assert line["measured"]
        json.dumps(line, allow_nan=False)


def test_the_workflow_names_what_there_is() -> None:
    """Commands of the project that a workflow runs are there and may be run, its flags are the gate's, and neither a
    secret nor a host is named."""
    told = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    commands = re.findall(r"(?:run: |&& )((?:\.ci|tools)/\w+)((?: .*)?)$", told, re.MULTILINE)
    assert {command for command, _ in commands} == {".ci/run", "tools/bench_gate"}
    for command, _ in commands:
        assert os.access(ROOT / command, os.X_OK), command
    flags = (ROOT / "benchmarks" / "gate" / "__main__.py").read_text()
    for flag in re.findall(r"--[\w-]+", " ".join(said for command, said in commands if "gate" in command)):
        assert f'"{flag}"' in flags, flag
    kept = re.findall(r"path: (\S+)", told)
    assert kept == ["build/gate/report.json", "build/gate/against.json"]
    assert all(
        path in told.replace(f"path: {path}", "") + (ROOT / ".ci" / "run").read_text() for path in kept
    )
    assert "--install-only" in (ROOT / ".ci" / "run").read_text()
    assert "fetch-depth: 0" in told
    assert "secrets." not in told
    assert "://" not in told
