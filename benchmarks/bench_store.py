"""The store: projecting rows into DuckDB, and giving them back as a backfill does, from a ring and from DuckDB.

    python -m pytest -s benchmarks/bench_store.py           FLUX_BENCH_STORED=2000000 takes more rows

Rows of 64 streams arrive interleaved, as from a live feed. A backfill is what it costs without the socket: read a page
of `limits.MAX_REPLY_ROWS`, make the reply, verify it, and have its rows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ratios
from flux import codec
from flux.feed.synth import candles
from flux.limits import MAX_REPLY_ROWS
from flux.model import RowKind, StreamKey
from flux.ring import Ring
from flux.store import DuckStore, StoreBatch

ROWS = int(os.environ.get("FLUX_BENCH_STORED", "500000"))
BATCH = 100_000
STREAMS = 64
KEY = StreamKey("SIM", "BTC", "1m")


def least(rounds: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def rows_of_a_feed(count: int) -> np.ndarray:
    return np.resize(candles(min(count, 100_000), 1), count)


def project(store: DuckStore, rows: np.ndarray, streams: int) -> tuple[float, float]:
    """(seconds of all appends, of the slowest)."""
    places = np.arange(len(rows))
    ids, sequences = (places % streams + 1).astype(np.uint32), (places // streams + 1).astype(np.uint64)
    epochs = np.ones(len(rows), np.uint32)
    taken = []
    for at in range(0, len(rows), BATCH):
        part = slice(at, at + BATCH)
        batch = StoreBatch(RowKind.CANDLE, ids[part], sequences[part], epochs[part], rows[part])
        start = time.perf_counter()
        store.append(batch, (1, at + 1))
        taken.append(time.perf_counter() - start)
    return sum(taken), max(taken)


def read_back(read: Callable[[int], np.ndarray], pages: int) -> Callable[[], None]:
    """All pages of a stream, one behind the other, as the requests of one backfill."""

    def work() -> None:
        after = 0
        for _ in range(pages):
            rows = read(after)
            reply = codec.decode(codec.encode_backfill(KEY, after + 1, rows, store_id=1, epoch=1))
            assert isinstance(reply, codec.BackfillRowsResponse)
            assert len(reply.rows) == MAX_REPLY_ROWS
            after += MAX_REPLY_ROWS

    return work


@pytest.mark.gate
def test_projecting(tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "store.duckdb", 1)
    seconds, slowest = project(store, rows_of_a_feed(ROWS), STREAMS)
    store.close()
    print(f"\nslowest commit of {BATCH:,} rows: {slowest * 1e3:.0f} ms")
    ratios.at_least(f"store: projecting {ROWS:,} rows into DuckDB", ROWS / seconds / 1e6, 1.0, "M rows/s")


@pytest.mark.gate
def test_backfill_from_the_ring() -> None:
    pages = 16
    ring, rows = Ring(1 << (MAX_REPLY_ROWS * pages - 1).bit_length()), rows_of_a_feed(MAX_REPLY_ROWS * pages)
    ring.place(1, rows)
    seconds = least(7, read_back(lambda after: ring.window(after + 1, after + MAX_REPLY_ROWS), pages))
    ratios.at_least("store: backfill from the ring", len(rows) / seconds / 1e6, 5.0, "M rows/s")


@pytest.mark.gate
def test_backfill_from_duckdb(tmp_path: Path) -> None:
    store, pages = DuckStore(tmp_path / "store.duckdb", 1), 16
    rows = rows_of_a_feed(MAX_REPLY_ROWS * pages * 4)
    project(store, rows, 4)

    def read(after: int) -> np.ndarray:
        first, found = store.read(2, RowKind.CANDLE, after, 0, MAX_REPLY_ROWS)
        assert first == after + 1
        return found

    seconds = least(3, read_back(read, pages))
    store.close()
    ratios.at_least("store: backfill from DuckDB", MAX_REPLY_ROWS * pages / seconds / 1e6, 1.0, "M rows/s")
