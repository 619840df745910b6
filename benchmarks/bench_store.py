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

import duckdb
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


def project(store: DuckStore, rows: np.ndarray, streams: int, file: int = 1) -> tuple[float, float]:
    """(seconds of all appends, of the slowest); `file` is the journal's, of which they come: the rows of the next one
    have the next sequences."""
    places = np.arange(len(rows)) + (file - 1) * len(rows)
    ids, sequences = (places % streams + 1).astype(np.uint32), (places // streams + 1).astype(np.uint64)
    epochs = np.ones(len(rows), np.uint32)
    taken = []
    for at in range(0, len(rows), BATCH):
        part = slice(at, at + BATCH)
        batch = StoreBatch(RowKind.CANDLE, ids[part], sequences[part], epochs[part], rows[part])
        start = time.perf_counter()
        store.append(batch, (file, at + 1))
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


class Bare:
    """DuckDB itself with the same columns, one transaction a batch: what no store can be below."""

    def __init__(self, path: Path, rows: np.ndarray) -> None:
        self._database = duckdb.connect(str(path), config={"threads": 1})
        self._rows, self._names = rows, rows.dtype.names or ()
        self._database.register("given", self._columns(slice(0, 1)))
        self._database.execute("CREATE TABLE kept AS SELECT * FROM given LIMIT 0")
        self._database.unregister("given")

    def _columns(self, part: slice) -> dict[str, np.ndarray]:
        rows = self._rows[part]
        numbered = {name: np.arange(len(rows), dtype=np.uint64) for name in ("stream", "sequence", "epoch")}
        return numbered | {name: rows[name] for name in self._names}

    def insert(self) -> float:
        """Seconds of all batches."""
        taken = 0.0
        for at in range(0, len(self._rows), BATCH):
            start = time.perf_counter()
            self._database.register("given", self._columns(slice(at, at + BATCH)))
            self._database.execute("INSERT INTO kept SELECT * FROM given")
            self._database.unregister("given")
            taken += time.perf_counter() - start
        return taken


@pytest.mark.gate
def test_projecting(tmp_path: Path) -> None:
    rows = rows_of_a_feed(ROWS)
    store, bare = DuckStore(tmp_path / "store.duckdb", 1), Bare(tmp_path / "bare.duckdb", rows)
    turns = [(project(store, rows, STREAMS, file), bare.insert()) for file in (1, 2)]
    store.close()
    seconds = min(ours for (ours, _), _ in turns)
    print(f"\nslowest commit of {BATCH:,} rows: {max(slowest for (_, slowest), _ in turns) * 1e3:.0f} ms")
    ratios.at_most("store: projecting / DuckDB's own insert", seconds / min(bare for _, bare in turns), 2.0)
    ratios.note_at_least(
        f"store: projecting {ROWS:,} rows into DuckDB", ROWS / seconds / 1e6, 1.0, "M rows/s"
    )


@pytest.mark.gate
def test_backfill_from_the_ring() -> None:
    pages = 16
    ring, rows = Ring(1 << (MAX_REPLY_ROWS * pages - 1).bit_length()), rows_of_a_feed(MAX_REPLY_ROWS * pages)
    ring.place(1, rows)
    words = rows.view(np.uint64)
    copied = min(least(1, words.copy) for _ in range(7))
    seconds = least(7, read_back(lambda after: ring.window(after + 1, after + MAX_REPLY_ROWS), pages))
    ratios.at_most("store: backfill from the ring / one copy of its rows", seconds / copied, 12)
    ratios.note_at_least("store: backfill from the ring", len(rows) / seconds / 1e6, 5.0, "M rows/s")


@pytest.mark.informational
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
    ratios.note_at_least(
        "store: backfill from DuckDB", MAX_REPLY_ROWS * pages / seconds / 1e6, 1.0, "M rows/s"
    )
