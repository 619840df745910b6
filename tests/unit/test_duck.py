"""What is DuckDB's own about the store: files that are in use, damaged, newer or full, and coming back."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from flux.errors import DataError, InUseError, StorageError
from flux.model import CANDLE, RowKind, StreamKey
from flux.store import DuckStore, StoreBatch
from flux.store.database import Database

STORE_ID = 7


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[DuckStore]:
    opened = DuckStore(path, STORE_ID)
    yield opened
    opened.close()


def batch(first: int, n: int, stream: int = 1) -> StoreBatch:
    rows = np.zeros(n, CANDLE)
    rows["ts_ms"] = 60_000 * np.arange(first, first + n)
    rows["open"] = np.random.default_rng(first).normal(100, 1, n)
    return StoreBatch(
        RowKind.CANDLE,
        np.full(n, stream, np.uint32),
        np.arange(first, first + n, dtype=np.uint64),
        np.ones(n, np.uint32),
        rows,
    )


def filled(path: Path, rows: int = 200_000) -> None:
    store = DuckStore(path, STORE_ID)
    store.append(batch(1, rows), (1, 1))
    store.idle()
    store.close()


def test_the_settings_are_those_of_the_design(store: DuckStore) -> None:
    with store._database.reading() as cursor:
        names = ["threads", "lock_configuration", "enable_external_access", "autoload_known_extensions"]
        assert [cursor.execute(f"SELECT current_setting('{name}')").fetchone() for name in names] == [
            (1,),
            (True,),
            (False,),
            (False,),
        ]
        with pytest.raises(duckdb.Error):
            cursor.execute("SET threads = 2")


def test_a_file_held_by_another_process_is_in_use_and_names_its_pid(path: Path) -> None:
    code = (
        "import sys, duckdb\n"
        "connection = duckdb.connect(sys.argv[1])\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InUseError, match=f"pid {other.pid}"):
            DuckStore(path, STORE_ID)
        other.communicate()
    DuckStore(path, STORE_ID).close()  # its file had no tables yet


@pytest.mark.parametrize(
    "damage", ["empty", "junk", "start", "middle", "cut", "cut to a header", "cut by one block"]
)
def test_a_damaged_file_is_named_with_what_to_do(path: Path, damage: str) -> None:
    filled(path)
    content = bytearray(path.read_bytes())
    if damage == "empty":
        content = bytearray()
    elif damage == "junk":
        content = bytearray(b"timestamp,open\n" * 1_000)
    elif damage == "start":
        content[:64] = bytes(64)
    elif damage == "middle":
        # Every block, so that the damage does not depend on where DuckDB put the rows.
        for at in range(3 * 4096, len(content), 4096):
            content[at + 100] ^= 0xFF
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "cut to a header":
        del content[3_000:]
    else:
        del content[-262_144:]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"store\.duckdb.*delete it.*journal"):
        DuckStore(path, STORE_ID)


def test_damage_among_the_rows_is_met_when_they_are_read(path: Path) -> None:
    rows = batch(1, 200_000).rows["open"]
    filled(path)
    content = bytearray(path.read_bytes())
    at = content.find(np.float64(rows[100_000]).tobytes()[2:6])  # random doubles are stored nearly raw
    assert at > 3 * 4096
    content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="delete it"):  # noqa: PT012  open may or may not touch the block
        store = DuckStore(path, STORE_ID)
        try:
            store.read(1, RowKind.CANDLE, 0, 0, 200_000)
        finally:
            store.close()


def test_a_torn_write_ahead_log_costs_only_what_is_projected_again(path: Path, tmp_path: Path) -> None:
    """Wherever the log is cut, the position goes back with the rows, and the rows come again."""
    store = DuckStore(path, STORE_ID)
    for at in range(4):
        store.append(batch(1 + 100 * at, 100), (1, at + 1))
    file, log = path.read_bytes(), path.with_name("store.duckdb.wal").read_bytes()
    store.close()
    found = set()
    for end in np.linspace(0, len(log), 23).astype(int):
        copy = tmp_path / f"cut{end}.duckdb"
        copy.write_bytes(file)
        copy.with_name(f"{copy.name}.wal").write_bytes(log[:end])
        store = DuckStore(copy, STORE_ID)
        position = store.position()
        commits = 0 if position is None else position[1]
        assert len(store.read(1, RowKind.CANDLE, 0, 0, 1_000)[1]) == 100 * commits
        store.close()
        found.add(commits)
    assert found == {0, 1, 2, 3, 4}


def test_a_file_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    """A disk that refuses while it is made leaves nothing that has its name; what was left of that is no hindrance."""
    path = tmp_path / "made.duckdb"

    def refuse(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("CREATE TABLE half (x INTEGER)")
        raise StorageError("no space")

    with pytest.raises(StorageError, match="no space"):
        Database(path, "", refuse)
    assert not path.exists()
    for leftover in ("made.duckdb.making", "made.duckdb.making.wal", "made.duckdb.wal"):
        (tmp_path / leftover).write_bytes(b"half of something")
    DuckStore(path, 1).close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["made.duckdb"]


def test_one_failure_while_a_file_is_made_leaves_it_to_be_made_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that is interrupted once, say: the half-made file is let go of, so that the next try can make it."""
    opened = Database._open
    failures = [duckdb.IOException("Could not write file: Interrupted system call")]

    class Failing:
        def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
            self._connection = connection

        def execute(self, statement: str) -> None:
            if failures:
                raise failures.pop()
            self._connection.execute(statement)

        def close(self) -> None:
            self._connection.close()

    def open_failing(self: Database, at: Path, settings: Any) -> Any:
        connection = opened(self, at, settings)
        return Failing(connection) if at.name.endswith(".making") else connection

    monkeypatch.setattr(Database, "_open", open_failing)
    store = DuckStore(path, 1, patient=True)
    assert isinstance(store.fault, StorageError), "the server goes on without it"
    assert store.position() is None, "the next use makes it"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    store.close()


def test_a_directory_or_no_directory_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="directory"):
        DuckStore(tmp_path, STORE_ID)
    with pytest.raises(StorageError, match="No such file"):
        DuckStore(tmp_path / "none" / "store.duckdb", STORE_ID)


def test_a_newer_format_asks_for_an_upgrade(path: Path) -> None:
    filled(path, 1)
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET format_version = 99")
    with pytest.raises(DataError, match=r"format 99.*upgrade flux"):
        DuckStore(path, STORE_ID)


def test_somebody_elses_database_is_refused(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE candles (a INTEGER)")
    with pytest.raises(DataError, match="no store of flux"):
        DuckStore(path, STORE_ID)


def test_after_a_fatal_error_all_is_opened_again(store: DuckStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fatal error invalidates the instance: the next call waits for those still inside, then opens anew."""
    store.append(batch(1, 10), (1, 1))
    before = store._database._writer
    inside, leave = threading.Event(), threading.Event()

    def reader() -> None:
        with store._database.reading():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=reader)
    thread.start()
    inside.wait()
    with pytest.raises(StorageError, match="opened again"), store._database.writing():
        raise duckdb.FatalException("planted")
    waiting = threading.Event()
    real_wait = threading.Condition.wait

    def wait(self: threading.Condition, timeout: float | None = None) -> bool:
        if self is store._database._changed:
            waiting.set()
        return real_wait(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", wait)
    answers: list[object] = []
    asking = threading.Thread(target=lambda: answers.append(store.position()))
    asking.start()
    waiting.wait()
    assert not answers
    leave.set()
    asking.join()
    thread.join()
    assert answers == [(1, 1)]
    assert store._database._writer is not before
    store.append(batch(11, 10), (1, 2))
    assert len(store.read(1, RowKind.CANDLE, 0, 0, 100)[1]) == 20


def test_a_database_that_cannot_be_opened_again_stays_an_error(
    store: DuckStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.append(batch(1, 10), (1, 1))
    with pytest.raises(StorageError), store._database.reading():
        raise duckdb.InternalException("planted")

    def refuse(self: Database) -> None:
        raise StorageError("still no space")

    with monkeypatch.context() as patched:
        patched.setattr(Database, "_connect", refuse)
        with pytest.raises(StorageError, match="no space"):
            store.position()
    assert store.position() == (1, 1)


_FULL = """
import os, resource, sys
from pathlib import Path
import numpy as np
from flux.errors import StorageError
from flux.model import CANDLE, RowKind
from flux.store import DuckStore, StoreBatch

def batch(first, n):
    rows = np.zeros(n, CANDLE)
    rows["open"] = np.random.default_rng(first).normal(100, 1, n)
    return StoreBatch(RowKind.CANDLE, np.ones(n, "u4"), np.arange(first, first + n, dtype="u8"),
                      np.ones(n, "u4"), rows)

path = Path(sys.argv[1])
store = DuckStore(path, 7)
store.append(batch(1, 1_000), (1, 1))
size = os.stat(f"{path}.wal").st_size
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 4_096, hard))
for _ in range(3):
    try:
        store.append(batch(1_001, 100_000), (1, 2))
        print("not full")
    except StorageError as error:
        assert "File too large" in str(error), error
    assert store.position() == (1, 1)
    assert len(store.read(1, RowKind.CANDLE, 0, 0, 10_000)[1]) == 1_000
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
store.append(batch(1_001, 100_000), (1, 2))
store.close()
store = DuckStore(path, 7)
assert store.position() == (1, 2)
assert len(store.read(1, RowKind.CANDLE, 0, 0, 200_000)[1]) == 101_000
print("ok")
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs a limit on file sizes")
def test_a_full_disk_stops_commits_and_nothing_else_and_passes(path: Path) -> None:
    """In a child process, because the limit on file sizes that plays the full disk is the process's."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL, path], capture_output=True, text=True, env=os.environ, check=False
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr


_KILLED = """
import sys
import numpy as np
from flux.model import CANDLE, RowKind, StreamKey
from flux.store import DuckStore, StoreBatch

store = DuckStore(sys.argv[1], 7)
position = store.position() or (1, 0)
while True:
    n = 1 + position[1] % 97
    rows = np.zeros(n, CANDLE)
    first = store.heads()[3].last_sequence + 1 if store.heads() else 1
    rows["open"] = np.arange(first, first + n)
    position = (1, position[1] + n)
    store.commit([StoreBatch(RowKind.CANDLE, np.full(n, 3, "u4"), np.arange(first, first + n, dtype="u8"),
                             np.ones(n, "u4"), rows)], {3: StreamKey("SIM", "A", "1m")}, position)
    print(position[1], flush=True)
    if position[1] % 5 == 0:
        store.idle()
"""


def test_killed_at_any_commit_rows_and_position_agree(path: Path) -> None:
    """Killed with -9 after a random number of commits; the position counts rows, so both can be compared."""
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    reached = 0
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", _KILLED, path], stdout=subprocess.PIPE)
        assert child.stdout is not None
        for _ in range(int(rng.integers(1, 30))):
            reached = int(child.stdout.readline())
        child.kill()
        child.communicate()
        store = DuckStore(path, STORE_ID)
        position = store.position()
        assert position is not None
        assert position[1] >= reached
        assert store.heads()[3].last_sequence == position[1]
        first, rows = store.read(3, RowKind.CANDLE, 0, 0, 1_000_000)
        assert (first, len(rows)) == (1, position[1])
        assert np.array_equal(rows["open"], 1 + np.arange(position[1]))
        assert store.streams() == {3: StreamKey("SIM", "A", "1m")}
        store.close()
