"""Waiting in an event loop for what happens in another thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


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
