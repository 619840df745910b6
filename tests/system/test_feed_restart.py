"""A feed that is itself started again: a durable run, or its last rows sent again; every row exactly once."""

from __future__ import annotations

import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from flux import testing
from flux.errors import InUseError, RequestTimeout
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import StreamKey
from tests.patience import PATIENCE_S
from tests.system.feeding import SOURCE, truth_of
from tests.system.processes import free_port, wait_until
from tests.system.test_feed import check_kept

KEY = StreamKey(SOURCE, "X", "1m")
TRADES = StreamKey(SOURCE, "X", "trade")

FEEDER = """
import sys, time
from flux.feed.push import Feed
from flux.feed import synth
ingest, rpc, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
candles = synth.candles(rows)
feed = Feed("FEED", run="gateway-1", ingest=ingest, chunk_rep=rpc)
feed.flush(30)
print(feed.committed, flush=True)
for i in range(feed.committed, rows):
    while i - feed.committed > 50:
        time.sleep(0.001)
    feed.send("X", "1m", candles[i : i + 1])
feed.flush(30)
print("done", flush=True)
"""


@pytest.mark.system
def test_a_durable_run_goes_on_where_a_killed_process_had_got_to(
    tmp_path: Path, cycles: int, rng: random.Random
) -> None:
    """Kills of the feed at any moment; the next one asks where it stands. No row twice, none left out."""
    rows = 10_000
    with testing.server(data=tmp_path) as server:
        begun: list[int] = []
        for kill in range(max(4, cycles // 4) + 1):
            last = kill == max(4, cycles // 4)
            process = subprocess.Popen(
                [sys.executable, "-c", FEEDER, str(server.ingest), server.chunk_rep, str(rows)],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            begun.append(int(process.stdout.readline()))
            slot = server.streams.slot(KEY)
            until = begun[-1] + rng.randrange(1, (rows - begun[-1]) // 3)
            if not last:
                wait_until(
                    lambda at=until: (
                        (slot := server.streams.slot(KEY)) is not None
                        and server.streams.kernel.head(slot) >= at
                    ),
                    f"row {until}",
                )
                process.kill()
            else:
                assert process.stdout.readline() == "done\n"
            process.wait(PATIENCE_S)
            process.stdout.close()
        assert begun == sorted(begun)
        assert begun[1] > 0
        assert slot is not None
        assert server.loop.counters["repeats"] == 0, "nothing had to be recognised"
    check_kept(tmp_path, {KEY: synth.candles(rows)})


def test_the_newest_process_has_the_run_and_the_older_one_is_told(tmp_path: Path) -> None:
    rows = synth.candles(100)
    with testing.server(data=tmp_path) as server:
        where = {"ingest": server.ingest, "chunk_rep": server.chunk_rep}
        older = Feed(SOURCE, run="gateway-1", **where)
        older.send("X", "1m", rows[:40])
        older.flush(PATIENCE_S)
        with Feed(SOURCE, run="gateway-1", **where) as newer:
            newer.flush(PATIENCE_S)
            assert newer.committed == 40
            older.send("X", "1m", rows[90:])  # on its way before it is told
            newer.send("X", "1m", rows[40:])
            newer.flush(PATIENCE_S)
            with pytest.raises(InUseError, match="run 'gateway-1' of FEED was taken over"):
                older.flush(PATIENCE_S)
            with pytest.raises(InUseError):
                older.send("X", "1m", rows[:1])
            with pytest.raises(InUseError):
                older.close()
        assert server.loop.counters["older_claim"] >= 1
    check_kept(tmp_path, {KEY: rows})


def test_a_run_that_goes_on_is_as_far_as_it_was_from_its_first_look(tmp_path: Path) -> None:
    """Whoever begins at `committed` sends nothing twice: trades without an id would be numbered again."""
    rows = synth.candles(100)
    with testing.server(data=tmp_path) as server:
        for begin, end in ((0, 40), (40, 100)):
            with Feed(SOURCE, run="r", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
                assert feed.committed == begin
                feed.send("X", "1m", rows[begin:end])
                feed.flush(PATIENCE_S)
        assert server.loop.counters["repeats"] == 0
    check_kept(tmp_path, {KEY: rows})


def test_a_run_of_which_the_server_says_nothing_is_not_at_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux.feed.push.BEGIN_S", 0.05)
    monkeypatch.setattr("flux.feed.push.CLOSE_S", 0.05)
    nobody = f"tcp://127.0.0.1:{free_port()}"
    feed = Feed(SOURCE, run="r", ingest=nobody, chunk_rep=nobody)
    with pytest.raises(RequestTimeout, match="how far this run is"):
        _ = feed.committed
    with suppress(RequestTimeout):
        feed.close()


def test_a_claim_outlives_the_server(tmp_path: Path) -> None:
    """The incarnation stands in the journal: after a restart the older process is still the older one."""
    rows = synth.candles(100)
    for before, counts in ((0, (40, 70)), (2, (100,))):
        with testing.server(data=tmp_path) as server:
            for number, count in enumerate(counts, before + 1):
                with Feed(SOURCE, run="r", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
                    feed.flush(PATIENCE_S)
                    assert feed._delivery._incarnation == number
                    feed.send("X", "1m", rows[feed.committed : count])
    check_kept(tmp_path, {KEY: rows})


def test_where_a_stream_stands(tmp_path: Path) -> None:
    truth = truth_of(50, 1)
    with (
        testing.server(data=tmp_path) as server,
        Feed(SOURCE, ingest=server.ingest, chunk_rep=server.chunk_rep) as feed,
    ):
        for key, rows in truth.items():
            assert feed.position(key, PATIENCE_S) is None
            feed.send(key.symbol, key.interval, rows)
        feed.flush(PATIENCE_S)
        for key, rows in truth.items():
            found = feed.position(str(key), PATIENCE_S)
            assert found is not None
            assert (found.sequence, found.row.tobytes()) == (50, rows[-1].tobytes())


def test_the_last_rows_sent_again_are_recognised_also_after_a_restart_of_the_server(tmp_path: Path) -> None:
    """S18: a new run that begins again somewhat earlier adds nothing, while the rings hold those rows (T1: they are
    warmed at a start)."""
    truth = truth_of(3_000, 1)
    for _ in range(2):
        with testing.server(data=tmp_path) as server:
            for back in (3_000, 1_000, 10):
                with Feed(SOURCE, ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
                    for key, rows in truth.items():
                        feed.send(key.symbol, key.interval, rows[-back:])
                    feed.flush(PATIENCE_S)
            assert server.loop.counters["late"] == server.loop.counters["corrections"] == 0
    check_kept(tmp_path, truth)


def test_two_live_feeds_of_one_stream_are_counted_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """F6: not refused, for a feed may be two processes on purpose; but not in silence."""
    rows = synth.candles(40)
    with testing.server(data=tmp_path) as server:
        where = {"ingest": server.ingest, "chunk_rep": server.chunk_rep}
        with Feed(SOURCE, **where) as one, Feed(SOURCE, **where) as other:
            for begin in range(0, 40, 10):
                feed = (one, other)[begin // 10 % 2]
                feed.send("X", "1m", rows[begin : begin + 10])
                feed.flush(PATIENCE_S)
        assert server.counts()["ingest_shared"] == 2
        server.loop.look()
        wait_until(lambda: "two live runs" in caplog.text, "the log says it")
    assert f"{KEY} is written by two live runs of feeds" in caplog.text
    check_kept(tmp_path, {KEY: rows})


@pytest.mark.parametrize("kind", ["candle", "trade"])
def test_rows_in_any_order_are_all_there_once(tmp_path: Path, kind: str, rng: random.Random) -> None:
    """H6: history paged from its newest page, sent twice."""
    key = KEY if kind == "candle" else TRADES
    rows = (
        synth.candles(5_000)
        if kind == "candle"
        else truth_of(5_000, 1)[StreamKey(SOURCE, "BTC/USDT", "trade")]
    )
    pages = [rows[begin : begin + 500] for begin in range(0, 5_000, 500)][::-1]
    with testing.server(data=tmp_path) as server:
        with Feed(SOURCE, ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
            for page in pages + rng.sample(pages, len(pages)):
                feed.send(key.symbol, key.interval, page)
            feed.flush(PATIENCE_S)
        counters = server.loop.counters
    assert (counters["repeats"], counters["late"], counters["admitted"]) == (5_000, 4_500, 500)
    assert np.array_equal(np.sort(rows), rows)


def test_a_feed_that_begins_again_from_any_point_adds_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F4: what is older than a short ring may be numbered already, so it is refused, and the feed is told; what is
    below the stream's lowest cannot be, and is LATE. Also after a restart of the server."""
    monkeypatch.setattr("flux.limits.RING_CLASSES", ((100_000, 16),))
    rows = synth.candles(400)
    trades = truth_of(400, 1)[StreamKey(SOURCE, "BTC/USDT", "trade")]
    for start in range(2):
        with testing.server(data=tmp_path) as server:
            with Feed(SOURCE, ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
                for key, given in ((KEY, rows), (TRADES, trades)):
                    for begin in (100, 300, 100) if start == 0 else (390, 100, 0):
                        feed.send(key.symbol, key.interval, given[begin:])
                        feed.flush(PATIENCE_S)
                assert {told.reason for told in feed.refused} == {"old"}
                assert len(feed.refused) > 300
            assert server.loop.counters["late"] == (0 if start == 0 else 200)
    late = {KEY: rows.copy(), TRADES: trades.copy()}
    for kept in late.values():
        kept["flags"][:100] |= 16
    check_kept(tmp_path, {key: np.concatenate([kept[100:], kept[:100]]) for key, kept in late.items()})
