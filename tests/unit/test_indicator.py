"""The indicators' door: known values, warm-up, what is skipped, what is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from flux import zone
from flux.errors import InvalidNameError
from flux.indicator import ATR, EMA, RSI, SMA, VWAP
from flux.limits import MAX_INDICATOR_ROWS
from flux.model import CANDLE, TRADE, CandleFlag

DAY = 86_400_000

# Closes and RSI(14) as published with Wilder's method (StockCharts, "cs-rsi"), which rounds to two places.
CLOSES = (
    "44.3389 44.0902 44.1497 43.6124 44.3278 44.8264 45.0955 45.4245 45.8433 46.0826 45.8931 46.0328 45.6140 "
    "46.2820 46.2820 46.0028 46.0328 46.4116 46.2222 45.6439"
)
RSI_14 = [70.53, 66.32, 66.55, 69.41, 66.36, 57.97]


def candles(count: int) -> np.ndarray:
    rows = np.zeros(count, CANDLE)
    rows["ts_ms"] = np.arange(count) * 60_000
    rows["open"] = rows["close"] = 100.0 + np.arange(count)
    rows["high"], rows["low"] = rows["close"] + 2, rows["close"] - 1
    rows["volume"] = 1.0 + np.arange(count) % 3
    rows["turnover"] = rows["volume"] * rows["close"]
    rows["flags"] = CandleFlag.CLOSED | CandleFlag.TRADED
    return rows


def test_means() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(SMA(3).push(values), [np.nan, np.nan, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(EMA(3).push(values), [np.nan, np.nan, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(EMA(1).push(values), values)
    rows = candles(4)
    np.testing.assert_array_equal(SMA(1, field="volume").push(rows), rows["volume"])


def test_rsi_as_published() -> None:
    values = np.array([float(close) for close in CLOSES.split()])
    found = RSI(14).push(values)
    assert np.isnan(found[:14]).all()
    np.testing.assert_allclose(found[14:], RSI_14, atol=0.06)


def test_rsi_where_nothing_fell_and_where_nothing_moved() -> None:
    assert RSI(3).push(np.arange(10.0))[-1] == 100.0
    assert RSI(3).push(-np.arange(10.0))[-1] == 0.0
    assert RSI(3).push(np.ones(10))[-1] == 50.0


def test_true_range_reaches_back_to_the_close_before() -> None:
    rows = candles(3)
    rows["close"][0] = 90.0
    # 3, then 103 - 90, then 104 - 101
    np.testing.assert_array_equal(ATR(2).push(rows), [np.nan, 8.0, (8.0 * 1 + 3.0) / 2])


def test_vwap_rolling_and_from_the_days_begin() -> None:
    rows = candles(3)
    money, volume = rows["turnover"], rows["volume"]
    rolling = VWAP(2).push(rows)
    np.testing.assert_array_equal(np.isnan(rolling), [True, False, False])
    assert rolling[2] == (money[1] + money[2]) / (volume[1] + volume[2])
    rows["ts_ms"] = [DAY - 2, DAY - 1, DAY]
    found = VWAP().push(rows)
    assert found[1] == (money[0] + money[1]) / (volume[0] + volume[1])
    assert found[2] == money[2] / volume[2]
    rows["flags"] = CandleFlag.CLOSED
    assert VWAP(1).push(rows)[0] == (rows["high"][0] + rows["low"][0] + rows["close"][0]) / 3.0
    rows["volume"] = 0.0
    assert np.isnan(VWAP().push(rows)).all()


def test_weeks_begin_on_monday() -> None:
    rows = candles(2)
    rows["ts_ms"] = [3 * DAY, 4 * DAY]  # Sunday, Monday
    assert VWAP(anchor="1w").push(rows)[1] == 101.0


@pytest.mark.parametrize("anchor", ["1d", "1w", "1M"])
def test_an_anchor_in_a_named_zone_is_that_of_its_windows(anchor: str) -> None:
    rows = candles(400)
    # Over both changes of clocks: days of 23 and of 25 hours, and a turn of the year.
    rows["ts_ms"] = 1_698_000_000_000 + np.arange(400) * 13 * 3_600_000
    found = VWAP(anchor=anchor, timezone="Europe/Berlin").push(rows)
    opens = zone.edges(anchor, "Europe/Berlin", int(rows["ts_ms"][0]), int(rows["ts_ms"][-1]))
    bucket = np.searchsorted(opens, rows["ts_ms"], side="right")
    for of in np.unique(bucket):
        inside = bucket == of
        money, volume = np.cumsum(rows["turnover"][inside]), np.cumsum(rows["volume"][inside])
        np.testing.assert_array_equal(found[inside], money / volume)
    live = VWAP(anchor=anchor, timezone="Europe/Berlin")
    assert np.concatenate([live.push(row) for row in np.split(rows, 400)]).tobytes() == found.tobytes()
    assert found.tobytes() != VWAP(anchor=anchor).push(rows).tobytes()


def test_a_zone_is_checked() -> None:
    with pytest.raises(InvalidNameError, match="no time zone"):
        VWAP(timezone="Mars/Olympus")
    rows = candles(1)
    rows["ts_ms"] = -(2**62)
    with pytest.raises(ValueError, match="only the years"):
        VWAP(timezone="Asia/Tokyo").push(rows)
    assert len(VWAP(timezone="Asia/Tokyo").push(rows[:0])) == 0


@pytest.mark.parametrize("make", [SMA, EMA, RSI, ATR, VWAP])
def test_live_is_bulk_to_the_bit(make: type[SMA]) -> None:
    rows = candles(500)
    rows["close"] += np.random.default_rng(2).normal(0, 1, 500)
    live = make(7)
    found = np.concatenate([live.push(row) for row in np.split(rows, 500)])
    bulk = make(7).push(rows)
    assert found.tobytes() == bulk.tobytes()
    assert live.value == bulk[-1]


def test_a_candle_older_than_the_newest_is_skipped() -> None:
    rows = candles(5)
    mean = SMA(2)
    mean.push(rows)
    assert mean.push(rows[2:4]).tolist() == [mean.value, mean.value]
    assert mean.skipped == 2


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("make", [SMA, EMA, RSI, ATR, VWAP, lambda n: VWAP(anchor="1h")])
def test_a_corrected_last_bar_is_what_bulk_would_have_had(make: Callable[[int], SMA], n: int) -> None:
    """C-12: forming candles, and every final one corrected once more; before the epoch too."""
    rows = candles(300)
    rows["ts_ms"] -= 100 * 60_000
    rng = np.random.default_rng(3)
    rows["close"] += rng.normal(0, 1, 300)
    wrong = rows.copy()
    wrong["close"] = rng.normal(50, 9, 300)
    wrong["high"] *= 3
    wrong["volume"] += 5
    wrong["close"][17] = np.nan
    live, values = make(n), []
    for i in range(300):
        live.push(np.concatenate([wrong[i : i + 1], wrong[i : i + 1]]))
        live.push(wrong[i : i + 1])
        values.append(live.push(rows[i : i + 1])[0])
    assert live.skipped == 0
    bulk = make(n).push(rows)
    np.testing.assert_array_equal(values, bulk)
    assert make(n).push(np.repeat(rows, 2))[1::2].tobytes() == bulk.tobytes()


def test_indicators_begin_after_the_leading_nan_as_ta_lib_does() -> None:
    """N2."""
    leading = np.array([np.nan, 1.0, 2.0, 3.0, 4.0, 5.0])
    for make in (SMA, EMA):
        np.testing.assert_array_equal(make(3).push(leading), [np.nan, np.nan, np.nan, 2.0, 3.0, 4.0])
    assert np.isnan(RSI(2).push(np.full(5, np.nan))).all()
    of_rsi = EMA(3).push(RSI(2).push(np.arange(10.0) % 4))
    assert np.isnan(of_rsi[:4]).all()
    assert np.isfinite(of_rsi[4:]).all()


@pytest.mark.parametrize("make", [SMA, EMA, RSI, ATR, VWAP, lambda n: VWAP(anchor="1h")])
def test_a_nan_inside_gives_nan_and_is_otherwise_as_if_it_had_not_been(make: Callable[[int], SMA]) -> None:
    """N2, for one push and for many."""
    rows = candles(100)
    holes = np.array([0, 1, 20, 21, 50])
    for name in ("open", "high", "low", "close", "volume", "turnover"):
        rows[name][holes] = np.nan
    left = np.delete(rows, holes)
    expected = np.insert(make(4).push(left), holes - np.arange(len(holes)), np.nan)
    np.testing.assert_array_equal(make(4).push(rows), expected)
    live = make(4)
    np.testing.assert_array_equal(np.concatenate([live.push(row) for row in np.split(rows, 100)]), expected)


def test_a_close_that_is_nan_does_not_move_the_true_range() -> None:
    rows = candles(4)
    rows["close"][2] = np.nan
    found = ATR(1).push(rows)
    assert np.isnan(found[2])
    assert found[3] == rows["high"][3] - rows["close"][1]


def test_nothing_traded_has_no_price() -> None:
    """N5: volume 0 of either sign, in a TRADED row."""
    rows = candles(4)
    rows["volume"], rows["turnover"] = [0.0, -0.0, 0.0, 2.0], [0.0, 0.0, -0.0, 8.0]
    for make in (lambda: VWAP(1), VWAP):
        np.testing.assert_array_equal(make().push(rows), [np.nan, np.nan, np.nan, 4.0])
    assert np.isnan(VWAP(2).push(rows)[:3]).all()


@pytest.mark.parametrize("make", [SMA, EMA, RSI, ATR, VWAP])
@pytest.mark.parametrize("n", [2.9, 2.0, "3", None])
def test_a_length_is_a_whole_number(make: type[SMA], n: object) -> None:
    """N5."""
    if make is VWAP and n is None:
        return  # anchored
    unchecked: Callable[[object], SMA] = make
    with pytest.raises(TypeError):
        unchecked(n)
    assert len(unchecked(np.int64(3)).push(candles(2))) == 2


def test_what_is_asked_for_is_checked() -> None:
    for n in (0, -1, MAX_INDICATOR_ROWS + 1):
        with pytest.raises(ValueError, match="rows are not"):
            SMA(n)
    with pytest.raises(ValueError, match="field"):
        SMA(3, field="ts_ms")
    with pytest.raises(InvalidNameError, match="interval"):
        VWAP(anchor="day")
    for rows in (np.zeros(3, TRADE), np.zeros(3, np.float32), np.zeros((2, 2)), np.zeros(6)[::2]):
        with pytest.raises(ValueError, match="rows are"):
            SMA(3).push(rows)
    for make in (ATR, VWAP):
        with pytest.raises(ValueError, match="not CANDLE, contiguous"):
            make(3).push(np.zeros(3))
    assert np.isnan(SMA(3).value)
    assert len(SMA(3).push(np.zeros(0))) == 0
