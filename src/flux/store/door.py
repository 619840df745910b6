"""The server's side of the store's process: spawned, watched, asked, and started again when it ends.

    spawn ─► Hello ─► Told, Told ...                 position, what was stored, what is wrong
                  └─► Ask ─► Answer                  reads, each with a deadline

A process that ends, by whatever, is started again, after 0.1 s at first and 5 s at last. One that says nothing for
STORE_SILENT_MS (stopped, or in a disk that hangs) is not asked any more until it says something: a read of it fails at
once, and the journal answers. Nothing here ever waits for it but who asks, and who asks waits STORE_ANSWER_MS at most.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from flux.errors import DamagedError, StorageError
from flux.limits import BACKOFF_MAX_MS, BACKOFF_MIN_MS, STORE_ANSWER_MS, STORE_SILENT_MS
from flux.model import ROW_DTYPES, RowKind
from flux.slices import usual_slice
from flux.store.base import Rows
from flux.store.frames import Answer, Ask, Frames, FromStore, Hello, Stop, Told
from flux.threads import WatchedThread

_LOG = logging.getLogger("flux.store")

LOOK_S: Final = 0.25


class StoreDoor:
    """A store in a process of its own, which this object owns from `start` to `stop`. Reads from any thread.

    `told` is called from its thread with every message of the process, `wrong` with why there is none to be had ("":
    there is one). `failed` is called when that thread ends and was not to.
    """

    def __init__(
        self,
        hello: Callable[[], Hello],
        *,
        told: Callable[[Told], None],
        wrong: Callable[[str], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._hello = hello
        self._told = told
        self._wrong = wrong
        self._changed = threading.Condition()
        self._frames: Frames | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._heard = 0.0  # monotonic
        self._number = 0
        self._waiting: dict[int, Answer | None] = {}
        self._ending = threading.Event()
        self._thread = WatchedThread(
            self._run, name="flux store process", failed=failed, wanted=lambda: not self._ending.is_set()
        )
        self._silent = WatchedThread(self._watch, name="flux store watch", failed=failed)

    def start(self) -> None:
        """Spawn the process, and keep one running until `stop`."""
        self._thread.start()
        self._silent.start()

    def stop(self, timeout: float) -> bool:
        """Let it project what is committed, for at most `timeout` seconds; then it ends whatever it does. Whether it
        ended by itself."""
        self._ending.set()
        frames, process = self._frames, self._process
        ended = False
        if frames is not None and process is not None:
            try:
                frames.send(Stop())
                ended = process.wait(timeout) == 0
            except (OSError, subprocess.TimeoutExpired):
                process.kill()
            frames.close()
        self._thread.join(timeout)
        return ended

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return None if self._process is None else self._process.pid

    # ------------------------------------------------------------------ reads

    def read(
        self, stream_id: int, kind: RowKind, from_exclusive: int, to_inclusive: int, limit: int
    ) -> tuple[int, Rows]:
        """As `Store.read`. Raises StorageError and DamagedError."""
        answer = self._ask("read", stream_id, int(kind), from_exclusive, to_inclusive, limit)
        return answer.value, np.frombuffer(answer.rows, ROW_DTYPES[kind])

    def sequence_range(
        self, stream_id: int, kind: RowKind, start_ms: int | None, end_ms: int | None
    ) -> tuple[int, int] | None:
        """As `Store.sequence_range`. Raises StorageError and DamagedError."""
        found = self._ask("sequence_range", stream_id, int(kind), start_ms, end_ms).value
        return None if found is None else (found[0], found[1])

    def lowest(self, kind: RowKind) -> dict[int, int]:
        """As `Store.lowest`. Raises StorageError and DamagedError."""
        return dict(self._ask("lowest", int(kind)).value)

    def _ask(self, method: str, *arguments: Any) -> Answer:
        with self._changed:
            frames = self._frames
            if frames is None:
                raise StorageError("the store's process is not running; it is started again")
            if self._is_silent():
                raise StorageError("the store's process does not answer")
            self._number += 1
            number = self._number
            self._waiting[number] = None
        try:
            frames.send(Ask(number, method, arguments))
            with self._changed:
                self._changed.wait_for(
                    lambda: self._waiting[number] is not None or self._frames is not frames,
                    STORE_ANSWER_MS / 1_000,
                )
                answer = self._waiting[number]
        except OSError as error:
            raise StorageError(f"the store's process is gone: {error}") from error
        finally:
            with self._changed:
                del self._waiting[number]
        if answer is None:
            raise StorageError("the store's process did not answer in time")
        if answer.error:
            raise (DamagedError if answer.damaged else StorageError)(answer.error)
        return answer

    # ------------------------------------------------------------------ its life

    def _run(self) -> None:
        usual_slice()
        pause = BACKOFF_MIN_MS
        while not self._ending.is_set():
            began = time.monotonic()
            why = self._live()
            if self._ending.is_set():
                return
            self._wrong(f"the store's process {why}; it is started again")
            if time.monotonic() - began > BACKOFF_MAX_MS / 1_000:
                pause = BACKOFF_MIN_MS
            self._ending.wait(pause / 1_000)
            pause = min(2 * pause, BACKOFF_MAX_MS)

    def _live(self) -> str:
        """One process from its spawning to its end; how it ended."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-m", "flux.store.process", str(theirs.fileno()), str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            return f"cannot be started: {error}"
        ours.settimeout(None)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(STORE_ANSWER_MS))
        frames = Frames(ours, FromStore)
        with self._changed:
            self._process, self._frames, self._heard = process, frames, time.monotonic()
        try:
            frames.send(self._hello())
            while (message := frames.receive()) is not None:
                self._take(message)
        except (OSError, ValueError) as error:
            _LOG.warning("the store's process: %s", error)
        finally:
            with self._changed:
                self._frames = None
                self._changed.notify_all()
            frames.close()
            if not self._ending.is_set():
                process.kill()
        code = process.wait()
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"

    def _take(self, message: Answer | Told) -> None:
        with self._changed:
            was_silent, self._heard = self._is_silent(), time.monotonic()
            if isinstance(message, Answer):
                if message.number in self._waiting:
                    self._waiting[message.number] = message
                self._changed.notify_all()
        if was_silent:
            _LOG.warning("the store's process answers again")
        if isinstance(message, Told):
            self._wrong("")
            self._told(message)

    def _is_silent(self) -> bool:
        return time.monotonic() - self._heard > STORE_SILENT_MS / 1_000

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_S):
            if self._frames is not None and self._is_silent():
                self._wrong(f"the store's process ({self.pid}) does not answer: is it stopped, or its disk?")


def _timeval(ms: int) -> bytes:
    """struct timeval."""
    return (ms // 1_000).to_bytes(8, "little") + (ms % 1_000 * 1_000).to_bytes(8, "little")
