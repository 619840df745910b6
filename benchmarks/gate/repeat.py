"""Is a gate quiet? The same tree many times, a part of them beside a process on each processor that never rests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

SPINNER: Final = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
while True: pass
"""
"""Ends with us, however we end: its standard input does then."""


@contextmanager
def spinners() -> Iterator[int]:
    """One process for each processor that we may use, which does nothing as fast as it can; how many."""
    count = len(os.sched_getaffinity(0))
    processes = [
        subprocess.Popen([sys.executable, "-c", SPINNER], stdin=subprocess.PIPE) for _ in range(count)
    ]
    try:
        yield count
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def repeated(times: int, beside: int, judged: Callable[[], dict[str, Any]]) -> bool:
    """Judges `times` times, the last `beside` of them beside spinners, and says how it went; whether anything was not
    quiet. A tree that has not changed must never fail."""
    told = []
    for turn in range(times):
        spun, begin = turn >= times - beside, time.monotonic()
        if spun:
            with spinners():
                told.append(judged())
        else:
            told.append(judged())
        loud = told[-1]["failed"] + told[-1]["nothing"]
        print(
            f"=== run {turn + 1} of {times}{', beside spinners' if spun else ''}, "
            f"{time.monotonic() - begin:.0f} s: {'quiet' if not loud else 'LOUD'}",
            *loud,
            sep="\n  ",
            flush=True,
        )
    quiet = sum(not (run["failed"] or run["nothing"]) for run in told)
    open_ = sum(bool(run["unjudged"]) for run in told)
    print(
        f"{times} unchanged runs, {beside} of them beside a spinner on each of {len(os.sched_getaffinity(0))} "
        f"processors: {quiet} quiet, {times - quiet} loud; rate and latency were left open in {open_}"
    )
    return quiet < times
