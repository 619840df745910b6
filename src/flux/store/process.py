"""The store's process: it owns the database, so that no call and no crash of it stands in a row's way.

    python -m flux.store.process FD      FD: one end of a socketpair, inherited from the server that spawned it

    main thread     Hello, then Ask after Ask: reads the store and answers
    projection      fence ─► journal's rows ─► `projected` ─► one transaction ─► Told

It follows the fence, never the last COMMIT: a whole group may stand in the journal before its sync, and before anybody
was shown it. It ends when the socket closes and when its parent dies, inherits no lock, computes at the lowest priority
with the usual slice, and may be killed at any moment. While somebody else has the database (the process of a server
that is just going, say) it tries again.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from flux import journal
from flux.errors import DamagedError, DataError, FluxError, InUseError, StorageError
from flux.journal import Position, Projected
from flux.limits import PROJECT_MAX_ROWS, STORE_TOLD_MS
from flux.model import RowKind
from flux.slices import low_priority
from flux.store.base import Store
from flux.store.frames import Answer, Ask, Frames, Hello, Stop, Told, ToStore
from flux.store.open import open_store
from flux.store.projection import Persisted, Projection
from flux.threads import WatchedThread

_LOG = logging.getLogger("flux.store")

_PR_SET_PDEATHSIG: Final = 1
PAUSE_S: Final = 1.0
RETRY_S: Final = 0.5
LOOK_S: Final = 0.05
READS: Final = ("read", "sequence_range", "heads", "lowest", "newest", "position", "highest_epoch")
"""What may be asked of the store."""


class StoreProcess:
    """The process's side; `run` serves until the server is gone."""

    def __init__(self, frames: Frames, hello: Hello) -> None:
        self._frames = frames
        self._hello = hello
        self._directory = Path(hello.directory)
        self._store: Store | None = None
        self._projection: Projection | None = None
        self._mark: Projected | None = None
        self._error: FluxError | None = None
        self._stopping = threading.Event()
        self._told_at = 0.0
        self._thread = WatchedThread(self._follow, name="flux projection", failed=_leave)

    def run(self) -> None:
        """Answer until the server stops it or is gone."""
        self._thread.start()
        while (message := self._frames.receive()) is not None:
            if isinstance(message, Ask):
                self._frames.send(self._answered(message))
            elif isinstance(message, Stop):
                self._stopping.set()
                self._thread.join()
                break
        if self._store is not None and self._stopping.is_set():
            self._store.close()

    # ------------------------------------------------------------------ reads

    def _answered(self, ask: Ask) -> Answer:
        store = self._store
        if store is None or ask.method not in READS:
            why = str(self._error) if self._error else "the database is not open yet"
            return Answer(ask.number, error=why, damaged=isinstance(self._error, DamagedError))
        try:
            value = getattr(store, ask.method)(*_arguments(ask))
        except (StorageError, DataError) as error:
            return Answer(ask.number, error=str(error), damaged=isinstance(error, DamagedError))
        if ask.method == "read":
            return Answer(ask.number, value[0], value[1].tobytes())
        return Answer(ask.number, value)

    # ------------------------------------------------------------------ the projection

    def _follow(self) -> None:
        low_priority()
        while True:
            stopping = self._stopping.is_set()
            began, stored, more = time.monotonic(), {}, False
            try:
                projection = self._opened()
                upto = self._committed()
                if projection.position < upto:
                    before = projection.rows
                    stored = projection.step(upto)
                    more = projection.rows - before >= PROJECT_MAX_ROWS or (
                        stopping and projection.position < upto
                    )
                elif self._store is not None:
                    self._store.idle()
                self._error = None
            except (StorageError, DataError, InUseError) as error:
                self._error = error
            self._tell(stored)
            if stopping and not more:
                return
            if not more:
                self._pause(began + (PAUSE_S if self._error is None else RETRY_S))

    def _pause(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0 and not self._stopping.wait(
            min(left, STORE_TOLD_MS / 1_000)
        ):
            self._tell({})

    def _opened(self) -> Projection:
        if self._projection is None:
            hello = self._hello
            self._mark = self._mark or Projected(self._directory)
            self._store = open_store(hello.url, hello.store_id, also=hello.parent_store_id)
            self._projection = Projection(
                self._directory,
                self._store,
                Position(*hello.first),
                Position(*hello.end),
                self._mark,
                hello.epoch,
            )
        return self._projection

    def _committed(self) -> Position:
        """How far the journal was shown, by the fence: both slots are looked at."""
        mark = journal.fence_mark(self._directory)
        if mark is None or mark.store_id != self._hello.store_id or mark.epoch != self._hello.epoch:
            return Position(0, 0)  # the server has not begun yet
        return Position(mark.file, mark.offset)

    def _tell(self, stored: Persisted) -> None:
        now = time.monotonic()
        if not stored and now - self._told_at < STORE_TOLD_MS / 1_000:
            return
        self._told_at = now
        position = None if self._projection is None else self._projection.position
        error = self._error
        self._frames.send(
            Told(position, stored, "" if error is None else str(error), isinstance(error, DamagedError))
        )


def _arguments(ask: Ask) -> list[Any]:
    """Kinds of rows travel as their numbers."""
    found = list(ask.arguments)
    at = {"read": 1, "sequence_range": 1, "newest": 1, "lowest": 0}.get(ask.method)
    if at is not None:
        found[at] = RowKind(found[at])
    return found


def _leave(error: BaseException) -> None:
    """A thread that ends is the process's end: the server starts another."""
    _LOG.error("the store's process ends: %s", error)
    os._exit(1)


def main(descriptor: int, parent: int) -> int:
    """The whole of the process; its exit code."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 0  # it died before that
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server says when, by its end of the socket
    low_priority()
    frames = Frames(socket.socket(fileno=descriptor), ToStore)
    hello = frames.receive()
    if not isinstance(hello, Hello):
        return 0
    try:
        StoreProcess(frames, hello).run()
    except OSError:
        return 0  # the server is gone
    return 0


if __name__ == "__main__":
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
