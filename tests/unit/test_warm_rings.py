"""After a restart the rings hold the last rows of their streams (S17): a feed that sends them again adds nothing."""

from __future__ import annotations

from pathlib import Path

import flux
from flux import testing
from flux.feed import synth
from flux.model import StreamKey
from flux.testing.server import FaultyServer
from tests.patience import PATIENCE_S


def send(server: FaultyServer, rows: object) -> None:
    with flux.Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
        feed.send("X", "1m", rows)
        feed.flush(timeout=PATIENCE_S)


def test_rows_sent_again_after_a_restart_are_repeats(tmp_path: Path) -> None:
    rows = synth.candles(100, seed=5)
    with testing.server(data=tmp_path) as server:
        send(server, rows)
    with testing.server(data=tmp_path) as server:
        slot = server.streams.slot(StreamKey("SIM", "X", "1m"))
        assert slot is not None
        kept = server.streams.ring(slot).window(1, 100)
        assert kept["ts_ms"].tolist() == rows["ts_ms"].tolist()
        send(server, rows)
        assert server.loop.counters["repeats"] == 100
        assert server.streams.kernel.committed(slot)[0] == 100, "none of them is a late row"
