"""The window: one-second candles into minutes, against reading the bytes and against those who group tables.

`pytest -s benchmarks/bench_window.py` shows the figures; FLUX_BENCH_ROWS=10000000 takes the size of the table.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks import ratios
from flux.model import CANDLE
from flux.window import Window, resample

ROWS = int(os.environ.get("FLUX_BENCH_ROWS", "2000000"))  # 128 MB: more than any cache
ROUNDS = 7
NUMBERS = ("open", "high", "low", "close", "volume", "turnover")


def best_ns(works: list[Callable[[], object]], rounds: int = ROUNDS) -> list[int]:
    """The shortest of some interleaved rounds of each: what it costs when nobody else has the machine."""
    taken: list[list[int]] = [[] for _ in works]
    for _ in range(rounds):
        for work, times in zip(works, taken, strict=True):
            start = time.perf_counter_ns()
            work()
            times.append(time.perf_counter_ns() - start)
    return [min(times) for times in taken]


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


@pytest.mark.gate
def test_seconds_into_minutes_against_reading_them(rows: np.ndarray) -> None:
    """Table: at most 1.6 times one read of the bytes; the gate allows twice that."""
    words = rows.view(np.uint64)
    ours, read = best_ns([lambda: resample(rows, "1m"), lambda: words.sum()])
    print(f"\nresample {ROWS} rows 1s -> 1m: {ours / ROWS:.1f} ns a row")
    ratios.at_most(f"window: {ROWS:,} rows of 1s into 1m / one read of their bytes", ours / read, 1.6)


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


@pytest.mark.gate
@pytest.mark.parametrize(
    ("name", "peer", "table"),
    [
        ("polars", polars_minutes, 2.0),
        ("pandas", pandas_minutes, 3.0),
        ("duckdb", duckdb_minutes, 3.0),
    ],
)
def test_seconds_into_minutes_against_peers(
    rows: np.ndarray, name: str, peer: Callable[[np.ndarray], Callable[[], Any]], table: float
) -> None:
    """Their tables stand ready in columns, on all cores; ours is one thread. The gate allows half the figure."""
    theirs = peer(rows)
    theirs()
    ours_ns, theirs_ns = best_ns([lambda: resample(rows, "1m"), theirs], 3)
    ratios.at_least(f"window: {ROWS:,} rows of 1s into 1m, {name} / ours", theirs_ns / ours_ns, table)


@pytest.mark.informational
def test_live(rows: np.ndarray) -> None:
    window, calls = Window("1m"), 20_000
    parts = [rows[i : i + 1] for i in range(calls)]

    def one_by_one() -> None:
        window = Window("1m")
        for part in parts:
            window.push(part)

    (one,) = best_ns([one_by_one], 3)
    batches = np.split(rows[: 64 * 10_000], 10_000)
    (many,) = best_ns([lambda: [window.push(part) for part in batches]], 1)
    print(f"\nWindow.push: {one / calls:.0f} ns for one row, {many / 640_000:.1f} ns a row in batches of 64")
