"""The calling process of mode rpc, when it stands still: what was due and not asked is scheduled all the same."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.requests import Asking, Target
from flux.loadgen.workers import caller
from flux.model import StreamKey
from flux.transport.sockets import Wake
from tests.high_descriptors import SELECT_ENDS, low_descriptors_taken

PLAN = Plan(mode="rpc", rate=50, duration_ns=NS_PER_S // 5, warmup_ns=0)
COMMANDS: Any = SimpleNamespace(stopping=False)


def calling() -> caller.Calling:
    """With no connection: whoever asks, or waits for an answer, fails."""
    return caller.Calling(PLAN, [], Asking(1, [Target(StreamKey("S", "A", "1s"), 1, 5, 1, 1)]), None)


@pytest.mark.parametrize("late_s", [3.3, 100.0])
def test_a_stall_longer_than_the_run_and_its_grace(late_s: float) -> None:
    run = calling()
    due = caller.call(run, time.monotonic_ns() - int(late_s * NS_PER_S), COMMANDS)
    assert (due, run.sent) == (10, 0)


def test_a_stall_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    run = calling()
    start_ns = [time.monotonic_ns() - NS_PER_S // 10]

    def stall(upto: int, _: int) -> None:
        run.sent = upto
        monkeypatch.setattr(time, "monotonic_ns", lambda: start_ns[0] + 60 * NS_PER_S)

    monkeypatch.setattr(run, "ask", stall)
    due = caller.call(run, start_ns[0], COMMANDS)
    assert due == 10 > run.sent >= 6


def test_it_waits_for_descriptors_of_any_number() -> None:
    with low_descriptors_taken():
        wake = Wake()
    try:
        wake.set()
        commands: Any = SimpleNamespace(wake=wake, taken=wake.clear)
        assert wake.fileno() >= SELECT_ENDS
        caller.wait(calling(), commands, 3_600 * NS_PER_S)
    finally:
        wake.close()
