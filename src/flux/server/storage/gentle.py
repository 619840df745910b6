"""Work that gives way: a thread that takes a core when nobody else wants it, and never keeps one for long.

A low priority lets others go first, but not always: the scheduler owes even the lowest its share, and pays it in
pieces of up to a tick, 4 ms, while rows under way wait behind it. So the work also naps (`ext/naps.h`): every 0.1 ms,
for 0.3 ms. What it does inside the kernel, clearing pages say, still holds a core until it is done.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from flux.kernels.naps import Naps

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger("flux.server")
_Made = TypeVar("_Made")

NICE: Final = 19
WORK_NS: Final = 100_000
NAP_NS: Final = 300_000
NAPPING_S: Final = 1.5
"""Work that takes longer goes on without naps."""
LOOK_S: Final = 0.05
"""How often it is looked whether somebody waits for the work."""


class Gentle:
    """One thread for such work; a context that ends it."""

    def __init__(self, name: str) -> None:
        self._naps: Naps | None = None
        self._pool = ThreadPoolExecutor(1, name, self._begin)

    def __enter__(self) -> Gentle:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    @property
    def naps(self) -> int:
        """Taken so far; 0 where this system has no timers left to give."""
        return 0 if self._naps is None else self._naps.taken

    def run(self, work: Callable[[], _Made], waited_for: Callable[[], bool]) -> _Made:
        """Do it, and hand back or raise what came of it. Without further naps as soon as it is `waited_for`."""
        began = time.monotonic()
        under_way = self._pool.submit(self._work, work)
        while not concurrent.futures.wait((under_way,), LOOK_S).done:
            if self._naps is not None and (waited_for() or time.monotonic() - began > NAPPING_S):
                self._naps.wake()
        return under_way.result()

    def _begin(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            self._naps = Naps(WORK_NS, NAP_NS)
        except OSError as error:  # a limit on timers, a host program that uses the signal itself
            _LOG.warning(
                "%s has a low priority, but takes no naps: %s", threading.current_thread().name, error
            )

    def _work(self, work: Callable[[], _Made]) -> _Made:
        if self._naps is None:
            return work()
        self._naps.begin()
        try:
            return work()
        finally:
            self._naps.end()
