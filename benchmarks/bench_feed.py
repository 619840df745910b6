"""How fast `Feed.send` takes rows, one at a time and 64 at a time, and when a server in its own process has them all.

    python -m pytest -s benchmarks/bench_feed.py           FLUX_BENCH_FED=500000 sends more rows

A send is a copy into the outbox: what is timed first are these calls, while the feed's own thread pushes and the server
takes, numbers and journals on the same processors. `flush` at the end waits for the server's journal; the second figure
is of the whole. Rows are made before, candles of one stream. Where more rows are sent than may wait
(`limits.FEED_PENDING_BYTES`), the server holds the sends back, and both figures are its own.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ratios
from flux.feed.push import Feed
from flux.model import CANDLE, CandleFlag
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer

ROWS = int(os.environ.get("FLUX_BENCH_FED", "100000"))
BATCH = 64
STREAMS = (("1m", 1), ("1s", ROWS))
FLUSH_S = 10 * PATIENCE_S


def candles(count: int) -> np.ndarray:
    rows = np.zeros(count, CANDLE)
    rows["ts_ms"] = 1_500_000_000_000 + np.arange(count) * 1_000
    rows["flags"] = CandleFlag.CLOSED
    return rows


def seconds(feed: Feed, symbol: str, size: int) -> tuple[float, float]:
    """(of all sends, until the server has all their rows), `size` rows a call."""
    rows = candles(ROWS)
    parts = [rows[at : at + size] for at in range(0, ROWS, size)]
    feed.send(symbol, "1m", candles(1))  # of another stream: the connection stands, the memory is there
    feed.flush(FLUSH_S)
    start = time.perf_counter()
    for part in parts:
        feed.send(symbol, "1s", part)
    sent = time.perf_counter() - start
    feed.flush(FLUSH_S)
    return sent, time.perf_counter() - start


@pytest.mark.informational
def test_sending_of_a_feed(tmp_path: Path) -> None:
    with FluxServer(tmp_path, "--ingest", "tcp://127.0.0.1:*", "--durability", "process") as server:
        for name, size, table in (("single rows", 1, 0.4), ("batches of 64", BATCH, 3.0)):
            with Feed("BENCH", ingest=server.ingest, chunk_rep=server.rpc) as feed:
                sent, whole = seconds(feed, f"BY{size}", size)
                assert feed.committed == ROWS + 1
            print(f"\nfeed, {name}: until the server's journal has them: {ROWS / whole / 1e6:.2f} M rows/s")
            ratios.note_at_least(f"feed: {name}, Feed.send", ROWS / sent / 1e6, table, "M/s")
        heads = {f"BENCH/BY{size}/{interval}": count for size in (1, BATCH) for interval, count in STREAMS}
        kept, ended = server.heads(), server.stop()
        assert (kept, ended) == (heads, 0)
