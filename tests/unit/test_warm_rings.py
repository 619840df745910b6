"""After a restart the rings hold the last rows of their streams (S17): a feed that sends them again adds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import flux
from flux import journal, testing
from flux.errors import StorageError
from flux.feed import synth
from flux.journal.records import StreamHead, StreamRecord
from flux.model import StreamKey
from flux.server.storage import warm
from flux.store.duck import DuckStore
from flux.testing.server import FaultyServer
from flux.transport.pump import Streams
from tests.patience import PATIENCE_S
from tests.unit.lives import BTC, ETH, TRADES, Life, overwrite, rows_of


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
    monkeypatch.setattr(warm, "WARM_ROWS", 10)

    def refuse(*_: object) -> None:
        raise StorageError("no space left on device")

    monkeypatch.setattr(DuckStore, "commit", refuse)
    with testing.server(data=tmp_path) as server:
        send(server, rows[50:100])
        assert server.loop.counters["late"] == 50
    with testing.server(data=tmp_path) as server:
        send(server, rows[50:100])
        assert (server.loop.counters["old"], server.loop.counters["repeats"]) == (40, 10)
        assert server.streams.kernel.committed(0)[0] == 100
    monkeypatch.setattr(DuckStore, "commit", real)
    with testing.server(data=tmp_path) as server:
        send(server, rows[:50])
        assert server.loop.counters["late"] == 50, "the database has all of them: it knows the lowest again"


def warmed(life: Life) -> Streams:
    """The table of streams that a start would make of this life's journal."""
    heads = {slot + 1: life.streams.kernel.head(slot) for slot in range(len(life.streams))}
    keys = {slot + 1: life.streams.key(slot) for slot in range(len(life.streams))}
    streams, found = Streams(64), {}
    for number, head in heads.items():
        streams.add(keys[number], stream_id=number, ring_rows=256)
        found[number] = StreamHead(StreamRecord(number, *keys[number]), head, 0, 0)
    warm.warm(life.directory, life.committer.committed, streams, found)
    return streams


def test_every_ring_gets_its_last_rows_from_the_newest_two_files(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        life.write(ETH, 30)  # long ago: in no file that is read
        while life.committer.committed.file < 4:
            life.write(TRADES, 100)
        life.write(BTC, 90)
        life.write(BTC, 200)
        heads = {slot + 1: life.streams.kernel.head(slot) for slot in range(3)}
        streams = warmed(life)
        for number, key in enumerate((ETH, TRADES, BTC), 1):
            ring = streams.ring(number - 1)
            if key == ETH:
                assert (ring.first, ring.contiguous) == (31, 30)
                continue
            assert (ring.first, ring.contiguous) == (heads[number] - 255, heads[number])
            found = ring.window(ring.first, ring.contiguous)
            assert found.tobytes() == rows_of(key.kind, ring.first, 256).tobytes()


def test_a_batch_that_does_not_verify_leaves_a_ring_that_begins_behind_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Life(tmp_path) as life:
        at = life.write(BTC, 20).offset
        life.write(BTC, 20)
        overwrite(journal.path_of(tmp_path, 1), at - 400, b"spoilt")
        ring = warmed(life).ring(0)
        assert (ring.first, ring.contiguous, ring.top) == (41, 40, 40)
        assert "do not verify" in caplog.text
