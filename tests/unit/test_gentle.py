"""Work that gives way: it naps, unless somebody waits for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from flux.server.storage import gentle
from flux.server.storage.gentle import NICE, Gentle
from tests.patience import PATIENCE_S


def work_until(naps: Gentle, enough: int) -> int:
    limit = time.monotonic() + PATIENCE_S
    while naps.naps < enough:
        assert time.monotonic() < limit
    return naps.naps


def until_awake(naps: Gentle) -> None:
    """Work until there is no nap in 20 ms of it, 200 times what is between two."""
    limit = time.monotonic() + PATIENCE_S
    seen, since = naps.naps, time.thread_time()
    while time.thread_time() - since < 0.02:
        assert time.monotonic() < limit
        if naps.naps != seen:
            seen, since = naps.naps, time.thread_time()


def never() -> bool:
    return False


def test_work_naps_in_a_thread_of_low_priority() -> None:
    with Gentle("test") as thread:
        assert thread.run(lambda: work_until(thread, 10), never) >= 10
        nice = thread.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), never)
        assert nice == NICE


def test_work_that_somebody_waits_for_naps_no_more() -> None:
    with Gentle("test") as thread:
        asked = threading.Event()

        def waited_for() -> bool:
            asked.set()
            return True

        def work() -> None:
            assert asked.wait(PATIENCE_S)
            until_awake(thread)

        thread.run(work, waited_for)
        assert thread.run(lambda: work_until(thread, thread.naps + 5), never) >= 5, "the next one naps again"


def test_work_that_takes_long_naps_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gentle, "NAPPING_S", 0.0)
    with Gentle("test") as thread:
        thread.run(lambda: until_awake(thread), never)


def test_what_it_raises_is_raised_to_who_asked() -> None:
    def fail() -> None:
        raise ValueError("of the work")

    with Gentle("test") as thread:
        with pytest.raises(ValueError, match="of the work"):
            thread.run(fail, never)
        assert thread.run(lambda: 7, never) == 7


TAKEN = """
import signal
signal.signal(signal.SIGRTMIN + 5, lambda *_: None)
from flux.server.storage.gentle import Gentle
with Gentle("test") as thread:
    print(thread.run(lambda: sum(range(1_000_000)), lambda: False), thread.naps)
"""


def test_it_works_without_naps_where_the_signal_is_somebody_elses() -> None:
    done = subprocess.run([sys.executable, "-c", TAKEN], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["499999500000", "0"]
    assert "takes no naps" in done.stderr
