"""`Feed.close` beside `send`: what was taken is committed once a close has returned, and then nothing is taken."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flux import limits, testing
from flux.client.historical import Historical
from flux.errors import FluxError, RequestTimeout
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import StreamKey
from tests.patience import PATIENCE_S
from tests.system.feeding import SOURCE
from tests.system.processes import free_port, wait_until


@pytest.mark.system
def test_after_close_every_call_raises_or_tells_the_truth(tmp_path: Path) -> None:
    rows = synth.candles(20)
    with testing.server(data=tmp_path) as server:
        feed = Feed(SOURCE, ingest=server.ingest, chunk_rep=server.chunk_rep)
        feed.send("X", "1m", rows[:10])
        feed.close()
        bad = rows[10:].copy()
        bad["close"] = np.nan
        calls: list[Callable[[], object]] = [
            lambda: feed.send("X", "1m", rows[10:]),
            lambda: feed.send("X", "1m", rows[:0]),
            lambda: feed.send("Y", "1m", rows),
            lambda: feed.send("X", "1m", bad, skip_bad=True),
            lambda: feed.position(StreamKey(SOURCE, "X", "1m")),
        ]
        for call in calls:
            with pytest.raises(FluxError, match=r"this Feed of .* is closed"):
                call()
        feed.flush(0)
        feed.close()
        assert feed.committed == 10
        assert feed.refused == []


@pytest.mark.system
def test_a_send_that_returned_beside_a_close_is_committed(tmp_path: Path) -> None:
    """Four threads send for as long as they may; nothing that was taken is lost, nothing else is kept."""
    rows = synth.candles(200_000)
    sent = dict.fromkeys("ABCD", 0)
    raised: list[Exception] = []
    with testing.server(data=tmp_path) as server:
        feed = Feed(SOURCE, ingest=server.ingest, chunk_rep=server.chunk_rep)

        def go_on(symbol: str) -> None:
            try:
                for n in range(len(rows)):
                    feed.send(symbol, "1m", rows[n : n + 1])
                    sent[symbol] += 1
            except FluxError as error:
                raised.append(error)

        threads = [threading.Thread(target=go_on, args=(symbol,)) for symbol in sent]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(count > 100 for count in sent.values()), "rows of every thread")
        feed.close()
        for thread in threads:
            thread.join()
        assert feed.committed == sum(sent.values())
        with Historical(rep=server.chunk_rep) as asked:
            assert {one.key.symbol: one.latest_sequence for one in asked.list_streams()} == sent
    assert [str(error) for error in raised] == [f"this Feed of {SOURCE} is closed"] * 4


@pytest.mark.system
def test_a_send_that_waits_for_room_ends_with_the_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FEED_PENDING_BYTES", 10_000)
    monkeypatch.setattr(limits, "MAX_FRAME_BYTES", 600_000)
    monkeypatch.setattr("flux.feed.push.CLOSE_S", 0.05)
    nowhere = f"tcp://127.0.0.1:{free_port()}"
    feed = Feed(SOURCE, ingest=nowhere, chunk_rep=nowhere)
    raised: list[Exception] = []

    def fill() -> None:
        try:
            while True:
                feed.send("X", "1m", synth.candles(1_000))
        except FluxError as error:
            raised.append(error)

    thread = threading.Thread(target=fill)
    thread.start()
    wait_until(lambda: feed._outbox.kernel.queued >= 3_000, "rows that wait")
    with pytest.raises(RequestTimeout, match="rows not committed"):
        feed.close()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert "this Feed of" in str(raised[0])
    assert "is closed" in str(raised[0])
