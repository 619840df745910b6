"""Was the machine ours in these seconds? Asked without flux: of processors' own accounts, and of sleepers.

A latency is flux's only where two things that know nothing of flux say that the machine was calm:

- what others used: the time that the processors were busy (and the time that a hypervisor took away), less what our
  own processes used;
- how late a sleeper wakes up that does nothing else, on each processor, in the same seconds (`calm.c`).

A generator that is late by its own fault moves neither of them, so it cannot excuse itself.
"""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from benchmarks.building import changed, compile_c
from benchmarks.gate.instructions import HERE, OUT

OTHERS: Final = 0.25
"""Processors that others may use, in sum, while a machine still counts as calm."""
LATE_NS: Final = 1_000_000
"""p99 of the lateness of a sleeper, on the worst processor, up to which it does."""


class Calm(NamedTuple):
    """What the machine was like for a while."""

    others: float
    late_p99_ns: int
    late_max_ns: int

    @property
    def calm(self) -> bool:
        """Ours alone, and awake in time."""
        return self.others <= OTHERS and self.late_p99_ns <= LATE_NS

    def __str__(self) -> str:
        return (
            f"{'calm' if self.calm else 'busy'} machine: others used {self.others:.2f} processors, a sleeper woke up "
            f"late by {self.late_p99_ns / 1e6:.2f} ms (p99), {self.late_max_ns / 1e6:.1f} ms at worst"
        )


def _busy_s() -> float:
    """Seconds that the processors we may use were busy or taken away, since the machine's start. Interrupts are left
    out: those of a loopback connection are ours, and no process's account has them."""
    ours = {f"cpu{cpu}" for cpu in os.sched_getaffinity(0)}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name in ours:
            user, nice, system, _, _, _, _, steal = map(int, ticks[:8])
            busy += user + nice + system + steal
    return busy / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Seconds that this process and those it has waited for have used."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in spent)


def _sleepers() -> Path:
    made, mark = OUT / "calm", OUT / "calm.state"
    if state := changed(mark, [HERE / "calm.c"], []):
        OUT.mkdir(parents=True, exist_ok=True)
        compile_c(made, ["-O2", "-pthread", "-Wall"], HERE / "calm.c")
        mark.write_text(state)
    return made


class Watch:
    """`with Watch() as watch: ...` then `watch.seen`. What runs inside must be waited for inside."""

    seen: Calm

    def __enter__(self) -> Watch:
        program = _sleepers()
        self._busy, self._own, self._begin = _busy_s(), _own_s(), time.monotonic()
        self._process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        told, _stderr = self._process.communicate()  # closes its stdin, which ends it
        if kind is None:
            passed = time.monotonic() - self._begin
            used = (_busy_s() - self._busy) - (_own_s() - self._own)
            lines = [tuple(map(int, line.split())) for line in told.splitlines()]
            self.seen = Calm(
                round(max(0.0, used) / passed, 3),
                max(line[2] for line in lines),
                max(line[3] for line in lines),
            )
