"""Durability `process`: the journal is synced each 100 ms, by a thread that nobody waits for.

    committer ── begin(descriptor, position) ──► fdatasync ──► done: the committer learns it when it looks next

The committer owns the journal; this thread gets a descriptor of its own for one sync, and says how far that came.
"""

from __future__ import annotations

import os
import queue
import threading

from flux.journal import Position


class Syncer:
    """The thread; `begin` and `done` are the committer's."""

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[tuple[int, Position] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Position | OSError] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="flux syncer", daemon=True)
        self._busy = False

    def start(self) -> None:
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether a sync was begun whose end `done` has not told yet."""
        return self._busy

    def begin(self, descriptor: int, position: Position) -> None:
        """Sync the file, which closes the descriptor."""
        self._busy = True
        self._jobs.put((descriptor, position))

    def done(self) -> Position | OSError | None:
        """How far a sync that has ended took the journal, or why it failed; None when none has ended."""
        try:
            ended = self._done.get_nowait()
        except queue.Empty:
            return None
        self._busy = False
        return ended

    def stop(self) -> None:
        """End the thread, behind the sync it is in."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            descriptor, position = job
            try:
                os.fdatasync(descriptor)
                self._done.put(position)
            except OSError as error:
                self._done.put(error)
            finally:
                os.close(descriptor)
