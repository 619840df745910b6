"""What the kernels took when somebody last said it was right, and whether they take more now.

Instructions and sizes depend on who compiled and on what runs the Python half. So the baseline names these, and where
one that matters differs here, its numbers are not used: its tree (`accepted.py` finds it) is built here as well, and
the two are compared.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.building import ROOT
from benchmarks.gate import size
from benchmarks.gate.accepted import NotComparableError, committed, folders, tree_of
from benchmarks.gate.installed import install
from benchmarks.gate.instructions import OUT, PARTS, counted_by, measure

FILE: Final = ROOT / "benchmarks" / "baseline.json"
MORE: Final = 0.03
"""More instructions than the baseline's that a kernel may take, as a share."""

IN_C: Final = ("compiler", "libc", "valgrind", "counted by", "machine")
IN_PYTHON: Final = (*IN_C, "python", "cython", "numpy")
OF_SIZE: Final = ("compiler", "cython", "wheel")
"""What of the environment the numbers of each kind depend on."""


class Line(NamedTuple):
    """One operation: instructions in the baseline and now; None where it is not there."""

    name: str
    before: float | None
    now: float | None

    @property
    def change(self) -> float:
        """As a share of the baseline: 0.05 is five in a hundred more. 0 for what is new."""
        if self.now is None:
            return float("inf")
        return self.now / self.before - 1 if self.before else 0.0

    @property
    def failed(self) -> bool:
        """More than it may be, or no longer counted."""
        return self.change > MORE

    def __str__(self) -> str:
        before, now = (f"{n:14,.1f}" if n is not None else " " * 13 + "-" for n in (self.before, self.now))
        said = "new" if self.before is None else "gone" if self.now is None else f"{self.change:+.2%}"
        return f"{self.name:38}{before}{now}  {said:>8}{'  FAILED' if self.failed else ''}"


def environment() -> dict[str, str]:
    """What the numbers depend on beside the tree."""
    gcc = subprocess.run(["gcc", "--version"], capture_output=True, text=True, check=True).stdout
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout
    cpu = Path("/proc/cpuinfo").read_text()
    flags = set(next((line for line in cpu.splitlines() if line.startswith("flags")), "").split())
    return {
        "compiler": gcc.splitlines()[0],
        "python": platform.python_version(),
        "cython": version("cython"),
        "numpy": version("numpy"),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": valgrind.strip(),
        "counted by": counted_by(),
        "machine": " ".join(
            [platform.machine(), *sorted(flags & {"avx2", "bmi2", "erms", "pclmulqdq", "sse4_2"})]
        ),
        "wheel": f"cp{sys.version_info.major}{sys.version_info.minor} {platform.machine()}",
    }


def differences(recorded: Mapping[str, Any], of: Collection[str]) -> list[str]:
    """In words, where this environment is not the baseline's, of what is asked for."""
    before, now = recorded["environment"], environment()
    return [
        f"{name}: baseline {before.get(name, '?')}, here {value}"
        for name, value in now.items()
        if name in of and before.get(name) != value
    ]


def _elsewhere(recorded: Mapping[str, Any], different: Sequence[str]) -> Path:
    """The baseline's tree, because its numbers are of another environment; says so."""
    said, folder = tree_of(recorded)
    print(f"another environment than the baseline's, so {said} is built and measured here:")
    print("\n".join(f"  {line}" for line in different), flush=True)
    return folder


def load(path: Path) -> dict[str, Any]:
    """The baseline. Raises NotComparableError where there is none."""
    if not path.exists():
        raise NotComparableError(f"no baseline at {path}: tools/bench_gate --accept 'why' makes one")
    recorded: dict[str, Any] = json.loads(path.read_text())
    return recorded


def compared(before: Mapping[str, float], now: Mapping[str, float]) -> list[Line]:
    """Operation by operation."""
    return [Line(name, before.get(name), now.get(name)) for name in sorted({*before, *now})]


def judge(recorded: Mapping[str, Any], now: Mapping[str, float], parts: Sequence[str] = PARTS) -> list[Line]:
    """Line by line: `now` beside what is recorded, or beside what the recorded tree takes here.

    Raises NotComparableError where neither can be had, and what `measure` raises.
    """
    before: dict[str, float] = {}
    for part in parts:
        if different := differences(recorded, IN_PYTHON if part == "python" else IN_C):
            folder = _elsewhere(recorded, different)
            before |= measure(folder, OUT / f"built-{folder.name}", [part])
        else:
            kept: Mapping[str, float] = recorded["instructions"]
            before |= {
                name: n for name, n in kept.items() if name.startswith("Python: ") == (part == "python")
            }
    return compared(before, now)


def sizes(recorded: Mapping[str, Any]) -> Mapping[str, int]:
    """Bytes to compare with: the baseline's, or those of its tree, built here. Raises as `judge`."""
    different = differences(recorded, OF_SIZE)
    if "size" in recorded and not different:
        kept: Mapping[str, int] = recorded["size"]
        return kept
    folder = _elsewhere(recorded, different or ["size: not in the baseline"])
    return size.measure(install(folder, OUT / f"built-{folder.name}"))


def of(
    why: str, commit: str, instructions: Mapping[str, float], measured: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """A new baseline, of a commit."""
    made: dict[str, Any] = {
        "why": why,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit,
        "environment": environment(),
        "instructions": {name: round(n, 2) for name, n in sorted(instructions.items())},
    }
    return made | ({"size": dict(measured)} if measured else {})


def accept(path: Path, why: str, now: Mapping[str, float], measured: Mapping[str, int]) -> None:
    """Writes the baseline. Raises NotComparableError while something is uncommitted."""
    commit = committed()
    made = of(why, commit, now, measured) | {"trees": folders(commit)}
    path.write_text(json.dumps(made, indent=2) + "\n")
    print(f"{path.name} is written; commit it by itself: git commit {path.name} -m {why!r}", file=sys.stderr)
