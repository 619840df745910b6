"""Ratios to peers: each is printed, kept for `tools/bench_gate`, and held against half of what design asks.

A ratio is of two figures of one run, taken in turns, each the least of many short rounds. The table's own figure is
judged by hand: on a shared machine a floor moves by a quarter, and a gate that cries wolf is turned off.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, NamedTuple

KEPT_IN: Final = "FLUX_RATIOS"
"""The environment variable that names a file: one line of JSON for each ratio is added to it."""


class Ratio(NamedTuple):
    """A figure, the table's bound for it, and whether that is an "at most"."""

    name: str
    value: float
    table: float
    most: bool

    @property
    def held(self) -> bool:
        """Within twice the bound of an "at most", or at least half of an "at least"."""
        return self.value <= 2 * self.table if self.most else self.value >= self.table / 2

    def __str__(self) -> str:
        bound = f"{'at most' if self.most else 'at least'} {self.table:g}"
        reached = self.value <= self.table if self.most else self.value >= self.table
        said = "FAILED" if not self.held else "" if reached else "short of the table"
        return f"{self.name:58}{self.value:12,.2f}   {bound:16}{said}"


def keep(ratio: Ratio) -> None:
    """Adds it to the gate's file, where there is one."""
    if path := os.environ.get(KEPT_IN):
        with Path(path).open("a") as file:
            file.write(json.dumps(ratio) + "\n")


def _hold(ratio: Ratio) -> None:
    print(f"\n{ratio}")
    keep(ratio)
    assert ratio.held, str(ratio)


def at_least(name: str, value: float, table: float) -> None:
    """The table says at least `table`; raises AssertionError below half of it."""
    _hold(Ratio(name, value, table, False))


def at_most(name: str, value: float, table: float) -> None:
    """The table says at most `table`; raises AssertionError above twice that."""
    _hold(Ratio(name, value, table, True))


def kept(path: Path) -> list[Ratio]:
    """What was written into a file."""
    return [Ratio(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
