"""A feed and its server: every row exactly once and in order, kill -9 included; what is refused is counted."""

from __future__ import annotations

import pickle
import random
import time
from pathlib import Path

import numpy as np
import pytest

from flux import codec, limits, testing
from flux.errors import BadRowsError, EncodeError, InvalidNameError, RequestTimeout, StorageError
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import CandleFlag, StreamKey
from flux.store.base import Rows
from flux.transport.sockets import Sockets, send
from tests.patience import PATIENCE_S
from tests.system.feeding import SOURCE, Feeding, truth_of
from tests.system.processes import FluxServer, free_port, wait_until
from tests.system.served_rows import stored_streams


def check_kept(data: Path, truth: dict[StreamKey, Rows]) -> None:
    """The database holds these rows and no others, numbered from 1."""
    found = stored_streams(data / "flux.duckdb")
    assert found.keys() == truth.keys()
    for key, rows in truth.items():
        sequences, kept = found[key]
        assert np.array_equal(sequences, np.arange(1, len(rows) + 1, dtype=np.uint64)), key
        assert kept.tobytes() == rows.tobytes(), key


def flush(feed: Feed, server: FluxServer) -> None:
    """Wait until all is committed; if that does not come, say what the server has."""
    try:
        feed.flush(2 * PATIENCE_S)
    except RequestTimeout as error:
        raise AssertionError(
            f"{error}; the server: {server.heads()}, journal {server.committed()}"
        ) from error


@pytest.mark.system
@pytest.mark.parametrize("durability", ["disk", "process"])
def test_the_server_is_killed_while_the_feed_goes_on(
    tmp_path: Path, cycles: int, rng: random.Random, durability: str
) -> None:
    kills = max(1, cycles // 10)
    truth = truth_of(8_000 * kills, rng.randrange(2**31))
    data = tmp_path / "data"
    ingest, rpc = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    options = ("--ingest", ingest, "--durability", durability)
    with Feed(SOURCE, ingest=ingest, chunk_rep=rpc) as feed, Feeding(feed, truth, rng) as feeding:
        for kill in range(kills):
            with FluxServer(data, *options, rpc=rpc) as server:
                assert server.state == "OK"
                left = (feeding.total - feed.committed) // (kills + 1 - kill)
                target = feed.committed + rng.randrange(1, left)
                wait_until(lambda at=target: feed.committed >= at, f"row {target}")
                server.kill()
        with FluxServer(data, *options, rpc=rpc) as server:
            assert server.state == "OK", "a kill of the process is no reason for a new epoch"
            feeding.join()
            flush(feed, server)
            assert feed.committed == feeding.total
            assert server.stop() == 0
    check_kept(data, truth)


@pytest.mark.system
def test_a_server_whose_disk_went_back_in_time_is_an_error_not_a_silence(tmp_path: Path) -> None:
    ingest, rpc = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    rows = synth.candles(200)
    feed = Feed(SOURCE, ingest=ingest, chunk_rep=rpc)
    with FluxServer(tmp_path / "data", "--ingest", ingest, rpc=rpc) as server:
        feed.send("BTC", "1m", rows[:100])
        flush(feed, server)
        assert server.stop() == 0
    with FluxServer(tmp_path / "older", "--ingest", ingest, rpc=rpc):
        feed.send("BTC", "1m", rows[100:])
        with pytest.raises(StorageError, match=r"lost rows 1 to 100"):
            feed.flush(PATIENCE_S)
    with pytest.raises(StorageError):
        feed.close()


@pytest.mark.system
def test_a_feed_that_was_there_before_its_server(tmp_path: Path) -> None:
    ingest, rpc = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    truth = truth_of(500, 1)
    with Feed(SOURCE, ingest=ingest, chunk_rep=rpc) as feed:
        for key, rows in truth.items():
            feed.send(key.symbol, key.interval, rows)
        with pytest.raises(RequestTimeout, match="1500 of 1500 rows not committed"):
            feed.flush(0.05)
        with FluxServer(tmp_path / "data", "--ingest", ingest, rpc=rpc) as server:
            flush(feed, server)
            assert server.stop() == 0
    check_kept(tmp_path / "data", truth)


class TestRefused:
    """In a server of this process, whose counters can be read."""

    def test_bad_rows_are_refused_before_they_are_sent_or_skipped_and_told(self, tmp_path: Path) -> None:
        """F3: all that the feed can know, by index and reason; nothing of the array is sent, or the others are."""
        rows = synth.candles(100)
        bad = rows.copy()
        bad["high"][10], bad["close"][20], bad["ts_ms"][30] = 0.0, np.nan, -3_000_000_000_000
        bad["flags"][40], bad["volume"][50] = 0, -1
        bad["ts_ms"][60] += 1
        again = rows[95:].copy()
        again["close"][4] = again["low"][4]
        with testing.server(data=tmp_path) as server:
            with Feed(SOURCE, ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
                with pytest.raises(
                    BadRowsError, match=r"row 10: high_low, row 20: not_finite, .* and 1 more"
                ) as e:
                    feed.send("X", "1m", bad)
                assert e.value.indexes == (10, 20, 30, 40, 50, 60)
                reasons = ("high_low", "not_finite", "time", "forming", "volume", "grid")
                assert e.value.reasons == reasons
                assert isinstance(pickle.loads(pickle.dumps(e.value)), EncodeError)
                feed.send("X", "1m", bad, skip_bad=True)
                feed.send("X", "1m", again)
                feed.flush(PATIENCE_S)
                assert feed.committed == 99, "nothing of the first call"
                assert [(str(told.key), told.reason, told.number) for told in feed.refused] == [
                    (f"{SOURCE}/X/1m", why, 0) for why in reasons
                ]
                assert [told.row["ts_ms"] for told in feed.refused] == bad["ts_ms"][
                    [*e.value.indexes]
                ].tolist()
            counters = server.loop.counters
        said = {name: counters[name] for name in ("admitted", "not_finite", "repeats", "corrections")}
        assert said == {"admitted": 94, "not_finite": 0, "repeats": 4, "corrections": 1}
        again["flags"][4] |= CandleFlag.CORRECTION
        expected = np.concatenate([np.delete(rows, [10, 20, 30, 40, 50, 60]), again[4:]])
        check_kept(tmp_path, {StreamKey(SOURCE, "X", "1m"): expected})

    def test_what_the_server_refuses_comes_back(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The feed cannot know the server's clock: the row, its key and the reason come with the position."""
        rows = synth.candles(50)
        rows["ts_ms"][20] = time.time_ns() // 60_000_000_000 * 60_000 + 3 * limits.MAX_AHEAD_MS
        with testing.server(data=tmp_path) as server:
            with Feed(SOURCE, ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
                feed.send("X", "1m", rows[:30])
                feed.send("Y", "1m", rows[30:])
                feed.flush(PATIENCE_S)
                (told,) = feed.refused
            server.loop.look()
        assert (told.key, told.reason, told.number) == (StreamKey(SOURCE, "X", "1m"), "future", 21)
        assert told.row.tobytes() == rows[20].tobytes()
        assert f"{SOURCE}: the server refused 1 rows, the last of {SOURCE}/X/1m: future" in caplog.text
        kept = np.concatenate([rows[:20], rows[21:30]])
        check_kept(tmp_path, {StreamKey(SOURCE, "X", "1m"): kept, StreamKey(SOURCE, "Y", "1m"): rows[30:]})

    def test_the_log_names_the_stream(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Whoever sends without `flux.Feed` is refused by the server alone, which says what of."""
        row = synth.candles(1)
        row["close"] = np.nan
        with testing.server(data=tmp_path) as server, Sockets() as sockets:
            assert server.ingest is not None
            pusher = sockets.pusher(server.ingest)
            frame = codec.encode(row, StreamKey(SOURCE, "X", "1m"), 1, store_id=9)
            wait_until(lambda: send(pusher, [frame]), "the server takes it")
            wait_until(lambda: server.loop.counters["not_finite"], "the row was looked at")
            server.loop.look()
            wait_until(lambda: "not_finite" in caplog.text, "the log says it")
        assert f"not_finite (1 since the start), the last of {SOURCE}/X/1m, of which 1 rows" in caplog.text

    def test_the_rows_of_a_replayed_files_stream(self, tmp_path: Path) -> None:
        """S19: the file is its input; the feed's rows are counted `owner`, and its other streams go on."""
        rows, mine = synth.candles(300), synth.candles(50, 9)
        synth.write_csv(tmp_path / "SAMPLE.csv", rows)
        data = tmp_path / "data"
        with testing.server(data=data, replay=tmp_path / "SAMPLE.csv") as server:
            wait_until(server.inputs_finished, "the file was replayed")
            with Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
                feed.send("SAMPLE", "1m", synth.candles(40, 3, start_ms=1_750_000_020_000))
                feed.send("OTHER", "1m", mine)
                feed.flush(PATIENCE_S)
            assert server.loop.counters["owner"] == 40
        check_kept(data, {StreamKey("SIM", "SAMPLE", "1m"): rows, StreamKey("SIM", "OTHER", "1m"): mine})

    def test_a_stream_too_many_does_not_hold_up_the_others(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("flux.protocol.sequencer.MAX_STREAMS", 2)
        truth = truth_of(200, 1)
        with testing.server(data=tmp_path) as server:
            with Feed(SOURCE, ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
                for begin in (0, 100):
                    for key, rows in truth.items():
                        feed.send(key.symbol, key.interval, rows[begin : begin + 100])
                feed.flush(PATIENCE_S)
                assert feed.committed == 600
            assert server.loop.counters["refused_streams"] == 2
        check_kept(tmp_path, dict(list(truth.items())[:2]))

    def test_what_never_leaves_the_feed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "FEED_PENDING_BYTES", 10_000)
        monkeypatch.setattr(limits, "MAX_FRAME_BYTES", 600_000)
        rows = synth.candles(1_000)
        nowhere = f"tcp://127.0.0.1:{free_port()}"
        with pytest.raises(InvalidNameError, match="source"):
            Feed("no spaces", ingest=nowhere, chunk_rep=nowhere)
        feed = Feed(SOURCE, ingest=nowhere, chunk_rep=nowhere)
        with pytest.raises(InvalidNameError, match="interval '7m'"):
            feed.send("X", "7m", rows)
        with pytest.raises(EncodeError, match="takes a 1-d array of TRADE rows"):
            feed.send("X", "trade", rows)
        for _ in range(3):
            feed.send("X", "1m", rows)
        with pytest.raises(RequestTimeout, match="does not take rows; nothing was queued") as error:
            feed.send("X", "1m", synth.candles(4_000), timeout=0.01)
        assert error.value.queued == 0
        monkeypatch.setattr("flux.feed.push.CLOSE_S", 0.05)
        for _ in range(2):
            with pytest.raises(RequestTimeout, match="3000 of 3000 rows not committed"):
                feed.close()

    def test_an_array_larger_than_all_that_may_wait_says_how_much_was_queued(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """F1: what is repeated after the error is the rest, and every row is there once."""
        monkeypatch.setattr(limits, "FEED_PENDING_BYTES", 10_000)
        monkeypatch.setattr(limits, "MAX_FRAME_BYTES", 600_000)
        trades = truth_of(20_000, 1)[StreamKey(SOURCE, "BTC/USDT", "trade")]
        trades["trade_id"] = 0  # exact by position only
        ingest, rpc = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
        with Feed(SOURCE, ingest=ingest, chunk_rep=rpc) as feed:
            with pytest.raises(RequestTimeout, match=r"\d+ of 20000 rows were queued") as error:
                feed.send("BTC/USDT", "trade", trades, timeout=0.01)
            assert 0 < error.value.queued < 20_000
            with FluxServer(tmp_path / "data", "--ingest", ingest, rpc=rpc) as server:
                feed.send("BTC/USDT", "trade", trades[error.value.queued :])
                flush(feed, server)
                assert server.stop() == 0
        check_kept(tmp_path / "data", {StreamKey(SOURCE, "BTC/USDT", "trade"): trades})
