"""What a store is called, in every message and record, and how a journal file begins."""

from __future__ import annotations

from dataclasses import dataclass, field

from flux.journal.records import FORMAT, EpochRecord, HeadsRecord, StreamHead
from flux.journal.records import Position as SourcePosition


@dataclass(slots=True)
class Identity:
    """What the store is called, in every message and record."""

    store_id: int
    epoch: int
    boot_id: int
    epochs: list[EpochRecord] = field(default_factory=list)
    parent_store_id: int = 0
    branch_epoch: int = 0

    def heads(self, streams: list[StreamHead], sources: dict[str, SourcePosition]) -> HeadsRecord:
        """The first record of a journal file that begins here."""
        return HeadsRecord(
            FORMAT,
            self.store_id,
            self.epoch,
            streams,
            self.epochs,
            sources,
            self.parent_store_id,
            self.branch_epoch,
        )
