"""After a restart the rings hold the last rows of their streams (S17): a feed that sends them again adds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import flux
from flux import testing
from flux.errors import StorageError
from flux.feed import synth
from flux.model import StreamKey
from flux.store.duck import DuckStore
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


def test_what_the_database_lacks_at_a_start_is_not_numbered_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows with the lowest times stand in the journal alone, since the database refuses rows: sent again after the
    start, they are none that the stream never had."""
    rows = synth.candles(150, seed=5)
    with testing.server(data=tmp_path) as server:
        send(server, rows[100:])
    real = DuckStore.commit

    def refuse(*_: object) -> None:
        raise StorageError("no space left on device")

    monkeypatch.setattr(DuckStore, "commit", refuse)
    with testing.server(data=tmp_path) as server:
        send(server, rows[50:100])
        assert server.loop.counters["late"] == 50
    with testing.server(data=tmp_path) as server:
        send(server, rows[50:100])
        assert server.loop.counters["old"] == 50
        assert server.streams.kernel.committed(0)[0] == 100
    monkeypatch.setattr(DuckStore, "commit", real)
    with testing.server(data=tmp_path) as server:
        send(server, rows[:50])
        assert server.loop.counters["late"] == 50, "the database has all of them: it knows the lowest again"
