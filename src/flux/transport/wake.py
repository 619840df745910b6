"""A flag between threads that a poll can wait for, beside sockets. Its door is `sockets.py`."""

from __future__ import annotations

import os
import threading

from flux.errors import FluxError


class Wake:
    """A flag that any thread, or a signal handler, may raise to end another thread's `Poller.wait`."""

    def __init__(self) -> None:
        """Raises FluxError where the system has no descriptor left."""
        # A number that was given back may be another file's: nobody writes to it. A signal handler may come in between.
        self._using = threading.RLock()
        self._fd = -1
        try:
            self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError as error:
            raise FluxError(f"cannot make an eventfd: {error.strerror}") from error

    def set(self) -> None:
        """Raise the flag; it stays up until `clear`. After `close` this does nothing."""
        with self._using:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def clear(self) -> None:
        """Take the flag down."""
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return  # it was not up

    def __del__(self) -> None:
        self.close()  # of an object that nobody began or stopped

    def fileno(self) -> int:
        """The descriptor that polls as readable while the flag is up."""
        return self._fd

    def close(self) -> None:
        """Give the descriptor back; again is harmless."""
        with self._using:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)
