"""`flux.Historical` at its edges: one history in a range, bounds exact to the ns, one error after close."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.client.historical import Historical
from flux.client.ranges import Bounds, History, Page, Range
from flux.client.starting import TimeStart, begin_of
from flux.errors import AnswerError, FluxError, RequestTimeout, StorageError
from flux.model import TRADE, StreamKey
from flux.protocol.replies import PageStatus
from flux.schema import messages
from tests.patience import PATIENCE_S
from tests.unit.history import KEY, MINUTE, T0
from tests.unit.live_server import LiveServer
from tests.unit.served import STORE_ID, Served, Stream, answer, rows_at

# -- one history -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["get", "iter"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            "store",
            r"the server became store 0000000000000063 while the range was fetched, up to 10000 of store",
        ),
        (
            "loss",
            r"the server lost rows while the range was fetched.* up to 10000 of epoch 1, only .* up to 5000",
        ),
        ("loss, unsaid", r"the server lost rows while the range was fetched"),
        ("epoch", None),
    ],
)
def test_a_range_is_of_one_history(way: str, change: str, said: str | None, long_server: LiveServer) -> None:
    """What the server becomes between two pages: another store, one that lost rows that were fetched (and says so by
    an epoch, or only has fewer rows), or one in a later epoch that lost none of them."""
    served, stream = long_server.served, long_server.stream(KEY)

    def becomes() -> None:
        if change == "store":
            served.store_id = 99
        elif change == "loss, unsaid":
            stream.rows = stream.rows[:5_000]
        else:
            served.epoch = 2
            stream.epoch_ends = {1: 5_000 if change == "loss" else 10_000}

    with Historical(rep=long_server.rep, timeout=PATIENCE_S) as hist:
        page = hist._page
        asked: list[int] = []

        def then_changed(
            deadline: float, key: StreamKey, after: int, rows: int, bounds: Bounds, history: History
        ) -> Page:
            found = page(deadline, key, after, rows, bounds, history)
            asked.append(after)
            if len(asked) == 1:
                becomes()
            return found

        hist._page = then_changed  # type: ignore[method-assign]  # between two pages

        def fetched() -> list[int]:
            if way == "get":
                return hist.get_range("BTCUSDT", interval="1m").sequences.tolist()
            parts = hist.iter_range("BTCUSDT", interval="1m")
            return [sequence for part in parts for sequence in part.sequences.tolist()]

        if said is not None:
            with pytest.raises(StorageError, match=said):
                fetched()
        else:
            assert fetched() == list(range(1, 25_001))
            assert asked == [0, 10_000, 10_000, 20_000], "asked again once, in the new epoch"


def test_a_server_in_another_epoch_every_time_ends_the_call() -> None:
    wanted = Range(KEY, Bounds(None, None, None, True))
    epochs = iter(range(1, 10))

    def page_of(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
        now = History(STORE_ID, next(epochs))
        if after == 0:
            return Page(1, rows_at([T0]), True, history=now)
        return Page(2, rows_at([]), False, PageStatus.EPOCH_ENDED, history=now, epoch_end=1)

    with pytest.raises(FluxError, match="another epoch every time"):
        wanted.fetch(page_of)


@pytest.mark.parametrize("way", ["get", "iter"])
def test_an_epoch_that_falls_from_page_to_page_is_an_error(way: str) -> None:
    def page_of(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
        made = rows_at([T0 + MINUTE * after])
        return Page(after + 1, made, True, epoch=3 - after, history=History(STORE_ID, 3))

    wanted = Range(KEY, Bounds(None, None, None, True))
    with pytest.raises(AnswerError, match="rows of epoch 2 after those of 3"):
        wanted.fetch(page_of) if way == "get" else list(wanted.batches(page_of))


@pytest.mark.parametrize("status", [PageStatus.EPOCH_ENDED, PageStatus.CURSOR_AHEAD])
def test_an_epoch_that_nobody_asked_for_cannot_have_ended(status: PageStatus) -> None:
    wanted = Range(KEY, Bounds(None, None, None, True))
    with pytest.raises(AnswerError, match=f"{status.name} to a request that names no epoch"):
        wanted.fetch(lambda *_: Page(1, rows_at([]), False, status, history=History(5, 1)))


@pytest.mark.parametrize("limit", [None, 3])
def test_what_is_kept_of_a_range_is_what_it_gives(limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server sends revisions of few candles for ever: with every page of 100 rows, 5 of its last 6 candles."""
    monkeypatch.setattr("flux.client.ranges.RANGE_SPARE_ROWS", 100)
    rng = np.random.default_rng(7)
    times: list[int] = []
    kept: list[int] = []

    def page_of(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
        kept.append(sum(len(part) for part, _ in wanted._parts))
        some = [T0 + MINUTE * int(n) for n in rng.integers(0, 6, 100)]
        inside = [time for time in some if bounds.end_ms is None or time < bounds.end_ms]
        made = rows_at([*inside, T0])
        made["volume"] += len(times)
        times.extend([*inside, T0])
        return Page(after + 1, made, len(kept) < 60, history=History(STORE_ID, 1))

    wanted = Range(KEY, Bounds(None, None, limit, False))
    found = wanted.fetch(page_of)
    assert max(kept) <= 400, "not 60 pages of them"
    last = {time: sequence for sequence, time in enumerate(times, 1)}
    assert found.sequences.tolist() == [last[time] for time in sorted(last)][:limit]


def test_a_range_of_too_many_rows_is_an_error_before_they_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux.client.ranges.RANGE_SPARE_ROWS", 10)
    monkeypatch.setattr("flux.client.ranges.MAX_RANGE_ROWS", 50)

    def page_of(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
        times = [T0 + MINUTE * n for n in range(after, after + 10)]
        return Page(after + 1, rows_at(times), True, history=History(STORE_ID, 1))

    for every in (False, True):
        wanted = Range(KEY, Bounds(None, None, None, every))
        with pytest.raises(FluxError, match="more than 50 rows: take them batch by batch with iter_range"):
            wanted.fetch(page_of)
        assert wanted.count <= 2 * 50 + 10


def test_a_server_that_had_answered_is_not_asked_for(long_server: LiveServer) -> None:
    with Historical(rep=long_server.rep, timeout=PATIENCE_S) as hist:
        ask = hist._requester.ask

        def silent_then(build: Callable[..., bytes], **slots: Any) -> Any:
            if slots["from_sequence_exclusive"]:
                raise RequestTimeout("no answer")
            return ask(build, **slots)

        hist._requester.ask = silent_then  # type: ignore[method-assign]  # silent from the second page on
        with pytest.raises(
            RequestTimeout, match=r"10,000 rows came in time.* it had answered before"
        ) as found:
            hist.get_range("BTCUSDT", interval="1m", timeout=0.3)
        assert "is a server there" not in str(found.value)


@pytest.mark.parametrize("way", ["get", "iter"])
def test_what_an_epoch_had_is_not_asked_of_the_next(way: str) -> None:
    """The server said that it has 5 rows, gave 2, and is in an epoch that has no more than these when asked again."""
    first, second = History(STORE_ID, 1), History(STORE_ID, 2)

    def page_of(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
        if not after:
            return Page(1, rows_at([T0, T0 + MINUTE]), False, epoch=1, history=first, watermark=5)
        if history == first:
            return Page(3, rows_at([]), False, PageStatus.EPOCH_ENDED, history=second, epoch_end=2)
        return Page(3, rows_at([]), False, epoch=2, history=second, watermark=2)

    wanted = Range(KEY, Bounds(None, None, None, True))
    parts = [wanted.fetch(page_of)] if way == "get" else list(wanted.batches(page_of))
    assert [sequence for part in parts for sequence in part.sequences.tolist()] == [1, 2]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (Page(3, rows_at([T0]), False, history=History(STORE_ID, 1)), "with 3 after 1"),
        (Page(2, rows_at([]), True, history=History(STORE_ID, 1)), "no rows after 1, and with more"),
    ],
)
@pytest.mark.parametrize("way", ["get", "iter"])
def test_a_short_answer_is_not_taken_for_the_whole(second: Page, said: str, way: str) -> None:
    def page_of(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
        return second if after else Page(1, rows_at([T0]), True, history=History(STORE_ID, 1))

    wanted = Range(KEY, Bounds(None, None, None, True))
    with pytest.raises(AnswerError, match=said):
        wanted.fetch(page_of) if way == "get" else list(wanted.batches(page_of))


@pytest.mark.parametrize("way", ["get", "iter"])
@pytest.mark.parametrize("start", [None, T0 * 1_000_000])
@pytest.mark.parametrize("has", [0, 1, 3])
def test_an_answer_short_of_its_own_watermark_is_an_error(has: int, start: int | None, way: str) -> None:
    """It says that there is no more, and that the server has 5 rows."""

    def page_of(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
        times = [T0 + MINUTE * n for n in range(after, has)]
        return Page(after + 1, rows_at(times), False, history=History(STORE_ID, 1), watermark=5)

    wanted = Range(KEY, Bounds(start, None, None, True))
    if not has and start is not None:
        assert len(wanted.fetch(page_of)) == 0, "none of its rows may be after the start"
        return
    with pytest.raises(AnswerError, match=f"no rows after {has} and none to come.* up to 5"):
        wanted.fetch(page_of) if way == "get" else list(wanted.batches(page_of))


def test_rows_that_came_while_the_server_answered_are_asked_for() -> None:
    """A page may be older than the watermark it goes with; what comes still later is no longer waited for."""
    heads = iter([3, 5, 9, 12])

    def page_of(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
        head = next(heads)
        times = [T0 + MINUTE * n for n in range(after, head)]
        return Page(after + 1, rows_at(times), False, history=History(STORE_ID, 1), watermark=head + 2)

    assert len(Range(KEY, Bounds(None, None, None, True)).fetch(page_of)) == 5


def test_a_list_that_has_more_after_nothing_is_an_error(
    long_server: LiveServer, hist: Historical, monkeypatch: pytest.MonkeyPatch
) -> None:
    lie = SimpleNamespace(streams=[], has_more=True)
    monkeypatch.setattr(hist._requester, "ask", lambda *_, **__: lie)
    with pytest.raises(AnswerError, match="lists no streams after id 0"):
        hist.list_streams()


# -- bounds to the ns ----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    times=st.lists(st.integers(-4, 24), min_size=1, max_size=40),
    start=st.none() | st.integers(-5, 25),
    end=st.none() | st.integers(-5, 25),
    limit=st.none() | st.integers(1, 5),
)
def test_trades_within_a_millisecond_of_a_bound(
    times: list[int], start: int | None, end: int | None, limit: int | None
) -> None:
    """start <= time < end in ns, where a request has whole ms; times are quarters of one here."""

    def ns(quarters: int) -> int:
        return T0 * 1_000_000 + quarters * 250_000

    key = StreamKey("SIM", "BTCUSDT", "trade")
    rows = np.zeros(len(times), TRADE)
    rows["ts_ns"] = [ns(time) for time in times]
    served = Served(Stream(key, 1, rows))

    def page_of(key: StreamKey, after: int, count: int, bounds: Bounds, history: History) -> Page:
        """A real answer, but for the wire."""
        asked = messages.backfill_rows_request(
            correlation_id="1",
            key=key,
            from_sequence_exclusive=after,
            limit=min(count, 3),
            start_ts_ms=bounds.start_ms or 0,
            end_ts_ms=bounds.end_ms or 0,
        )
        reply = answer(served, asked)
        found = reply.rows if reply.rows is not None else np.empty(0, TRADE)
        return Page(reply.start_sequence, found, reply.has_more)

    inside = [
        n
        for n, time in enumerate(times, 1)
        if (start is None or time >= start) and (end is None or time < end)
    ][:limit]
    bounds = Bounds(None if start is None else ns(start), None if end is None else ns(end), limit, True)
    assert Range(key, bounds).fetch(page_of).sequences.tolist() == inside


def test_a_start_between_two_trades_of_a_millisecond(long_server: LiveServer, hist: Historical) -> None:
    key = StreamKey("SIM", "BTCUSDT", "trade")
    long_server.add(key, 4)
    at = T0 * 1_000_000 + np.array([100_000, 700_000, 1_200_000, 2_000_000])
    long_server.stream(key).rows["ts_ns"] = at
    between = np.datetime64(T0 * 1_000_000 + 500_000, "ns")
    assert hist.get_range("BTCUSDT", interval="trade", start=between).sequences.tolist() == [2, 3, 4]
    assert hist.get_range("BTCUSDT", interval="trade", end=between).sequences.tolist() == [1]
    begin = begin_of(between)
    assert isinstance(begin, TimeStart)
    assert begin.sequence(key, long_server.rep) == 2, "Live.subscribe(start=) is the same door"


# -- closed ----------------------------------------------------------------------------------------------------------


def test_after_close_every_call_is_one_error(long_server: LiveServer) -> None:
    hist = Historical(rep=long_server.rep)
    hist.close()
    hist.close()
    calls: list[Callable[[], object]] = [
        lambda: hist.get_range("BTCUSDT", interval="1m"),
        lambda: hist.get_range("BTCUSDT", interval="1m", limit=0),
        lambda: next(hist.iter_range("BTCUSDT", interval="1m")),
        lambda: hist.get_status(KEY),
        lambda: hist.get_cursor(KEY),
        hist.list_streams,
    ]
    for call in calls:
        with pytest.raises(FluxError, match=r"this Historical of tcp://.* is closed"):
            call()
