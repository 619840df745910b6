"""The indicator kernel against its oracle, to the bit, in pushes of any size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.kernels import indicator as kernel
from flux.model import CANDLE
from tests.oracle import indicator as oracle

HOUR = 3_600_000
CLOSE = 32  # byte of the field in a candle
PRICES = st.one_of(st.floats(0.5, 1e5), st.sampled_from([100.0, 0.1, 1e15, 1e-9]))
NAN = float("nan")


@st.composite
def candles(draw: st.DrawFn) -> list[oracle.Candle]:
    rows, at = [], draw(st.integers(-(10**13), 10**13))
    for _ in range(draw(st.integers(0, 40))):
        at += draw(st.sampled_from([1, 1, 1, 2, 30, 0, -1])) * HOUR
        low, *middle, high = sorted(draw(PRICES) for _ in range(4))
        volume = draw(st.one_of(st.just(0.0), st.floats(0.001, 1e6)))
        flags = draw(st.sampled_from([1, 33, 65, 129]))
        row = [at, middle[0], high, low, middle[1], volume, volume * middle[0], 3, flags]
        for field in draw(st.sampled_from([(), (), (), (1, 2, 3, 4), (2,), (3,), (4,), (5,), (6,)])):
            row[field] = NAN
        rows.append(tuple(row))
    return rows


def cut(draw_seed: int, total: int) -> list[slice]:
    marks = [0, *sorted(np.random.default_rng(draw_seed).integers(0, total + 1, 5).tolist()), total]
    return [slice(a, b) for a, b in pairwise(marks)]


def pushed(indicator: kernel.Indicator, rows: np.ndarray, field: int | None, seed: int) -> np.ndarray:
    out = np.full(len(rows), -1.0)
    for part in cut(seed, len(rows)):
        indicator.push(rows[part], field, out[part])
    return out


def same(found: np.ndarray, expected: Sequence[float]) -> None:
    np.testing.assert_array_equal(
        found.view(np.uint64)[~np.isnan(found)],
        np.array(expected, np.float64).view(np.uint64)[~np.isnan(expected)],
    )
    np.testing.assert_array_equal(np.isnan(found), np.isnan(np.array(expected, np.float64)))


CASES: dict[int, Callable[[Sequence[oracle.Candle], int], float]] = {
    kernel.SMA: lambda rows, n: oracle.sma([row[4] for row in rows], n),
    kernel.EMA: lambda rows, n: oracle.ema([row[4] for row in rows], n),
    kernel.RSI: lambda rows, n: oracle.rsi([row[4] for row in rows], n),
    kernel.ATR: oracle.atr,
    kernel.VWAP: oracle.vwap,
    kernel.VWAP_ANCHORED: lambda rows, _: oracle.vwap_anchored(rows, 24 * HOUR),
}

LOOKED_AT = {kernel.ATR: "atr", kernel.VWAP: "vwap", kernel.VWAP_ANCHORED: "vwap"}


@pytest.mark.parametrize("kind", CASES)
@settings(max_examples=120, deadline=None)
@given(rows=candles(), n=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_candles_to_the_bit(kind: int, rows: list[oracle.Candle], n: int, seed: int) -> None:
    made = kernel.Indicator(kind, n, 24 * HOUR, 0)
    found = pushed(made, np.array(rows, CANDLE), CLOSE, seed)
    expected = oracle.stream(LOOKED_AT.get(kind, ""), lambda taken: CASES[kind](taken, n), rows)
    same(found, expected)
    assert made.skipped == sum(row[0] < max(r[0] for r in rows[: i + 1]) for i, row in enumerate(rows))
    same(np.array([made.value]), expected[-1:] or [np.nan])


@pytest.mark.parametrize(
    ("kind", "twin"), [(kernel.SMA, oracle.sma), (kernel.EMA, oracle.ema), (kernel.RSI, oracle.rsi)]
)
@settings(max_examples=120, deadline=None)
@given(
    values=st.lists(st.one_of(PRICES, PRICES, st.just(NAN)), max_size=60),
    n=st.integers(1, 9),
    seed=st.integers(0, 2**31),
)
def test_values_to_the_bit(
    kind: int, twin: Callable[[Sequence[float], int], float], values: list[float], n: int, seed: int
) -> None:
    found = pushed(kernel.Indicator(kind, n, 0, 0), np.array(values, np.float64), None, seed)
    numbers = [[value for value in values[: i + 1] if value == value] for i in range(len(values))]
    same(
        found,
        [NAN if isnan(value) else twin(so_far, n) for value, so_far in zip(values, numbers, strict=True)],
    )


def test_what_left_a_rolling_mean_leaves_no_error_behind() -> None:
    values = np.ones(20)
    values[4], values[9] = np.nan, 1e300
    out = pushed(kernel.Indicator(kernel.SMA, 3, 0, 0), values, None, 0)
    assert np.isnan(out[[0, 1, 4]]).all()
    assert (out[[2, 3, 5, 6, 7, 8]] == 1.0).all()
    assert (out[12:] == 1.0).all()


def test_memory_is_refused_not_crashed() -> None:
    with pytest.raises(MemoryError):
        kernel.Indicator(kernel.SMA, 2**58, 0, 0)
