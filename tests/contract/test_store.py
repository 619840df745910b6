"""What every store promises (`flux.store.Store`), on real files."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.errors import DataError, InUseError, StorageError
from flux.model import CANDLE, QUOTE, ROW_DTYPES, TRADE, RowKind, StreamKey
from flux.store import DuckStore, Store, StoreBatch

STORE_ID = 0xFEDC_BA98_7654_3210
Open = Callable[[], Store]


@pytest.fixture(params=[DuckStore])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens the same file again and again; what is still open at the end is closed."""
    stores: list[Store] = []

    def again() -> Store:
        stores.append(request.param(tmp_path / "store.duckdb", STORE_ID))
        return stores[-1]

    yield again
    for store in stores:
        store.close()


def rows_of(kind: RowKind, n: int, seed: int = 1) -> np.ndarray:
    """Rows whose doubles are any finite bits, signed zeros and subnormals included."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(n, ROW_DTYPES[kind])
    for name in rows.dtype.names or ():
        if rows.dtype[name] == "<f8":
            bits = rng.integers(0, 2**64, n, np.uint64)
            rows[name] = np.where(np.isfinite(bits.view("f8")), bits, np.uint64(0)).view("f8")
        else:
            rows[name] = rng.integers(0, 2**31, n)
    for name in rows.dtype.names or ():
        if rows.dtype[name] == "<f8" and n > 2:
            rows[name][:3] = (-0.0, 0.0, 5e-324)
    rows["ts_ms" if kind is RowKind.CANDLE else "ts_ns"] = (
        (1 + np.arange(n)) * 60_000 * (1 if kind is RowKind.CANDLE else 1_000_000)
    )
    return rows


def batch_of(kind: RowKind, stream: int, first: int, rows: np.ndarray, epoch: int = 1) -> StoreBatch:
    n = len(rows)
    return StoreBatch(
        kind,
        np.full(n, stream, np.uint32),
        np.arange(first, first + n, dtype=np.uint64),
        np.full(n, epoch, np.uint32),
        rows,
    )


def test_a_new_store_is_empty(opened: Open) -> None:
    store = opened()
    assert store.store_id == STORE_ID
    assert store.position() is None
    assert store.heads() == {}
    assert store.streams() == {}
    first, rows = store.read(1, RowKind.CANDLE, 0, 0, 100)
    assert (first, len(rows), rows.dtype) == (0, 0, CANDLE)
    assert store.sequence_range(1, RowKind.CANDLE, None, None) is None
    assert store.idle() is False


@pytest.mark.parametrize("kind", [RowKind.CANDLE, RowKind.TRADE, RowKind.QUOTE])
def test_rows_come_back_to_the_bit(opened: Open, kind: RowKind) -> None:
    rows = rows_of(kind, 5_000)
    store = opened()
    store.append(batch_of(kind, 9, 1, rows[:3_000]), (1, 64))
    store.append(batch_of(kind, 9, 3_001, rows[3_000:], epoch=2), (1, 128))
    for _ in range(2):  # out of the write-ahead log, then out of the file
        first, found = store.read(9, kind, 0, 0, 10_000)
        assert (first, found.dtype, found.tobytes()) == (1, rows.dtype, rows.tobytes())
        store.idle()
    store.close()
    store = opened()
    assert store.read(9, kind, 0, 0, 10_000)[1].tobytes() == rows.tobytes()
    assert store.position() == (1, 128)
    assert store.heads() == {9: (1, 5_000, rows[rows.dtype.names[0]][-1])}


def test_bounds_and_limit_choose_the_run(opened: Open) -> None:
    rows = rows_of(RowKind.CANDLE, 100)
    store = opened()
    store.append(batch_of(RowKind.CANDLE, 1, 1, rows), (1, 1))
    for after, to, limit, first, n in [
        (0, 0, 100, 1, 100),
        (0, 0, 7, 1, 7),
        (40, 50, 100, 41, 10),
        (40, 50, 3, 41, 3),
        (99, 0, 5, 100, 1),
        (100, 0, 5, 0, 0),
        (50, 50, 5, 0, 0),
        (60, 50, 5, 0, 0),
        (0, 0, 0, 0, 0),
        (2**62, 0, 10_000, 0, 0),
    ]:
        got = store.read(1, RowKind.CANDLE, after, to, limit)
        assert (got[0], len(got[1])) == (first, n), (after, to, limit)
        assert got[1].tobytes() == rows[max(first - 1, 0) : max(first - 1, 0) + n].tobytes()


def test_a_run_starts_late_where_the_oldest_are_gone_and_ends_at_a_hole(opened: Open) -> None:
    rows = rows_of(RowKind.CANDLE, 30)
    store = opened()
    store.append(batch_of(RowKind.CANDLE, 1, 5_001, rows[:10]), (1, 1))
    store.append(batch_of(RowKind.CANDLE, 1, 5_021, rows[20:]), (1, 2))
    assert store.read(1, RowKind.CANDLE, 0, 0, 100)[0] == 5_001
    assert store.read(1, RowKind.CANDLE, 0, 0, 100)[1].tobytes() == rows[:10].tobytes()
    first, found = store.read(1, RowKind.CANDLE, 5_010, 0, 5)
    assert (first, found.tobytes()) == (5_021, rows[20:25].tobytes())
    assert store.read(1, RowKind.CANDLE, 0, 5_000, 100)[0] == 0


def test_rows_of_a_view_and_of_mixed_streams(opened: Open) -> None:
    """What a projection really has: strided views, streams as they arrive, several kinds in a commit."""
    rows = rows_of(RowKind.CANDLE, 6_400)[::-2][:3_200]
    streams = (np.arange(3_200) * 7 % 64).astype(np.uint32)
    sequences = (np.arange(3_200) // 64 + 1).astype(np.uint64)
    trades = rows_of(RowKind.TRADE, 10)
    store = opened()
    store.commit(
        [
            StoreBatch(RowKind.CANDLE, streams, sequences, np.ones(3_200, np.uint32), rows),
            batch_of(RowKind.TRADE, 100, 1, trades),
            batch_of(RowKind.QUOTE, 101, 1, rows_of(RowKind.QUOTE, 0)),
        ],
        {100: StreamKey("SIM", "ä'; DROP TABLE trades --", "trade"), 0: StreamKey("SIM", "A", "1m")},
        (3, 4),
    )
    for stream in (0, 1, 63):
        assert store.read(stream, RowKind.CANDLE, 0, 0, 100)[1].tobytes() == rows[streams == stream].tobytes()
    assert store.read(100, RowKind.TRADE, 0, 0, 100)[1].tobytes() == trades.tobytes()
    heads = store.heads()
    assert len(heads) == 65
    assert heads[5] == (1, 50, rows["ts_ms"][streams == 5].max())
    assert store.streams()[100].symbol == "ä'; DROP TABLE trades --"


def test_known_streams_and_heads_are_kept(opened: Open) -> None:
    store = opened()
    key = StreamKey("SIM", "A", "1m")
    rows = rows_of(RowKind.CANDLE, 4)
    rows["ts_ms"] = [50, 40, 30, 20]  # late rows: the head's time is the highest, not the last
    store.commit([batch_of(RowKind.CANDLE, 1, 1, rows[:2])], {1: key}, (1, 1))
    store.commit([batch_of(RowKind.CANDLE, 1, 3, rows[2:])], {1: key, 2: key}, (1, 2))
    assert store.streams() == {1: key, 2: key}
    assert store.heads() == {1: (1, 4, 50)}


def test_the_lowest_is_known_of_streams_that_are_here_from_the_first_row_on(opened: Open) -> None:
    store = opened()
    candles, trades = rows_of(RowKind.CANDLE, 10)[::-1], rows_of(RowKind.TRADE, 10)
    trades["trade_id"][:5] = 0
    store.commit(
        [
            batch_of(RowKind.CANDLE, 1, 1, candles),
            batch_of(RowKind.CANDLE, 2, 2, candles),
            batch_of(RowKind.CANDLE, 3, 1, candles),
            batch_of(RowKind.TRADE, 4, 1, trades),
            batch_of(RowKind.TRADE, 5, 1, trades[:5]),
            batch_of(RowKind.TRADE, 6, 6, trades[5:]),
        ],
        {},
        (1, 10),
    )
    store.append(batch_of(RowKind.CANDLE, 3, 12, candles), (1, 20))
    assert store.lowest(RowKind.CANDLE) == {1: candles["ts_ms"].min()}
    assert store.lowest(RowKind.TRADE) == {4: trades["trade_id"][5:].min()}


def test_the_position_moves_without_rows_and_never_twice_with_the_same(opened: Open) -> None:
    store = opened()
    store.append(batch_of(RowKind.CANDLE, 1, 1, rows_of(RowKind.CANDLE, 10)), (1, 100))
    store.commit([], {}, (2, 0))
    store.commit([], {}, (1, 500))
    assert store.position() == (1, 500)
    for position in ((1, 500), (1, 499), (0, 9_999)):
        with pytest.raises(StorageError, match="already holds"):
            store.append(batch_of(RowKind.CANDLE, 1, 11, rows_of(RowKind.CANDLE, 10)), position)
    assert store.heads()[1].last_sequence == 10


def test_a_commit_that_fails_leaves_nothing(opened: Open) -> None:
    store = opened()
    store.append(batch_of(RowKind.CANDLE, 1, 1, rows_of(RowKind.CANDLE, 10)), (1, 1))
    good = batch_of(RowKind.CANDLE, 1, 11, rows_of(RowKind.CANDLE, 10))
    with pytest.raises(StorageError):
        store.commit([good], {7: StreamKey("SIM", None, "1m")}, (1, 2))  # type: ignore[arg-type]  # the fault
    with pytest.raises(StorageError, match="position"):
        store.commit([good], {}, (1, 2))
    assert store.position() == (1, 1)
    assert store.heads()[1].last_sequence == 10
    store.commit([good], {}, (1, 2))
    assert len(store.read(1, RowKind.CANDLE, 0, 0, 100)[1]) == 20


def test_times_choose_one_run_of_sequences(opened: Open) -> None:
    rows = rows_of(RowKind.CANDLE, 8)
    rows["ts_ms"] = [10, 20, 30, 20, 40, 15, 50, 60]
    trades = rows_of(RowKind.TRADE, 3)
    trades["ts_ns"] = [1_000_000, 1_999_999, 2_000_000]
    store = opened()
    store.commit([batch_of(RowKind.CANDLE, 1, 1, rows), batch_of(RowKind.TRADE, 2, 1, trades)], {}, (1, 1))

    def candles(start: int | None, end: int | None) -> tuple[int, int] | None:
        return store.sequence_range(1, RowKind.CANDLE, start, end)

    assert candles(None, None) == (1, 8)
    assert candles(20, 40) == (2, 6)
    assert candles(20, 41) == (2, 6)
    assert candles(41, None) == (7, 8)
    assert candles(61, None) is None
    assert candles(None, 10) is None
    assert candles(30, 30) == (3, 6)
    assert candles(55, 11) is None
    assert candles(-(2**70), 2**70) == (1, 8)
    assert store.sequence_range(2, RowKind.TRADE, 1, 2) == (1, 2)
    assert store.sequence_range(2, RowKind.TRADE, 2, None) == (3, 3)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_any_division_into_commits_gives_the_same_store(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, 400))
    seed = data.draw(st.integers(0, 2**32 - 1))
    cuts = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=6))})
    streams = np.random.default_rng(seed).integers(0, 5, n).astype(np.uint32)
    sequences = np.zeros(n, np.uint64)
    for stream in range(5):
        sequences[streams == stream] = 1 + np.arange(np.count_nonzero(streams == stream))
    rows = rows_of(RowKind.CANDLE, n, seed)
    store = DuckStore(tmp_path_factory.mktemp("any") / "store.duckdb", STORE_ID)
    for at, (start, stop) in enumerate(itertools.pairwise(cuts)):
        part = slice(start, stop)
        epochs = np.ones(stop - start, np.uint32)
        store.append(
            StoreBatch(RowKind.CANDLE, streams[part], sequences[part], epochs, rows[part]), (1, at + 1)
        )
    for stream in range(5):
        assert store.read(stream, RowKind.CANDLE, 0, 0, n)[1].tobytes() == rows[streams == stream].tobytes()
    store.close()


def test_threads_read_while_one_writes(opened: Open) -> None:
    """A reader sees whole commits, always a prefix, each row right."""
    store = opened()
    rows = rows_of(RowKind.CANDLE, 20_000)
    failures: list[str] = []
    written = threading.Event()
    reading = threading.Barrier(4)

    def read() -> None:
        reading.wait()
        while True:
            last = written.is_set()
            first, found = store.read(1, RowKind.CANDLE, 0, 0, 100_000)
            if len(found) % 1_000 or found.tobytes() != rows[: len(found)].tobytes() or first > 1:
                failures.append(f"{first} {len(found)}")
            if last:
                if len(found) != len(rows):
                    failures.append(f"{len(found)} at the end")
                return

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    reading.wait()
    for at in range(0, 20_000, 1_000):
        store.append(batch_of(RowKind.CANDLE, 1, at + 1, rows[at : at + 1_000]), (1, at + 1))
        store.idle()
    written.set()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_closed_store_says_so(opened: Open) -> None:
    store = opened()
    store.close()
    store.close()
    with pytest.raises(StorageError, match="closed"):
        store.position()


def test_a_second_open_in_the_same_process_is_refused(opened: Open) -> None:
    store = opened()
    with pytest.raises(InUseError, match="pid"):
        opened()
    store.append(batch_of(RowKind.CANDLE, 1, 1, rows_of(RowKind.CANDLE, 10)), (1, 1))


def test_batches_are_checked() -> None:
    one = np.ones(1, np.uint32)
    with pytest.raises(ValueError, match="QUOTE"):
        StoreBatch(RowKind.QUOTE, one, one.astype("u8"), one, np.zeros(1, TRADE))
    with pytest.raises(ValueError, match="per row"):
        StoreBatch(RowKind.QUOTE, one, one.astype("u8"), one, np.zeros(2, QUOTE))


def test_another_stores_file_is_refused(opened: Open, tmp_path: Path) -> None:
    opened().close()
    with pytest.raises(DataError, match="belongs to store fedcba9876543210"):
        DuckStore(tmp_path / "store.duckdb", 5)
