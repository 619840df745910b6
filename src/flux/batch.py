"""Rows of one stream with what they are: what `codec.decode`, `Live` and `Historical` give.

A batch from `codec.decode` lends a read-only view that keeps its frame alive; nothing is read from the frame
before it is asked for, so that making one costs the same whatever it holds. A batch from `Live` or
`Historical` owns its rows.

This file is the door of `ext/arrow.pyx`: a batch gives itself to whatever speaks the Arrow PyCapsule interface
(`duckdb.sql("from batch")`, `polars.DataFrame(batch)`, `pyarrow.table(batch)`), and needs none of them for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, NamedTuple, Self, TypeVar, overload

import numpy as np

from flux.kernels import arrow as _arrow
from flux.model import CANDLE, INTERVALS_MS, QUOTE, TRADE, CandleFlag, RowKind, StreamKey

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

_FROM_FRAME: Final = (
    "key",
    "start_sequence",
    "rows",
    "epoch",
    "store_id",
    "stream_id",
    "origin_ns",
    "recorded_ns",
    "schema_version",
    "message_type",
    "type_hint",
    "correlation_id",
)


_T = TypeVar("_T", bound=np.generic)
_B = TypeVar("_B", bound="Batch")


class Column(Generic[_T]):
    """A column of a batch's rows, by the attribute's own name: an array of `_T`, read-only, a view of `rows`."""

    __slots__ = ("_name",)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, batch: None, owner: type) -> Self: ...
    @overload
    def __get__(self, batch: Batch, owner: type) -> np.ndarray[tuple[int], np.dtype[_T]]: ...
    def __get__(self, batch: Batch | None, owner: type) -> Self | np.ndarray[tuple[int], np.dtype[_T]]:
        return self if batch is None else batch.rows[self._name]


class CandleRow(NamedTuple):
    """One row of `Candles`: times in epoch ms, `flags` as `CandleFlag`."""

    ts_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float
    turnover: float
    trade_count: int
    flags: int
    sequence: int


class TradeRow(NamedTuple):
    """One row of `Trades`: times in epoch ns, `flags` as `TradeFlag`."""

    ts_ns: int
    price: float
    size: float
    trade_id: int
    flags: int
    sequence: int


class QuoteRow(NamedTuple):
    """One row of `Quotes`: times in epoch ns."""

    ts_ns: int
    bid: float
    ask: float
    bid_size: float
    ask_size: float
    sequence: int


class Batch:
    """What `Candles`, `Trades` and `Quotes` share. `batch.close` and so on are read-only views of one column of `rows`.

    `key` is None only where a message of version 1 carried none; names that a message left out read "". Rows
    have `start_sequence`, `start_sequence + 1`, ... unless they were chosen by time, where corrections and late rows
    lie between: `sequences` is true for every row, always. `cached` says that they come from the local cache.
    """

    __slots__ = (*_FROM_FRAME, "_frame", "_sequences", "cached")

    kind: ClassVar[RowKind] = RowKind.NONE
    dtype: ClassVar[np.dtype[np.void]]
    time_field: ClassVar[str]
    _record: ClassVar[Callable[..., Any]]

    key: StreamKey | None
    start_sequence: int
    rows: np.ndarray[Any, np.dtype[np.void]]
    epoch: int
    store_id: int
    stream_id: int
    origin_ns: int
    recorded_ns: int
    schema_version: int
    message_type: int
    type_hint: int
    correlation_id: str | None
    cached: bool

    def __init__(
        self,
        key: StreamKey | None,
        start_sequence: int,
        rows: np.ndarray[Any, np.dtype[np.void]],
        *,
        epoch: int = 0,
        store_id: int = 0,
        stream_id: int = 0,
        origin_ns: int = 0,
        recorded_ns: int = 0,
        cached: bool = False,
        sequences: np.ndarray[Any, np.dtype[np.uint64]] | None = None,
    ) -> None:
        """A batch of `rows` (1-d, of this class's dtype), which it keeps and lends read-only.

        `sequences` (u8[n]), where the rows do not count from `start_sequence`, which is then the lowest of them.
        Raises `TypeError` where the rows are of another dtype, `ValueError` where there is not a sequence for each.
        """
        if rows.dtype != self.dtype or rows.ndim != 1:
            raise TypeError(
                f"{type(self).__name__} holds rows of {self.dtype}, not {rows.ndim}-d {rows.dtype}"
            )
        if rows.flags.writeable:
            rows = rows.view()
            rows.flags.writeable = False
        if sequences is not None and sequences.shape != rows.shape:
            raise ValueError(f"{len(sequences)} sequences for {len(rows)} rows")
        self._frame = None
        self._sequences = None if sequences is None else np.ascontiguousarray(sequences, np.uint64)
        self.key = key
        self.start_sequence = start_sequence
        self.rows = rows
        self.epoch = epoch
        self.store_id = store_id
        self.stream_id = stream_id
        self.origin_ns = origin_ns
        self.recorded_ns = recorded_ns
        self.schema_version = 2
        self.message_type = self.type_hint = 0
        self.correlation_id = None
        self.cached = cached

    if not TYPE_CHECKING:  # to a type checker only what is declared is there

        def __getattr__(self, name):
            # Called only for what is not set: a field of the frame, read now and kept.
            if name in _FROM_FRAME:
                value = getattr(self._frame, name)
                setattr(self, name, value)
                return value
            if name == "cached":
                return False
            if name == "_sequences":
                return None
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def end_sequence(self) -> int:
        """The highest sequence of a row; `start_sequence - 1` without rows."""
        if self._sequences is not None and len(self._sequences):
            return int(self._sequences.max())
        return self.start_sequence + len(self.rows) - 1

    @property
    def sequences(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """The sequence of every row: u8[n], read-only."""
        if self._sequences is None:
            found = np.arange(len(self.rows), dtype=np.uint64) + np.uint64(self.start_sequence)
        else:
            found = self._sequences.view()
        found.flags.writeable = False
        return found

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        key = str(self.key) if self.key is not None else "no key"
        if not len(self.rows):
            return f"<{type(self).__name__} {key!a} empty at {self.start_sequence}>"
        return (
            f"<{type(self).__name__} {key!a} {self.start_sequence}..{self.end_sequence} epoch {self.epoch}>"
        )

    def __iter__(self) -> Iterator[Any]:
        """Rows as named tuples of Python's own numbers (`CandleRow`, `TradeRow`, `QuoteRow`): for a look at a few, and
        `pandas.DataFrame(batch)`. A loop over many belongs to `rows` and the columns, as `to_df` has them."""
        names = [name for name in self.dtype.names or () if name != "reserved"]
        columns = [self.rows[name].tolist() for name in names]
        return map(self._record, *columns, self.sequences.tolist())

    def __copy__(self) -> Self:
        return self  # nothing in it changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        make, state = self.__reduce__()
        return make(*state)

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...]]:
        """For copies and pickle: a batch that owns its rows, read-only, and keeps no frame alive."""
        fields = {name: getattr(self, name) for name in (*_FROM_FRAME, "cached") if name != "rows"}
        return _owning, (type(self), fields, self.rows.tobytes(), self._sequences)

    def to_numpy(self) -> np.ndarray[Any, np.dtype[np.void]]:
        """The rows as an array of the caller's own: a copy, writable and aligned."""
        return self.rows.copy()

    def to_df(self, *, label: str = "open") -> pandas.DataFrame:
        """The rows as a pandas DataFrame with a `sequence` column, indexed by time (UTC).

        `label="close"` puts a candle's label at the end of its interval instead of its open; raises
        `ValueError` where the interval has no fixed length. Needs pandas (`pip install
        flux-marketdata[pandas]`).
        """
        import pandas  # late: heavy and optional

        if label not in ("open", "close"):
            raise ValueError(f"label is 'open' or 'close', not {label!r}")
        unit = "ms" if self.time_field == "ts_ms" else "ns"
        times = self.rows[self.time_field] + self._label_shift_ms(label)
        names = [name for name in self.dtype.names or () if name not in (self.time_field, "reserved")]
        columns = {name: np.ascontiguousarray(self.rows[name]) for name in names}
        columns["sequence"] = self.sequences
        index = pandas.DatetimeIndex(times.astype(f"datetime64[{unit}]"), tz="UTC", name=self.time_field)
        return pandas.DataFrame(columns, index=index)

    def to_arrow(self) -> pyarrow.Table:
        """The rows as a pyarrow Table of the columns that `__arrow_c_stream__` describes, one chunk each. Needs
        pyarrow (`pip install flux-marketdata[arrow]`)."""
        import pyarrow  # late: heavy and optional

        return pyarrow.table(self)

    def to_polars(self) -> polars.DataFrame:
        """The rows as a polars DataFrame of the columns that `__arrow_c_stream__` describes. Needs polars (`pip
        install flux-marketdata[polars]`)."""
        import polars  # late: heavy and optional

        return polars.DataFrame(self)

    def __arrow_c_schema__(self) -> Any:
        """A capsule `arrow_schema` of what the two below give when nothing is requested."""
        return _arrow.export_schema(self.kind, self._arrow_metadata())

    def __arrow_c_array__(self, requested_schema: Any = None) -> tuple[Any, Any]:
        """Capsules (`arrow_schema`, `arrow_array`) of the rows as a struct array, one column for each field.

        The time is `timestamp[ms, UTC]` (candles) or `timestamp[ns, UTC]`, prices and sizes `double`, counts and
        flags `uint32`, `trade_id` and, behind the row's own fields, `sequence` `uint64`; `reserved` is left out.
        No value is null. The schema's metadata name the stream: `source_id symbol interval epoch store_id`.

        The columns are a copy, made here, owned by the capsule until a consumer takes them, and released by it
        on any thread: they outlive batch and frame. `requested_schema` is heeded where it costs nothing: the time
        in its own unit under another zone, or as `int64`. Raises `ValueError` where its fields are others.
        """
        return _arrow.export_array(
            self.rows, self.kind, self._numbered(), self._arrow_metadata(), requested_schema
        )

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        """A capsule `arrow_array_stream` that gives what `__arrow_c_array__` does, as one array."""
        return _arrow.export_stream(
            self.rows, self.kind, self._numbered(), self._arrow_metadata(), requested_schema
        )

    def _numbered(self) -> int | np.ndarray[Any, np.dtype[np.uint64]]:
        """The first row's sequence where they count from it, else all of them."""
        return self.start_sequence if self._sequences is None else self._sequences

    def _arrow_metadata(self) -> bytes:
        """Names and values as the C data interface has them: a count, then each with its length, int32."""
        said = {} if self.key is None else self.key._asdict()
        said |= {"epoch": str(self.epoch), "store_id": str(self.store_id)}
        texts = [text.encode() for pair in said.items() for text in pair]
        return struct.pack("=i", len(said)) + b"".join(struct.pack("=i", len(t)) + t for t in texts)

    def _label_shift_ms(self, label: str) -> int:
        if label == "open" or self.kind != RowKind.CANDLE:
            return 0
        interval = self.key.interval if self.key is not None else ""
        if not INTERVALS_MS.get(interval):
            raise ValueError(f"interval {interval!a} has no fixed length: label='open' only")
        return INTERVALS_MS[interval]


def _owning(
    kind: type[_B],
    fields: dict[str, Any],
    rows: bytes,
    sequences: np.ndarray[Any, np.dtype[np.uint64]] | None,
) -> _B:
    """A batch made anew from what another one was; nothing can write to its rows, which are bytes."""
    own = np.frombuffer(rows, kind.dtype) if rows else np.empty(0, kind.dtype)
    made = kind(fields["key"], fields["start_sequence"], own, sequences=sequences)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


class Candles(Batch):
    """Closed candles of one stream. `batch.vwap` is turnover / volume, NaN where they are not known."""

    __slots__ = ()
    kind = RowKind.CANDLE
    dtype = CANDLE
    time_field = "ts_ms"
    _record = CandleRow

    ts_ms = Column[np.int64]()
    open = Column[np.float64]()
    high = Column[np.float64]()
    low = Column[np.float64]()
    close = Column[np.float64]()
    volume = Column[np.float64]()
    turnover = Column[np.float64]()
    trade_count = Column[np.uint32]()
    flags = Column[np.uint32]()

    @property
    def vwap(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Turnover / volume for each row: f8, new. NaN where turnover is not known (neither TRADED nor TURNOVER) and
        where the volume is 0."""
        volume = self.rows["volume"]
        known = (self.rows["flags"] & (CandleFlag.TRADED | CandleFlag.TURNOVER)) != 0
        out = np.full(len(self.rows), np.nan)
        np.divide(self.rows["turnover"], volume, out=out, where=known & (volume != 0))
        return out


class Trades(Batch):
    """Trades of one stream, whose interval is `trade`."""

    __slots__ = ()
    kind = RowKind.TRADE
    dtype = TRADE
    time_field = "ts_ns"
    _record = TradeRow

    ts_ns = Column[np.int64]()
    price = Column[np.float64]()
    size = Column[np.float64]()
    trade_id = Column[np.uint64]()
    flags = Column[np.uint32]()


class Quotes(Batch):
    """Quotes of one stream, whose interval is `quote`."""

    __slots__ = ()
    kind = RowKind.QUOTE
    dtype = QUOTE
    time_field = "ts_ns"
    _record = QuoteRow

    ts_ns = Column[np.int64]()
    bid = Column[np.float64]()
    ask = Column[np.float64]()
    bid_size = Column[np.float64]()
    ask_size = Column[np.float64]()
