"""Projection: the journal's committed records into the store, exactly once, behind the loop's back.

Rows and the journal position behind them go in in one transaction, so a start goes on where the last transaction
ended. Nobody waits for it: what a ring has let go is read from the journal until it is here.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flux import journal
from flux.errors import DamagedError, DataError, FluxError, StorageError
from flux.journal import Position
from flux.limits import PROJECT_MAX_ROWS
from flux.model import State
from flux.slices import low_priority
from flux.store.base import Store
from flux.store.projection import Persisted, Projection

if TYPE_CHECKING:
    from collections.abc import Callable

    from flux.server.pipeline.committer import Committer
    from flux.server.vitals import Vitals

PAUSE_S: Final = 1.8
"""From one step's beginning to the next one's: a step takes a core for some ms, however little it stores."""
RETRY_S: Final = 0.5
WAIT_S: Final = 0.25


def without_database(directory: Path, error: FluxError) -> str:
    """What an operator is to know and do when the database does not follow and the server goes on."""
    if isinstance(error, (journal.JournalReadError, journal.JournalDamageError)):
        return f"the journal cannot be read, and the database does not follow it (it is tried again): {error}"
    cure = (
        f"stop the server, `flux rebuild {directory}` fills it anew from the journal"
        if isinstance(error, DamagedError)
        else "it is tried again"
    )
    return f"the database fails, what only it has is unavailable ({cure}): {error}"


class Projector:
    """The thread that follows the committer with a projection; `run` is its body. It has the lowest priority: at
    saturation it falls behind. What the store lacks the journal has."""

    def __init__(
        self,
        *,
        projection: Projection,
        store: Store,
        committer: Committer,
        vitals: Vitals,
        persisted: Callable[[Persisted], None],
    ) -> None:
        self._projection = projection
        self._store = store
        self._committer = committer
        self._vitals = vitals
        self._persisted = persisted
        self._stopping = threading.Event()
        self._behind = False
        self._thread = 0  # its native id, once it runs

    def run(self) -> None:
        """Project until stopped, and what is committed by then."""
        low_priority()
        self._thread = threading.get_native_id()
        while True:
            stopping = self._stopping.is_set()
            committed = self._committer.wait_past(self._projection.position, 0 if stopping else WAIT_S)
            if committed > self._projection.position:
                if not self._step(committed):
                    if stopping:
                        break  # the journal has it: the next start projects it
                    self._stopping.wait(RETRY_S)
            elif stopping:
                break
            else:
                self._tidy()

    def _tidy(self) -> None:
        try:
            if self._store.idle():
                self._vitals.clear("store")
        except (StorageError, DamagedError) as error:
            self._failed(error)
            self._stopping.wait(RETRY_S)

    def stop(self) -> None:
        """End `run` once it has caught up with what is committed; no longer after all others, where that is allowed: on
        a full machine the last step would not end in time."""
        self._stopping.set()
        if self._thread:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self._thread, 0)

    def _step(self, committed: Position) -> bool:
        before, began = self._projection.rows, time.monotonic()
        try:
            persisted = self._projection.step(committed)
        except (StorageError, DataError) as error:
            self._failed(error)
            return False
        self._vitals.clear("store")
        self._persisted(persisted)
        stored = self._projection.rows - before
        self._behind = stored >= PROJECT_MAX_ROWS
        if not self._behind:
            self._stopping.wait(max(0.0, began + PAUSE_S - time.monotonic()))
        return True

    def _failed(self, error: StorageError | DataError) -> None:
        self._vitals.set("store", State.DEGRADED, without_database(self._projection.directory, error))
