"""Naps: the work of one thread is interrupted often, that of all others never."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from flux.kernels.naps import Naps
from tests.patience import PATIENCE_S, readable

WORK_NS, NAP_NS = 500_000, 300_000
BUSY_S = 0.05


def busy(until: Callable[[], bool]) -> None:
    """Work of C code that knows nothing of naps, with and without the GIL."""
    limit = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < limit
        hashlib.sha256(bytes(100_000)).digest()


def for_cpu(seconds: float) -> Callable[[], bool]:
    end = time.thread_time() + seconds
    return lambda: time.thread_time() >= end


def in_a_thread(work: Callable[[], None]) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(work).result()


def test_work_is_interrupted_by_naps_and_goes_on() -> None:
    def work() -> None:
        naps = Naps(WORK_NS, NAP_NS)
        naps.begin()
        busy(for_cpu(BUSY_S))
        naps.end()
        # Even if each nap found 4 ms of work done behind it, on a machine of slow ticks.
        assert naps.taken >= 10

    in_a_thread(work)


def test_a_nap_takes_its_time() -> None:
    def work() -> None:
        naps = Naps(WORK_NS, 2_000_000)
        began = time.monotonic_ns()
        naps.begin()
        busy(lambda: naps.taken >= 20)
        naps.end()
        assert time.monotonic_ns() - began >= 19 * 2_000_000

    in_a_thread(work)


def test_none_before_it_begins_and_none_behind_its_end() -> None:
    def work() -> None:
        naps = Naps(WORK_NS, NAP_NS)
        busy(for_cpu(BUSY_S))
        assert naps.taken == 0
        for _ in range(50):
            naps.begin()
            busy(for_cpu(0.0006))
            naps.end()
            taken = naps.taken
            busy(for_cpu(0.0005))
            assert naps.taken == taken

    in_a_thread(work)


def test_whoever_is_awake_stays_so_until_it_begins_again() -> None:
    def work() -> None:
        naps = Naps(WORK_NS, NAP_NS)
        naps.begin()
        busy(lambda: naps.taken > 0)
        waker = threading.Thread(target=naps.wake)
        waker.start()
        waker.join()
        taken = naps.taken
        busy(for_cpu(BUSY_S))
        assert naps.taken <= taken + 1  # one may have been under way
        naps.end()
        naps.begin()
        busy(lambda: naps.taken > taken + 1)
        naps.end()

    in_a_thread(work)


def test_other_threads_are_left_alone() -> None:
    def nap_id() -> int:
        return signal.SIGRTMIN + 5

    def work() -> None:
        naps = Naps(WORK_NS, NAP_NS)
        assert nap_id() in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        naps.begin()
        assert nap_id() not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        busy(for_cpu(BUSY_S))
        naps.end()
        assert nap_id() in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    in_a_thread(work)
    assert nap_id() not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_what_waits_in_the_kernel_is_not_failed_by_a_nap() -> None:
    def work() -> None:
        naps = Naps(WORK_NS, NAP_NS)
        out, into = os.pipe()
        answer = threading.Timer(0.05, lambda: os.write(into, b"x"))
        naps.begin()
        answer.start()
        assert readable(out)
        assert os.read(out, 1) == b"x"
        naps.end()
        answer.join()
        os.close(out)
        os.close(into)
        assert naps.taken > 0

    in_a_thread(work)


def test_two_threads_nap_each_for_itself() -> None:
    made: list[Naps] = []

    def work() -> None:
        naps = Naps(WORK_NS, NAP_NS)
        made.append(naps)
        naps.begin()
        busy(lambda: naps.taken >= 20)
        naps.end()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work), pool.submit(work)]:
            done.result()
    assert min(naps.taken for naps in made) >= 20


TAKEN = """
import signal
signal.signal(signal.SIGRTMIN + 5, lambda *_: None)
from flux.kernels.naps import Naps
try:
    Naps(100_000, 300_000)
except OSError as error:
    print(error.errno)
"""


def test_a_signal_that_is_somebody_elses_stays_theirs() -> None:
    done = subprocess.run([sys.executable, "-c", TAKEN], capture_output=True, text=True, check=True)
    assert int(done.stdout) == errno.EBUSY
