"""`flux.testing.server`: what its docstring names is there (V5)."""

from __future__ import annotations

import pytest

import flux
from flux import testing
from flux.feed import synth
from tests.patience import PATIENCE_S
from tests.system.processes import wait_until

pytestmark = pytest.mark.system


def test_the_dials_turn_while_it_runs() -> None:
    rows = synth.candles(300, seed=3)
    with testing.server() as server:
        assert all((server.live_pub, server.chunk_rep, server.ingest))
        with flux.Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
            feed.send("X", "1m", rows[:100])
            feed.flush(timeout=PATIENCE_S)
            assert server.faults.injected.dropped == 0
            server.faults.drop = 1.0
            feed.send("X", "1m", rows[100:200])
            feed.flush(timeout=PATIENCE_S)
            wait_until(lambda: server.faults.injected.dropped > 0, "a message lost on purpose")
            lost = server.faults.injected.dropped
            server.faults.drop = 0.0
            feed.send("X", "1m", rows[200:])
            feed.flush(timeout=PATIENCE_S)
        assert server.faults.injected.dropped == lost
