"""How fast `Feed.send` takes rows, one at a time and 64 at a time, and when a server in its own process has them all.

A send is a copy into the outbox: one way is these calls alone, while the feed's own thread pushes and the server takes,
numbers and journals on the same processors; the other ends when `flush` says that all rows are in the server's journal.
Rows are made before, candles of one stream. Where more rows are sent than may wait
(`limits.FEED_PENDING_BYTES`), the server holds the sends back, and both figures are its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.sizes import of
from flux.feed.push import Feed
from flux.model import CANDLE, CandleFlag
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer

ROWS = of(1_000, 100_000, 500_000)
SIZES = {"single rows": 1, "batches of 64": 64}
FLUSH_S = 10 * PATIENCE_S


def candles(count: int) -> np.ndarray:
    rows = np.zeros(count, CANDLE)
    rows["ts_ms"] = 1_500_000_000_000 + np.arange(count) * 1_000
    rows["flags"] = CandleFlag.CLOSED
    return rows


@pytest.mark.informational
@pytest.mark.parametrize("way", ["Feed.send", "until the server's journal has them"])
@pytest.mark.parametrize("calls", SIZES)
def test_sending_of_a_feed(benchmark: Any, calls: str, way: str, tmp_path: Path) -> None:
    benchmark.group, benchmark.extra_info["items"] = f"feed: {calls}", ROWS
    rows, size = candles(ROWS), SIZES[calls]
    parts = [rows[at : at + size] for at in range(0, ROWS, size)]
    with FluxServer(tmp_path, "--ingest", "tcp://127.0.0.1:*", "--durability", "process") as server:
        with Feed("BENCH", ingest=server.ingest, chunk_rep=server.rpc) as feed:
            feed.send("BTC", "1m", candles(1))  # another stream: the connection stands, the memory is there
            feed.flush(FLUSH_S)

            def send() -> None:
                for part in parts:
                    feed.send("BTC", "1s", part)
                if way != "Feed.send":
                    feed.flush(FLUSH_S)

            benchmark.pedantic(send)
            feed.flush(FLUSH_S)
            assert feed.committed == ROWS + 1
        kept, ended = server.heads(), server.stop()
        assert (kept, ended) == ({"BENCH/BTC/1m": 1, "BENCH/BTC/1s": ROWS}, 0)
