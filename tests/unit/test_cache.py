"""The client's cache: each row once, no hole untold, a cursor that fits the rows, after any kill."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flux.client.cache import Cache, CacheBatch
from flux.client.warmup import Past
from flux.errors import DataError, InUseError, NewerFormatError
from flux.model import ROW_DTYPES, Cursor, RowKind, StreamKey

KEY = StreamKey("SIM", "BTC/USDT", "1m")
OTHER = StreamKey("SIM", "É'; DROP TABLE streams --", "5m")
TRADES = StreamKey("SIM", "BTC/USDT", "trade")
STORE = 2**63 + 5


def rows(first: int, n: int, kind: RowKind = RowKind.CANDLE, version: int = 0) -> np.ndarray:
    """Rows that say in their values which sequence they are, and of which `version`."""
    made = np.zeros(n, ROW_DTYPES[kind])
    names = made.dtype.names or ()
    made[names[0]] = 60_000 * np.arange(first, first + n)
    made[names[1]] = np.arange(first, first + n) + version / 1_000
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.duckdb"


@pytest.fixture
def cache(path: Path) -> Iterator[Cache]:
    opened = Cache(path)
    yield opened
    opened.close()


def test_rows_and_cursor_come_back(cache: Cache, path: Path) -> None:
    assert cache.keys() == []
    assert cache.cursor(KEY) is None
    assert cache.load(KEY, 10) is None
    assert cache.read(KEY, 0, 10) is None
    cache.append(KEY, STORE, 3, 101, rows(101, 50), 150)
    cache.close()
    cache = Cache(path)
    assert cache.keys() == [KEY]
    assert cache.cursor(KEY) == Cursor(STORE, 3, 150)
    loaded = cache.load(KEY, 10)
    assert loaded is not None
    assert loaded[:2] == (Cursor(STORE, 3, 150), 141)
    assert loaded.rows.tobytes() == rows(141, 10).tobytes()
    everything = cache.load(KEY, 1_000)
    assert everything is not None
    assert (everything.first_sequence, everything.rows.tobytes()) == (101, rows(101, 50).tobytes())
    cache.close()


def test_several_streams_and_kinds_in_one_transaction(cache: Cache) -> None:
    cache.commit(
        [
            CacheBatch(KEY, STORE, 1, 1, rows(1, 5), 5),
            CacheBatch(TRADES, STORE, 1, 7, rows(7, 3, RowKind.TRADE), 9),
            CacheBatch(OTHER, STORE, 1, 1, rows(1, 2), 2),
            CacheBatch(KEY, STORE, 2, 6, rows(6, 5), 10),
        ]
    )
    assert cache.keys() == [KEY, TRADES, OTHER]
    assert cache.cursor(KEY) == Cursor(STORE, 2, 10)
    run = cache.read(KEY, 0, 100)
    assert run is not None
    assert (run.first_sequence, run.epoch, run.rows.tobytes()) == (1, 1, rows(1, 5).tobytes())
    run = cache.read(KEY, 5, 100)
    assert run is not None
    assert (run.first_sequence, run.epoch, len(run.rows)) == (6, 2, 5)
    assert cache.read(KEY, 10, 100) is None
    run = cache.read(TRADES, 0, 2)
    assert run is not None
    assert run.rows.tobytes() == rows(7, 2, RowKind.TRADE).tobytes()


def test_rows_beyond_the_cursor_are_kept_but_not_shown(cache: Cache) -> None:
    cache.append(KEY, STORE, 1, 1, rows(1, 10), 4)
    loaded = cache.load(KEY, 100)
    assert loaded is not None
    assert len(loaded.rows) == 4
    cache.append(KEY, STORE, 2, 11, rows(11, 10), 8)  # the cursor moves within the batch before
    assert cache.cursor(KEY) == Cursor(STORE, 1, 8)
    cache.append(KEY, STORE, 2, 21, rows(21, 1), 12)
    assert cache.cursor(KEY) == Cursor(STORE, 2, 12)
    cache.append(KEY, STORE, 2, 22, rows(22, 1), 5)  # and never back
    assert cache.cursor(KEY) == Cursor(STORE, 2, 12)


def test_rows_that_come_again_are_not_kept_twice(cache: Cache) -> None:
    cache.append(KEY, STORE, 1, 1, rows(1, 10), 4)
    cache.append(KEY, STORE, 1, 5, rows(5, 10, version=9), 14)
    cache.append(KEY, STORE, 1, 1, rows(1, 3, version=9), 3)
    loaded = cache.load(KEY, 100)
    assert loaded is not None
    assert loaded.rows.tobytes() == np.concatenate((rows(1, 10), rows(11, 4, version=9))).tobytes()


def test_a_hole_is_refused_unless_it_is_a_gap(cache: Cache) -> None:
    cache.append(KEY, STORE, 1, 1, rows(1, 10), 10)
    with pytest.raises(ValueError, match="a hole from 11 to 19"):
        cache.append(KEY, STORE, 1, 20, rows(20, 5), 24)
    with pytest.raises(ValueError, match="cursor 16 beyond"):
        cache.append(KEY, STORE, 1, 11, rows(11, 5), 16)
    with pytest.raises(ValueError, match="from store"):
        cache.append(KEY, STORE + 1, 1, 11, rows(11, 5), 15)
    with pytest.raises(ValueError, match="rows of"):
        cache.append(KEY, STORE, 1, 11, rows(11, 5, RowKind.TRADE), 15)
    assert cache.cursor(KEY) == Cursor(STORE, 1, 10)
    cache.append(KEY, STORE, 1, 20, rows(20, 5), 24, after_gap=True)
    loaded = cache.load(KEY, 100)
    assert loaded is not None
    assert (loaded.first_sequence, loaded.rows.tobytes()) == (20, rows(20, 5).tobytes())
    runs = [cache.read(KEY, at, 100) for at in (0, 10, 15, 19, 22)]
    assert [run and (run.first_sequence, len(run.rows)) for run in runs] == [
        (1, 10),
        (20, 5),
        (20, 5),
        (20, 5),
        (23, 2),
    ]


def test_a_cursor_without_rows(cache: Cache) -> None:
    """A stream that began at the head, and nothing has come yet."""
    cache.append(KEY, STORE, 4, 501, rows(501, 0), 500)
    assert cache.cursor(KEY) == Cursor(STORE, 4, 500)
    loaded = cache.load(KEY, 10)
    assert loaded is not None
    assert len(loaded.rows) == 0
    cache.append(KEY, STORE, 4, 501, rows(501, 5), 505)
    loaded = cache.load(KEY, 10)
    assert loaded is not None
    assert (loaded.first_sequence, len(loaded.rows)) == (501, 5)


def test_an_ended_epoch_takes_rows_and_cursor_back(cache: Cache) -> None:
    cache.append(KEY, STORE, 1, 1, rows(1, 10), 10)
    cache.append(KEY, STORE, 2, 11, rows(11, 10), 20)
    cache.append(OTHER, STORE, 2, 1, rows(1, 10), 10)
    cache.drop_above(KEY, 25)
    assert cache.cursor(KEY) == Cursor(STORE, 2, 20)
    cache.drop_above(KEY, 7)
    assert cache.cursor(KEY) == Cursor(STORE, 1, 7)
    assert cache.cursor(OTHER) == Cursor(STORE, 2, 10)
    cache.append(KEY, STORE, 3, 8, rows(8, 2, version=1), 9)
    loaded = cache.load(KEY, 100)
    assert loaded is not None
    assert loaded.rows.tobytes() == np.concatenate((rows(1, 7), rows(8, 2, version=1))).tobytes()
    cache.append(KEY, STORE, 3, 30, rows(30, 2), 31, after_gap=True)
    cache.drop_above(KEY, 15)  # inside the gap: the gap goes too
    cache.append(KEY, STORE, 4, 10, rows(10, 10), 19)
    loaded = cache.load(KEY, 100)
    assert loaded is not None
    assert len(loaded.rows) == 19
    cache.drop_above(KEY, 0)
    assert cache.keys() == [OTHER]
    cache.drop_above(KEY, 0)


def test_another_store_sets_the_stream_aside(cache: Cache, path: Path) -> None:
    cache.append(KEY, STORE, 1, 1, rows(1, 10), 10)
    cache.append(OTHER, STORE, 1, 1, rows(1, 10), 10)
    cache.set_aside(KEY)
    assert cache.keys() == [OTHER]
    assert cache.cursor(KEY) is None
    cache.append(KEY, 7, 1, 100, rows(100, 10), 109)
    cache.set_aside(KEY)  # the one set aside before is replaced
    cache.set_aside(KEY)
    cache.append(KEY, 8, 1, 200, rows(200, 10), 209)
    assert cache.cursor(KEY) == Cursor(8, 1, 209)
    cache.forget(KEY)
    cache.forget(KEY)
    assert cache.load(KEY, 10) is None
    cache.close()
    with duckdb.connect(str(path)) as connection:
        kept = connection.execute("SELECT store_id, aside FROM streams ORDER BY stream_id").fetchall()
        assert sorted(kept) == [(7, True), (STORE, False)]
        assert connection.execute("SELECT count(*) FROM candles").fetchone() == (20,)


def test_in_use_elsewhere_it_is_refused_with_the_pid(cache: Cache, path: Path) -> None:
    with pytest.raises(InUseError, match=str(os.getpid())):
        Cache(path)
    cache.append(KEY, STORE, 1, 1, rows(1, 10), 10)  # and the one in use is none the worse
    code = f"from flux.client.cache import Cache; Cache({str(path)!r})"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode == 1
    assert f"in use by pid {os.getpid()}" in other.stderr


@pytest.mark.parametrize("damage", ["blocks", "cut"])
def test_a_damaged_cache_is_refused_and_left_as_it_is(path: Path, damage: str) -> None:
    with Cache(path) as cache:
        cache.append(KEY, STORE, 1, 1, rows(1, 200_000), 200_000)
        cache.idle()
    content = path.read_bytes()
    harmed = {"blocks": content[:4_096] + b"x" * (len(content) - 4_096), "cut": content[: len(content) // 2]}
    path.write_bytes(harmed[damage])
    with pytest.raises(DataError, match=r"corrupt[\s\S]*Delete it"):
        Cache(path)
    assert path.read_bytes() == harmed[damage]


def test_a_newer_cache_is_left_alone(path: Path) -> None:
    Cache(path).close()
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET format_version = 99")
    with pytest.raises(NewerFormatError, match="upgrade flux"):
        Cache(path)


def test_begun_anew_it_keeps_what_is_certain(cache: Cache) -> None:
    for first, left in ((8, 7), (11, 10), (30, 10), (1, 0)):
        cache.append(KEY, STORE, 1, 1, rows(1, 10), 10)
        cache.begin_anew(KEY, STORE, 1, first)
        cursor = cache.cursor(KEY)
        assert (cursor.sequence if cursor else 0) == left
        cache.forget(KEY)
    cache.append(KEY, STORE, 1, 1, rows(1, 10), 10)
    cache.begin_anew(KEY, STORE, 2, 30)
    assert cache.cursor(KEY) is None, "of an earlier epoch: nobody said where it ended"


def test_where_a_warmup_begins(cache: Cache) -> None:
    assert cache.begin_of(KEY, Past(3)) == 0
    cache.append(KEY, STORE, 1, 11, rows(11, 10), 18)
    assert [cache.begin_of(KEY, Past(n)) for n in (1, 3, 8, 9)] == [18, 16, 11, 11]
    assert cache.begin_of(KEY, Past()) == 11
    cache.append(KEY, STORE, 1, 31, rows(31, 5), 35, after_gap=True)
    assert [cache.begin_of(KEY, Past(n)) for n in (5, 6)] == [31, 20]
    assert [cache.begin_of(KEY, Past(ms=60_000 * n)) for n in (0, 4, 15, 24, 10**6)] == [35, 31, 20, 11, 11]
    cache.append(TRADES, STORE, 1, 1, rows(1, 5, RowKind.TRADE), 5)
    assert cache.begin_of(TRADES, Past(ms=10**12)) == 1


def test_a_cursor_on_a_repeated_row_has_the_epoch_that_the_row_came_with(path: Path) -> None:
    with contextlib.closing(Cache(path)) as cache:
        cache.append(KEY, STORE, 3, 10, rows(10, 36), 5)
        cache.drop_above(KEY, 42)
        cache.append(KEY, STORE, 4, 26, rows(26, 20), 40)
        cursor = cache.cursor(KEY)
    assert cursor == Cursor(STORE, 3, 40)


class CacheMachine(RuleBasedStateMachine):
    """The cache beside a dict of sequences: whatever is done, in whatever order, both hold the same."""

    def __init__(self) -> None:
        super().__init__()
        # Unique, so that no run meets the file of another.
        self.path = Path(tempfile.mkdtemp()) / "cache.duckdb"
        self.cache = Cache(self.path)
        self.model: dict[int, tuple[int, int]] = {}  # sequence -> (epoch, version)
        self.first = self.last = self.cursor = 0
        self.epoch = 1
        self.version = 0

    @rule(back=st.integers(0, 20), n=st.integers(0, 40), ahead=st.integers(0, 3), done=st.integers(0, 60))
    def append(self, back: int, n: int, ahead: int, done: int) -> None:
        self.version += 1
        first = max(1, self.last + 1 - back) if self.model else 10
        first = max(first, self.first) if self.model else first
        if back == 0 and self.model:
            first += ahead  # a gap
        made = rows(first, n, version=self.version)
        last = max(self.last, first + n - 1) if self.model else first + n - 1
        cursor = min(last, done)
        if not self.model and n == 0:
            return
        self.cache.append(KEY, STORE, self.epoch, first, made, cursor, after_gap=True)
        if not self.model:
            self.first = first
        for sequence in range(first, first + n):
            if sequence > self.last:
                self.model[sequence] = (self.epoch, self.version)
        self.last = last if n or self.model else 0
        self.cursor = max(self.cursor, cursor)

    @rule(back=st.integers(0, 30))
    def end_epoch(self, back: int) -> None:
        at = max(0, self.last - back)
        self.cache.drop_above(KEY, at)
        self.model = {sequence: value for sequence, value in self.model.items() if sequence <= at}
        self.last = max(self.model, default=0)
        self.cursor = min(self.cursor, self.last)
        self.epoch += 1

    @rule()
    def reopen(self) -> None:
        self.cache.close()
        self.cache = Cache(self.path)

    @rule()
    def forget(self) -> None:
        self.cache.forget(KEY)
        self.model = {}
        self.first = self.last = self.cursor = 0

    @invariant()
    def same(self) -> None:
        shown = {sequence: value for sequence, value in self.model.items() if sequence <= self.cursor}
        found = {}
        at = 0
        while (run := self.cache.read(KEY, at, 7)) is not None:
            for i, value in enumerate(run.rows["open"].tolist()):
                sequence = run.first_sequence + i
                assert sequence not in found
                found[sequence] = (run.epoch, round((value - sequence) * 1_000))
            at = run.first_sequence + len(run.rows) - 1
        assert found == shown
        cursor = self.cache.cursor(KEY)
        assert (cursor.sequence if cursor else 0) == self.cursor
        if cursor is not None and cursor.sequence in shown:
            assert cursor.epoch == shown[cursor.sequence][0]

    def teardown(self) -> None:
        self.cache.close()


CacheMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
TestCacheMachine = CacheMachine.TestCase


_KILLED = """
import sys
import tempfile
import numpy as np
from flux.client.cache import Cache, CacheBatch
from flux.model import CANDLE, StreamKey

def rows(first, n):
    made = np.zeros(n, CANDLE)
    made["open"] = np.arange(first, first + n)
    return made

keys = [StreamKey("SIM", f"S{i}", "1m") for i in range(5)]
cache = Cache(sys.argv[1])
turn = 0
while True:
    batches = []
    for i, key in enumerate(keys):
        cursor = cache.cursor(key)
        first = (cursor.sequence if cursor else 0) + 1
        n = 1 + (turn * 13 + i * 7) % 90
        # The consumer is done with half of them; the other half comes again.
        batches.append(CacheBatch(key, 9, 1, first, rows(first, n), first + n // 2 - 1 if n > 1 else first))
    cache.commit(batches)
    print(" ".join(str(batch.cursor) for batch in batches), flush=True)
    turn += 1
    if turn % 7 == 0:
        cache.drop_above(keys[0], batches[0].cursor)
    if turn % 5 == 0:
        cache.idle()
"""


def test_killed_at_any_moment_each_row_is_there_once(path: Path) -> None:
    """Killed with -9 after a random number of its own reports, wherever it is by then."""
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", _KILLED, path], stdout=subprocess.PIPE)
        assert child.stdout is not None
        reached: list[int] = []
        for _ in range(int(rng.integers(1, 40))):
            reached = [int(word) for word in child.stdout.readline().split()]
        child.kill()
        child.communicate()
        cache = Cache(path)
        for i, least in enumerate(reached):
            key = StreamKey("SIM", f"S{i}", "1m")
            loaded = cache.load(key, 1_000_000)
            assert loaded is not None
            assert loaded.cursor.sequence >= least
            assert loaded.first_sequence == 1
            assert np.array_equal(loaded.rows["open"], 1 + np.arange(loaded.cursor.sequence))
        cache.close()
        with duckdb.connect(str(path)) as connection:
            odd = connection.execute(
                "SELECT stream_id FROM candles JOIN streams USING (stream_id)"
                " GROUP BY stream_id, last_sequence"
                " HAVING count(*) <> count(DISTINCT sequence) OR max(sequence) <> last_sequence"
                " OR min(sequence) <> 1 OR count(*) <> last_sequence"
            ).fetchall()
            assert odd == []
