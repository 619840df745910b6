"""A client's local cache: what was delivered, and how far the consumer is, in one DuckDB file.

    commit   rows of several streams ─┐
             their cursors ───────────┴─ one transaction: after any kill each row is there once, no hole
    load     the latest rows up to the cursor, without a server

Rows above the cursor were received but not acknowledged; they are kept, not shown, and when they come again
they are recognised by their sequence. A hole that the server said will stay is in the table `gaps`; there is
no other.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import duckdb
import numpy as np

from flux.client.cache_tables import (
    BOOKKEEPING,
    TABLES,
    UNKNOWN,
    CacheBatch,
    Fresh,
    Stream,
    dated,
    delete,
    find,
    grown,
    joined,
    select,
    write_streams,
)
from flux.client.warmup import Past
from flux.errors import ConfigError, NewerFormatError
from flux.limits import STORE_IDLE_WAL_BYTES
from flux.model import ROW_DTYPES, Cursor, RowKind, StreamKey
from flux.named_files import no_database_name
from flux.store.base import Rows
from flux.store.database import Database, create, insert, one, probe, structured

__all__ = ["Cache", "CacheBatch", "Cached", "CachedRun"]

FORMAT_VERSION = 1
_ADVICE = "Delete it, and the rows are fetched again from the server"


class Cached(NamedTuple):
    """A contiguous run of cached rows, and the cursor from which to go on."""

    cursor: Cursor
    first_sequence: int
    rows: Rows


class CachedRun(NamedTuple):
    """A contiguous run of cached rows of one epoch."""

    first_sequence: int
    epoch: int
    rows: Rows


class Cache:
    """The cache in `path`. One thread writes; any thread may read.

    Every method may raise `StorageError` (nothing committed is lost; the same call may be made again) and
    `DataError` (the file is damaged).
    """

    def __init__(self, path: Path | str) -> None:
        """Open or make it.

        Raises `InUseError` (another process or `Live` has it), `ConfigError` (no cache, but a file or a database
        of something else; a place that cannot be written), `DataError` (damaged, or of a newer flux), or
        `StorageError` (the disk is full). What is there is left as it is.
        """
        self._path = Path(path)
        _look_at(self._path)
        self._database = Database(self._path, _ADVICE, self._prepare)
        self._file = _file_at(self._path)
        self._known: list[Stream] | None = None  # of the writing thread; None: to be read

    def append(
        self,
        key: StreamKey,
        store_id: int,
        epoch: int,
        first_sequence: int,
        rows: Rows,
        cursor: int,
        *,
        after_gap: bool = False,
    ) -> None:
        """`commit` of one batch."""
        self.commit([CacheBatch(key, store_id, epoch, first_sequence, rows, cursor, after_gap)])

    def commit(self, batches: Sequence[CacheBatch]) -> None:
        """Write the rows and cursors of several streams in one transaction; a stream's batches in order.

        Rows that are here already are left out. Raises `ValueError` where a batch would leave a hole (and is
        not `after_gap`), is of another store than the stream (`set_aside` it first), or has its cursor beyond
        the rows; nothing is written then.
        """
        all_streams = self._streams()
        streams = {stream.key: stream for stream in all_streams if not stream.aside}
        next_id = 1 + max((stream.stream_id for stream in all_streams), default=0)
        gaps: list[tuple[int, int, int]] = []
        fresh: dict[RowKind, list[Fresh]] = {}
        for batch in batches:
            before = streams.get(batch.key)
            if before is None:
                first = batch.first_sequence
                before = Stream(next_id, batch.store_id, *batch.key, batch.epoch, 0, first, first - 1, False)
                next_id += 1
            streams[batch.key], part = grown(before, batch)
            if len(part.rows):
                fresh.setdefault(batch.key.kind, []).append(part)
                if part.first_sequence > before.last_sequence + 1:
                    gaps.append((part.stream_id, before.last_sequence + 1, part.first_sequence - 1))
        changed = [streams[key] for key in dict.fromkeys(batch.key for batch in batches)]
        with self._changing() as writer:
            for kind, parts in fresh.items():
                insert(writer, f"INSERT INTO {TABLES[kind]} SELECT * FROM flux_batch", joined(kind, parts))
            for gap in gaps:
                writer.execute("INSERT INTO gaps VALUES (?, ?, ?)", gap)
            write_streams(writer, [dated(writer, stream) for stream in changed])

    def keys(self) -> list[StreamKey]:
        """The streams that are here and not set aside."""
        with self._database.reading() as reader:
            found = reader.execute(
                "SELECT source_id, symbol, interval FROM streams WHERE NOT aside ORDER BY stream_id"
            ).fetchall()
        return [StreamKey(*row) for row in found]

    def cursor(self, key: StreamKey) -> Cursor | None:
        """How far the consumer is in this stream; None where nothing of it was acknowledged."""
        with self._database.reading() as reader:
            stream = find(reader, key)
        return None if stream is None else stream.cursor

    def load(self, key: StreamKey, limit: int) -> Cached | None:
        """The latest rows up to the cursor, at most `limit`, without a hole; None without a cursor."""
        with self._database.reading() as reader:
            stream = find(reader, key)
            if stream is None or stream.cursor is None:
                return None
            first = max(stream.first_sequence, stream.cursor_sequence - limit + 1)
            (gap_end,) = one(
                reader,
                "SELECT max(last_sequence) FROM gaps WHERE stream_id = ? AND first_sequence <= ?",
                [stream.stream_id, stream.cursor_sequence],
            ) or (None,)
            first = max(first, (gap_end or 0) + 1)
            found = select(reader, stream, first, stream.cursor_sequence)
        return Cached(stream.cursor, first, structured(found, ROW_DTYPES[key.kind]))

    def read(self, key: StreamKey, from_exclusive: int, limit: int) -> CachedRun | None:
        """The first run of rows after `from_exclusive` and up to the cursor; None where there is none.

        It ends at `limit` rows, before a hole, and where the epoch changes: go on from its last sequence.
        """
        with self._database.reading() as reader:
            stream = find(reader, key)
            if stream is None:
                return None
            first = max(from_exclusive + 1, stream.first_sequence)
            (gap_end,) = one(
                reader,
                "SELECT max(last_sequence) FROM gaps"
                " WHERE stream_id = ? AND first_sequence <= ? AND last_sequence >= ?",
                [stream.stream_id, first, first],
            ) or (None,)
            first = max(first, (gap_end or 0) + 1)
            found = select(reader, stream, first, min(first + limit - 1, stream.cursor_sequence))
        sequences, epochs = found["sequence"], found["epoch"]
        if not len(sequences):
            return None
        breaks = np.flatnonzero((np.diff(sequences) != 1) | (epochs[1:] != epochs[:-1]))
        rows = structured(found, ROW_DTYPES[key.kind])
        return CachedRun(first, int(epochs[0]), rows[: breaks[0] + 1] if len(breaks) else rows)

    def begin_of(self, key: StreamKey, past: Past) -> int:
        """The first sequence of the newest `past.rows` rows up to the cursor, none of them older than `past.ms`
        before the newest; the cursor's own where there are none.
        """
        table, time = TABLES[key.kind], "ts_ms" if key.kind is RowKind.CANDLE else "ts_ns"
        with self._database.reading() as reader:
            stream = find(reader, key)
            if stream is None:
                return 0
            mine = [stream.stream_id, stream.cursor_sequence]
            upto = f"FROM {table} WHERE stream_id = ? AND sequence <= ?"
            first = stream.first_sequence
            if past.rows is not None and past.rows < stream.cursor_sequence - first + 1:
                found = one(
                    reader,
                    f"SELECT sequence {upto} ORDER BY sequence DESC LIMIT 1 OFFSET ?",
                    [*mine, past.rows - 1],
                )
                first = found[0] if found else first
            if past.ms is not None:
                span = past.ms * (1 if time == "ts_ms" else 1_000_000)
                (since,) = one(
                    reader,
                    f"SELECT min(sequence) {upto} AND {time} >= (SELECT max({time}) {upto}) - ?",
                    [*mine, *mine, span],
                ) or (None,)
                first = max(first, stream.cursor_sequence + 1 if since is None else since)
            return first

    def begin_anew(self, key: StreamKey, store_id: int, epoch: int, first: int) -> None:
        """Rows from `first` on come from a run that does not go on at the cursor: they take the place of those here.

        What is here of another store is set aside; of an earlier epoch it is forgotten, for nobody said where that
        ended.
        """
        stream = self._active(key)
        if stream is None:
            return
        if stream.store_id != store_id:
            self.set_aside(key)
        elif stream.cursor_epoch != epoch:
            self.forget(key)
        else:
            self.drop_above(key, first - 1)

    def drop_above(self, key: StreamKey, sequence: int) -> None:
        """An epoch ended at `sequence`: rows above it are void, and the cursor goes back to it at most."""
        stream = self._active(key)
        if stream is None or stream.last_sequence <= sequence:
            return
        table = TABLES[key.kind]
        with self._changing() as writer:
            writer.execute(
                f"DELETE FROM {table} WHERE stream_id = ? AND sequence > ?", [stream.stream_id, sequence]
            )
            (last,) = one(
                writer, f"SELECT max(sequence) FROM {table} WHERE stream_id = ?", [stream.stream_id]
            ) or (None,)
            if last is None:
                delete(writer, stream)
                return
            writer.execute(
                "DELETE FROM gaps WHERE stream_id = ? AND first_sequence > ?", [stream.stream_id, last]
            )
            stream = stream._replace(last_sequence=last)
            if stream.cursor_sequence > last:
                stream = stream._replace(cursor_sequence=last, cursor_epoch=UNKNOWN)
            write_streams(writer, [dated(writer, stream)])

    def set_aside(self, key: StreamKey) -> None:
        """The server has another store now: keep what is here out of sight (one such set per stream)."""
        stream = self._active(key)
        if stream is None:
            return
        with self._changing() as writer:
            for old in self._streams():
                if old.aside and old.key == key:
                    delete(writer, old)
            write_streams(writer, [stream._replace(aside=True)])

    def forget(self, key: StreamKey) -> None:
        """Delete this stream's rows and cursor; what was set aside stays."""
        stream = self._active(key)
        if stream is not None:
            with self._changing() as writer:
                delete(writer, stream)

    def gone(self) -> str:
        """Why nothing that is written now will be found again; "" while the file that was opened has its name."""
        now = _file_at(self._path)
        if now == self._file:
            return ""
        what = "was deleted" if now is None else "is another file now"
        return f"{self._path} {what}, while it was in use as a cache: what is acked from now on comes again"

    def idle(self) -> bool:
        """A good moment to move the write-ahead log into the file; True when that was done."""
        return self._database.checkpoint(above=STORE_IDLE_WAL_BYTES)

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _changing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction; the streams are read again after it, whether it came through or not."""
        try:
            with self._database.writing() as writer:
                yield writer
        finally:
            self._known = None

    def _streams(self) -> list[Stream]:
        if self._known is None:
            with self._database.reading() as reader:
                found = reader.execute("SELECT * FROM streams").fetchall()
            self._known = [Stream(*row) for row in found]
        return self._known

    def _active(self, key: StreamKey) -> Stream | None:
        return next((stream for stream in self._streams() if stream.key == key and not stream.aside), None)

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        if one(connection, "SELECT 1 FROM duckdb_databases() WHERE NOT internal AND path IS NULL"):
            # DuckDB opens a CSV or a Parquet file as a view of its rows in a database in memory.
            raise ConfigError(
                f"{self._path} is no cache, but a file of something else: give the cache another file"
            )
        if not one(connection, "SELECT 1 FROM duckdb_tables() LIMIT 1"):
            create(connection, "tables.sql")
            connection.execute(BOOKKEEPING)
            connection.execute("INSERT INTO meta VALUES ('cache', ?)", [FORMAT_VERSION])
            return
        try:
            found = one(connection, "SELECT format_version FROM meta WHERE kind = 'cache'")
        except (duckdb.CatalogException, duckdb.BinderException):
            found = None
        if found is None:
            raise ConfigError(f"{self._path} is a database of something else: give the cache another file")
        if found[0] > FORMAT_VERSION:
            raise NewerFormatError(
                f"{self._path} has format {found[0]}, this flux knows up to {FORMAT_VERSION}: upgrade flux"
            )
        for table in TABLES.values():
            probe(connection, table)


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file has this name; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _look_at(path: Path) -> None:
    """Refuse a place where no cache can be. The file is not opened here: closing it would give up the lock that this
    process may have on it.
    """
    if why := no_database_name(path):
        raise ConfigError(why)
    if path.is_dir():
        raise ConfigError(f"{path} is a directory: give the cache a file")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no regular file: give the cache a file")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: a cache cannot be made here: {path.parent} is no directory")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"{path} cannot be written: give the cache another file")
