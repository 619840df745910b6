"""Pages: the same rows whether they are in memory, in the store or in both; times as docs/wire.md says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.model import RowKind, StreamKey
from flux.server.requests.pages import NeedsStore, Page, Pages
from tests.unit.served import KEY, Served, Stream, rows_at


def pages_of(stream: Stream, *, store: bool = True) -> Pages:
    served = Served(stream)
    view = served.stream(stream.key)
    assert view is not None
    return Pages(served, view, served if store else None)


def sequences(page: Page) -> list[int]:
    return list(range(page.first, page.first + len(page.rows)))


def times(page: Page) -> list[int]:
    return [int(ts) for ts in page.rows["ts_ms"]]


def test_memory_alone_answers_what_it_has() -> None:
    pages = pages_of(Stream(KEY, 1, rows_at(range(10, 110, 10))), store=False)
    page = pages.page(0, 10, 4)
    assert (page.first, times(page), page.more) == (1, [10, 20, 30, 40], True)
    page = pages.page(6, 10, 4)
    assert (page.first, times(page), page.more) == (7, [70, 80, 90, 100], False)
    assert sequences(pages.page(10, 10, 4)) == []
    assert sequences(pages.page(2, 5, 100)) == [3, 4, 5]


def test_what_memory_lacks_is_asked_of_the_store_and_only_that() -> None:
    stream = Stream(KEY, 1, rows_at(range(10)), ring_first=6, stored=8)
    with pytest.raises(NeedsStore):
        pages_of(stream, store=False).page(4, 10, 2)
    assert sequences(pages_of(stream, store=False).page(5, 10, 2)) == [6, 7]
    page = pages_of(stream).page(2, 10, 100)
    assert sequences(page) == list(range(3, 11)), "the store's rows, then what it lacks from memory"
    assert np.array_equal(page.rows, stream.rows[2:])


def test_rows_overwritten_while_they_were_copied_come_from_the_store() -> None:
    served = Served(Stream(KEY, 1, rows_at(range(10)), stored=10))
    served.ring_fails = True
    view = served.stream(KEY)
    assert view is not None
    with pytest.raises(NeedsStore):
        Pages(served, view).page(0, 10, 3)
    assert sequences(Pages(served, view, served).page(0, 10, 3)) == [1, 2, 3]


def test_a_hole_says_where_rows_go_on() -> None:
    pages = pages_of(Stream(KEY, 1, rows_at(range(10)), ring_first=8, stored=10, lost={3, 4}))
    assert sequences(pages.page(0, 10, 100)) == [1, 2], "up to the hole"
    page = pages.page(2, 10, 100)
    assert (len(page.rows), page.resumes) == (0, 5)
    pages = pages_of(Stream(KEY, 1, rows_at(range(10)), ring_first=8, stored=10, lost=set(range(3, 11))))
    assert pages.page(2, 10, 100).resumes == 8, "where memory goes on"
    pages = pages_of(Stream(KEY, 1, rows_at(range(10)), ring_first=11, stored=10, lost=set(range(3, 11))))
    assert pages.page(2, 10, 100).resumes == 11, "behind the head"


def test_times_choose_one_contiguous_run() -> None:
    stream = Stream(KEY, 1, rows_at([10, 20, 30, 15, 40, 20, 50, 60]))
    pages = pages_of(stream, store=False)
    assert sequences(pages.page(0, 8, 100, start_ms=30, end_ms=50)) == [3, 4, 5, 6]
    assert sequences(pages.page(0, 8, 100, start_ms=30)) == [3, 4, 5, 6, 7, 8]
    assert sequences(pages.page(0, 8, 100, end_ms=21)) == [1, 2, 3, 4, 5, 6]
    assert sequences(pages.page(0, 8, 100, end_ms=10)) == []
    assert sequences(pages.page(0, 8, 100, start_ms=61)) == []
    assert sequences(pages.page(3, 8, 100, start_ms=30)) == [4, 5, 6, 7, 8], "an earlier row began the run"
    page = pages.page(0, 8, 2, end_ms=21)
    assert (sequences(page), page.more) == ([1, 2], True)
    page = pages.page(4, 8, 2, end_ms=21)
    assert (sequences(page), page.more) == ([5, 6], False)


def test_times_of_trades_are_ns_and_bounds_are_ms() -> None:
    key = StreamKey("SIM", "TEST", "trade")
    pages = pages_of(Stream(key, 1, rows_at([10, 20, 30], RowKind.TRADE)), store=False)
    assert sequences(pages.page(0, 3, 100, start_ms=20, end_ms=30)) == [2]
    assert pages.is_before(1, 11)
    assert not pages.is_before(1, 10)
    assert pages.any_before(21, 1)
    assert not pages.any_before(21, 2)


@given(
    times=st.lists(st.integers(0, 12), min_size=1, max_size=24),
    after=st.integers(0, 24),
    limit=st.integers(1, 8),
    start=st.none() | st.integers(-1, 13),
    end=st.none() | st.integers(-1, 13),
    split=st.tuples(st.integers(0, 24), st.integers(0, 24)),
)
def test_a_page_is_the_same_wherever_the_rows_are(
    times: list[int], after: int, limit: int, start: int | None, end: int | None, split: tuple[int, int]
) -> None:
    head = len(times)
    after = min(after, head)
    ring_first = min(split[0], head) + 1
    stored = min(head, max(ring_first - 1, split[1]))
    stream = Stream(KEY, 1, rows_at(times), ring_first=ring_first, stored=stored)
    page = pages_of(stream).page(after, head, limit, start, end)

    first = next((n for n in range(1, head + 1) if start is None or times[n - 1] >= start), head + 1)
    last = next((n for n in range(head, 0, -1) if end is None or times[n - 1] < end), 0)
    run = [n for n in range(1, head + 1) if first <= n <= last and n > after]
    assert page.resumes == 0
    assert sequences(page) == run[:limit]
    assert page.more == (len(run) > limit)
    assert np.array_equal(page.rows, stream.rows[[n - 1 for n in run[:limit]]])
