"""The only place that makes threads: one whose end nobody hears of would leave a process that looks well and is not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

_LOG: Final = logging.getLogger("flux.threads")


class WatchedThread:
    """A daemon thread that runs `run` once; `failed` hears, in that thread, of the exception that ended it.

    Who makes it says there what follows: a server is UNHEALTHY and exits, an object of a client raises it to its
    callers. A thread that is to go on for as long as its owner lives also names `wanted`: coming to its end while that
    is true is a failure like any other.
    """

    def __init__(
        self,
        run: Callable[[], None],
        *,
        name: str,
        failed: Callable[[BaseException], None],
        wanted: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self._body = run
        self._failed = failed
        self._wanted = wanted
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; once. Raises RuntimeError where the system gives no more threads."""
        self._thread.start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait for its end, at most `timeout` seconds (not for its own); whether it has ended, or never began."""
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(None if timeout is None else max(0.0, timeout))
        return not self._thread.is_alive()

    def is_alive(self) -> bool:
        """Whether it has begun and not ended."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._body()
            if self._wanted():
                raise RuntimeError(f"the thread {self.name!r} came to its end and was not to")
        except BaseException as error:
            _LOG.critical("the thread %s ended", self.name, exc_info=error)
            self._failed(error)
