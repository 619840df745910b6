"""C-8: rows out of what holds a table, in `resample` and for `Feed.send`; batches in, a batch out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flux.batch import Candles, Quotes, Trades
from flux.errors import EncodeError
from flux.indicator import SMA
from flux.model import CANDLE, QUOTE, TRADE, CandleFlag, RowKind, StreamKey
from flux.tables import rows_of
from flux.window import Window, resample
from tests.unit.test_window import minutes

KEY = StreamKey("SIM", "BTC/USDT", "1m")
T0 = 1_700_000_040_000


def candles() -> np.ndarray:
    rows = minutes(120)
    rows["ts_ms"] += T0
    return rows


def batch() -> Candles:
    return Candles(KEY, 7, candles(), epoch=2, store_id=5)


def test_a_batch_is_resampled_to_a_batch() -> None:
    pyarrow, duckdb = pytest.importorskip("pyarrow"), pytest.importorskip("duckdb")
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    found = resample(batch(), "5m")
    assert type(found) is Candles
    assert (found.key, found.start_sequence) == (KEY._replace(interval="5m"), 1)
    assert found.rows.tobytes() == resample(candles(), "5m").tobytes()
    assert duckdb.sql("select count(*), max(sequence) from found").fetchall() == [(25, 25)]
    table = pyarrow.table(found)
    assert table.schema.field("ts_ms").type == pyarrow.timestamp("ms", "UTC")
    assert polars.DataFrame(found).height == 25
    assert found.to_df().index.equals(pandas.to_datetime(found.ts_ms, unit="ms", utc=True))
    assert resample(resample(batch(), "5m"), "1h").rows.tobytes() == resample(found.rows, "1h").tobytes()


def test_other_kinds_of_batches() -> None:
    trades = np.zeros(3, TRADE)
    trades["price"] = [1.0, 2.0, 3.0]
    found = resample(Trades(StreamKey("SIM", "X", "trade"), 1, trades), "1m")
    assert (found.key, found.close.tolist()) == (StreamKey("SIM", "X", "1m"), [3.0])
    assert resample(Quotes(None, 1, np.zeros(1, QUOTE)), "1m").key is None


@pytest.mark.parametrize(
    ("step", "interval"),
    [
        ("1m", "1s"),
        ("1h", "1m"),
        ("3m", "5m"),
        ("4h", "6h"),
        ("3d", "1w"),
        ("1w", "1M"),
        ("3d", "1M"),
        ("1M", "1d"),
    ],
)
def test_candles_that_do_not_fill_a_bucket(step: str, interval: str) -> None:
    """A batch knows its own interval: one that is longer than what is asked for, or no part of it, is refused."""
    rows = candles()
    given = Candles(StreamKey("SIM", "X", step), 1, rows)
    for take in (lambda: resample(given, interval), lambda: Window(interval).push(given)):
        with pytest.raises(ValueError, match=f"candles of {step} .* do not make candles of {interval}"):
            take()
    with pytest.raises(ValueError, match="of="):
        resample(rows, interval, of=step)
    for whole in (step, "1M" if step.endswith(("m", "h")) else step):
        resample(given, whole)


def test_window_and_indicators_take_batches() -> None:
    assert Window("5m").push(batch()).tobytes() == Window("5m").push(candles()).tobytes()
    assert SMA(3).push(batch()).tobytes() == SMA(3).push(candles()).tobytes()


def tables() -> dict[str, Any]:
    pandas, _, _ = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    duckdb = pytest.importorskip("duckdb")
    made, rows = batch(), candles()
    frame = made.to_df()
    plain = {name: rows[name] for name in CANDLE.names or ()}
    renamed = frame.drop(columns="sequence").rename(columns=str.title)
    naive = renamed.tz_convert(None)
    naive.index.name = "Datetime"
    return {
        "batch": made,
        "array": rows,
        "dict": plain,
        "lists": {name: values.tolist() for name, values in plain.items()},
        "structured": rows.astype([(name.upper(), CANDLE[name]) for name in CANDLE.names or ()]),
        "pandas with a zoned index": frame,
        "pandas of the batch": pandas.DataFrame(made),
        "pandas as yfinance has it": naive,
        "pandas with a zoned column": frame.reset_index().rename(columns={"ts_ms": "timestamp"}),
        "polars": made.to_polars(),
        "pyarrow": made.to_arrow(),
        "record batch": made.to_arrow().to_batches()[0],
        "duckdb": duckdb.sql("from made"),
    }


@pytest.mark.parametrize("name", tables())
def test_tables_are_taken_by_their_names(name: str) -> None:
    table = tables()[name]
    assert rows_of(table, RowKind.CANDLE).tobytes() == candles().tobytes()
    assert rows_of(table).tobytes() == candles().tobytes()
    assert len(resample(table, "1h")) == len(resample(candles(), "1h"))


def test_trades_and_quotes_are_told_by_their_columns() -> None:
    rows = rows_of({"ts_ns": [1, 2], "price": [1.5, 2.0], "size": [1, 2], "trade_id": [2**63, 2**64 - 1]})
    assert rows.dtype == TRADE
    assert rows["trade_id"].tolist() == [2**63, 2**64 - 1]
    times = np.array(["2024-01-15T00:00:00.000000001"], "M8[ns]")
    quotes = rows_of({"Time": times, "Bid": [1.0], "Ask": [2.0]})
    assert (quotes.dtype, quotes["ts_ns"].tolist()) == (QUOTE, [1_705_276_800_000_000_001])


def test_what_is_known_is_said_in_the_flags() -> None:
    """N3."""
    plain = {name: candles()[name] for name in ("ts_ms", "open", "high", "low", "close", "volume")}
    both = {"turnover": candles()["turnover"], "trade_count": candles()["trade_count"]}
    assert set(rows_of(plain)["flags"]) == {CandleFlag.CLOSED}
    assert set(rows_of(plain | both)["flags"]) == {CandleFlag.CLOSED | CandleFlag.TRADED}
    for name, flag in (("turnover", CandleFlag.TURNOVER), ("trade_count", CandleFlag.TRADE_COUNT)):
        assert set(rows_of(plain | {name: both[name]})["flags"]) == {CandleFlag.CLOSED | flag}


def changed(name: str, values: Any) -> dict[str, Any]:
    return {**{column: candles()[column][:2] for column in CANDLE.names or ()}, name: values}


@pytest.mark.parametrize(
    "given", [None, 3, "rows", [], [(1, 2)], object(), np.zeros(3), batch, {}, {"close": [1.0]}]
)
def test_what_is_no_table_is_said_with_what_is(given: object) -> None:
    for take in (rows_of, lambda rows: resample(rows, "5m")):
        with pytest.raises((TypeError, ValueError), match=r"rows are|without"):
            take(given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (changed("ts_ms", [1.5, 2.0]), "ts_ms"),
        (changed("ts_ms", ["2024-01-01", "2024-01-02"]), "ts_ms"),
        (changed("ts_ms", np.array(["2024-01-01", "NaT"], "M8[s]")), "row 1.*NaT"),
        (changed("ts_ms", np.array(["2024-01-01T00:00:00.0005"] * 2, "M8[us]")), "row 0.*whole ms"),
        (changed("trade_count", [1, 2**32]), "row 1.*4294967296 does not fit uint32"),
        (changed("trade_count", [1.5, 2.0]), "row 0.*1.5"),
        (changed("trade_count", [-1, 0]), "row 0.*-1"),
        (changed("trade_count", [1.0, np.nan]), "row 1.*nan"),
        (changed("close", ["1", "2"]), "close"),
        (changed("close", [1.0]), "close has shape"),
        (np.zeros(2, TRADE), "takes a 1-d array of CANDLE rows"),
        (candles()[:2].reshape(1, 2), "takes a 1-d array of CANDLE rows"),
    ],
)
def test_a_value_that_a_row_cannot_hold_is_refused_with_its_place(given: object, said: str) -> None:
    with pytest.raises(EncodeError, match=said):
        rows_of(given, RowKind.CANDLE)
