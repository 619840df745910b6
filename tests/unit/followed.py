"""What the tests of `flux.Live` share: a client of a server of the test, and what it must have been given."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flux.batch import Batch
from flux.client.live import Live
from flux.client.warmup import OnCacheError, Warmup
from flux.model import StreamKey
from flux.transport.topics import stream_topic
from tests.unit.live_server import LiveServer

KEY = StreamKey("SIM", "BTCUSDT", "1m")


def live_of(server: LiveServer, cache: Path | None = None, on_cache_error: OnCacheError = "raise") -> Live:
    return Live(pub=server.pub, rep=server.rep, cache=cache, on_cache_error=on_cache_error)


def follow(
    server: LiveServer, live: Live, start: str | int | None = "cache", warmup: Warmup | None = None
) -> None:
    """Subscribe to the stream; the server has shown that it lives."""
    live.subscribe("BTCUSDT", interval="1m", start=start, warmup=warmup)
    live.start()
    server.subscribed(stream_topic(KEY))
    server.beat()


def handled(server: LiveServer, cache: Path, last: int, start: str | int | None = "cache") -> list[Batch]:
    """One run of a consumer that is done with everything up to `last`."""
    with live_of(server, cache) as live:
        follow(server, live, start)
        return rows_until(live, last)


def rows_until(live: Live, last: int) -> list[Batch]:
    """Batches up to the one that ends at `last`; the iterator is asked no further."""
    batches: list[Batch] = []
    for batch in live:
        batches.append(batch)
        if batch.end_sequence >= last:
            break
    return batches


def check(batches: list[Batch], server: LiveServer, first: int, last: int, key: StreamKey = KEY) -> None:
    """The batches are exactly rows `first` to `last`, each once, in order, to the bit."""
    sequences = [n for batch in batches for n in range(batch.start_sequence, batch.end_sequence + 1)]
    assert sequences == list(range(first, last + 1))
    rows = np.concatenate([batch.rows for batch in batches])
    assert rows.tobytes() == server.stream(key).rows[first - 1 : last].tobytes()
