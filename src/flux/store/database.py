"""One DuckDB file, held open: its settings, its errors in our words, transactions, cursors, and coming back.

The server's store and the client's cache both live on this. A DuckDB instance that met a fatal error refuses
every further statement, also on its other cursors, until all of them are closed and the file is opened again;
that is done here, by the next call after the failure, so that a caller only has to try again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from flux.errors import DamagedError, FluxError, InUseError, NewerFormatError, StorageError
from flux.journal.fence import sync_folder
from flux.limits import STORE_MEMORY_BYTES, STORE_REOPEN_S, STORE_WAL_BYTES
from flux.named_files import check_regular

_LOG = logging.getLogger("flux.store")

_Settings = dict[str, str | bool | int | float | list[str]]

_HELD = re.compile(r"Conflicting lock is held in (.*) \(PID (\d+)\)")
_CORRUPT = re.compile(
    r"not a valid DuckDB|Could not read enough bytes|Corrupt database|checksum|deserialize|"
    r"Failed to load metadata|Failure while replaying WAL",
    re.IGNORECASE,
)
_NEWER = re.compile(r"newer version|database file with version number", re.IGNORECASE)
_BATCH = "flux_batch"  # the name under which rows are shown to SQL while they are inserted


class Database:
    """`path` opened for this process alone; `advice` ends the message when the file cannot be used as it is.

    `prepare` is called with each new connection, in a transaction: it makes the tables or checks them. With `patient` a
    file that is damaged or cannot be opened is no error here: `fault` says what it is, each use tries again, and one
    that succeeds clears it.
    """

    def __init__(
        self,
        path: Path,
        advice: str,
        prepare: Callable[[duckdb.DuckDBPyConnection], None],
        *,
        patient: bool = False,
    ) -> None:
        self.path = path
        self._advice = advice
        self._prepare = prepare
        self._changed = threading.Condition()
        self._users = 0  # threads inside a statement
        self._cursors: list[duckdb.DuckDBPyConnection] = []  # idle ones
        self._writer: duckdb.DuckDBPyConnection | None = None
        self._invalid = False
        self._closed = False
        self.fault: FluxError | None = None
        try:
            self._connect()
        except (StorageError, DamagedError) as error:
            if not patient:
                raise
            self._invalid, self.fault = True, error
            _LOG.warning("not opened at once: %s", error)

    @contextlib.contextmanager
    def writing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A transaction: committed at the end of the block, rolled back when it raises. One thread writes."""
        self._enter()
        try:
            writer = self._writer
            assert writer is not None
            with self._translated():
                writer.begin()
                try:
                    yield writer
                    writer.commit()
                except BaseException:
                    # Refused where the failed statement already ended the transaction, or the whole instance.
                    with contextlib.suppress(duckdb.Error):
                        writer.rollback()
                    raise
        finally:
            self._leave(None)

    @contextlib.contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor of this thread's own for the length of the block."""
        self._enter()
        cursor: duckdb.DuckDBPyConnection | None = None
        try:
            with self._translated():
                with self._changed:
                    cursor = self._cursors.pop() if self._cursors else None
                if cursor is None:
                    assert self._writer is not None
                    cursor = self._writer.cursor()
                yield cursor
        finally:
            self._leave(cursor)

    def checkpoint(self, above: int) -> bool:
        """Move the write-ahead log into the file when it is longer than `above` bytes; True when done."""
        try:
            pending = os.stat(f"{self.path}.wal").st_size
        except FileNotFoundError:
            return False
        if pending <= above:
            return False
        with self.reading() as cursor:
            try:
                cursor.execute("CHECKPOINT")
            except duckdb.TransactionException:
                return False  # somebody is reading an older state: another time
        return True

    def close(self) -> None:
        """Close every cursor and the file, once those in use are done with their statement."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.wait_for(lambda: self._users == 0, STORE_REOPEN_S)
            self._disconnect()

    def _connect(self) -> None:
        settings: _Settings = {
            "storage_compatibility_version": "v1.5.0",
            "threads": 1,
            "memory_limit": f"{STORE_MEMORY_BYTES}B",
            "wal_autocheckpoint": f"{STORE_WAL_BYTES}B",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "enable_external_access": False,
            "lock_configuration": True,
            # Two opens of one file in one process would share an instance; with different settings the second
            # is refused instead, as it is from another process.
            "custom_user_agent": f"flux-{uuid.uuid4().hex}",
        }
        if not self.path.exists():
            self._make(settings)
        self._writer = self._open(self.path, settings)
        self._invalid, self.fault = False, None

    def _make(self, settings: _Settings) -> None:
        """A whole new file under another name, which then gets its own: a disk that refuses, or a power cut, leaves no
        half of one."""
        fresh = self.path.with_name(f"{self.path.name}.making")
        try:
            # An old write-ahead log harms nothing alone; beside a new file it would.
            for leftover in (f"{self.path}.wal", fresh, f"{fresh}.wal"):
                Path(leftover).unlink(missing_ok=True)
            try:
                with contextlib.closing(self._open(fresh, settings)) as connection:
                    connection.execute(
                        "CHECKPOINT"
                    )  # closing does that too, and says nothing where it cannot
            except (FluxError, duckdb.Error):
                fresh.unlink(missing_ok=True)
                raise
            fresh.rename(self.path)
            sync_folder(self.path.parent)
        except OSError as error:
            raise StorageError.of(self.path, error) from error
        except duckdb.Error as error:
            raise self._opening(error) from error

    def _open(self, path: Path, settings: _Settings) -> duckdb.DuckDBPyConnection:
        """A connection whose tables are made or checked."""
        try:
            check_regular(path)  # DuckDB waits at a FIFO for ever
            connection = duckdb.connect(str(path), config=settings)
        except OSError as error:
            raise StorageError.of(path, error) from error
        except duckdb.Error as error:
            raise self._opening(error) from error
        try:
            connection.begin()
            self._prepare(connection)
            connection.commit()
        except duckdb.Error as error:
            connection.close()
            raise self._opening(error) from error
        except FluxError:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        for connection in (*self._cursors, self._writer):
            if connection is not None:
                with contextlib.suppress(duckdb.Error):
                    connection.close()
        self._cursors.clear()
        self._writer = None

    def _enter(self) -> None:
        with self._changed:
            while self._invalid and not self._closed:
                if self._users == 0:
                    self._disconnect()
                    self._connect()
                # An instance that failed answers every statement at once, so the others are soon out.
                elif not self._changed.wait(STORE_REOPEN_S):
                    raise StorageError(f"{self.path}: failed, and still in use by another thread")
            if self._closed:
                raise StorageError(f"{self.path} is closed")
            self._users += 1

    def _leave(self, cursor: duckdb.DuckDBPyConnection | None) -> None:
        with self._changed:
            self._users -= 1
            if cursor is not None:
                self._cursors.append(cursor)
            self._changed.notify_all()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (duckdb.FatalException, duckdb.InternalException) as error:
            with self._changed:
                self._invalid = True
            raise StorageError(f"{self.path}: the database failed and is opened again: {error}") from error
        except duckdb.Error as error:
            if _CORRUPT.search(str(error)):
                raise DamagedError(f"{self.path} is corrupt: {error}. {self._advice}") from error
            raise StorageError(f"{self.path}: {error}") from error

    def _opening(self, error: duckdb.Error) -> FluxError:
        text = str(error)
        if held := _HELD.search(text):
            return InUseError(f"{self.path} is in use by pid {held[2]} ({held[1]})")
        if isinstance(error, duckdb.ConnectionException):
            return InUseError(f"{self.path} is already open in this process (pid {os.getpid()})")
        if _NEWER.search(text):
            return NewerFormatError(f"{self.path} was written by a newer DuckDB: upgrade duckdb. {text}")
        if _CORRUPT.search(text) or isinstance(error, (duckdb.FatalException, duckdb.InternalException)):
            return DamagedError(f"{self.path} is corrupt: {text}. {self._advice}")
        return StorageError(f"{self.path} cannot be opened: {text}")


def insert(connection: duckdb.DuckDBPyConnection, statement: str, columns: Mapping[str, NDArray[Any]]) -> int:
    """Run `statement`, an INSERT or UPDATE that reads `FROM flux_batch`, with these columns as that table: how many
    rows it put in or changed.

    Column views of a row array are as fast as contiguous ones; they are read before this returns.
    """
    connection.register(_BATCH, dict(columns))
    try:
        return int(connection.execute(statement).fetchall()[0][0])
    finally:
        connection.unregister(_BATCH)


def create(connection: duckdb.DuckDBPyConnection, *names: str) -> None:
    """Run the table definitions of this folder."""
    for name in names:
        connection.execute(resources.files("flux.store").joinpath(name).read_text("utf-8"))


def one(
    connection: duckdb.DuckDBPyConnection, statement: str, parameters: Sequence[object] = ()
) -> tuple[Any, ...] | None:
    """The only row of an answer, None where there is none.

    All of the answer is fetched: DuckDB's fetchone leaves the connection busy, and its snapshot open.
    """
    found: list[tuple[Any, ...]] = connection.execute(statement, list(parameters)).fetchall()
    return found[0] if found else None


def probe(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """Read the last row of `table`: a file that was cut short opens as if nothing were wrong."""
    (count,) = one(connection, f"SELECT count(*) FROM {table}") or (0,)
    connection.execute(f"SELECT * FROM {table} WHERE rowid = {count - 1}").fetchall()


def structured(columns: Mapping[str, NDArray[Any]], dtype: np.dtype[np.void]) -> NDArray[np.void]:
    """Columns that a query gave, as one array of rows (the one copy out of the database)."""
    names = dtype.names or ()
    rows = np.empty(len(columns[names[0]]), dtype)
    for name in names:
        rows[name] = columns[name]
    return rows
