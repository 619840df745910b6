"""A server remembers a bounded number of feeds' runs; a feed that was forgotten goes on, and is accused of nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flux import testing
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.model import StreamKey
from flux.server.service import Server
from tests.patience import PATIENCE_S
from tests.system.served_rows import stored_streams

PLACES = 8
KEY = StreamKey("FEED", "QUIET", "1m")


@pytest.fixture(autouse=True)
def _few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("flux.limits", "flux.server.runs", "flux.server.records", "flux.server.committer"):
        monkeypatch.setattr(f"{module}.MAX_RUNS", PLACES)


def feed(server: Server) -> Feed:
    return Feed(KEY.source_id, ingest=server.ingest, chunk_rep=server.chunk_rep)


def others(server: Server, count: int) -> None:
    for number in range(count):
        with feed(server) as other:
            other.send("OTHER", "1m", candles(count, 2)[number : number + 1])
            other.flush(PATIENCE_S)


def test_a_feed_that_was_forgotten_goes_on_as_another_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = candles(60, 1)
    with testing.server(data=tmp_path) as server, feed(server) as quiet:
        first = quiet.run
        for begin in (0, 20, 40):
            quiet.send(KEY.symbol, KEY.interval, rows[begin : begin + 20])
            quiet.flush(PATIENCE_S)
            assert quiet.committed == begin + 20
            others(server, 3 * PLACES)
        assert quiet.run != first
    assert "no longer knows this feed's run" in caplog.text
    sequences, kept = stored_streams(tmp_path / "flux.duckdb")[KEY]
    assert sequences.tolist() == list(range(1, 61))
    np.testing.assert_array_equal(kept, rows)


def test_a_feed_that_is_heard_of_keeps_its_place() -> None:
    rows = candles(3 * PLACES, 1)
    with testing.server() as server, feed(server) as busy:
        first = busy.run
        for number in range(3 * PLACES):
            busy.send(KEY.symbol, KEY.interval, rows[number : number + 1])
            busy.flush(PATIENCE_S)
            others(server, 2)
            assert server.committer._runs.knows(f"feed:{KEY.source_id}:{first}")
        assert busy.run == first
