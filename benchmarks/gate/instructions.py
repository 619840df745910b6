"""Instructions that each kernel takes for one operation, by callgrind: the same to a few in a hundred thousand,
whatever else the machine does."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.building import ROOT, changed, compile_c, included, linked, package, release_flags, sources

HERE = Path(__file__).resolve().parent
OUT = ROOT / "build" / "gate"
KERNELS = ("codec", "ring", "arrow")  # what from_python.py and what it imports may load
PARTS = ("c", "python")

_CALM = {"OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "LC_ALL": "C"}
_DUMP = re.compile(
    r"^desc: Trigger: Client Request: ([^\n]*) (\d+)$.*?^totals: (\d+)$", re.MULTILINE | re.DOTALL
)


class WrongResultError(Exception):
    """A kernel gave something that it must not give; its speed does not matter then."""


def _own_sources() -> list[Path]:
    return [*HERE.glob("in_c*"), HERE / "requests.c", HERE / "work.h"]


def _compile_in_c(made: Path, flags: Sequence[str], programs: Path, root: Path) -> None:
    files = [*sorted(programs.glob("in_c*.c")), *linked(root / "ext")]
    compile_c(made, [*flags, f"-I{programs}"], *files)


def _build_in_c(root: Path, out: Path) -> Path:
    """The programs of this folder against the headers of `root`; where those are too old for them, `root`'s own."""
    made, mark = out / "in_c", out / "in_c.state"
    flags = [*release_flags(root), "-D_GNU_SOURCE", "-w", *included(root / "ext")]  # as Python.h has it
    if state := changed(mark, [*sources(root / "ext"), *_own_sources()], flags):
        mark.unlink(missing_ok=True)
        own = root / "benchmarks" / "gate"
        try:
            _compile_in_c(made, flags, HERE, root)
        except subprocess.CalledProcessError:
            if own == HERE or not (own / "in_c.c").exists():
                raise
            print(f"counted by the programs of {root.name}: today's do not fit its headers", file=sys.stderr)
            _compile_in_c(made, flags, own, root)
        mark.write_text(state)
    return made


def counted_by() -> str:
    """What counts: a few hex digits that change with the programs of this folder. The compiler inlines a kernel one
    way or another as the calls around it change, so only counts of the same programs can be compared."""
    digest = hashlib.sha256()
    for path in sorted([*_own_sources(), HERE / "from_python.py"]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _build_requests(out: Path) -> Path:
    made, mark = out / "requests.so", out / "requests.state"
    if state := changed(mark, _own_sources(), []):
        compile_c(made, ["-O1", "-shared", "-fPIC"], HERE / "requests.c")
        mark.write_text(state)
    return made


def _counted(command: Sequence[str | Path]) -> dict[str, float]:
    """Runs a program that asks callgrind for dumps; instructions of one operation, by name."""
    with tempfile.TemporaryDirectory() as folder:
        dumps = Path(folder) / "dump"
        valgrind = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no"]
        done = subprocess.run(
            [*valgrind, f"--callgrind-out-file={dumps}", *command],
            capture_output=True,
            text=True,
            env=os.environ | _CALM,
            check=False,
        )
        wrong = re.findall(r"^wrong: (.*)$", done.stdout, re.MULTILINE)
        if wrong:
            raise WrongResultError(", ".join(wrong))
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} exit code {done.returncode}:\n{done.stderr[-4000:]}")
        counts: dict[str, list[tuple[int, int]]] = {}
        for path in Path(folder).glob("dump.*"):
            if found := _DUMP.search(path.read_text()):
                counts.setdefault(found[1], []).append((int(found[2]), int(found[3])))
    made = {}
    for name, pairs in counts.items():
        (n, few), (more, many) = sorted(pairs)
        made[name] = (many - few) / (more - n)
    return made


def measure(root: Path, out: Path, parts: Sequence[str] = PARTS) -> dict[str, float]:
    """Instructions of each operation of the kernels of the tree `root`, which are built into `out`.

    Raises WrongResultError where a kernel's result is not right, CalledProcessError where something does not build.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    if "c" in parts:
        found |= _counted([_build_in_c(root, out)])
    if "python" in parts:
        folder = package(root, out, KERNELS, release_flags(root))
        places = [_build_requests(out), folder, sysconfig.get_path("purelib")]
        found |= _counted([sys.executable, "-S", HERE / "from_python.py", *places])
    return found
