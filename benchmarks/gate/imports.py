"""The gate of what starting flux costs: the modules that are loaded, and the time they take.

`import flux.codec` is for other people's services: numpy and the kernels only, and within 25 ms of numpy itself;
`flux --help` answers without numpy, within 100 ms. *Which* modules are loaded is exact. Of time it is the processor's
that counts, the least of many turns in turn: what is waited for while somebody else has the processor is not ours.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.gate.installed import PLAIN
from benchmarks.gate.judged import Judged

MORE_MS: Final = 25.0
"""What `import flux.codec` may take more than `import numpy`."""
HELP_MS: Final = 100.0
"""What all of `flux --help` may take, the interpreter's start included."""
TURNS: Final = 15

FLUX_CODEC: Final = (
    "flux flux.batch flux.codec flux.codec.messages flux.errors flux.kernels flux.kernels.arrow flux.kernels.codec "
    "flux.limits flux.model"
)
FLUX_HELP: Final = "flux flux.cli flux.cli.main flux.cli.terminal flux.errors"


class Start(NamedTuple):
    """A way to start: what runs, what it may load of flux, and what it imports beside that, with all of *its* own."""

    name: str
    code: str
    flux: str
    beside: str


STARTS: Final = (
    Start(
        "import flux.codec",
        "import flux.codec",
        FLUX_CODEC,
        "numpy __future__ collections.abc copy dataclasses enum importlib pathlib re struct typing",
    ),
    Start(
        "flux --help",
        "import sys; sys.argv = ['flux', '--help']\nfrom flux.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass",
        FLUX_HELP,
        "__future__ argparse collections.abc difflib importlib io locale logging os shutil signal sys typing",
    ),
)
_TELL: Final = "\nimport sys; print(*sorted(sys.modules), file=sys.stderr)"


def _modules(python: Path, code: str) -> set[str]:
    done = subprocess.run(
        [python, "-I", "-c", code + _TELL], env=PLAIN, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


def strangers(python: Path, start: Start) -> list[str]:
    """What is loaded and should not be. What the library's own modules load is asked of this Python: it is another
    set in each version."""
    before = _modules(python, "\n".join(f"import {name}" for name in start.beside.split()))
    loaded = _modules(python, start.code) - before - set(start.flux.split())
    return sorted(name for name in loaded if not name.startswith(("_cython_", "cython_runtime")))


def _ms(python: Path, code: str) -> tuple[float, float]:
    """Processor and wall ms of a process that does this alone."""
    begin = time.monotonic()
    process = subprocess.Popen(
        [python, "-I", "-c", code], env=PLAIN | {"OPENBLAS_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
    )
    _, status, used = os.wait4(process.pid, 0)
    wall = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args)
    return (used.ru_utime + used.ru_stime) * 1e3, wall * 1e3


def measure(python: Path, turns: int = TURNS) -> dict[str, Any]:
    """{"ms": of each way to start, "wall_ms": the same, "strangers": by way}."""
    ways = {"import numpy": "import numpy"} | {start.name: start.code for start in STARTS}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, code in ways.items():
            taken[name].append(_ms(python, code))
    return {
        "ms": {name: round(min(cpu for cpu, _ in pairs), 2) for name, pairs in taken.items()},
        "wall_ms": {name: round(min(wall for _, wall in pairs), 2) for name, pairs in taken.items()},
        "strangers": {start.name: strangers(python, start) for start in STARTS},
    }


def judge(found: dict[str, Any]) -> Judged:
    """Of what `measure` gave."""
    ms, wall = found["ms"], found["wall_ms"]
    codec, numpy = ms["import flux.codec"], ms["import numpy"]
    lines = [
        f"import flux.codec: {codec - numpy:.1f} ms more than numpy ({numpy:.1f} ms), at most {MORE_MS:g}; on the "
        f"clock {wall['import flux.codec'] - wall['import numpy']:.1f} ms more",
        f"flux --help: {ms['flux --help']:.1f} ms, at most {HELP_MS:g}; on the clock {wall['flux --help']:.1f} ms",
    ]
    failed = [f"{name} loads {', '.join(those)}" for name, those in found["strangers"].items() if those]
    failed += [lines[0]] if codec - numpy > MORE_MS else []
    failed += [lines[1]] if ms["flux --help"] > HELP_MS else []
    return Judged(lines, failed, found)
