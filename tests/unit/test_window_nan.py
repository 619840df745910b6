"""N2: a NaN is no value, in bulk and live."""

from __future__ import annotations

import numpy as np
import pytest

from flux.model import CANDLE, QUOTE, TRADE, CandleFlag
from flux.window import Window, resample
from tests.unit.test_window import minutes

CLOSED, TRADED = CandleFlag.CLOSED, CandleFlag.TRADED


def test_nan_is_no_value_as_in_pandas() -> None:
    """N2."""
    pandas = pytest.importorskip("pandas")
    rows, rng = minutes(3_000), np.random.default_rng(7)
    rows["flags"] = CLOSED | TRADED
    for name in ("open", "high", "low", "close", "volume", "turnover"):
        rows[name][rng.random(3_000) < 0.4] = np.nan
        rows[name][1_000:1_017] = np.nan  # three buckets without a value
    frame = pandas.DataFrame({name: rows[name].copy() for name in CANDLE.names or ()})
    frame.index = pandas.to_datetime(rows["ts_ms"], unit="ms")
    how = {"open": "first", "high": "max", "low": "min", "close": "last", "volume": "sum", "turnover": "sum"}
    expected = frame.resample("5min").agg(how)
    found = resample(rows, "5m")
    for name in how:
        np.testing.assert_allclose(found[name], expected[name].to_numpy(), rtol=1e-13)
    window = Window("5m")
    live = np.concatenate([*[window.push(part) for part in np.array_split(rows, 999)], window.partial()])
    assert live.tobytes() == found.tobytes()


def test_a_price_that_is_nan_leaves_its_bucket_alone() -> None:
    """N2, for trades and quotes."""
    trades = np.zeros(3, TRADE)
    trades["price"], trades["size"] = [np.nan, 11.0, np.nan], [1.0, np.nan, 0.5]
    assert resample(trades, "1s").tolist() == [(0, 11.0, 11.0, 11.0, 11.0, 1.5, 0.0, 3, TRADED)]
    quotes = np.zeros(3, QUOTE)
    quotes["bid"], quotes["ask"] = [np.nan, 1.0, 2.0], [1.0, 3.0, np.nan]
    assert resample(quotes, "1s").tolist() == [(0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0, 0)]
