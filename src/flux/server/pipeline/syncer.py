"""What is done for the journal beside the committer, every 100 ms, by a thread that nobody waits for.

It preallocates the next file, and with durability `process` it syncs what is committed by then; what a sync that failed
may have dropped is written again. The committer, who owns the journal, notes how far that came when it comes round.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from flux.errors import StorageError
from flux.model import State
from flux.threads import WatchedThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from flux.journal import Journal
    from flux.server.vitals import Vitals
    from flux.transport.bridge import Handover

SYNC_S: Final = 0.1


class Syncer:
    """The thread, and how far it came."""

    def __init__(
        self,
        journal: Journal,
        handover: Handover,
        vitals: Vitals,
        *,
        disk: bool,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._journal = journal
        self._handover = handover
        self._vitals = vitals
        self._disk = disk
        self._stopping = threading.Event()
        self._thread = WatchedThread(
            self._run, name="flux syncer", failed=failed, wanted=lambda: not self._stopping.is_set()
        )
        self.reached = journal.synced
        """What is committed up to here is on the disk."""

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after the sync it is in."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(SYNC_S):
            try:
                self._turn()
            except (OSError, StorageError) as error:  # no descriptors, say: tried again
                self._vitals.set("sync", State.UNHEALTHY, f"the journal does not sync: {error}")
            else:
                self._vitals.clear("sync")

    def _turn(self) -> None:
        position = self._handover.position
        self._journal.prepare(position)
        if self._disk or position <= self.reached:
            return
        if self._journal.sync_beside(position):
            self.reached = position
