"""How long a row takes from `Feed.send` to the consumer of `Live`, through a server process, by durability.

    python -m pytest -s benchmarks/bench_latency.py

One row at a time, each RATE-th of a second by an absolute schedule; the row carries when it was to be sent, so one that
waits behind another counts its waiting. Feed and consumer share this process, the server has its own.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from flux.client.live import Live
from flux.feed.push import Feed
from flux.model import CANDLE
from tests.system.processes import FluxServer

RATE = 500
ROWS = 2_000
WARM = 200


def send(feed: Feed) -> None:
    row = np.zeros(1, CANDLE)
    row["flags"] = 1
    start = time.monotonic_ns()
    for number in range(ROWS):
        intended = start + number * 1_000_000_000 // RATE
        time.sleep(max(0, intended - time.monotonic_ns()) / 1e9)
        row["ts_ms"] = 1_700_000_000_000 + number * 1_000
        row["turnover"] = intended
        feed.send("LATENCY", "1s", row)


def latencies(server: FluxServer) -> np.ndarray:
    """Nanoseconds from the intended send time, of each row behind the warm-up."""
    found: list[np.ndarray] = []
    with (
        Live(pub=server.pub, rep=server.rpc) as live,
        Feed("BENCH", ingest=server.ingest, chunk_rep=server.rpc) as feed,
    ):
        live.subscribe("LATENCY", interval="1s", source="BENCH", start="oldest")
        sender = threading.Thread(target=send, args=(feed,))
        sender.start()
        for batch in live:
            found.append(time.monotonic_ns() - batch.turnover)
            if batch.end_sequence == ROWS:
                break
        sender.join()
    return np.concatenate(found)[WARM:]


@pytest.mark.informational
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_feed_to_consumer(tmp_path: Path, durability: str) -> None:
    with FluxServer(tmp_path, "--ingest", "tcp://127.0.0.1:*", "--durability", durability) as server:
        taken = latencies(server) / 1e6
        ended = server.stop()
        assert ended == 0
    p50, p99 = np.percentile(taken, [50, 99])
    print(f"\nfeed to consumer, {durability:7}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, max {taken.max():.2f} ms")
    assert len(taken) == ROWS - WARM
