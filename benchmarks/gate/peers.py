"""The gate of ratios to peers: every benchmark with the mark `gate` in one run, and what `bounds.py` says of it."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import ratios as figures
from benchmarks.building import ROOT
from benchmarks.gate.judged import Judged
from benchmarks.ratios import Ratio


def measure(python: Path = Path(sys.executable), root: Path = ROOT) -> tuple[list[Ratio], list[str]]:
    """The ratios of a tree's benchmarks, run by `python`, and what failed. What fails is run once more: what a
    neighbour did does not show twice, what a change did does."""
    files = [
        path for path in sorted(root.glob("benchmarks/bench_*.py")) if "pytest.mark.gate" in path.read_text()
    ]
    found, said = figures.measure(python, root, ["-m", "gate", *files])
    if said or any(not ratio.held for ratio in found):
        found, said = figures.measure(python, root, ["-m", "gate", *files])
    return found, [said] if said else []


def ratios() -> Judged:
    """The gate."""
    found, failed = measure()
    failed += [str(ratio) for ratio in found if not ratio.held]
    if not found:
        failed.append("no ratio was measured")
    return Judged([str(ratio) for ratio in found], failed, [ratio._asdict() for ratio in found])
