"""What a store is: rows and the journal position they came from, in one transaction; runs of rows read back.

A store has one writer (the projection) and any number of reading threads. It is filled from the journal
alone, so it can always be deleted and filled again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from flux.model import ROW_DTYPES, RowKind, StreamKey

Rows = NDArray[np.void]
"""A structured array of one row kind's dtype."""


@dataclass(frozen=True, slots=True, eq=False)
class StoreBatch:
    """`n` rows of one kind, of any number of streams, ascending by sequence within each stream.

    `stream_ids` u4[n], `sequences` u8[n], `epochs` u4[n]; `rows` a structured array[n] of the kind's
    dtype. The arrays are the caller's and are only read, until the commit they are given to returns.
    """

    kind: RowKind
    stream_ids: NDArray[np.uint32]
    sequences: NDArray[np.uint64]
    epochs: NDArray[np.uint32]
    rows: Rows

    def __post_init__(self) -> None:
        if self.rows.dtype != ROW_DTYPES[self.kind]:
            raise ValueError(f"rows of {self.rows.dtype} are no {self.kind.name}")
        n = len(self.rows)
        if not len(self.stream_ids) == len(self.sequences) == len(self.epochs) == n:
            raise ValueError("a batch has one stream_id, sequence and epoch per row")


class StoreHead(NamedTuple):
    """What the store has of a stream: sequences (inclusive) and its highest time (ts_ms, or ts_ns)."""

    first_sequence: int
    last_sequence: int
    latest_ts: int


class Store(Protocol):
    """What projection, recovery and requests need of a store.

    Every method may raise `StorageError` (disk full, database failure: nothing committed is lost; ask
    `position()` again, then retry from there) and `DataError` (the file is corrupt).
    """

    @property
    def store_id(self) -> int:
        """The id of the server's store that these rows belong to."""

    def lowest(self, kind: RowKind) -> dict[int, int]:
        """By stream_id the lowest time of its rows, of trades the lowest id (none: no row has one). Streams of which
        not all rows from sequence 1 to their last one are here are left out."""

    def append(self, batch: StoreBatch, position: tuple[int, int]) -> None:
        """`commit` of one batch that brings no new stream."""

    def commit(
        self, batches: Sequence[StoreBatch], streams: Mapping[int, StreamKey], position: tuple[int, int]
    ) -> None:
        """Write rows, new streams and the journal position behind them in one transaction.

        `position` (file, offset) must lie behind the one stored whenever there are rows: the same part of
        the journal is never projected twice. Streams already known are left alone.
        """

    def position(self) -> tuple[int, int] | None:
        """(file, offset) up to which the journal is in here; None in a new store. Read from the file."""

    def heads(self) -> dict[int, StoreHead]:
        """What is here of each stream that ever had a row, by stream_id."""

    def streams(self) -> dict[int, StreamKey]:
        """All streams by stream_id."""

    def read(
        self, stream_id: int, kind: RowKind, from_exclusive: int, to_inclusive: int, limit: int
    ) -> tuple[int, Rows]:
        """The first contiguous run of rows within the bounds, at most `limit`, in order of sequence.

        `to_inclusive` 0 means no bound. Returns (sequence of the first row, rows), (0, no rows) where there
        are none; the first may be higher than `from_exclusive + 1` where older rows are gone. The array is
        the caller's.
        """

    def sequence_range(
        self, stream_id: int, kind: RowKind, start_ms: int | None, end_ms: int | None
    ) -> tuple[int, int] | None:
        """The run of sequences from the first row with time >= `start_ms` to the last with time < `end_ms`.

        Epoch ms for every kind, None for no bound. Rows inside the run may have other times (corrections,
        late rows). None where the run is empty.
        """

    def idle(self) -> bool:
        """Called when there is nothing to write: a good moment to tidy up. True when that was done."""

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""


def _taken(rows: Rows, order: NDArray[np.intp]) -> Rows:
    """rows[order], by words: numpy copies packed rows field by field, at ten times the cost."""
    words = rows.dtype.itemsize // 8
    plain = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), words)
    return plain.take(order, axis=0).reshape(-1).view(rows.dtype)


def columns(batch: StoreBatch, order: NDArray[np.intp] | None = None) -> dict[str, NDArray[Any]]:
    """A batch as column views in the order of its table, rearranged (the one copy) by `order` if given."""
    stream_ids, sequences, epochs, rows = batch.stream_ids, batch.sequences, batch.epochs, batch.rows
    if order is not None:
        stream_ids, sequences, epochs, rows = (
            stream_ids[order],
            sequences[order],
            epochs[order],
            _taken(rows, order),
        )
    names = rows.dtype.names or ()
    return {
        "stream_id": stream_ids,
        "sequence": sequences,
        "epoch": epochs,
        **{name: rows[name] for name in names},
    }
