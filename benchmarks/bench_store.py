"""informational: projecting into DuckDB, reading it back, and a client's warm start.

    python benchmarks/bench_store.py [--rows 2000000] [--streams 64] [--batch 100000]

Rows of all streams arrive interleaved, as from a live feed; each figure but the first is the best of some.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from flux.client.cache import Cache
from flux.feed.synth import candles
from flux.limits import MAX_REPLY_ROWS
from flux.model import RowKind, StreamKey
from flux.store import DuckStore, StoreBatch


def best(rounds: int, work: Callable[[], object]) -> float:
    """Seconds of the fastest round."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--batch", type=int, default=100_000)
    args = parser.parse_args()
    n, streams = args.rows, args.streams
    rows = np.resize(candles(100_000, 1), n)
    ids = (np.arange(n) % streams + 1).astype(np.uint32)
    sequences = (np.arange(n) // streams + 1).astype(np.uint64)
    epochs = np.ones(n, np.uint32)

    with tempfile.TemporaryDirectory() as folder:
        store = DuckStore(Path(folder) / "store.duckdb", 1)
        worst, start = 0.0, time.perf_counter()
        for at in range(0, n, args.batch):
            part = slice(at, at + args.batch)
            begun = time.perf_counter()
            batch = StoreBatch(RowKind.CANDLE, ids[part], sequences[part], epochs[part], rows[part])
            store.append(batch, (1, at + 1))
            worst = max(worst, time.perf_counter() - begun)
        rate = n / (time.perf_counter() - start)
        print(f"project  {rate / 1e6:6.2f} M rows/s, slowest commit {worst * 1e3:.0f} ms")

        per_stream = n // streams
        page = min(MAX_REPLY_ROWS, per_stream)
        middle = (per_stream - page) // 2
        for limit in (page, 10):
            seconds = best(5, lambda: store.read(streams // 2, RowKind.CANDLE, middle, 0, limit))  # noqa: B023  called before the next round
            print(f"read     {limit:6} rows {seconds * 1e3:7.2f} ms {limit / seconds / 1e6:6.2f} M rows/s")
        ts = int(rows["ts_ms"][n // 2])
        seconds = best(5, lambda: store.sequence_range(streams // 2, RowKind.CANDLE, ts, ts + 60_000))
        print(f"range    {seconds * 1e3:7.2f} ms")
        store.close()
        seconds = best(3, lambda: DuckStore(Path(folder) / "store.duckdb", 1).close())
        print(f"open     {seconds * 1e3:7.2f} ms with {n / 1e6:.1f} M rows")

        key, path = StreamKey("SIM", "BTC", "1m"), Path(folder) / "cache.duckdb"
        cache, kept = Cache(path), min(n, 1_000_000)
        for at in range(0, kept, args.batch):
            part = slice(at, min(at + args.batch, kept))
            cache.append(key, 1, 1, at + 1, rows[part], part.stop)
        cache.close()

        def warm() -> None:
            cache = Cache(path)
            loaded = cache.load(key, kept)
            assert loaded is not None
            assert len(loaded.rows) == kept
            cache.close()

        print(f"warm     {best(2, warm) * 1e3:7.2f} ms for {kept / 1e6:.1f} M cached rows")


if __name__ == "__main__":
    main()
