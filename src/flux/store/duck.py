"""The server's store in DuckDB: journal position and rows in one transaction, so projection is exactly once.

    commit   [rows of many streams] ──sort by stream──► INSERT ... SELECT ─┐
             heads of those streams ─────────────────► UPDATE / INSERT    ├─ one transaction
             (file, offset) behind them ─────────────► UPDATE             ┘
    read     stream_id = s AND sequence BETWEEN a AND b ──min/max per block──► rows

One thread writes, any thread reads, each with a cursor of its own. The file belongs to this process alone;
nobody else may open, copy or hash it in here (closing any descriptor of it would drop DuckDB's lock).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from flux.errors import DamagedError, DataError, FluxError, NewerFormatError, StorageError
from flux.limits import STORE_IDLE_WAL_BYTES
from flux.model import MAX_SEQUENCE, ROW_DTYPES, RowKind, StreamKey
from flux.store.base import Rows, StoreBatch, StoreHead, columns
from flux.store.database import Database, create, insert, one, probe, structured

FORMAT_VERSION = 1
_TABLES = {RowKind.CANDLE: "candles", RowKind.TRADE: "trades", RowKind.QUOTE: "quotes"}
_ADVICE = (
    "Stop flux and delete it: it is filled again from the journal at the next start (what it alone has since a `flux "
    "rebuild --salvage` is then lost)"
)


class DuckStore:
    """`flux.store.Store` in one DuckDB file; see there for what each method promises.

    `store_id` is the identity of the data directory: a file of another one is refused with `DataError`. One of the
    store `also`, which this one branched from, is taken over.
    """

    def __init__(self, path: Path | str, store_id: int, *, also: int = 0, patient: bool = False) -> None:
        """Open the file, or make it. `patient`: one that is damaged or cannot be opened is tried again with each call.

        Raises `InUseError` (another process, or this one, has it), `DataError` (corrupt, newer, another
        store's: the message says what to do) or `StorageError` (no space, no permission).
        """
        self._store_id = store_id
        self._also = also
        self._path = Path(path)
        self._database = Database(self._path, _ADVICE, self._prepare, patient=patient)
        self._projected: tuple[int, int] | None = None
        self._headed: set[int] = set()  # streams that have a row in `heads`
        self._uncertain = False
        if self.fault is None:
            try:
                self.position()
            except (StorageError, DamagedError):
                self._uncertain = True  # asked before anything is written
                if not patient:
                    self._database.close()
                    raise

    @property
    def fault(self) -> FluxError | None:
        """Why the file could not be opened so far (`patient` alone)."""
        return self._database.fault

    @property
    def store_id(self) -> int:
        """The id of the server's store that these rows belong to."""
        return self._store_id

    def adopt(self, store_id: int) -> None:
        """These rows are a new store's from now on: the one that its directory, a copy, has become.

        Where the database does not take that now, it does when it is opened again.
        """
        self._also, self._store_id = self._store_id, store_id
        with contextlib.suppress(StorageError, DamagedError), self._database.writing() as writer:
            writer.execute("UPDATE meta SET store_id = ?", [store_id])

    def highest_epoch(self) -> int:
        """The highest epoch of any row; 0 without rows."""
        with self._database.reading() as cursor:
            found = [one(cursor, f"SELECT max(epoch) FROM {table}") for table in _TABLES.values()]
        return max((row[0] for row in found if row is not None and row[0] is not None), default=0)

    def append(self, batch: StoreBatch, position: tuple[int, int]) -> None:
        """`commit` of one batch that brings no new stream."""
        self.commit([batch], {}, position)

    def commit(
        self, batches: Sequence[StoreBatch], streams: Mapping[int, StreamKey], position: tuple[int, int]
    ) -> None:
        """Write rows, new streams and the journal position behind them in one transaction."""
        if self._uncertain:
            raise StorageError(f"{self._path}: the last commit failed, ask position() how far it came")
        behind = (int(position[0]), int(position[1]))
        filled = [batch for batch in batches if len(batch.rows)]
        if filled and self._projected is not None and behind <= self._projected:
            raise StorageError(f"{self._path} already holds the journal up to {self._projected}: {behind}")
        # A commit that fails may have reached the disk all the same: only the file knows.
        self._uncertain = True
        with self._database.writing() as writer:
            if not _moved(writer, self._projected, behind):
                raise StorageError(
                    f"{self._path}: another file than before, or written by another: asked anew"
                )
            for batch in filled:
                self._headed |= _write(writer, batch, self._headed)
            if streams:
                _write_streams(writer, streams)
        self._projected, self._uncertain = behind, False

    def position(self) -> tuple[int, int] | None:
        """(file, offset) up to which the journal is in here; None in a new store."""
        with self._database.reading() as cursor:
            found = one(cursor, 'SELECT file, "offset" FROM position')
            self._headed = {row[0] for row in cursor.execute("SELECT stream_id FROM heads").fetchall()}
        self._projected, self._uncertain = None if found is None else (found[0], found[1]), False
        return self._projected

    def heads(self) -> dict[int, StoreHead]:
        """What is here of each stream that ever had a row, by stream_id."""
        with self._database.reading() as cursor:
            found = cursor.execute("SELECT * FROM heads").fetchall()
        return {row[0]: StoreHead(*row[1:]) for row in found}

    def streams(self) -> dict[int, StreamKey]:
        """All streams by stream_id."""
        with self._database.reading() as cursor:
            found = cursor.execute("SELECT * FROM streams").fetchall()
        return {row[0]: StreamKey(*row[1:]) for row in found}

    def lowest(self, kind: RowKind) -> dict[int, int]:
        """By stream_id the lowest time of its rows, of trades the lowest id (none: no row has one). Streams of which
        not all rows from sequence 1 to their last one are here are left out."""
        of = {RowKind.CANDLE: "min(ts_ms)", RowKind.QUOTE: "min(ts_ns)"}
        what = of.get(kind, "min(trade_id) FILTER (trade_id > 0)")
        with self._database.reading() as cursor:
            found = cursor.execute(
                f"SELECT stream_id, {what} AS low FROM {_TABLES[kind]} GROUP BY stream_id"
                " HAVING count(*) = max(sequence) AND low IS NOT NULL"
            ).fetchall()
        return dict(found)

    def newest(self, stream_id: int, kind: RowKind) -> tuple[int, int, int] | None:
        """Of a stream's rows the last sequence, that row's time (ms; trades and quotes: ns), and the highest time, of
        trades the highest id. None without rows."""
        time = "ts_ms" if kind is RowKind.CANDLE else "ts_ns"
        order = "trade_id" if kind is RowKind.TRADE else time
        with self._database.reading() as cursor:
            found = one(
                cursor,
                f"SELECT max(sequence), arg_max({time}, sequence), max({order}) FROM {_TABLES[kind]}"
                " WHERE stream_id = ?",
                [stream_id],
            )
        return None if found is None or found[0] is None else (int(found[0]), int(found[1]), int(found[2]))

    def read(
        self, stream_id: int, kind: RowKind, from_exclusive: int, to_inclusive: int, limit: int
    ) -> tuple[int, Rows]:
        """The first contiguous run of rows within the bounds, at most `limit`, in order of sequence."""
        last = to_inclusive or MAX_SEQUENCE
        if limit <= 0 or last <= from_exclusive:
            return 0, np.empty(0, ROW_DTYPES[kind])
        with self._database.reading() as cursor:
            # Sequences are dense, so `limit` is a bound on them, and the scan need not look beyond it.
            found = _select(cursor, stream_id, kind, from_exclusive + 1, min(last, from_exclusive + limit))
            if not len(found["sequence"]):
                oldest = one(
                    cursor,
                    f"SELECT min(sequence) FROM {_TABLES[kind]}"
                    " WHERE stream_id = ? AND sequence BETWEEN ? AND ?",
                    [stream_id, from_exclusive + 1, last],
                )
                if oldest is None or oldest[0] is None:
                    return 0, np.empty(0, ROW_DTYPES[kind])
                found = _select(cursor, stream_id, kind, oldest[0], min(last, oldest[0] + limit - 1))
        sequences = found["sequence"]
        first = int(sequences[0])
        rows = structured(found, ROW_DTYPES[kind])
        if int(sequences[-1]) - first != len(rows) - 1:
            steps = np.diff(sequences)
            rows = rows[: int(np.argmax(steps != 1)) + 1]
        return first, rows

    def sequence_range(
        self, stream_id: int, kind: RowKind, start_ms: int | None, end_ms: int | None
    ) -> tuple[int, int] | None:
        """The run of sequences from the first row at or after `start_ms` to the last before `end_ms`."""
        table = _TABLES[kind]
        time = "ts_ms" if kind is RowKind.CANDLE else "ts_ns"
        scale = 1 if kind is RowKind.CANDLE else 1_000_000
        start = -MAX_SEQUENCE if start_ms is None else _clamped(start_ms * scale)
        end = MAX_SEQUENCE if end_ms is None else _clamped(end_ms * scale)
        with self._database.reading() as cursor:
            # Not min(): an ordered search stops at the first block that has one.
            first = one(
                cursor,
                f"SELECT sequence FROM {table} WHERE stream_id = ? AND {time} >= ? ORDER BY sequence LIMIT 1",
                [stream_id, start],
            )
            last = one(
                cursor,
                f"SELECT sequence FROM {table} WHERE stream_id = ? AND {time} < ?"
                " ORDER BY sequence DESC LIMIT 1",
                [stream_id, end],
            )
        if first is None or last is None or first[0] > last[0]:
            return None
        return first[0], last[0]

    def idle(self) -> bool:
        """Checkpoint when the write-ahead log has grown: it would stall a commit for 40 to 150 ms."""
        return self._database.checkpoint(above=STORE_IDLE_WAL_BYTES)

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        self._database.close()

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the tables in a new file; in an old one see that it is ours and that we can read it."""
        if not one(connection, "SELECT 1 FROM duckdb_tables() LIMIT 1"):
            create(connection, "tables.sql", "bookkeeping.sql")
            connection.execute("INSERT INTO meta VALUES (?, ?)", [FORMAT_VERSION, self._store_id])
            return
        try:
            found = one(connection, "SELECT format_version, store_id FROM meta")
        except duckdb.CatalogException:
            found = None
        if found is None:
            raise DataError(f"{self._path} is no store of flux (it has no meta table). {_ADVICE}")
        if found[0] > FORMAT_VERSION:
            raise NewerFormatError(
                f"{self._path} has format {found[0]}, this flux knows up to {FORMAT_VERSION}: upgrade flux"
            )
        if self._also and found[1] == self._also:
            connection.execute("UPDATE meta SET store_id = ?", [self._store_id])
        elif found[1] != self._store_id:
            raise DataError(
                f"{self._path} belongs to store {found[1]:016x}, not to {self._store_id:016x}. {_ADVICE}"
            )
        for table in _TABLES.values():
            probe(connection, table)


def _moved(writer: duckdb.DuckDBPyConnection, known: tuple[int, int] | None, behind: tuple[int, int]) -> bool:
    """Whether the position was still the one that is known, and is `behind` now. The file may have been opened anew
    since it was asked, and be another: rows that do not go on where it ends would be in it twice, or leave a hole."""
    if known is None:
        moved = one(writer, "INSERT INTO position SELECT ?, ? WHERE NOT EXISTS (FROM position)", behind)
    else:
        moved = one(
            writer,
            'UPDATE position SET file = ?, "offset" = ? WHERE file = ? AND "offset" = ?',
            behind + known,
        )
    return moved is not None and moved[0] == 1


def _write(writer: duckdb.DuckDBPyConnection, batch: StoreBatch, headed: Set[int]) -> set[int]:
    """Insert a batch stream by stream: blocks that hold one stream are what makes reading it quick.

    Returns its streams. `headed` are those with a row in `heads`; a statement costs a millisecond, so none is made for
    nothing.
    """
    order: NDArray[np.intp] | None = None
    if np.any(batch.stream_ids[1:] < batch.stream_ids[:-1]):
        order = np.argsort(batch.stream_ids, kind="stable")
    batch_columns = columns(batch, order)
    insert(writer, f"INSERT INTO {_TABLES[batch.kind]} SELECT * FROM flux_batch", batch_columns)

    ids = batch_columns["stream_id"]
    starts = np.flatnonzero(np.concatenate(([True], ids[1:] != ids[:-1])))
    ends = np.concatenate((starts[1:], [len(ids)])) - 1
    time = "ts_ms" if batch.kind is RowKind.CANDLE else "ts_ns"
    heads: dict[str, NDArray[Any]] = {
        "stream_id": ids[starts],
        "first_sequence": batch_columns["sequence"][starts],
        "last_sequence": batch_columns["sequence"][ends],
        "latest_ts": np.maximum.reduceat(batch_columns[time], starts),
    }
    known = np.fromiter((stream_id in headed for stream_id in heads["stream_id"].tolist()), np.bool_)
    if known.any():
        moved = insert(
            writer,
            "UPDATE heads SET last_sequence = new.last_sequence,"
            " latest_ts = greatest(heads.latest_ts, new.latest_ts)"
            " FROM flux_batch AS new"
            " WHERE heads.stream_id = new.stream_id AND heads.last_sequence < new.first_sequence",
            {name: column[known] for name, column in heads.items()},
        )
        if moved != np.count_nonzero(known):
            raise DamagedError("it already has rows of these sequences, which the journal no longer has")
    if not known.all():
        insert(
            writer,
            "INSERT INTO heads SELECT * FROM flux_batch",
            {name: column[~known] for name, column in heads.items()},
        )
    return set(heads["stream_id"].tolist())


def _write_streams(writer: duckdb.DuckDBPyConnection, streams: Mapping[int, StreamKey]) -> None:
    keys = list(streams.values())
    insert(
        writer,
        "INSERT INTO streams SELECT * FROM flux_batch AS new"
        " WHERE NOT EXISTS (SELECT 1 FROM streams WHERE streams.stream_id = new.stream_id)",
        {
            "stream_id": np.fromiter(streams, np.uint32, len(streams)),
            "source_id": np.array([key.source_id for key in keys], object),
            "symbol": np.array([key.symbol for key in keys], object),
            "interval": np.array([key.interval for key in keys], object),
        },
    )


def _select(
    cursor: duckdb.DuckDBPyConnection, stream_id: int, kind: RowKind, first: int, last: int
) -> dict[str, NDArray[Any]]:
    names = ", ".join(ROW_DTYPES[kind].names or ())
    found: dict[str, NDArray[Any]] = cursor.execute(
        f"SELECT sequence, {names} FROM {_TABLES[kind]}"
        " WHERE stream_id = ? AND sequence BETWEEN ? AND ? ORDER BY sequence",
        [stream_id, first, last],
    ).fetchnumpy()
    return found


def _clamped(value: int) -> int:
    return max(-MAX_SEQUENCE, min(MAX_SEQUENCE, value))
