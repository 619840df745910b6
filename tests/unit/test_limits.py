"""Figures that a promise or a document names: who changes one changes a promise, and has to say so here."""

from __future__ import annotations

import pytest

from flux import limits
from flux.client.deliver import Notices, StateChange
from flux.limits import MAX_NOTICES
from flux.model import StreamKey
from flux.protocol.stream_state import StreamState

PROMISED = {
    # a client: late by at most a quarter of a second in its cache (C6), back-off (C5), what waits for it (C8)
    "CACHE_FLUSH_MS": 250,
    "CACHE_PENDING_ROWS": 1_000_000,
    "RECONNECT_MIN_MS": 100,
    "RECONNECT_MAX_MS": 5_000,
    "MAX_NOTICES": 10_000,
    "MAX_DELIVERY_BATCHES": 64,
    "BEATS_MISSED": 3,
    # a server: heartbeats and marks (S13), requests (S12), a slow subscriber (S11), what a feed may leave waiting
    "HEARTBEAT_MS": 1_000,
    "MARK_RECENT_MS": 5_000,
    "MARK_ROUND_MS": 30_000,
    "REQUEST_DEADLINE_MS": 2_000,
    "MAX_REQUEST_BYTES": 64 * 1024,
    "MAX_REPLY_BYTES": 4 * 1024 * 1024,
    "MAX_REPLY_ROWS": 10_000,
    "MAX_REPLIES_PER_PEER": 8,
    "MAX_HELD_REPLIES": 1_024,
    "LIVE_HWM": 65_536,
    "INGEST_HWM": 20_000,
    "MAX_AHEAD_MS": 60_000,
    "LOG_REPEAT_NS": 1_000_000_000,
}


@pytest.mark.parametrize(("name", "figure"), PROMISED.items())
def test_a_figure_is_the_promised_one(name: str, figure: int) -> None:
    assert getattr(limits, name) == figure


def test_changes_of_state_that_nobody_takes_are_bounded() -> None:
    notices = Notices()
    changes = [
        StateChange(StreamKey("SIM", f"S{at}", "1m"), StreamState.IDLE, "") for at in range(MAX_NOTICES + 3)
    ]
    for change in changes:
        notices.put(change)
    notices.close()
    assert list(iter(notices.take, None)) == changes[3:], "the oldest are forgotten"
