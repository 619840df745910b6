"""Where a run ran and who else was busy there: what a reader of its report needs to know much later.

`other_cpu` and `stolen_cpu` are shares of one core (1.0 = one core for the whole run): what other processes
took, and what the host of a virtual machine took from it. They are hints at noise, no verdict: CPU time that
the kernel spends on the network is not in `other_cpu`, and a server that was running before counts as other.

What others took is the sum over all processes, each of which the kernel accounts for exactly and shows in ticks of 10
ms; a process that ends hands its time to the one that waits for it, so nothing is lost with it. The sum of the machine
(/proc/stat) is none of that: it asks at each tick who is running, and does not see who always sleeps then. It is what
there is where not all processes can be seen (a container). `other_cpu_error` says by how much `other_cpu` may be wrong.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import resource
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

_PROC: Final = Path("/proc")
_PRETENDED: Final = 100  # this process, in another /proc than the machine's
_TIMES: Final = 4  # that a process's line has
_CUT: Final = 12**-0.5  # ticks: the deviation of what is cut off
_SAMPLED: Final = 0.3  # a share of a core: so wrong was the machine's sum beside busy loops of known length
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_name() -> str:
    """The processor's name as the kernel gives it, else the machine's kind."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def environment(libzmq: str) -> dict[str, Any]:
    """What is so for as long as this process lives: versions, processor, cores that it may use."""
    return {
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "libzmq": libzmq,
    }


class _Busy(NamedTuple):
    """CPU time so far, in ticks: of all processes, and of this one with its children that have ended."""

    all: float
    own: float
    by_process: dict[int, int]  # empty: only the machine's sum is known


def _busy(proc: Path) -> _Busy:
    """What /proc says now."""
    own = os.getpid() if proc == _PROC else _PRETENDED
    ticks: dict[int, int] = {}
    for entry in os.scandir(proc) if _sees_all(proc) else ():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended
                found = (proc / entry.name / "stat").read_text(errors="replace")
                # Of itself, user and system, and of its children that have ended.
                ticks[int(entry.name)] = sum(map(int, found.rpartition(")")[2].split()[11:15]))
    if ticks:
        return _Busy(sum(ticks.values()), ticks.get(own, 0), ticks)
    user, nice, system = (int(n) for n in (proc / "stat").read_text().split(maxsplit=4)[1:4])
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return _Busy(user + nice + system, sum(one.ru_utime + one.ru_stime for one in used) * _TICKS_PER_S, {})


def _error(before: _Busy, after: _Busy) -> float | None:
    """By how many ticks the difference may be wrong, where it is known: each time is cut down to a whole tick, and of
    so many times that moved the error is that of a random walk, three times over."""
    if not (before.by_process and after.by_process):
        return None
    moved = sum(count != before.by_process.get(number, 0) for number, count in after.by_process.items())
    ended = len(before.by_process.keys() - after.by_process.keys())
    return 3 * _CUT * math.sqrt(2 * _TIMES * (moved + ended + 1))


def _sees_all(proc: Path) -> bool:
    """Whether the processes here are those of the machine: the kernel's own are among them."""
    try:
        return (proc / "2" / "comm").read_text().strip() == "kthreadd"
    except OSError:
        return False


def _stolen_s(proc: Path) -> float:
    return int((proc / "stat").read_text().split(maxsplit=9)[8]) / _TICKS_PER_S


class Surroundings:
    """The machine around a run: made just before it, `seen` just after it, its processes' start and end included."""

    def __init__(self, proc: Path = _PROC) -> None:
        self._proc = proc
        self._started = datetime.now(UTC)
        self._load_1m = os.getloadavg()[0]
        self._wall_s = time.monotonic()
        self._busy, self._stolen_s = _busy(proc), _stolen_s(proc)

    def seen(self) -> dict[str, Any]:
        """What a report's `env` gets beside `environment`: started, load_1m, other_cpu, other_cpu_error, stolen_cpu."""
        wall_s = max(time.monotonic() - self._wall_s, 1e-9)
        busy, before = _busy(self._proc), self._busy
        others = (busy.all - before.all) - (busy.own - before.own)
        error = _error(before, busy)
        return {
            "started": self._started.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "load_1m": round(self._load_1m, 2),
            "other_cpu": round(max(0.0, others / _TICKS_PER_S / wall_s), 3),
            "other_cpu_error": _SAMPLED if error is None else round(error / _TICKS_PER_S / wall_s, 3),
            "stolen_cpu": round(max(0.0, (_stolen_s(self._proc) - self._stolen_s) / wall_s), 3),
        }
