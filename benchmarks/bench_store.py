"""The store: projecting rows into DuckDB, and giving them back as a backfill does, from a ring and from DuckDB.

Rows of 64 streams arrive interleaved, as from a live feed. A backfill is what it costs without the socket: read a page
of `limits.MAX_REPLY_ROWS`, make the reply, verify it, and have its rows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from benchmarks.sizes import of
from flux import codec
from flux.feed.synth import candles
from flux.limits import MAX_REPLY_ROWS
from flux.model import RowKind, StreamKey
from flux.ring import Ring
from flux.store import DuckStore, StoreBatch

ROWS = of(5_000, 500_000, 2_000_000)
BATCH = 100_000
STREAMS = 64
PAGES = of(2, 16)
KEY = StreamKey("SIM", "BTC", "1m")


def rows_of_a_feed(count: int) -> np.ndarray:
    return np.resize(candles(min(count, 100_000), 1), count)


def batches(rows: np.ndarray, streams: int, file: int = 1) -> list[StoreBatch]:
    """The rows of the journal's file of that number: those of the next one have the next sequences."""
    places = np.arange(len(rows)) + (file - 1) * len(rows)
    ids, sequences = (places % streams + 1).astype(np.uint32), (places // streams + 1).astype(np.uint64)
    epochs = np.ones(len(rows), np.uint32)
    parts = [slice(at, at + BATCH) for at in range(0, len(rows), BATCH)]
    return [StoreBatch(RowKind.CANDLE, ids[p], sequences[p], epochs[p], rows[p]) for p in parts]


def project(store: DuckStore, made: list[StoreBatch], file: int = 1) -> None:
    """A transaction a batch."""
    for number, batch in enumerate(made):
        store.append(batch, (file, number + 1))


def read_back(read: Callable[[int], np.ndarray]) -> Callable[[], None]:
    """All pages of a stream, one behind the other, as the requests of one backfill."""

    def work() -> None:
        after = 0
        for _ in range(PAGES):
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

    def insert(self) -> None:
        for at in range(0, len(self._rows), BATCH):
            self._database.register("given", self._columns(slice(at, at + BATCH)))
            self._database.execute("INSERT INTO kept SELECT * FROM given")
            self._database.unregister("given")


@pytest.mark.gate
@pytest.mark.benchmark(group="store: projecting")
@pytest.mark.parametrize("way", ["flux", "duckdb"])
def test_projecting(benchmark: Any, way: str, tmp_path: Path) -> None:
    rows, files = rows_of_a_feed(ROWS), itertools.count(1)
    benchmark.extra_info["items"] = ROWS
    if way == "duckdb":
        benchmark.pedantic(Bare(tmp_path / "bare.duckdb", rows).insert, rounds=2)
        return
    store = DuckStore(tmp_path / "store.duckdb", 1)

    def next_file() -> tuple[tuple[DuckStore, list[StoreBatch], int], dict[str, Any]]:
        file = next(files)
        return (store, batches(rows, STREAMS, file), file), {}

    benchmark.pedantic(project, setup=next_file, rounds=2)
    store.close()


@pytest.mark.gate
@pytest.mark.benchmark(group="store: backfill")
@pytest.mark.parametrize("way", ["from the ring", "one copy"])
def test_backfill_from_the_ring(benchmark: Any, way: str) -> None:
    rows = rows_of_a_feed(MAX_REPLY_ROWS * PAGES)
    ring = Ring(1 << (len(rows) - 1).bit_length())
    ring.place(1, rows)
    benchmark.extra_info["items"] = len(rows)
    pages = read_back(lambda after: ring.window(after + 1, after + MAX_REPLY_ROWS))
    benchmark(pages if way == "from the ring" else rows.view(np.uint64).copy)


@pytest.mark.informational
@pytest.mark.benchmark(group="store: backfill")
@pytest.mark.parametrize("way", ["from DuckDB"])
def test_backfill_from_duckdb(benchmark: Any, way: str, tmp_path: Path) -> None:
    store = DuckStore(tmp_path / "store.duckdb", 1)
    project(store, batches(rows_of_a_feed(MAX_REPLY_ROWS * PAGES * 4), 4))

    def read(after: int) -> np.ndarray:
        first, found = store.read(2, RowKind.CANDLE, after, 0, MAX_REPLY_ROWS)
        assert first == after + 1
        return found

    benchmark.extra_info["items"] = MAX_REPLY_ROWS * PAGES
    benchmark.pedantic(read_back(read), rounds=3)
    store.close()
