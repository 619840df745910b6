"""Rows out of whatever holds a table: what `flux.resample` and `Feed.send` take.

A batch and an array of rows are taken as they are. Of a pandas or polars DataFrame, a pyarrow Table or RecordBatch, a
mapping of columns, a structured array, or anything that exports Arrow (with pyarrow installed), the columns are taken
by their names, upper or lower case (one of them there twice is refused):

    candles   ts_ms (or time, timestamp, datetime, date), open, high, low, close, volume; turnover, trade_count, flags
    trades    ts_ns (or the same), price, size; trade_id, flags
    quotes    ts_ns (or the same), bid, ask; bid_size, ask_size

`ts_ms` and `ts_ns` may be whole numbers, epoch ms or ns; every other time is a datetime (without a zone UTC). pandas'
index counts where it is one. Without `flags` candles are CLOSED, and what is known of turnover and trade_count is said.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final, NoReturn, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flux.batch import Batch
from flux.errors import EncodeError
from flux.model import CANDLE, QUOTE, ROW_DTYPES, TRADE, RowKind, known_flags

Rows = NDArray[np.void]

_TIMES: Final = ("time", "timestamp", "datetime", "date")
_OPTIONAL: Final = ("turnover", "trade_count", "flags", "trade_id", "bid_size", "ask_size", "reserved")
_KINDS: Final = {CANDLE: RowKind.CANDLE, TRADE: RowKind.TRADE, QUOTE: RowKind.QUOTE}
_TAKEN: Final = (
    "rows are a batch, an array of CANDLE, TRADE or QUOTE, or a table with their columns (a pandas or polars DataFrame,"
    " a pyarrow Table, a dict of arrays, a structured array)"
)


class ArrowStream(Protocol):
    """What exports the Arrow C stream interface: batches, DataFrames of pandas and polars, pyarrow and duckdb."""

    def __arrow_c_stream__(self, requested_schema: Any = None, /) -> Any: ...


Table: TypeAlias = ArrowStream | Mapping[str, Any]

Columns = dict[str, Callable[[], Any]]


def rows_of(given: object, kind: RowKind | None = None) -> Rows:
    """`given` as a 1-d array of `kind`'s rows (None: of what its columns say); not a copy where it is one already.

    Raises `TypeError` for what is no table, or one without the columns; `EncodeError` for rows of another kind, and for
    values that a row cannot hold exactly.
    """
    if isinstance(given, Batch):
        given = given.rows
    if isinstance(given, np.ndarray) and given.dtype in _KINDS:
        if given.ndim != 1 or (kind is not None and _KINDS[given.dtype] is not kind):
            wanted = _KINDS[given.dtype] if kind is None else kind
            raise EncodeError(
                f"this takes a 1-d array of {wanted.name} rows, not {given.ndim}-d {given.dtype}"
            )
        return given
    columns = _columns(given)
    found = kind or _kind(columns)
    dtype = ROW_DTYPES[found]
    time_field = (dtype.names or ())[0]
    if missing := [name for name in dtype.names or () if name not in columns and name not in _OPTIONAL]:
        if missing == [time_field] and (other := next((name for name in _TIMES if name in columns), None)):
            columns[time_field] = columns[other]
        else:
            raise TypeError(f"a table of {found.name.lower()} rows without {' '.join(missing)}: {_TAKEN}")
    made: dict[str, NDArray[Any]] = {}
    for name in dtype.names or ():
        if name in columns and name != "reserved":
            made[name] = _exactly(name, np.asarray(columns[name]()), dtype[name])
    rows = np.zeros(len(made[time_field]), dtype)
    if found is RowKind.CANDLE and "flags" not in made:
        rows["flags"] = known_flags("turnover" in made, "trade_count" in made)
    for name, values in made.items():
        if values.shape != rows.shape:
            raise EncodeError(f"column {name} has shape {values.shape}, {time_field} {rows.shape}")
        rows[name] = values
    return rows


def _kind(columns: Columns) -> RowKind:
    if "price" in columns:
        return RowKind.TRADE
    return RowKind.QUOTE if "bid" in columns else RowKind.CANDLE


def _columns(given: Any) -> Columns:
    """Its columns by lower-case name, each a function that gives its values."""
    if (isinstance(given, np.ndarray) and given.dtype.names and given.ndim == 1) or isinstance(
        given, Mapping
    ):
        names = given.dtype.names if isinstance(given, np.ndarray) else given
        return _named((name, partial(operator.getitem, given, name)) for name in names)
    if hasattr(given, "column_names") and hasattr(given, "column"):  # pyarrow
        return _named((name, partial(_arrow_values, given, at)) for at, name in enumerate(given.column_names))
    if hasattr(given, "columns") and hasattr(given, "iloc"):  # pandas
        columns = _named(
            (name, partial(_pandas_values, given.iloc[:, at])) for at, name in enumerate(given.columns)
        )
        index = str(given.index.name or "time").lower()
        if index not in columns and (index in ("ts_ms", "ts_ns") or given.index.dtype.kind == "M"):
            columns[index] = partial(_pandas_values, given.index.to_series())
        return columns
    if hasattr(given, "columns") and hasattr(given, "get_column"):  # polars
        return _named((name, given.get_column(name).to_numpy) for name in given.columns)
    if hasattr(given, "__arrow_c_stream__") or hasattr(given, "__arrow_c_array__"):
        try:
            import pyarrow  # late: optional, and only for those who bring nothing that is read without it
        except ImportError as error:
            raise TypeError(f"{type(given).__name__} needs pyarrow to be read: {_TAKEN}") from error
        return _columns(pyarrow.table(given))
    raise TypeError(f"{type(given).__name__} is no table: {_TAKEN}")


def _named(columns: Iterable[tuple[object, Callable[[], Any]]]) -> Columns:
    """By lower-case name; one that is there twice raises `EncodeError` when it is asked for."""
    found: Columns = {}
    for given, values in columns:
        name = str(given).lower()
        found[name] = partial(_refuse_twice, name) if name in found else values
    return found


def _refuse_twice(name: str) -> NoReturn:
    raise EncodeError(f"column {name} is there twice (upper and lower case are one name)")


def _arrow_values(table: Any, at: int) -> Any:
    column = table.column(at)
    if column.null_count:
        raise EncodeError(f"{column.null_count} values are null")
    return column.to_numpy()


def _pandas_values(series: Any) -> Any:
    if getattr(series.dtype, "tz", None) is not None:
        series = series.dt.tz_convert(None)
    return series.to_numpy()


def _exactly(name: str, values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """`values` as `dtype`; raises `EncodeError` with the first index where that would be another value."""
    if name in ("ts_ms", "ts_ns") and values.dtype.kind == "M":
        return _epoch(name, values)
    if name in ("ts_ms", "ts_ns") and values.dtype.kind not in "iu":
        raise EncodeError(f"column {name} is {values.dtype}: whole numbers or datetimes are wanted")
    if values.dtype.kind not in "iufb" or (values.dtype.kind == "b" and dtype.kind == "f"):
        raise EncodeError(f"column {name} is {values.dtype}: numbers are wanted")
    with np.errstate(invalid="ignore", over="ignore"):
        made = values.astype(dtype)
    same = _same(made, values)
    if not same.all():
        at = int(np.argmin(same))
        raise EncodeError(f"column {name}, row {at}: {values[at]!s} does not fit {dtype}")
    return made


def _same(made: NDArray[Any], values: NDArray[Any]) -> NDArray[np.bool_]:
    """Where `made`, cast from `values`, is the same number. A NaN among floats is the same."""
    same: NDArray[np.bool_]
    if made.dtype.kind == values.dtype.kind == "f":
        same = (made == values) | np.isnan(values)
        return same
    if made.dtype.kind != "f" and values.dtype.kind != "f":
        # As doubles, too: a whole number beyond the type wraps, and must not be taken for what it wraps to.
        same = (made == values) & (made.astype(np.float64) == values.astype(np.float64))
        return same
    # One is whole numbers, the other floats: what is outside their type becomes whatever the processor makes of it,
    # so the floats are compared with its ends; inside, the cast back (or, of a fraction, the comparison) is exact.
    whole, floats = (values, made) if made.dtype.kind == "f" else (made, values)
    ends = np.iinfo(whole.dtype)
    inside = (floats >= float(ends.min)) & (floats < float(ends.max) + 1.0)
    with np.errstate(invalid="ignore"):
        same = inside & (floats.astype(whole.dtype) == whole) & (floats == np.trunc(floats))
    return same


def _epoch(name: str, values: NDArray[Any]) -> NDArray[np.int64]:
    unit, years = ("ms", "") if name == "ts_ms" else ("ns", " of the years 1678 to 2261")
    try:
        made = values.astype(f"M8[{unit}]")
        same = made.astype(values.dtype) == values  # cast back: what wrapped is another time; false for NaT
    except OverflowError:  # a numpy that looks
        raise EncodeError(f"column {name}: a time in it is no whole {unit}{years}") from None
    if not same.all():
        at = int(np.argmin(same))
        raise EncodeError(f"column {name}, row {at}: {values[at]!s} is no whole {unit}{years}")
    return made.astype(np.int64)
