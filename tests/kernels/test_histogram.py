"""The histogram kernel against its plain-Python twin and against the hdrhistogram package."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st

from flux.kernels.histogram import HIGHEST_NS, Histogram
from tests.oracle import histogram as oracle

# Every power of two and its neighbours is where a slot's width changes.
edges = st.integers(0, 37).flatmap(lambda bits: st.integers(max(0, 2**bits - 2), 2**bits + 2))
spans = st.one_of(st.integers(0, 4096), edges, st.integers(0, HIGHEST_NS)).filter(lambda v: v <= HIGHEST_NS)
anything = st.one_of(spans, st.integers(-(2**63), 2**63 - 1))
percents = st.one_of(st.sampled_from([0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0]), st.floats(0.0, 100.0))


def filled(values: list[int]) -> tuple[Histogram, oracle.Histogram]:
    mine, twin = Histogram(), oracle.Histogram()
    mine.record_column(np.array(values, np.int64))
    for value in values:
        twin.record(value)
    return mine, twin


def assert_same(mine: Histogram, twin: oracle.Histogram) -> None:
    assert mine.total == len(twin.values)
    assert (mine.over, mine.refused) == (twin.over, twin.refused)
    assert mine.min == min(twin.values, default=0)
    assert mine.max == max(twin.values, default=0)
    assert mine.mean == pytest.approx(twin.mean, rel=1e-15)
    assert mine.recorded() == twin.recorded()


@given(st.lists(anything, max_size=60), percents)
def test_like_the_oracle(values: list[int], at: float) -> None:
    mine, twin = filled(values)
    assert_same(mine, twin)
    assert mine.percentile(at) == twin.percentile(at)


@given(st.lists(spans, min_size=1, max_size=60), st.lists(percents, max_size=5))
def test_like_the_hdrhistogram_package(values: list[int], at: list[float]) -> None:
    mine, _ = filled(values)
    theirs = HdrHistogram(1, HIGHEST_NS, 3)
    for value in values:
        assert theirs.record_value(value)
    for percent in at:
        assert mine.percentile(percent) == theirs.get_value_at_percentile(percent)
    for lowest, count in mine.recorded():
        assert theirs.get_lowest_equivalent_value(lowest) == lowest
        assert theirs.get_count_at_value(lowest) == count
    assert mine.total == theirs.get_total_count()


@given(st.lists(anything, max_size=20))
def test_one_by_one_is_by_column(values: list[int]) -> None:
    one = Histogram()
    for value in values:
        one.record(value)
    assert one == filled(values)[0]


@given(st.lists(st.floats(), max_size=30), st.integers(0, 2**53))
def test_doubles_and_what_is_no_time(values: list[float], now: int) -> None:
    mine, twin = Histogram(), oracle.Histogram()
    mine.record_column(np.array(values, np.float64))
    mine.record_since(np.array(values, np.float64), now)
    for value in values:
        twin.record(value)
        twin.record(float(now) - value)
    assert_same(mine, twin)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30), st.integers(-(2**63), 2**63 - 1))
def test_time_since(values: list[int], now: int) -> None:
    mine, twin = Histogram(), oracle.Histogram()
    mine.record_since(np.array(values, np.int64), now)
    for value in values:
        twin.record(now - value if now - value < 2**63 else -1)
    assert_same(mine, twin)


@given(st.lists(anything, max_size=30), st.lists(anything, max_size=30))
def test_merge_is_both(first: list[int], second: list[int]) -> None:
    merged, _ = filled(first)
    merged.merge(filled(second)[0])
    assert merged == filled(first + second)[0]


@given(st.lists(anything, max_size=30))
def test_dump_and_load(values: list[int]) -> None:
    mine, _ = filled(values)
    assert Histogram.load(mine.dump()) == mine


def test_load_refuses_what_does_not_add_up() -> None:
    dumped = bytearray(filled([1, 2, 3])[0].dump())
    with pytest.raises(ValueError, match="bytes"):
        Histogram.load(dumped[:-1])
    dumped[0] += 1
    with pytest.raises(ValueError, match="add up"):
        Histogram.load(dumped)


def test_strided_reversed_and_read_only_columns() -> None:
    rows = np.zeros(5, [("a", "<f8"), ("b", "<i8")])
    rows["a"] = [1, 2, 3, 4, 5]
    rows["b"] = [10, 20, 30, 40, 50]
    rows.flags.writeable = False
    mine = Histogram()
    mine.record_column(rows["a"][::-1])
    mine.record_column(rows["b"][::2])
    assert mine.recorded() == [(v, 1) for v in (1, 2, 3, 4, 5, 10, 30, 50)]
    mine.reset()
    assert mine == Histogram()


@pytest.mark.parametrize(
    "column", [np.zeros(3, np.float32), np.zeros(3, np.uint64), np.zeros((2, 2)), b"12345678"]
)
def test_other_columns_are_refused(column: object) -> None:
    with pytest.raises(TypeError, match="int64 or float64"):
        Histogram().record_column(column)  # type: ignore[arg-type]  # the wrong type is the point


@pytest.mark.parametrize("at", [-0.1, 100.1, math.nan])
def test_percentile_outside(at: float) -> None:
    with pytest.raises(ValueError, match="0 to 100"):
        Histogram().percentile(at)


def test_the_ends_of_the_range() -> None:
    mine = Histogram()
    mine.record(HIGHEST_NS)
    assert (mine.over, mine.total) == (0, 1)
    mine.record(HIGHEST_NS + 1)
    assert (mine.over, mine.total, mine.max) == (1, 2, HIGHEST_NS + 1)
    assert mine.percentile(100.0) == HIGHEST_NS + 1
