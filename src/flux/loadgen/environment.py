"""Where a run ran and who else was busy there: what a reader of its report needs to know much later.

`other_cpu` and `stolen_cpu` are shares of one core (1.0 = one core for the whole run): what other processes
took, and what the host of a virtual machine took from it. They are hints at noise, no verdict: CPU time that
the kernel spends on the network is not in `other_cpu`, and a server that was running before counts as other.
"""

from __future__ import annotations

import os
import platform
import resource
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

_STAT: Final = Path("/proc/stat")
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


def _machine_s() -> tuple[float, float]:
    """CPU seconds since boot, all cores: of processes, and stolen by the host."""
    user, nice, system, _, _, _, _, stolen = (int(n) for n in _STAT.read_text().split(maxsplit=9)[1:9])
    return (user + nice + system) / _TICKS_PER_S, stolen / _TICKS_PER_S


def _own_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Surroundings:
    """The machine around a run: made just before it, `seen` just after it, its processes' start and end included."""

    def __init__(self) -> None:
        self._started = datetime.now(UTC)
        self._load_1m = os.getloadavg()[0]
        self._wall_s, self._own_s = time.monotonic(), _own_s()
        self._busy_s, self._stolen_s = _machine_s()

    def seen(self) -> dict[str, Any]:
        """What a report's `env` gets beside `environment`: started, load_1m, other_cpu, stolen_cpu."""
        wall_s = max(time.monotonic() - self._wall_s, 1e-9)
        busy_s, stolen_s = _machine_s()
        others_s = (busy_s - self._busy_s) - (_own_s() - self._own_s)
        return {
            "started": self._started.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "load_1m": round(self._load_1m, 2),
            "other_cpu": round(max(0.0, others_s / wall_s), 3),
            "stolen_cpu": round(max(0.0, (stolen_s - self._stolen_s) / wall_s), 3),
        }
