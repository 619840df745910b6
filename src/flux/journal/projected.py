"""`DIR/projected`: how far the journal may be in the database. Part of the journal's door, in a file of its own.

    mark, synced ──► transaction ──► mark, synced ──► transaction ...

Each mark says where the transaction after it will end. So a start knows, without opening the database, that a journal
which ends before the mark has lost rows that were shown: nothing is projected before it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from flux.journal.fence import Fence, FenceMark, fence_mark

if TYPE_CHECKING:
    from flux.journal.journal import Position

PROJECTED: Final = "projected"


class Projected:
    """The mark of one data directory, for the one who projects. It has two slots like the fence's, and never goes back
    within an epoch: a start that fails before its new epoch is written must not take the proof away."""

    def __init__(self, directory: Path) -> None:
        """Open or make the file. Raises `StorageError` when the disk refuses."""
        self._mark = Fence(directory, PROJECTED)

    def ahead(self, store_id: int, epoch: int, position: Position) -> None:
        """A transaction may begin that ends at `position`: on the disk when this returns. Raises `StorageError`."""
        mark = self._mark.load()
        if (
            mark is not None
            and mark.store_id == store_id
            and (mark.epoch, mark.file, mark.offset) >= (epoch, *position)
        ):
            return
        self._mark.store(store_id, epoch, *position)
        self._mark.sync()

    def close(self) -> None:
        """Let go of the file; harmless when closed already."""
        self._mark.close()


def projected_mark(directory: Path) -> FenceMark | None:
    """How far the journal may be in the database; None: nothing says so, the database itself is to be asked. Raises
    `StorageError`."""
    return fence_mark(directory, PROJECTED)
