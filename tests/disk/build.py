"""Builds the library that records, kills and fails, into build/disk; and the environment that preloads it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from benchmarks.building import ROOT, changed, compile_c

HERE = ROOT / "tests" / "disk"
OUT = ROOT / "build" / "disk"
FLAGS = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]


_BUILDING = threading.Lock()  # trials run beside one another


def build_shim() -> Path:
    """The library; built only when its sources changed."""
    OUT.mkdir(parents=True, exist_ok=True)
    made, mark = OUT / "shim.so", OUT / "shim.state"
    sources = [HERE / name for name in ("shim.c", "shim.h", "shim_sockets.h")]
    with _BUILDING:
        if state := changed(mark, sources, FLAGS):
            fresh = made.with_suffix(f".{os.getpid()}")  # a process may be using the old one
            compile_c(fresh, FLAGS, HERE / "shim.c")
            fresh.rename(made)
            mark.write_text(state)
    return made


def environment(
    root: Path,
    log: Path,
    *,
    kill: int | None = None,
    fail: tuple[int, int, str] | None = None,
    cause: Path | None = None,
) -> dict[str, str]:
    """What a process on the data directory `root` needs to be recorded, and `kill`ed before that entry or made to
    `fail`: (which call, errno, mode), as shim.h says."""
    made = {
        "LD_PRELOAD": str(build_shim()),
        "FLUX_DISK_ROOT": str(root.resolve()),
        "FLUX_DISK_LOG": str(log.resolve()),
    }
    if kill is not None:
        made["FLUX_DISK_KILL"] = str(kill)
    if fail is not None:
        made["FLUX_DISK_FAIL"] = " ".join(map(str, fail))
    if cause is not None:
        made["FLUX_DISK_CAUSE"] = str(cause.resolve())
    return made
