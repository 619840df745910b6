"""Projection: the journal's committed records into a store, exactly once.

Rows and the journal position after them go in in one transaction, so a start goes on where the last transaction
ended.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flux import journal
from flux.errors import DamagedError, StorageError
from flux.journal import Position
from flux.journal.records import HeadsRecord, StreamRecord, unpack
from flux.limits import PROJECT_MAX_ROWS, PROJECT_ROWS
from flux.model import RowKind, StreamKey
from flux.store.base import Store, StoreBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

Persisted = dict[int, int]
"""stream_id -> the sequence up to which the store has it."""


class Projection:
    """Steps from the store's position towards a committed one; no thread of its own."""

    def __init__(
        self,
        directory: Path,
        store: Store,
        first: Position,
        end: Position,
        mark: journal.Projected,
        epoch: int,
    ) -> None:
        """`first`: where a new store begins; `end`: of the journal, before anything is added to it; `mark`: set before
        every transaction."""
        self._store = store
        self._mark = mark
        self.epoch = epoch
        """The running one: the owner moves it on."""
        self._first = first
        self._reach = end  # no store that was filled from this journal is beyond it
        self.directory = directory
        self._reader = journal.Reader(directory, PROJECT_MAX_ROWS, ready=PROJECT_ROWS)
        self._sure = False  # that `position` is the store's
        self.position = first
        with contextlib.suppress(StorageError, DamagedError):  # a step asks again
            self._ask()
        self.rows = 0

    def _ask(self) -> None:
        """Go on where the store is."""
        stored = self._store.position()
        position = self._first if stored is None else Position(*stored)
        if position > self._reach:  # a start looks at that, but then it did not open, and the journal goes on
            raise DamagedError("it was filled beyond the end that the journal had when the server started")
        self.position, self._sure = position, True

    def step(self, committed: Position) -> Persisted:
        """Store the next rows below `committed`, at most PROJECT_MAX_ROWS, in one transaction.

        Raises StorageError: nothing of the step went in, and the next one begins at the store's own position; and
        DamagedError where the database does not read. Raises DataError where the journal cannot be read: what stands
        before that is in the store.
        """
        if not self._sure:
            self._ask()
        position = self.position
        gathered, data, after = self._reader.step(position, committed)
        streams = _streams(data, gathered.records)
        batches = [
            batch for kind in gathered.rows if (batch := _batch(kind, gathered.records, gathered.rows[kind]))
        ]
        try:
            if after != position:
                self._reach = max(self._reach, after)
                self._mark.ahead(self._store.store_id, self.epoch, after)
                self._store.commit(batches, streams, after)
        except (StorageError, DamagedError):
            self._sure = False
            self._ask()
            raise
        self.position = after
        self.rows += sum(len(batch.rows) for batch in batches)
        return _last(gathered.records)


def _streams(data: memoryview, records: NDArray[np.void]) -> dict[int, StreamKey]:
    """The streams that STREAM records among these give a number to, and those that a file's HEADS name: the file
    in which they got theirs may be gone."""
    found = {}
    told = (records["kind"] == 0) & np.isin(records["epoch"], (journal.STREAM, journal.HEADS))
    for record in records[told]:
        body = data[int(record["first"]) :][: int(record["count"])]
        if record["epoch"] == journal.STREAM:
            stream = unpack(body, StreamRecord)
            found[stream.stream_id] = stream.key
        elif record["epoch"] == journal.HEADS:
            heads = unpack(body, HeadsRecord)
            found |= {head.stream.stream_id: head.stream.key for head in heads.streams}
    return found


def _last(records: NDArray[np.void]) -> Persisted:
    """The last sequence of each stream among these; within a stream they ascend."""
    batches = records[records["kind"] != 0][::-1]
    stream_ids, at = np.unique(batches["stream_id"], return_index=True)
    last = batches["first"][at] + batches["count"][at] - 1
    return dict(zip(stream_ids.tolist(), last.tolist(), strict=True))


def _batch(kind: RowKind, records: NDArray[np.void], rows: NDArray[np.void]) -> StoreBatch | None:
    """The rows of one kind with the columns that their records imply."""
    if len(rows) == 0:
        return None
    mine = records[records["kind"] == kind]
    counts = mine["count"]
    within = np.arange(len(rows), dtype=np.uint64) - np.repeat(np.cumsum(counts) - counts, counts).astype(
        np.uint64
    )
    return StoreBatch(
        kind=kind,
        stream_ids=np.repeat(mine["stream_id"], counts),
        sequences=np.repeat(mine["first"], counts) + within,
        epochs=np.repeat(mine["epoch"], counts),
        rows=rows,
    )
