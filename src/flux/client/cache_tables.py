"""What a client's cache keeps beside the rows, and the statements on it; `cache.py` says why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from flux.model import ROW_DTYPES, Cursor, RowKind, StreamKey
from flux.store.base import Rows, StoreBatch, columns
from flux.store.database import insert, one

TABLES = {RowKind.CANDLE: "candles", RowKind.TRADE: "trades", RowKind.QUOTE: "quotes"}
UNKNOWN: Final = -1  # the cursor's epoch, until it is read from the row
BOOKKEEPING = """
-- One line per stream of a store. `stream_id` is ours, not the server's. `aside`: of another store than the
-- server has now; kept, not shown.
CREATE TABLE streams (
    stream_id       UINTEGER NOT NULL,
    store_id        UBIGINT  NOT NULL,
    source_id       VARCHAR  NOT NULL,
    symbol          VARCHAR  NOT NULL,
    interval        VARCHAR  NOT NULL,
    cursor_epoch    UINTEGER NOT NULL,
    cursor_sequence UBIGINT  NOT NULL,  -- the consumer is done up to here
    first_sequence  UBIGINT  NOT NULL,  -- of the rows that are here
    last_sequence   UBIGINT  NOT NULL,
    aside           BOOLEAN  NOT NULL
);

-- Sequences, both inclusive, that the server said will never come, or that were never asked for.
CREATE TABLE gaps (
    stream_id      UINTEGER NOT NULL,
    first_sequence UBIGINT  NOT NULL,
    last_sequence  UBIGINT  NOT NULL
);

CREATE TABLE meta (
    kind           VARCHAR  NOT NULL,  -- 'cache'
    format_version UINTEGER NOT NULL
);
"""


@dataclass(frozen=True, slots=True, eq=False)
class CacheBatch:
    """Rows of one stream and epoch, from `first_sequence` on, and the consumer's cursor with them.

    `rows` is a structured array of the key's kind, only read. `cursor` is the sequence that the consumer is
    done with, in this batch or an earlier one. `after_gap`: what lies between the cached rows and these will
    not come.
    """

    key: StreamKey
    store_id: int
    epoch: int
    first_sequence: int
    rows: Rows
    cursor: int
    after_gap: bool = False


class Stream(NamedTuple):
    """A line of the table `streams`, in its order."""

    stream_id: int
    store_id: int
    source_id: str
    symbol: str
    interval: str
    cursor_epoch: int
    cursor_sequence: int
    first_sequence: int
    last_sequence: int
    aside: bool

    @property
    def key(self) -> StreamKey:
        return StreamKey(self.source_id, self.symbol, self.interval)

    @property
    def cursor(self) -> Cursor | None:
        if not self.cursor_sequence:
            return None
        return Cursor(self.store_id, self.cursor_epoch, self.cursor_sequence)


class Fresh(NamedTuple):
    """Rows of one stream that are not here yet."""

    stream_id: int
    first_sequence: int
    epoch: int
    rows: Rows


def grown(before: Stream, batch: CacheBatch) -> tuple[Stream, Fresh]:
    """The stream with this batch after what it has, and what of the batch is new; `ValueError` if it does not fit."""
    if batch.rows.dtype != ROW_DTYPES[batch.key.kind]:
        raise ValueError(f"{batch.key}: rows of {batch.rows.dtype}")
    if batch.store_id != before.store_id:
        raise ValueError(f"{batch.key} is here from store {before.store_id:016x}, not {batch.store_id:016x}")
    known = max(0, before.last_sequence + 1 - batch.first_sequence)
    fresh = Fresh(before.stream_id, batch.first_sequence + known, batch.epoch, batch.rows[known:])
    last = before.last_sequence
    if len(fresh.rows):
        if fresh.first_sequence > last + 1 and not batch.after_gap:
            raise ValueError(f"{batch.key}: a hole from {last + 1} to {fresh.first_sequence - 1}")
        last = fresh.first_sequence + len(fresh.rows) - 1
    if batch.cursor > last:
        raise ValueError(f"{batch.key}: cursor {batch.cursor} beyond the last row {last}")
    stream = before._replace(last_sequence=last)
    if batch.cursor > before.cursor_sequence:
        # A row that was here before this batch repeated it has the epoch that it came with.
        told = batch.cursor >= fresh.first_sequence or before.last_sequence < before.first_sequence
        epoch = batch.epoch if told else UNKNOWN
        stream = stream._replace(cursor_sequence=batch.cursor, cursor_epoch=epoch)
    return stream, fresh


def dated(writer: duckdb.DuckDBPyConnection, stream: Stream) -> Stream:
    """The stream with the epoch of the row at its cursor, where only the table knows it."""
    if stream.cursor_epoch != UNKNOWN:
        return stream
    (epoch,) = one(
        writer,
        f"SELECT max(epoch) FROM {TABLES[stream.key.kind]} WHERE stream_id = ? AND sequence <= ?",
        [stream.stream_id, stream.cursor_sequence],
    ) or (None,)
    return stream._replace(cursor_epoch=epoch or 0)


def joined(kind: RowKind, parts: list[Fresh]) -> dict[str, NDArray[Any]]:
    """The rows of several streams as the columns of one table."""
    counts = [len(part.rows) for part in parts]
    sequences = [
        np.arange(part.first_sequence, part.first_sequence + len(part.rows), dtype=np.uint64)
        for part in parts
    ]
    return columns(
        StoreBatch(
            kind,
            np.repeat(np.array([part.stream_id for part in parts], np.uint32), counts),
            np.concatenate(sequences),
            np.repeat(np.array([part.epoch for part in parts], np.uint32), counts),
            np.concatenate([part.rows for part in parts]),
        )
    )


def write_streams(writer: duckdb.DuckDBPyConnection, streams: list[Stream]) -> None:
    """Bring these lines of `streams` up to date, or add them."""
    if not streams:
        return
    types = {str: object, bool: np.bool_, int: np.uint64}
    lines: dict[str, NDArray[Any]] = {
        name: np.array([line[at] for line in streams], types[type(streams[0][at])])
        for at, name in enumerate(Stream._fields)
    }
    changing = ("cursor_epoch", "cursor_sequence", "last_sequence", "aside")
    insert(
        writer,
        f"UPDATE streams SET {', '.join(f'{name} = new.{name}' for name in changing)}"
        " FROM flux_batch AS new WHERE streams.stream_id = new.stream_id",
        lines,
    )
    insert(
        writer,
        "INSERT INTO streams SELECT * FROM flux_batch AS new"
        " WHERE NOT EXISTS (SELECT 1 FROM streams WHERE streams.stream_id = new.stream_id)",
        lines,
    )


def delete(writer: duckdb.DuckDBPyConnection, stream: Stream) -> None:
    """Everything of a stream."""
    for table in (TABLES[stream.key.kind], "gaps", "streams"):
        writer.execute(f"DELETE FROM {table} WHERE stream_id = ?", [stream.stream_id])


def find(reader: duckdb.DuckDBPyConnection, key: StreamKey) -> Stream | None:
    """The stream of this key that is not set aside."""
    found = one(
        reader,
        "SELECT * FROM streams WHERE source_id = ? AND symbol = ? AND interval = ? AND NOT aside",
        list(key),
    )
    return None if found is None else Stream(*found)


def select(
    reader: duckdb.DuckDBPyConnection, stream: Stream, first: int, last: int
) -> dict[str, NDArray[Any]]:
    """A stream's rows with sequences `first` to `last`, both inclusive, as columns in order of sequence."""
    found: dict[str, NDArray[Any]] = reader.execute(
        f"SELECT * FROM {TABLES[stream.key.kind]}"
        " WHERE stream_id = ? AND sequence BETWEEN ? AND ? ORDER BY sequence",
        [stream.stream_id, first, last],
    ).fetchnumpy()
    return found
