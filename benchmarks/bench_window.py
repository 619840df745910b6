"""The window: one-second candles into minutes, against reading the bytes and against those who group tables.

Their tables stand ready in columns, on all cores; ours is one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.sizes import of
from flux.model import CANDLE
from flux.window import Window, resample

ROWS = of(20_000, 2_000_000, 10_000_000)  # 128 MB: more than any cache
CALLS = of(1_000, 20_000)
NUMBERS = ("open", "high", "low", "close", "volume", "turnover")


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(1)
    made = np.zeros(ROWS, CANDLE)
    made["ts_ms"] = 1_700_000_040_000 + np.arange(ROWS) * 1_000
    made["close"] = 100 + np.cumsum(rng.normal(0, 0.01, ROWS))
    made["open"], made["high"], made["low"] = made["close"] + 0.01, made["close"] + 0.03, made["close"] - 0.02
    made["volume"] = rng.random(ROWS)
    made["turnover"] = made["volume"] * made["close"]
    made["trade_count"], made["flags"] = 3, 33
    return made


def ours(rows: np.ndarray) -> Callable[[], Any]:
    return lambda: resample(rows, "1m")


def one_read(rows: np.ndarray) -> Callable[[], Any]:
    words = rows.view(np.uint64)
    return lambda: words.sum()


def polars_minutes(rows: np.ndarray) -> Callable[[], Any]:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame(
        {
            "ts": rows["ts_ms"].astype("datetime64[ms]"),
            **{name: np.ascontiguousarray(rows[name]) for name in (*NUMBERS, "trade_count")},
        }
    ).set_sorted("ts")
    column = polars.col
    wanted = [
        column("open").first(),
        column("high").max(),
        column("low").min(),
        column("close").last(),
        column("volume").sum(),
        column("turnover").sum(),
        column("trade_count").sum(),
    ]
    return lambda: frame.group_by_dynamic("ts", every="1m").agg(wanted)


def pandas_minutes(rows: np.ndarray) -> Callable[[], Any]:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {name: np.ascontiguousarray(rows[name]) for name in (*NUMBERS, "trade_count")},
        index=pandas.DatetimeIndex(rows["ts_ms"].astype("datetime64[ms]")),
    )
    wanted = {"open": "first", "high": "max", "low": "min", "close": "last"}
    sums = dict.fromkeys(("volume", "turnover", "trade_count"), "sum")
    return lambda: frame.resample("1min").agg({**wanted, **sums})


def duckdb_minutes(rows: np.ndarray) -> Callable[[], Any]:
    duckdb = pytest.importorskip("duckdb")
    database = duckdb.connect()
    names = ("ts_ms", *NUMBERS, "trade_count")
    database.register("source", {name: np.ascontiguousarray(rows[name]) for name in names})
    database.execute("CREATE TABLE rows AS SELECT * FROM source")
    return lambda: database.execute(
        "SELECT ts_ms // 60000 * 60000 AS ts, arg_min(open, ts_ms), max(high), min(low), arg_max(close, ts_ms),"
        " sum(volume), sum(turnover), sum(trade_count) FROM rows GROUP BY ts ORDER BY ts"
    ).fetchnumpy()


WAYS = {
    "flux": ours,
    "one read": one_read,
    "polars": polars_minutes,
    "pandas": pandas_minutes,
    "duckdb": duckdb_minutes,
}


@pytest.mark.gate
@pytest.mark.benchmark(group="window: 1s into 1m")
@pytest.mark.parametrize("way", WAYS)
def test_seconds_into_minutes(benchmark: Any, rows: np.ndarray, way: str) -> None:
    benchmark.extra_info["items"] = ROWS
    benchmark(WAYS[way](rows))


@pytest.mark.informational
@pytest.mark.benchmark(group="window: Window.push, rows a call")
@pytest.mark.parametrize("way", [1, 64])
def test_live(benchmark: Any, rows: np.ndarray, way: int) -> None:
    parts = [rows[at : at + way] for at in range(0, min(CALLS * way, ROWS), way)]
    benchmark.extra_info["items"] = sum(map(len, parts))

    def one_by_one() -> None:
        window = Window("1m")
        for part in parts:
            window.push(part)

    benchmark(one_by_one)
