"""The indicators: the price of a row in bulk (`pytest -s` shows it)."""

from __future__ import annotations

import time

import numpy as np
import pytest

from flux.indicator import ATR, EMA, RSI, SMA, VWAP
from flux.model import CANDLE

ROWS = 500_000


@pytest.mark.informational
@pytest.mark.parametrize("make", [SMA, EMA, RSI, ATR, VWAP])
def test_a_row(make: type[SMA]) -> None:
    rows = np.zeros(ROWS, CANDLE)
    rows["ts_ms"] = np.arange(ROWS)
    rows["close"] = 100 + np.cumsum(np.random.default_rng(1).normal(0, 0.01, ROWS))
    rows["high"], rows["low"], rows["volume"] = rows["close"] + 1, rows["close"] - 1, 1.0
    taken = []
    for _ in range(5):
        indicator = make(20)
        start = time.perf_counter_ns()
        indicator.push(rows)
        taken.append(time.perf_counter_ns() - start)
    print(f"\n{make.__name__}(20): {min(taken) / ROWS:.1f} ns a row")
