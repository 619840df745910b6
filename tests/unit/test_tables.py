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
        (changed("trade_count", np.array([0, 2**32], np.uint64)), "row 1.*4294967296"),
        (changed("trade_count", np.array([0, 2.0**32], np.float32)), r"row 1.*4\.2949673e\+09"),
        (changed("volume", np.array([2**53, 2**53 + 1])), "row 1: 9007199254740993 does not fit float64"),
        (changed("volume", np.array([2**53 + 1, 0], np.uint64)), "row 0: 9007199254740993"),
        (changed("volume", np.array([2**63 - 1, 0])), "row 0: 9223372036854775807"),
        (changed("volume", np.array([2**64 - 1, 0], np.uint64)), "row 0: 18446744073709551615"),
        (changed("volume", np.array(["2024-01-01"] * 2, "M8[s]")), "volume is datetime64.*numbers"),
        (changed("Close", candles()["close"][:2]), "column close is there twice"),
        (changed("CLOSE", [None, None]), "column close is there twice"),
        (changed("close", ["1", "2"]), "close"),
        (changed("close", [1.0]), "close has shape"),
        (np.zeros(2, TRADE), "takes a 1-d array of CANDLE rows"),
        (candles()[:2].reshape(1, 2), "takes a 1-d array of CANDLE rows"),
    ],
)
def test_a_value_that_a_row_cannot_hold_is_refused_with_its_place(given: object, said: str) -> None:
    with pytest.raises(EncodeError, match=said):
        rows_of(given, RowKind.CANDLE)


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "s", "ms", "us"])
def test_a_datetime_that_64_bits_of_ns_do_not_hold_is_refused(unit: str) -> None:
    held = ["1678-01-01", "1969-12-31", "2024-01-15", "2261-12-31"]
    for text in ("2500-01-01", "2263-01-01", "1600-01-01", "0001-01-01", "9999-01-01"):
        times = np.array([*held, text], f"M8[{unit}]")
        given = {"time": times, "price": np.ones(5), "size": np.ones(5)}
        with pytest.raises(EncodeError, match=r"column ts_ns, row 4: .* is no whole ns of the years 1678 to"):
            rows_of(given)
        fine = {name: values[:4] for name, values in given.items()}
        if unit != "W":  # its first week begins before
            assert rows_of(fine)["ts_ns"].astype("M8[ns]").tolist() == times[:4].astype("M8[ns]").tolist()
    if unit not in ("s", "ms", "us"):
        far = np.array(["300000000-01-01", "2024-01-01"], f"M8[{unit}]")
        with pytest.raises(EncodeError, match=r"column ts_ms, row 0"):
            rows_of({**changed("volume", [1.0, 1.0]), "ts_ms": far})


def test_numbers_that_a_row_holds_exactly_are_taken_and_no_others() -> None:
    for dtype in (np.int64, np.uint64):
        values = np.array([0, 2**53, 2**53 + 2, 2**63 - 1024], dtype)
        rows = rows_of({"ts_ns": [1, 2, 3, 4], "price": values, "size": values.astype(np.float32)})
        assert [int(value) for value in rows["price"]] == values.tolist()
    ids = rows_of({"ts_ns": [1, 2], "price": [1, 1], "size": [1, 1], "trade_id": [2.0**63, 2.0**64 - 2048]})
    assert ids["trade_id"].tolist() == [2**63, 2**64 - 2048]
    for beyond in (2.0**64, -1.0, 1e300, np.inf, -np.inf, np.nan, 0.5):
        with pytest.raises(EncodeError, match="column trade_id, row 0"):
            rows_of({"ts_ns": [1], "price": [1], "size": [1], "trade_id": [beyond]})
    assert np.isnan(rows_of({"ts_ns": [1], "price": [np.nan], "size": [1]})["price"][0])
    if np.finfo(np.longdouble).nmant > 52:
        long = np.array([1, np.nan], np.longdouble)
        rows = rows_of({"ts_ns": [1, 2], "price": long, "size": [1, 1]})
        assert rows["price"].tolist()[0] == 1.0
        with pytest.raises(EncodeError, match="column price, row 0"):
            rows_of({"ts_ns": [1, 2], "price": long + np.finfo(np.longdouble).eps, "size": [1, 1]})


def test_a_name_twice_is_refused_where_it_is_read_and_only_there() -> None:
    pandas, polars, pyarrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    twice = changed("CLOSE", candles()["close"][:2])
    arrow = pyarrow.table(list(twice.values()), list(twice))
    same = pyarrow.table(list(twice.values()), [name.lower() for name in twice])
    for table in (twice, pandas.DataFrame(twice), polars.DataFrame(twice), arrow, same):
        with pytest.raises(EncodeError, match="column close is there twice"):
            rows_of(table)
    beside = {**changed("note", [1, 2]), "Note": [3, 4]}
    assert rows_of(beside).tobytes() == candles()[:2].tobytes()
