"""Calls into the user's code, and waiting in an event loop for what happens in another thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, TypeVar

_LOG: Final = logging.getLogger("flux.client")

T = TypeVar("T")


def guarded(
    callback: Callable[[T], object], item: T, exception_callback: Callable[[Exception], object] | None
) -> None:
    """Call into the user's code, whose faults end neither the stream nor the thread."""
    try:
        callback(item)
    except Exception as error:  # the user's code may raise anything
        if exception_callback is None:
            _LOG.exception("a callback failed on %r", item)
        else:
            exception_callback(error)


async def until(register: Callable[[Callable[[], None]], None]) -> None:
    """Wait in the running event loop until the callback given to `register` is called, from whatever
    thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def done() -> None:
        if not future.done():
            future.set_result(None)

    def call() -> None:
        # The event loop may be gone by then, and with it who waited.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(done)

    register(call)
    await future
