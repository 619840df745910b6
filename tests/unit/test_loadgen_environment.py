"""What other processes took while a run ran (L4): from a /proc that these tests write, and from the machine's own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flux.loadgen import environment
from flux.loadgen.environment import Surroundings

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
OWN = 100


class Proc:
    """A /proc: of each process its own ticks and those of its ended children."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self._now = 1000.0
        monkeypatch.setattr(environment.time, "monotonic", lambda: self._now)
        self.machine(0)
        self.process(2, 5, name="kthreadd")
        self.process(OWN, 50)

    def process(self, pid: int, ticks: int, ended: int = 0, name: str = "a (strange) name") -> None:
        folder = self.folder / str(pid)
        folder.mkdir(exist_ok=True)
        (folder / "comm").write_text(f"{name}\n")
        times = f"{ticks // 2} {ticks - ticks // 2} {ended // 3} {ended - ended // 3}"
        (folder / "stat").write_text(f"{pid} ({name}) S 1 1 1 0 -1 4194560 9 9 9 9 {times} 20 0 1 0 77")

    def end(self, pid: int) -> None:
        for file in (self.folder / str(pid)).iterdir():
            file.unlink()
        (self.folder / str(pid)).rmdir()

    def machine(self, busy: int) -> None:
        (self.folder / "stat").write_text(f"cpu {busy} 0 0 99 0 0 0 0 0 0\ncpu0 {busy} 0 0 99 0 0 0 0 0 0\n")

    def pass_by(self, seconds: float) -> None:
        self._now += seconds


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    return Proc(tmp_path, monkeypatch)


def test_what_others_took_is_exact_and_ticks_of_the_machine_do_not_count(proc: Proc) -> None:
    proc.process(7, 1000)
    around = Surroundings(proc.folder)
    proc.process(7, 1000 + 15 * TICKS_PER_S // 100)
    proc.process(OWN, 50 + 3 * TICKS_PER_S)
    proc.machine(46 * TICKS_PER_S)  # sampled, and wrong
    proc.pass_by(1)
    seen = around.seen()
    assert seen["other_cpu"] == 0.15
    assert 0 < seen["other_cpu_error"] < 0.1


def test_what_a_run_and_its_processes_took_is_not_others(proc: Proc) -> None:
    around = Surroundings(proc.folder)
    proc.process(OWN, 50 + TICKS_PER_S, ended=7 * TICKS_PER_S)
    proc.pass_by(2)
    assert around.seen()["other_cpu"] == 0


def test_a_process_that_ended_hands_over_its_time(proc: Proc) -> None:
    proc.process(8, 10)
    proc.process(9, TICKS_PER_S)
    around = Surroundings(proc.folder)
    proc.end(9)  # after half a second more
    proc.process(8, 10, ended=TICKS_PER_S + TICKS_PER_S // 2)
    proc.pass_by(1)
    assert around.seen()["other_cpu"] == 0.5


def test_a_container_has_the_machines_sum_and_says_how_wrong_it_may_be(proc: Proc) -> None:
    proc.end(2)
    around = Surroundings(proc.folder)
    proc.machine(100 * TICKS_PER_S)
    proc.pass_by(1)
    seen = around.seen()
    assert seen["other_cpu"] > 50
    assert seen["other_cpu_error"] == 0.3


BUSY = "import time\nwhile time.process_time() < 0.4: pass"


def test_what_another_process_took_is_seen() -> None:
    if not environment._sees_all(environment._PROC):
        pytest.skip("not all processes can be seen here")
    began, around = time.monotonic(), Surroundings()
    with subprocess.Popen([sys.executable, "-c", BUSY]) as busy:  # not ours yet: until it is waited for
        os.waitid(os.P_PID, busy.pid, os.WEXITED | os.WNOWAIT)
        seen = around.seen()
    wall_s = time.monotonic() - began
    assert (seen["other_cpu"] + seen["other_cpu_error"]) * wall_s >= 0.4
