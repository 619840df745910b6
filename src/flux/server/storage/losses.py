"""What an operator has to know of and has not acknowledged yet: it outlives restarts.

    journal         every EPOCH record is a loss (or a copy): it cannot be forgotten by a start that fails after it
    losses          JSON, the server's: what else was noted, numbered from 1 (a cursor ahead, a journal that is gone)
    acknowledged    JSON, written by `flux doctor --ack-loss`: up to which epoch of which store, and which number

The server looks at `acknowledged` every second, so that nobody has to restart it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from flux.errors import DataError, StorageError
from flux.journal.fence import sync_folder
from flux.journal.records import EpochRecord
from flux.named_files import UNFIT, read_regular

_LOG = logging.getLogger("flux.server")

EPOCH: Final = "epoch"
JOURNAL: Final = "journal-gone"
CURSOR: Final = "cursor"
NAMES: Final = (EPOCH, JOURNAL, CURSOR)
"""The conditions that stay until they are acknowledged."""


class Loss(msgspec.Struct, frozen=True):
    """One thing noted; `name` is that of the condition in the server's health."""

    number: int
    name: str
    reason: str
    noted_ms: int


class Acknowledged(msgspec.Struct, frozen=True):
    """What the operator has seen: all losses up to these. The numbers are the directory's, the epochs a store's."""

    epoch: int = 0
    number: int = 0
    store_id: int = 0
    """Of which store the epoch is; 0: written by a version that did not say that, and holds for any store."""


class Losses:
    """The losses of one data directory; from any thread."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "losses"
        self._acknowledged = directory / "acknowledged"
        self._writing = threading.Lock()
        self._unread = False  # said once
        self._known = Acknowledged()
        self._advice = f" (known? `flux doctor --ack-loss {directory}`)"

    def open(self, epochs: Sequence[EpochRecord], store_id: int, parent_store_id: int = 0) -> dict[str, str]:
        """Condition -> reason, of all that is not acknowledged: `epochs` are those of the store `store_id`, which begin
        with its parent's. Raises DataError when the file does not read, StorageError when the system does not let it
        be read."""
        seen = self.acknowledged()
        upto = seen.epoch if seen.store_id in (0, store_id, parent_store_id) else 0
        found = {loss.name: self.told(loss.reason) for loss in self._noted() if loss.number > seen.number}
        begun = [record for record in epochs if record.epoch > upto]
        if begun:
            earlier = f"; and {len(begun) - 1} epochs before it" if len(begun) > 1 else ""
            found[EPOCH] = self.told(f"epoch {begun[-1].epoch} begins: {begun[-1].reason}{earlier}")
        return found

    def told(self, reason: str) -> str:
        """A loss as health says it: with what to type."""
        return reason + self._advice

    def note(self, name: str, reason: str) -> None:
        """Keep it until it is acknowledged; nothing while one of that name is open. Raises StorageError."""
        with self._writing:
            seen = self.acknowledged()
            noted = self._noted()
            still_open = [loss for loss in noted if loss.number > seen.number]
            if any(loss.name == name for loss in still_open):
                return
            number = 1 + max([seen.number, *(loss.number for loss in noted)])
            still_open.append(Loss(number, name, reason, time.time_ns() // 1_000_000))
            _replace(self._path, msgspec.json.encode(still_open))

    def acknowledge(self, epoch: int, store_id: int) -> None:
        """All losses up to `epoch` of that store and all that is noted are known. Raises StorageError."""
        number = max([self.acknowledged().number, *(loss.number for loss in self._noted())])
        _replace(self._acknowledged, msgspec.json.encode(Acknowledged(epoch, number, store_id)))

    def acknowledged(self) -> Acknowledged:
        """What the operator has seen; nothing where the file is missing or says nothing that reads, and what it said
        before where it cannot be read now (no descriptor is left, say)."""
        try:
            self._known = msgspec.json.decode(read_regular(self._acknowledged), type=Acknowledged)
        except FileNotFoundError:
            self._known = Acknowledged()
        except OSError as error:
            self._say_unread("%s cannot be read, what was acknowledged before stays so: %s", error)
            return self._known
        except msgspec.MsgspecError as error:
            self._say_unread("%s does not read, so nothing counts as acknowledged: %s", error)
            self._known = Acknowledged()
            return self._known
        self._unread = False
        return self._known

    def _say_unread(self, what: str, error: Exception) -> None:
        if not self._unread:
            self._unread = True
            _LOG.warning(what, self._acknowledged, error)

    def _noted(self) -> list[Loss]:
        try:
            return msgspec.json.decode(read_regular(self._path), type=list[Loss])
        except FileNotFoundError:
            return []
        except (*UNFIT, msgspec.MsgspecError) as error:
            raise DataError(
                f"{self._path} does not read: {error}. It says what was lost: look at it, then move it away"
            ) from error
        except OSError as error:
            raise StorageError.of(self._path, error) from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that a power cut leaves the old one or the new one."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            while content:
                content = content[os.write(fd, content) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(fresh, path)
        sync_folder(path.parent)
    except OSError as error:
        raise StorageError.of(path, error) from error
