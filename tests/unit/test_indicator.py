"""The indicators' door: known values, warm-up, what is skipped, what is refused."""

from __future__ import annotations

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
    assert VWAP(anchor="1h", timezone="Asia/Tokyo").push(rows).shape == (1,), "hours are the same everywhere"


@pytest.mark.parametrize("make", [SMA, EMA, RSI, ATR, VWAP])
def test_live_is_bulk_to_the_bit(make: type[SMA]) -> None:
    rows = candles(500)
    rows["close"] += np.random.default_rng(2).normal(0, 1, 500)
    live = make(7)
    found = np.concatenate([live.push(row) for row in np.split(rows, 500)])
    bulk = make(7).push(rows)
    assert found.tobytes() == bulk.tobytes()
    assert live.value == bulk[-1]


def test_a_candle_that_is_not_newer_is_skipped() -> None:
    rows = candles(5)
    mean = SMA(2)
    mean.push(rows)
    assert mean.push(rows[2:4]).tolist() == [mean.value, mean.value]
    assert mean.skipped == 2


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
