"""A wall clock that jumps an hour at every look changes no row and breaks no connection (C11)."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

import flux
from flux import testing
from flux.client.deliver import StateChange
from flux.feed import synth
from flux.protocol.stream_state import StreamState
from tests.patience import PATIENCE_S
from tests.system.processes import wait_until

HOUR_NS = 3_600_000_000_000
SOUND = {StreamState.CONNECTING, StreamState.IDLE, StreamState.RECEIVING, StreamState.BACKFILLING}


def test_jumps_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle((0, HOUR_NS, -HOUR_NS, 24 * HOUR_NS))
    wall_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + next(jumps))
    monkeypatch.setattr(time, "time", lambda: time.time_ns() / 1e9)
    rows = synth.candles(600, seed=11)
    seen: list[flux.batch.Batch] = []
    states: list[StateChange] = []
    with (
        testing.server() as server,
        flux.Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed,
    ):
        feed.send("X", "1m", rows[:100])
        feed.flush(timeout=PATIENCE_S)
        live = flux.Live(pub=server.live_pub, rep=server.chunk_rep)
        live.add_state_callback(states.append)
        live.add_callback(seen.append)
        live.subscribe("X", interval="1m", source="SIM", start="oldest")
        with live:
            live.start()
            begun = time.monotonic()
            for sent in range(100, 700, 100):
                wait_until(lambda sent=sent: sum(map(len, seen)) == sent, f"{sent} rows")
                # Beyond two heartbeats: a client that compares their times with the wall has failed by then.
                wait_until(lambda sent=sent: time.monotonic() - begun > sent / 200, "time to go by")
                feed.send("X", "1m", rows[sent : sent + 100])
    sequences = np.concatenate([batch.sequences for batch in seen])
    assert sequences.tolist() == list(range(1, 601))
    values = ["ts_ms", "open", "high", "low", "close", "volume"]
    assert np.array_equal(np.concatenate([batch.to_numpy() for batch in seen])[values], rows[values])
    assert {change.state for change in states} <= SOUND
