"""The indicators: the price of a row in bulk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.sizes import of
from flux.indicator import ATR, EMA, RSI, SMA, VWAP
from flux.model import CANDLE

ROWS = of(5_000, 500_000)
WAYS = {made.__name__: made for made in (SMA, EMA, RSI, ATR, VWAP)}


@pytest.mark.informational
@pytest.mark.benchmark(group="indicator: period of 20")
@pytest.mark.parametrize("way", WAYS)
def test_rows(benchmark: Any, way: str) -> None:
    rows = np.zeros(ROWS, CANDLE)
    rows["ts_ms"] = np.arange(ROWS)
    rows["close"] = 100 + np.cumsum(np.random.default_rng(1).normal(0, 0.01, ROWS))
    rows["high"], rows["low"], rows["volume"] = rows["close"] + 1, rows["close"] - 1, 1.0
    benchmark.extra_info["items"] = ROWS
    benchmark(lambda: WAYS[way](20).push(rows))
