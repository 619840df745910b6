"""Rows that trickle in are committed by the loop itself, in the committer's place: none is lost, repeated or reordered,
whatever else wants the committer meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import flux
from flux import limits
from flux.config import Durability, ServeConfig
from flux.feed import synth
from flux.feed.push import Feed
from flux.server.service import Server
from flux.store.base import Rows
from flux.transport.sockets import Poller, Sockets
from flux.transport.topics import BEAT
from tests.patience import PATIENCE_S
from tests.system.served_rows import stored_streams

KEY = flux.StreamKey("TRICKLE", "BTC", "1s")
ANY_PORT = "tcp://127.0.0.1:*"
ROWS = 3_000


@contextmanager
def serving(data: Path, durability: Durability) -> Iterator[Server]:
    config = ServeConfig(
        data=data,
        live_pub=ANY_PORT,
        chunk_rep=ANY_PORT,
        ingest=ANY_PORT,
        durability=durability,
        journal_file_bytes=4 * limits.GROUP_BYTES,
    )
    server = Server(config)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def meanwhile(disturb: Callable[[], None]) -> Iterator[None]:
    """`disturb` again and again in a thread of its own."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.is_set():
            disturb()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def stood_in(server: Server) -> int:
    return server.committer._exchange.handover.kernel.stood_in


def trickle(server: Server, rows: Rows, rng: random.Random) -> None:
    """Send rows one by one and in small bursts, waiting now and then until all are committed."""
    assert server.ingest is not None
    with Feed(KEY.source_id, ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
        at = 0
        while at < len(rows):
            for _ in range(rng.choice((1, 1, 2, 40))):
                size = rng.choice((1, 1, 3))
                feed.send(KEY.symbol, KEY.interval, rows[at : at + size])
                at += size
            if rng.random() < 0.3:
                feed.flush(PATIENCE_S)
        feed.flush(PATIENCE_S)


@pytest.mark.system
@pytest.mark.parametrize("durability", ["process", "disk"])
def test_what_trickles_in_is_kept_and_published_in_order(
    tmp_path: Path, rng: random.Random, durability: Durability
) -> None:
    rows = synth.candles(ROWS, rng.randrange(2**31))
    with serving(tmp_path, durability) as server:

        def disturb() -> None:
            """What only the committer does: a heartbeat to send, a subscriber that comes and goes."""
            for frame in server.committer.heart.frames():
                server.committer._exchange.handover.leave_beat(frame, 0.01)
            with Sockets() as sockets:
                Poller(sockets.subscriber(server.live_pub, [BEAT])).wait(0.1)

        with flux.Live(pub=server.live_pub, rep=server.chunk_rep) as live, meanwhile(disturb):
            live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
            trickle(server, rows, rng)
            heard = 0
            for batch in live:
                assert batch.start_sequence == heard + 1
                assert batch.rows.tobytes() == rows[heard : heard + len(batch.rows)].tobytes()
                heard += len(batch.rows)
                if heard == ROWS:
                    break
        assert (stood_in(server) > 0) == (durability == "process")
    sequences, kept = stored_streams(tmp_path / "flux.duckdb")[KEY]
    assert np.array_equal(sequences, np.arange(1, ROWS + 1, dtype=np.uint64))
    assert kept.tobytes() == rows.tobytes()
