"""A look at the data directory every second: is it still there, and what has the operator acknowledged?

Rows that go into files without a name are written, synced, and gone with the process: nothing else would show it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flux.errors import DataError
from flux.model import State
from flux.server.storage.losses import NAMES

if TYPE_CHECKING:
    from flux.journal import Journal
    from flux.server.identity import Identity
    from flux.server.storage.directory import DirectoryLock
    from flux.server.storage.losses import Losses
    from flux.server.vitals import Vitals

_LOG = logging.getLogger("flux.server")

DIRECTORY: Final = "directory"


class Watch:
    """One thread calls `look`."""

    def __init__(
        self,
        directory: Path,
        *,
        lock: DirectoryLock,
        journal: Journal,
        losses: Losses,
        identity: Identity,
        vitals: Vitals,
    ) -> None:
        self._directory = directory
        self._lock = lock
        self._journal = journal
        self._losses = losses
        self._identity = identity
        self._vitals = vitals
        self._acknowledged = losses.acknowledged()

    def look(self) -> None:
        """Set or clear what has changed since the last look."""
        gone = self._gone()
        if gone:
            self._vitals.set(
                DIRECTORY, State.UNHEALTHY, f"{gone}: rows taken in now are lost when this server ends"
            )
        else:
            self._vitals.clear(DIRECTORY)
            self._look_at_losses()

    def _gone(self) -> str:
        held = os.fstat(self._lock.fd)
        try:
            there = os.stat(self._directory)
        except OSError:
            there = None
        if held.st_nlink == 0 or not self._journal.linked:
            return f"the data directory {self._directory} or the journal in it was deleted"
        if there is None or (there.st_dev, there.st_ino) != (held.st_dev, held.st_ino):
            return f"the data directory is no longer at {self._directory}"
        return ""

    def _look_at_losses(self) -> None:
        acknowledged = self._losses.acknowledged()
        if acknowledged == self._acknowledged:
            return
        try:
            still_open = self._losses.open(
                self._identity.epochs, self._identity.store_id, self._identity.parent_store_id
            )
        except DataError as error:
            _LOG.error("%s", error)
            return
        self._acknowledged = acknowledged
        for name in NAMES:
            if name not in still_open:
                self._vitals.clear(name)
