"""One trial: starts the broker and the two ends, waits for them, puts their numbers together, and ends all of it.

Every trial has processes of its own, and a broker of its own with an empty folder: nothing of one is left to the next.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from benchmarks.building import ROOT
from benchmarks.peers.bus.board import Board, Place
from benchmarks.peers.bus.pace import OPEN_LIMIT_NS
from benchmarks.peers.bus.spec import HELD_SHARE, Result, Spec
from flux.loadgen.plan import NS_PER_S

LIMIT_S: Final = OPEN_LIMIT_NS / NS_PER_S + 10  # beside the run itself
TICKS: Final = os.sysconf("SC_CLK_TCK")


_LIBC: Final = ctypes.CDLL(None)
_PR_SET_PDEATHSIG: Final = 1


def die_with_parent() -> None:
    """For a child before it becomes another program: what we start ends with us, however we end."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class TrialError(Exception):
    """A trial that gave no numbers, and why."""


@dataclasses.dataclass(slots=True)
class Broker:
    """A server that runs: where, and as which process. Without one: no address, no process."""

    address: str = ""
    pid: int = 0

    def cpu_s(self) -> float:
        """CPU time of all its threads so far."""
        if not self.pid:
            return 0.0
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


Started = Callable[[Path], AbstractContextManager[Broker]]
Command = Callable[[str, Spec, Path, str], Sequence[str]]  # role, spec, board, address -> argv


@contextlib.contextmanager
def no_broker(_: Path) -> Iterator[Broker]:
    """For buses without a server."""
    yield Broker()


def python_end(module: str) -> Command:
    """The command of an end that `module` of this folder drives."""

    def command(role: str, spec: Spec, board: Path, address: str) -> Sequence[str]:
        told = json.dumps(dataclasses.asdict(spec))
        return [sys.executable, "-m", "benchmarks.peers.bus.ends", role, module, told, str(board), address]

    return command


def trial(peer: str, spec: Spec, command: Command, started: Started = no_broker) -> Result:
    """Carry it out. What fails is in `Result.error`; then there are no numbers."""
    with tempfile.TemporaryDirectory(prefix="flux-peers-") as name:
        folder = Path(name)
        try:
            with started(folder) as broker:
                return _run(peer, spec, command, broker, folder)
        except (TrialError, OSError) as error:
            return Result(peer, spec.rate, error=str(error))


def _run(peer: str, spec: Spec, command: Command, broker: Broker, folder: Path) -> Result:
    path = folder / "board"
    board = Board.make(path)
    ends: dict[str, subprocess.Popen[str]] = {}
    with contextlib.ExitStack() as stack:
        for role in ("subscriber", "publisher"):
            process = subprocess.Popen(
                command(role, spec, path, broker.address),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                preexec_fn=die_with_parent,
            )
            ends[role] = stack.enter_context(process)
            stack.callback(process.kill)
        limit = LIMIT_S + spec.run_ns / NS_PER_S
        deadline = time.monotonic() + limit
        before_s = after_s = 0.0
        while any(process.poll() is None for process in ends.values()):
            if time.monotonic() > deadline:
                raise TrialError(f"not over within {limit:.0f} s")
            if any(process.poll() for process in ends.values()):
                break
            if not board[Place.START]:
                before_s = broker.cpu_s()
            if not board[Place.DONE]:
                after_s = broker.cpu_s()
            time.sleep(0.01)
        told = {role: _told(role, process) for role, process in ends.items()}
        if not all(told.values()):
            raise TrialError("an end was killed")
        return _result(peer, spec, board[Place.SENT], told, after_s - before_s)


def _told(role: str, process: subprocess.Popen[str]) -> dict[str, Any]:
    if process.poll() is None:  # the other one has failed
        process.kill()
    out, errors = process.communicate()
    if process.returncode > 0:
        raise TrialError(f"{role}: {(errors.strip().splitlines() or ['?'])[-1]}")
    made: dict[str, Any] = json.loads(out) if out else {}
    return made


def _result(peer: str, spec: Spec, sent: int, told: dict[str, dict[str, Any]], broker_s: float) -> Result:
    got, received = told["subscriber"], told["subscriber"]["received"]
    made = Result(peer, spec.rate, sent=sent, received=received, missing=sent - received)
    made.disorder = got["disorder"]
    made.scheduled = spec.messages or sent
    measured_ns = spec.duration_ns
    if spec.rate:
        measured_ns = max(measured_ns, got["last_ns"] - spec.warmup_ns)
        made.p50, made.p99, made.p999, made.max = (got[name] for name in ("p50", "p99", "p999", "max"))
    made.achieved = got["measured"] * NS_PER_S / measured_ns
    made.held = sent == made.scheduled and made.achieved >= HELD_SHARE * spec.rate
    if received:
        cpu_s = {"publisher": told["publisher"]["cpu_s"], "broker": broker_s, "subscriber": got["cpu_s"]}
        made.cpu_us = {who: round(seconds * 1e6 / received, 3) for who, seconds in cpu_s.items()}
    return made
