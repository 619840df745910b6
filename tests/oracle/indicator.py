"""The indicators in plain Python, each value from all rows so far: the specification of ext/indicator.h.

A row that holds a NaN where the indicator looks gives NaN, and is as if it had not been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import isnan, nan

TRADED, TURNOVER = 32, 64
Candle = tuple  # ts_ms, open, high, low, close, volume, turnover, trade_count, flags


def rolling_sum(values: Sequence[float], n: int) -> float:
    """Of the last n values: those in the block now, forwards, and those in the block before, backwards."""
    begin = (len(values) - 1) // n * n
    so_far = after = 0.0
    for value in values[begin:]:
        so_far += value
    if begin == 0:
        return so_far
    for value in reversed(values[len(values) - n : begin]):
        after += value
    return after + so_far


def sma(values: Sequence[float], n: int) -> float:
    return rolling_sum(values, n) / n if len(values) >= n else nan


def ema(values: Sequence[float], n: int) -> float:
    if len(values) < n:
        return nan
    average = mean(values[:n])
    for value in values[n:]:
        average += (value - average) * (2.0 / (n + 1.0))
    return average


def mean(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total / len(values)


def wilder(values: Sequence[float], n: int) -> float:
    if len(values) < n:
        return nan
    average = mean(values[:n])
    for value in values[n:]:
        average = (average * (n - 1) + value) / n
    return average


def rsi(values: Sequence[float], n: int) -> float:
    changes = [new - old for old, new in pairwise(values)]
    if len(changes) < n:
        return nan
    gain = wilder([max(change, 0.0) for change in changes], n)
    loss = wilder([max(-change, 0.0) for change in changes], n)
    if loss == 0.0:
        return 50.0 if gain == 0.0 else 100.0
    return 100.0 - 100.0 / (1.0 + gain / loss)


def atr(candles: Sequence[Candle], n: int) -> float:
    ranges = [candles[0][2] - candles[0][3]]
    for old, new in pairwise(candles):
        ranges.append(max(new[2] - new[3], abs(new[2] - old[4]), abs(new[3] - old[4])))
    return wilder(ranges, n)


def turnover(candle: Candle) -> float:
    _, _, high, low, close, volume, known, _, flags = candle
    return known if flags & (TRADED | TURNOVER) else (high + low + close) / 3.0 * volume


def vwap(candles: Sequence[Candle], n: int) -> float:
    if len(candles) < n:
        return nan
    volume = rolling_sum([candle[5] for candle in candles], n)
    return rolling_sum([turnover(candle) for candle in candles], n) / volume if volume else nan


def vwap_anchored(candles: Sequence[Candle], length: int) -> float:
    today = [candle for candle in candles if candle[0] // length == candles[-1][0] // length]
    money = volume = 0.0
    for candle in today:
        money += turnover(candle)
        volume += candle[5]
    return money / volume if volume else nan


def looked_at(kind: str, candle: Candle, close: int = 4) -> float:
    """NaN where the indicator cannot use this candle."""
    if kind == "atr":
        return candle[2] - candle[3] + candle[4]
    if kind == "vwap":
        return turnover(candle) + candle[5]
    return candle[close]


def stream(
    kind: str, indicator: Callable[[Sequence[Candle]], float], candles: Sequence[Candle]
) -> list[float]:
    """One value for each candle; one of the newest one's time takes its place, an older one is skipped."""
    taken: list[Candle] = []
    out: list[float] = []
    for candle in candles:
        if taken and candle[0] < taken[-1][0]:
            out.append(out[-1])
            continue
        if taken and candle[0] == taken[-1][0]:
            taken.pop()
        taken.append(candle)
        good = [row for row in taken if not isnan(looked_at(kind, row))]
        out.append(nan if isnan(looked_at(kind, candle)) else indicator(good))
    return out
