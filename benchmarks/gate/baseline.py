"""What the kernels took when somebody last said it was right, and whether they take more now.

Instructions depend on who compiled and on what runs the Python half. So the baseline names these, and where one of
them differs here, its numbers are not used: its commit is built here as well, and the two are compared.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.building import ROOT
from benchmarks.gate.instructions import OUT, PARTS, counted_by, measure

FILE: Final = ROOT / "benchmarks" / "baseline.json"
MORE: Final = 0.03
"""More instructions than the baseline's that a kernel may take, as a share."""
JUDGED: Final = ("ext", "src", "schemas", "CMakeLists.txt", "benchmarks/gate", "benchmarks/building.py")
"""What the numbers depend on: a baseline is only of what is committed of these."""


class NotComparableError(Exception):
    """There is nothing to compare with."""


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
    }


def differences(recorded: Mapping[str, Any]) -> list[str]:
    """In words, where this environment is not the baseline's."""
    before, now = recorded["environment"], environment()
    return [
        f"{name}: baseline {before.get(name, '?')}, here {value}"
        for name, value in now.items()
        if before.get(name) != value
    ]


def _tree_of(commit: str) -> Path:
    """The files of a commit. Raises NotComparableError where this clone does not have it."""
    folder = OUT / f"tree-{commit[:12]}"
    if folder.exists():
        return folder
    done = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        raise NotComparableError(
            f"the baseline's commit {commit[:12]} is not in this clone (git fetch --unshallow), and its numbers are "
            "of another environment"
        )
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def load(path: Path) -> dict[str, Any]:
    """The baseline. Raises NotComparableError where there is none."""
    if not path.exists():
        raise NotComparableError(f"no baseline at {path}: tools/bench_gate --accept 'why' makes one")
    recorded: dict[str, Any] = json.loads(path.read_text())
    return recorded


def judge(recorded: Mapping[str, Any], now: Mapping[str, float], parts: Sequence[str] = PARTS) -> list[Line]:
    """Line by line: `now` beside what is recorded, or beside what the recorded commit takes here.

    Raises NotComparableError where neither can be had, and what `measure` raises.
    """
    before: Mapping[str, float] = recorded["instructions"]
    if different := differences(recorded):
        print("another environment than the baseline's, so its commit is built and measured here:")
        print("\n".join(f"  {line}" for line in different), flush=True)
        commit = recorded["commit"]
        before = measure(_tree_of(commit), OUT / f"built-{commit[:12]}", parts)
    elif parts != PARTS:
        python = "python" in parts
        before = {name: n for name, n in before.items() if name.startswith("Python: ") is python}
    return [Line(name, before.get(name), now.get(name)) for name in sorted({*before, *now})]


def of(why: str, commit: str, instructions: Mapping[str, float]) -> dict[str, Any]:
    """A new baseline."""
    return {
        "why": why,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit,
        "environment": environment(),
        "instructions": {name: round(n, 2) for name, n in sorted(instructions.items())},
    }


def committed() -> str:
    """The commit that a baseline can be of. Raises NotComparableError while there is something uncommitted."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    if changed := git("status", "--porcelain", "--", *JUDGED):
        raise NotComparableError(f"commit first: a baseline names a commit, and this is in none\n{changed}")
    return git("rev-parse", "HEAD").strip()


def accept(path: Path, why: str, now: Mapping[str, float]) -> None:
    """Writes the baseline. Raises NotComparableError while something is uncommitted."""
    path.write_text(json.dumps(of(why, committed(), now), indent=2) + "\n")
    print(f"{path.name} is written; commit it by itself: git commit {path.name} -m {why!r}", file=sys.stderr)
