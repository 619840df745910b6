"""asyncio for the clients that need it: which loop, and a clock that is fine enough for a tick of 100 µs."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from benchmarks.peers.bus.pace import Pace
from flux.loadgen.plan import NS_PER_S


def run(end: Coroutine[Any, Any, None]) -> None:
    """In uvloop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(end)
    else:
        uvloop.run(end)


async def publish_async(pace: Pace, send: Callable[[int, list[bytes]], Awaitable[None]]) -> None:
    """Drive an asyncio library from its loop. Between two batches the loop gets a turn, as it does in a service."""
    with Ticker() as ticker:
        for step in pace.steps():
            if isinstance(step, int):
                await ticker.until(step)
            else:
                await send(step.first, step.payloads)
                await asyncio.sleep(0)


class _TimerSpec(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "at_s", "at_ns"))


class Ticker:
    """Wakes an asyncio loop at a time of CLOCK_MONOTONIC: its own timers are rounded up to whole milliseconds, which
    would be the latency of every message. A timerfd is a descriptor like any other to a loop."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._rung: asyncio.Future[None] | None = None

    def __enter__(self) -> Ticker:
        asyncio.get_running_loop().add_reader(self._fd, self._ring)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _ring(self) -> None:
        os.read(self._fd, 8)
        if self._rung is not None and not self._rung.done():
            self._rung.set_result(None)

    async def until(self, ns: int) -> None:
        """At once for a time that is past: a timerfd rings for it too."""
        self._rung = asyncio.get_running_loop().create_future()
        at = _TimerSpec(0, 0, *divmod(ns, NS_PER_S))
        absolute = 1
        if self._libc.timerfd_settime(self._fd, absolute, ctypes.byref(at), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")
        await self._rung
