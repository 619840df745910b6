"""Slices of threads: short where rows are carried, the usual one where something is computed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flux import slices, testing
from flux.limits import SLICE_NS

needs_slices = pytest.mark.skipif(not slices.granted(), reason="this kernel gives no slices (Linux 6.12)")


def in_thread(*steps: object) -> list[int | None]:
    """The slice of a thread after each of these calls."""
    found: list[int | None] = []

    def run() -> None:
        for step in steps:
            if callable(step):
                step()
            found.append(slices.slice_ns())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


@needs_slices
def test_threads_made_within_have_the_short_slice_and_the_caller_gets_its_own_back() -> None:
    before = slices.slice_ns()
    assert before != SLICE_NS
    with slices.short_slices():
        assert slices.slice_ns() == SLICE_NS
        assert in_thread(None) == [SLICE_NS]
    assert slices.slice_ns() == before
    assert in_thread(None) == [before]


@needs_slices
def test_a_thread_that_computes_has_the_usual_one_and_may_have_a_low_priority() -> None:
    usual = in_thread(slices.usual_slice)[0]
    assert usual != SLICE_NS
    nices = []
    with slices.short_slices():
        assert in_thread(slices.usual_slice) == [usual]
        found = in_thread(
            slices.low_priority,
            lambda: nices.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())),
        )
    assert found == [usual, usual]
    assert nices == [slices.NICE]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) != slices.NICE


@needs_slices
def test_a_process_inherits_it_and_can_put_it_back() -> None:
    said = "from flux import slices; print(slices.slice_ns()); slices.usual_slice(); print(slices.slice_ns())"
    with slices.short_slices():
        done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    first, second = done.stdout.split()
    assert int(first) == SLICE_NS
    assert int(second) != SLICE_NS


def test_where_there_are_none_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_NUMBERS", {})
    assert slices.slice_ns() is None
    with slices.short_slices():
        slices.usual_slice()
    assert not slices.granted()


@needs_slices
def test_a_servers_threads_have_short_slices_but_for_those_that_compute(tmp_path: Path) -> None:
    usual = slices.slice_ns()
    before = tasks()
    with testing.server(data=tmp_path):
        named = {thread.name: slices.slice_ns(thread.native_id or 0) for thread in threading.enumerate()}
        for name in ("flux loop", "flux committer", "flux heart", "flux requests"):
            assert named[name] == SLICE_NS, name
        for name in ("flux projector", "flux store"):
            assert named[name] != SLICE_NS, name
        zmq = [slices.slice_ns(task) for task, name in tasks().items() - before.items() if "ZMQ" in name]
        assert SLICE_NS in zmq, "libzmq's own"
    assert slices.slice_ns() == usual


def tasks() -> dict[int, str]:
    """The threads of this process, made by whom ever, with their names."""
    return {int(path.name): (path / "comm").read_text() for path in Path("/proc/self/task").iterdir()}
