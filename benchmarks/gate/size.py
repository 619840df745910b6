"""The gate of size: bytes of the wheel, and of all its files once installed. More than 5 % above the baseline fails."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Final

from benchmarks.gate.installed import Installed
from benchmarks.gate.judged import Judged

MORE: Final = 0.05


def measure(made: Installed) -> dict[str, int]:
    """{"wheel", "installed"}, in bytes."""
    with zipfile.ZipFile(made.wheel) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    return {"wheel": made.wheel.stat().st_size, "installed": unpacked}


def judge(before: Mapping[str, int], now: Mapping[str, int]) -> Judged:
    """`now` beside the baseline's."""
    lines, failed = [], []
    for name, value in now.items():
        change = value / before[name] - 1
        line = f"{name:38}{before[name]:14,}{value:14,}  {change:+.2%}"
        if change > MORE:
            line += "  FAILED"
            failed.append(f"size: {line}")
        lines.append(line)
    return Judged([f"{'bytes':38}{'baseline':>14}{'now':>14}", *lines], failed, dict(now))
