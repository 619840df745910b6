"""Builds what the fuzzer runs, with AddressSanitizer and UndefinedBehaviorSanitizer, into build/fuzz.

The driver is C alone. Kernels whose reading is written in Cython are built a second time, with sanitizers, into a
copy of the package; a stock Python loads them when the sanitizers' libraries are preloaded.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks.building import ROOT, changed, compile_c, included, linked, package, sources

HERE = ROOT / "tests" / "fuzz"
EXT = ROOT / "ext"
OUT = ROOT / "build" / "fuzz"

SANITIZE = (
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
)
KERNELS = ("codec", "arrow", "ring", "pump")  # what codec and transport.pump load

OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:malloc_context_size=5:quarantine_size_mb=16",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
}


def _own_sources() -> list[Path]:
    return [*HERE.glob("*.h"), *HERE.glob("*.c")]


def build_driver(ext: Path = EXT, out: Path = OUT) -> Path:
    """The C driver for the headers in `ext`; built only when its sources changed."""
    out.mkdir(parents=True, exist_ok=True)
    made, coverage, mark = out / "driver", out / "coverage.o", out / "driver.state"
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Wno-unused-variable", *SANITIZE]
    if state := changed(mark, [*sources(ext), *_own_sources()], flags):
        mark.unlink(missing_ok=True)
        compile_c(coverage, ["-O2", "-c"], HERE / "coverage.c")
        found = ["-fsanitize-coverage=trace-pc", *included(ext)]
        programs = [HERE / name for name in ("driver.c", "target_window.c", "target_indicator.c")]
        compile_c(made, [*flags, *found], *programs, *linked(ext), coverage)
        mark.write_text(state)
    return made


def build_package() -> Path:
    """The folder that holds `flux` with sanitized kernels."""
    return package(ROOT, OUT, KERNELS, [*SANITIZE, "-fno-strict-aliasing"])


def build_mutations() -> Path:
    """The mutations of frames as a library, for the fuzzer's Python half; no sanitizers of its own."""
    OUT.mkdir(parents=True, exist_ok=True)
    made, mark = OUT / "mutations.so", OUT / "mutations.state"
    if state := changed(mark, [*sources(EXT), *_own_sources()], []):
        flags = ["-std=gnu11", "-O2", "-shared", "-fPIC", f"-I{EXT}"]
        compile_c(made, flags, HERE / "mutations.c", *linked(EXT))
        mark.write_text(state)
    return made


def sanitized_environment() -> dict[str, str]:
    """What a stock Python needs to load sanitized kernels, every allocation of Python's with its red zones."""
    libraries = []
    for name in ("libasan.so", "libubsan.so"):
        said = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
        libraries.append(said.stdout.strip())
    return os.environ | OPTIONS | {"LD_PRELOAD": " ".join(libraries), "PYTHONMALLOC": "malloc"}
