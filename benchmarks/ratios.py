"""Figures beside the table of what each station must reach: printed, kept, and the gates among them held.

A gate is a ratio to a peer (or to a floor) and is held against half of what the table asks. A figure that is only noted
is of one machine's hour: `tools/bench_table` shows it with its verdict, nothing fails of it.

A ratio is of two figures of one run, taken in turns, each the least of many short rounds. The table's own figure is
judged by hand: on a shared machine a floor moves by a quarter, and a gate that cries wolf is turned off.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, NamedTuple

KEPT_IN: Final = "FLUX_RATIOS"
"""The environment variable that names a file: one line of JSON for each figure is added to it."""


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
    """Adds it to the gate's file, where there is one."""
    if path := os.environ.get(KEPT_IN):
        with Path(path).open("a") as file:
            file.write(json.dumps(ratio) + "\n")


def _hold(ratio: Ratio) -> None:
    print(f"\n{ratio}")
    keep(ratio)
    assert ratio.held, str(ratio)


def at_least(name: str, value: float, table: float, unit: str = "x") -> None:
    """The table says at least `table`; raises AssertionError below half of it."""
    _hold(Ratio(name, value, table, False, unit))


def at_most(name: str, value: float, table: float, unit: str = "x") -> None:
    """The table says at most `table`; raises AssertionError above twice that."""
    _hold(Ratio(name, value, table, True, unit))


def note_at_least(name: str, value: float, table: float, unit: str) -> None:
    """The table says at least `table`; nothing is judged."""
    _hold(Ratio(name, value, table, False, unit, gate=False))


def note_at_most(name: str, value: float, table: float, unit: str) -> None:
    """The table says at most `table`; nothing is judged."""
    _hold(Ratio(name, value, table, True, unit, gate=False))


def kept(path: Path) -> list[Ratio]:
    """What was written into a file."""
    return [Ratio(*json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
