"""Rings that are shorter than what comes at once: they wait for the journal alone, and never for the store (S20)."""

from __future__ import annotations

from pathlib import Path

import pytest

import flux
from flux import limits, testing
from flux.errors import StorageError
from flux.feed import synth
from flux.model import StreamKey
from flux.store.duck import DuckStore
from tests.patience import PATIENCE_S

ROWS = 3_000


def test_a_short_ring_takes_any_number_of_rows_while_the_store_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("no space left on device")

    monkeypatch.setattr(limits, "RING_CLASSES", ((limits.MAX_STREAMS, 16),))
    monkeypatch.setattr(DuckStore, "commit", refuse)
    rows = synth.candles(ROWS, seed=5)
    with testing.server(data=tmp_path) as server:
        with flux.Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
            feed.send("X", "1m", rows)
            feed.flush(timeout=PATIENCE_S)
        slot = server.streams.slot(StreamKey("SIM", "X", "1m"))
        assert slot is not None
        ring = server.streams.ring(slot)
        assert (ring.capacity, ring.contiguous) == (16, ROWS)
        with flux.Historical(rep=server.chunk_rep) as past:
            found = past.get_range("X", interval="1m", source="SIM")
        assert found.rows.tobytes() == rows.tobytes(), "the journal has what neither ring nor store has"
