"""`flux.Historical`: the same rows by request, in both versions of the wire."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.batch import Candles, Trades
from flux.client.historical import Historical, StreamStatus
from flux.client.ranges import Bounds, History, Page, Range, latest_revisions, nth_time
from flux.errors import (
    ConfigError,
    FluxError,
    InvalidNameError,
    NotFoundError,
    RequestTimeout,
    StorageError,
)
from flux.model import CANDLE, Cursor, StreamKey
from tests.patience import PATIENCE_S
from tests.unit.history import KEY, MINUTE, T0
from tests.unit.live_server import LiveServer
from tests.unit.served import STORE_ID, Stream, rows_at


def test_everything_comes_page_by_page_to_the_bit(long_server: LiveServer, hist: Historical) -> None:
    batch = hist.get_range("BTCUSDT", interval="1m")
    assert isinstance(batch, Candles)
    assert batch.rows.tobytes() == long_server.stream(KEY).rows.tobytes()
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


def test_the_latest_revision_of_each_candle_in_order_of_time(
    long_server: LiveServer, hist: Historical
) -> None:
    stream = long_server.stream(KEY)
    times = [T0, T0 + 2 * MINUTE, T0 + MINUTE, T0, T0 + 3 * MINUTE]  # one late, one corrected
    stream.rows = rows_at(times)
    latest = hist.get_range("BTCUSDT", interval="1m")
    assert latest.rows["ts_ms"].tolist() == [T0 + MINUTE * n for n in range(4)]
    assert latest.rows["close"].tolist() == [4, 3, 2, 5]
    assert latest.sequences.tolist() == [4, 3, 2, 5]
    first = hist.get_range("BTCUSDT", interval="1m", limit=1)
    assert first.rows["close"].tolist() == [4], "the correction came after the limit was full"
    every = hist.get_range("BTCUSDT", interval="1m", revisions=True)
    assert every.rows["ts_ms"].tolist() == times
    assert every.sequences.tolist() == [1, 2, 3, 4, 5]


def test_latest_revisions_of_nothing_is_nothing() -> None:
    assert latest_revisions(np.empty(0, CANDLE)) is None
    assert [nth_time(np.array([3, 1, 1, 7, 3]), n) for n in (1, 2, 3)] == [1, 3, 7]


def the_truth(
    stream: Stream, start: int | None, end: int | None, limit: int | None, every: bool
) -> list[int]:
    """The sequences that `get_range` has to give, in plain Python."""
    inside = [
        (time, sequence)
        for sequence, time in enumerate(stream.rows["ts_ms"].tolist(), 1)
        if (start is None or time >= start) and (end is None or time < end)
    ]
    if every:
        return [sequence for _, sequence in inside][:limit]
    latest = dict(inside)  # the last of each time
    return [latest[time] for time in sorted(latest)][:limit]


@settings(max_examples=60, deadline=None)
@given(
    times=st.lists(st.integers(0, 12), min_size=1, max_size=60),
    start=st.none() | st.integers(0, 13),
    end=st.none() | st.integers(0, 13),
    limit=st.none() | st.integers(0, 20),
    every=st.booleans(),
    version=st.sampled_from([1, 2]),
    page=st.integers(1, 7),
)
def test_every_row_has_its_true_sequence_whatever_lies_between(
    times: list[int],
    start: int | None,
    end: int | None,
    limit: int | None,
    every: bool,
    version: int,
    page: int,
) -> None:
    """Corrections and late rows in any order, pages of any size, both versions: as batch, Arrow and pages."""
    stream = Stream(KEY, 1, rows_at(T0 + MINUTE * time for time in times))
    first, last = (None if time is None else T0 + MINUTE * time for time in (start, end))

    def page_of(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
        """What a server answers: a run of sequences, narrowed by the times in version 2."""
        inside = [n + 1 for n, time in enumerate(stream.rows["ts_ms"].tolist())
                  if version == 1 or ((bounds.start_ms is None or time >= bounds.start_ms)
                                      and (bounds.end_ms is None or time < bounds.end_ms))]  # fmt: skip
        begin, upto = max(after + 1, inside[0] if inside else 1), inside[-1] if inside else 0
        to = min(upto, begin + min(rows, page) - 1)
        return Page(begin, stream.rows[begin - 1 : max(to, begin - 1)], to < upto)

    first_ns, last_ns = (None if ms is None else ms * 1_000_000 for ms in (first, last))
    bounds = Bounds(first_ns, last_ns, limit, every)
    batch = Range(KEY, bounds).fetch(page_of)
    expected = the_truth(stream, first, last, limit, every)
    assert batch.sequences.tolist() == expected
    assert batch.rows.tobytes() == stream.rows[[n - 1 for n in expected]].tobytes()
    assert pyarrow.table(batch)["sequence"].to_pylist() == expected
    pages = list(Range(KEY, Bounds(first_ns, last_ns, limit, True)).batches(page_of))
    assert [n for part in pages for n in part.sequences.tolist()] == the_truth(
        stream, first, last, limit, True
    )
    assert all(0 < len(part) <= page for part in pages)


def test_to_df_has_the_true_sequences(long_server: LiveServer, hist: Historical) -> None:
    pytest.importorskip("pandas")
    long_server.stream(KEY).rows = rows_at([T0, T0 + 2 * MINUTE, T0, T0 + MINUTE])
    assert hist.get_range("BTCUSDT", interval="1m").to_df()["sequence"].tolist() == [3, 4, 2]


@pytest.mark.parametrize("version", [1, 2])
def test_a_start_in_the_middle_gives_the_sequences_there(
    long_server: LiveServer, hist: Historical, version: int
) -> None:
    hist._requester.version = version
    long_server.stream(KEY).rows = rows_at(T0 + MINUTE * n for n in (0, 1, 2, 1, 4, 3, 5))
    batch = hist.get_range("BTCUSDT", interval="1m", start=T0 + 2 * MINUTE, revisions=True)
    assert batch.sequences.tolist() == [3, 5, 6, 7]
    assert (batch.start_sequence, batch.end_sequence) == (3, 7)
    first = hist.get_range("BTCUSDT", interval="1m", start=T0 + 4 * MINUTE, limit=1, revisions=True)
    assert first.sequences.tolist() == [5]


@pytest.mark.parametrize("version", [1, 2])
def test_a_range_that_does_not_fit_comes_batch_by_batch(
    long_server: LiveServer, hist: Historical, version: int
) -> None:
    hist._requester.version = version
    batches = list(hist.iter_range("BTCUSDT", interval="1m", start=T0 + MINUTE, limit=20_500))
    assert [len(batch) for batch in batches] == (
        [9_999, 10_000, 501] if version == 1 else [10_000, 10_000, 500]
    )
    assert np.concatenate([batch.sequences for batch in batches]).tolist() == list(range(2, 20_502))
    assert list(hist.iter_range("BTCUSDT", interval="1m", limit=0)) == []


def test_a_limit_asks_for_no_more_than_it_needs(hist: Historical, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many pages, and as many rows looked at, as the limit: nothing is done again for every page (C-4)."""
    looked: list[int] = []

    def counting(times: np.ndarray, n: int) -> int:
        looked.append(len(times))
        return nth_time(times, n)

    monkeypatch.setattr("flux.client.ranges.nth_time", counting)
    asked: list[int] = []
    page = hist._page

    def counted(
        deadline: float, key: StreamKey, after: int, rows: int, bounds: Bounds, history: History
    ) -> Page:
        asked.append(rows)
        return page(deadline, key, after, rows, bounds, history)

    monkeypatch.setattr(hist, "_page", counted)
    assert len(hist.get_range("BTCUSDT", interval="1m", limit=20_000)) == 20_000
    assert looked == [20_000], "once, not for every page"
    assert len(asked) <= 3
    asked.clear()
    assert len(hist.get_range("BTCUSDT", interval="1m", limit=3, revisions=True)) == 3
    assert asked == [3]


def test_the_timeout_is_that_of_the_whole_range(long_server: LiveServer) -> None:
    with Historical(rep=long_server.rep, timeout=PATIENCE_S) as hist:
        page = hist._page

        def slow(
            deadline: float, key: StreamKey, after: int, rows: int, bounds: Bounds, history: History
        ) -> Page:
            found = page(deadline, key, after, rows, bounds, history)
            time.sleep(max(0.0, deadline - time.monotonic()) if after else 0)
            return found

        hist._page = slow  # type: ignore[method-assign]  # a server that takes too long over its second page
        with pytest.raises(RequestTimeout, match=r"20,000 rows came in time.*iter_range"):
            hist.get_range("BTCUSDT", interval="1m", timeout=1.0)


def test_a_server_that_answers_wrongly_ends_the_call() -> None:
    """The same page again for ever, or sequences that cannot be."""
    for first in (1, 0, 2**63 - 1, 2**64 - 2):
        rows = rows_at([T0, T0 + MINUTE])
        wanted = Range(KEY, Bounds(None, None, None, True))
        with pytest.raises(FluxError, match="the server answers with"):
            wanted.fetch(lambda *_, first=first, rows=rows: Page(first, rows, True))


def test_what_is_no_longer_kept_is_not_there(long_server: LiveServer, hist: Historical) -> None:
    stream = long_server.stream(KEY)
    stream.first = stream.ring_first = 20_001
    batch = hist.get_range("BTCUSDT", interval="1m")
    assert (batch.start_sequence, len(batch)) == (20_001, 5_000)


def test_rows_lost_in_the_middle_are_an_error_with_their_range(long_server: LiveServer) -> None:
    stream = long_server.stream(KEY)
    stream.rows = stream.rows[:100]
    stream.ring_first, stream.stored, stream.lost = 81, 80, set(range(41, 51))
    with (
        LiveServer(long_server.served, store=long_server.served) as lossy,
        Historical(rep=lossy.rep) as hist,
        pytest.raises(StorageError, match=r"SIM/BTCUSDT/1m.*41 to 50"),
    ):
        hist.get_range("BTCUSDT", interval="1m")


def test_trades_come_in_order_of_sequence(long_server: LiveServer, hist: Historical) -> None:
    key = StreamKey("SIM", "BTCUSDT", "trade")
    long_server.add(key, 10)
    batch = hist.get_range("BTCUSDT", interval="trade", start=1_700_000_002_000, end=1_700_000_005_000)
    assert isinstance(batch, Trades)
    assert batch.rows["trade_id"].tolist() == [3, 4, 5]


def test_status_cursor_and_list(long_server: LiveServer, hist: Historical) -> None:
    other = StreamKey("SIM", "ETH/USDT", "1h")
    long_server.add(other, 3)
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


def test_a_server_that_is_away_is_asked_again_until_the_time_is_over(long_server: LiveServer) -> None:
    endpoint = long_server.rep
    long_server.close()
    began = time.monotonic()
    with Historical(rep=endpoint, timeout=0.7) as hist, pytest.raises(RequestTimeout) as raised:
        hist.get_status(KEY)
    waited = time.monotonic() - began
    said = re.search(
        r"did not answer stream_status_request within ([0-9.]+) s, asked \d+ times?", str(raised.value)
    )
    assert said is not None, raised.value
    assert endpoint in str(raised.value)
    assert 0.3 < float(said[1]) <= waited + 0.05, "what it says it waited is what it waited"


def test_a_server_of_version_1(long_server: LiveServer) -> None:
    with Historical(rep=long_server.rep, timeout=PATIENCE_S) as hist:
        hist._requester.version = 1
        assert hist.get_cursor(KEY) == Cursor(0, 0, 25_000)
        batch = hist.get_range("BTCUSDT", interval="1m", start=T0 + MINUTE, end=T0 + 20_000 * MINUTE)
        assert batch.rows["ts_ms"].tolist() == [T0 + MINUTE * n for n in range(1, 20_000)]
