"""Figures beside the table of what each station must reach, and how they are measured.

A figure comes from a group of benchmarks (`bounds.py` says how) or, where processes under load are measured, from a
benchmark of our own, which calls `note_at_least` or `note_at_most`. A gate is a ratio to a peer (or to a floor) and is
held against half of what the table asks. Everything else is of one machine's hour: it is shown, nothing fails of it.
The table's own figure is judged by hand: on a shared machine a floor moves by a quarter, and a gate that cries wolf
is turned off.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

KEPT_IN: Final = "FLUX_RATIOS"
"""The environment variable that names a file: one line of JSON for each figure that is noted is added to it."""


class Ratio(NamedTuple):
    """A figure, the table's bound for it, and whether that is an "at most"."""

    name: str
    value: float
    table: float
    most: bool
    unit: str = "x"
    gate: bool = True

    @property
    def reached(self) -> bool:
        """What the table asks."""
        return self.value <= self.table if self.most else self.value >= self.table

    @property
    def spent(self) -> float:
        """The share of the bound that was used up: above 1 is short of the table."""
        return self.value / self.table if self.most else self.table / self.value

    @property
    def held(self) -> bool:
        """Of a gate: within twice the bound of an "at most", or at least half of an "at least"."""
        if not self.gate:
            return True
        return self.value <= 2 * self.table if self.most else self.value >= self.table / 2

    def __str__(self) -> str:
        bound = f"{'at most' if self.most else 'at least'} {self.table:g}"
        said = "FAILED" if not self.held else "" if self.reached else "short of the table"
        return f"{self.name:64}{self.value:12,.2f} {self.unit:6} {bound:16}{said}"


def keep(ratio: Ratio) -> None:
    """Prints it, and adds it to the file of KEPT_IN where there is one."""
    print(f"\n{ratio}")
    if path := os.environ.get(KEPT_IN):
        with Path(path).open("a") as file:
            file.write(json.dumps(ratio) + "\n")


def note_at_least(name: str, value: float, table: float, unit: str) -> None:
    """The table says at least `table`; nothing is judged."""
    keep(Ratio(name, value, table, False, unit, gate=False))


def note_at_most(name: str, value: float, table: float, unit: str) -> None:
    """The table says at most `table`; nothing is judged."""
    keep(Ratio(name, value, table, True, unit, gate=False))


def kept(path: Path) -> list[Ratio]:
    """What was noted into a file."""
    return [Ratio(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def measure(
    python: Path, root: Path, arguments: Sequence[str | Path], environment: Mapping[str, str] | None = None
) -> tuple[list[Ratio], str]:
    """Runs benchmarks of a tree, `python -m pytest` with these arguments: every figure, and what was said where it
    failed, "" otherwise."""
    from benchmarks import bounds  # late: it is made of these ratios

    with tempfile.TemporaryDirectory() as folder:
        noted, told = Path(folder) / "noted", Path(folder) / "benchmarks.json"
        flags = ["-m", "pytest", "-q", "-p", "no:cacheprovider", f"--benchmark-json={told}"]
        done = subprocess.run(
            [python, *flags, *arguments],
            cwd=root,
            env=os.environ | (environment or {}) | {KEPT_IN: str(noted)},
            capture_output=True,
            text=True,
            check=False,
        )
        found = kept(noted) + bounds.read(told)
    said = f"{' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-2000:]}"
    return found, said if done.returncode else ""
