"""`flux.Historical`: the same rows by request, in both versions of the wire."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from flux.batch import Candles, Trades
from flux.client.historical import Historical, StreamStatus, latest_revisions
from flux.errors import ConfigError, InvalidNameError, NotFoundError, RequestTimeout, StorageError
from flux.model import CANDLE, Cursor, StreamKey
from tests.patience import PATIENCE_S
from tests.unit.live_server import LiveServer
from tests.unit.served import STORE_ID, Served, Stream, rows_at

KEY = StreamKey("SIM", "BTCUSDT", "1m")
T0, MINUTE = 1_700_000_040_000, 60_000


@pytest.fixture
def server() -> Iterator[LiveServer]:
    times = [T0 + MINUTE * n for n in range(25_000)]
    stream = Stream(KEY, 1, rows_at(times))
    with LiveServer(Served(stream)) as made:
        yield made


@pytest.fixture
def hist(server: LiveServer) -> Iterator[Historical]:
    with Historical(rep=server.rep, timeout=PATIENCE_S) as made:
        yield made


def test_everything_comes_page_by_page_to_the_bit(server: LiveServer, hist: Historical) -> None:
    batch = hist.get_range("BTCUSDT", interval="1m")
    assert isinstance(batch, Candles)
    assert batch.rows.tobytes() == server.stream(KEY).rows.tobytes()
    assert (batch.key, batch.start_sequence, batch.epoch, batch.store_id) == (KEY, 1, 1, STORE_ID)


@pytest.mark.parametrize("every", [False, True])
def test_ranges_are_half_open(hist: Historical, every: bool) -> None:
    batch = hist.get_range(
        "BTCUSDT", interval="1m", start=T0 + 3 * MINUTE, end=T0 + 12_003 * MINUTE, revisions=every
    )
    assert batch.rows["ts_ms"].tolist() == [T0 + MINUTE * n for n in range(3, 12_003)]
    assert not len(hist.get_range("BTCUSDT", interval="1m", start=T0 + 5, end=T0 + MINUTE))
    assert not len(hist.get_range("BTCUSDT", interval="1m", end=T0))


def test_times_come_through_the_one_door(hist: Historical) -> None:
    """C-7."""
    moment = datetime.fromtimestamp((T0 + MINUTE) / 1_000, UTC)
    first = hist.get_range("BTCUSDT", interval="1m").ts_ms[1]  # numpy's own integer
    for start in (
        *(T0 + MINUTE, (T0 + MINUTE) // 1_000, first, np.datetime64(int(first), "ms"), float(T0 + MINUTE)),
        *(moment, moment.isoformat(), moment.replace(tzinfo=None), str(T0 + MINUTE)),
    ):
        batch = hist.get_range("BTCUSDT", interval="1m", start=start, limit=1)
        assert batch.rows["ts_ms"].tolist() == [T0 + MINUTE]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"start": "2022-02-30"}, "start '2022-02-30' is no time"),
        ({"end": 0}, "end 0 is no time"),
        ({"start": T0, "end": T0}, "is not before end"),
        ({"start": "today", "end": "yesterday"}, "start 'today' is not before end 'yesterday'"),
        ({"limit": -1}, "limit -1 is negative"),
    ],
)
def test_what_is_no_range_is_one_sentence(hist: Historical, asked: dict[str, Any], said: str) -> None:
    """C-7."""
    with pytest.raises(ConfigError, match=said):
        hist.get_range("BTCUSDT", interval="1m", **asked)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 10_000, 10_001, 99_999])
def test_a_limit_counts_what_is_given(hist: Historical, limit: int, every: bool) -> None:
    batch = hist.get_range("BTCUSDT", interval="1m", limit=limit, revisions=every)
    assert batch.rows["ts_ms"].tolist() == [T0 + MINUTE * n for n in range(min(limit, 25_000))]


def test_the_latest_revision_of_each_candle_in_order_of_time(server: LiveServer, hist: Historical) -> None:
    stream = server.stream(KEY)
    times = [T0, T0 + 2 * MINUTE, T0 + MINUTE, T0, T0 + 3 * MINUTE]  # one late, one corrected
    stream.rows = rows_at(times)
    latest = hist.get_range("BTCUSDT", interval="1m")
    assert latest.rows["ts_ms"].tolist() == [T0 + MINUTE * n for n in range(4)]
    assert latest.rows["close"].tolist() == [4, 3, 2, 5]
    first = hist.get_range("BTCUSDT", interval="1m", limit=1)
    assert first.rows["close"].tolist() == [4], "the correction came after the limit was full"
    every = hist.get_range("BTCUSDT", interval="1m", revisions=True)
    assert every.rows["ts_ms"].tolist() == times


def test_latest_revisions_of_nothing_is_nothing() -> None:
    assert not len(latest_revisions(np.empty(0, CANDLE)))


def test_what_is_no_longer_kept_is_not_there(server: LiveServer, hist: Historical) -> None:
    stream = server.stream(KEY)
    stream.first = stream.ring_first = 20_001
    batch = hist.get_range("BTCUSDT", interval="1m")
    assert (batch.start_sequence, len(batch)) == (20_001, 5_000)


def test_rows_lost_in_the_middle_are_an_error_with_their_range(server: LiveServer) -> None:
    stream = server.stream(KEY)
    stream.rows = stream.rows[:100]
    stream.ring_first, stream.stored, stream.lost = 81, 80, set(range(41, 51))
    with (
        LiveServer(server.served, store=server.served) as lossy,
        Historical(rep=lossy.rep) as hist,
        pytest.raises(StorageError, match=r"SIM/BTCUSDT/1m.*41 to 50"),
    ):
        hist.get_range("BTCUSDT", interval="1m")


def test_trades_come_in_order_of_sequence(server: LiveServer, hist: Historical) -> None:
    key = StreamKey("SIM", "BTCUSDT", "trade")
    server.add(key, 10)
    batch = hist.get_range("BTCUSDT", interval="trade", start=1_700_000_002_000, end=1_700_000_005_000)
    assert isinstance(batch, Trades)
    assert batch.rows["trade_id"].tolist() == [3, 4, 5]


def test_status_cursor_and_list(server: LiveServer, hist: Historical) -> None:
    other = StreamKey("SIM", "ETH/USDT", "1h")
    server.add(other, 3)
    status = hist.get_status("SIM/BTCUSDT/1m")
    assert status == StreamStatus(KEY, 25_000, T0 + MINUTE * 24_999, 1, STORE_ID, 1, 1)
    assert hist.get_cursor(KEY) == Cursor(STORE_ID, 1, 25_000)
    assert [stream.key for stream in hist.list_streams()] == [KEY, other]
    assert [stream.key for stream in hist.list_streams("SIM/1h/")] == [other]


def test_what_is_not_there_is_one_error(hist: Historical) -> None:
    with pytest.raises(NotFoundError, match="BTCUSDT"):
        hist.get_range("BTCUSD", interval="1m")
    with pytest.raises(NotFoundError):
        hist.get_status("SIM/NONE/1m")
    with pytest.raises(InvalidNameError):
        hist.get_range("a\nb", interval="1m")


def test_a_server_that_is_away_is_asked_again_until_the_time_is_over(server: LiveServer) -> None:
    endpoint = server.rep
    server.close()
    with Historical(rep=endpoint, timeout=0.3) as hist, pytest.raises(RequestTimeout):
        hist.get_status(KEY)


def test_a_server_of_version_1(server: LiveServer) -> None:
    with Historical(rep=server.rep, timeout=PATIENCE_S) as hist:
        hist._requester.version = 1
        assert hist.get_cursor(KEY) == Cursor(0, 0, 25_000)
        batch = hist.get_range("BTCUSDT", interval="1m", start=T0 + MINUTE, end=T0 + 20_000 * MINUTE)
        assert batch.rows["ts_ms"].tolist() == [T0 + MINUTE * n for n in range(1, 20_000)]
