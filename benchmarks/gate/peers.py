"""The gate of ratios to peers: every benchmark with the mark `gate`, and the codec beside its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.building import ROOT
from benchmarks.gate.judged import Judged
from benchmarks.ratios import KEPT_IN, Ratio, kept


def _commands(root: Path) -> list[list[str | Path]]:
    """What measures ratios in a tree; each is a process of its own."""
    marked = [p for p in sorted(root.glob("benchmarks/bench_*.py")) if "pytest.mark.gate" in p.read_text()]
    flags = ["-m", "pytest", "-q", "-m", "gate", "-p", "no:cacheprovider"]
    return [[*flags, *marked], [root / "benchmarks" / "bench_codec_peers.py", "--rounds", "100"]]


def _measured(python: Path, root: Path, command: list[str | Path], folder: Path) -> tuple[list[Ratio], str]:
    """The ratios of one command, and what it said when it failed, "" otherwise."""
    file = folder / "ratios"
    file.unlink(missing_ok=True)
    environment = os.environ | {KEPT_IN: str(file)}
    done = subprocess.run(
        [python, *command], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    said = f"{command} exit code {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-2000:]}"
    return kept(file), said if done.returncode else ""


def measure(python: Path = Path(sys.executable), root: Path = ROOT) -> tuple[list[Ratio], list[str]]:
    """The ratios of a tree's benchmarks, run by `python`, and what failed. What fails is run once more: what a
    neighbour did does not show twice, what a change did does."""
    found: list[Ratio] = []
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for command in _commands(root):
            ratios, said = _measured(python, root, command, Path(folder))
            if said:
                ratios, said = _measured(python, root, command, Path(folder))
            found += ratios
            failed += [said] if said else []
    return found, failed


def ratios() -> Judged:
    """The gate."""
    found, failed = measure()
    failed += [str(ratio) for ratio in found if not ratio.held]
    if not found:
        failed.append("no ratio was measured")
    return Judged([str(ratio) for ratio in found], failed, [ratio._asdict() for ratio in found])
