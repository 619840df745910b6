"""The classes of decoded messages, but those of live rows (`flux.batch`): the schema's slots.

`flux.codec` makes them; the comments of `schemas/market_data.fbs` say what a slot means and its unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np

from flux import limits
from flux.errors import DecodeError
from flux.model import CANDLE, MARK, REFUSED, ROW_DTYPES, RowKind, StreamKey

Rows = np.ndarray[Any, np.dtype[np.void]]


class Head(NamedTuple):
    """The schema's Cursor table: the highest sequence of a stream and its time, epoch ms UTC."""

    latest_sequence: int
    latest_ts_ms: int


class _Slotted(type):
    """A message class has the slots that its annotations name, in the schema's order."""

    def __new__(mcs, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> _Slotted:
        names = [n for n, kind in body.get("__annotations__", {}).items() if not kind.startswith("ClassVar")]
        return super().__new__(mcs, name, bases, {**body, "__slots__": tuple(names)})


class Message(metaclass=_Slotted):
    """What every decoded message carries."""

    schema_version: int
    type_hint: int
    correlation_id: str | None
    message_type: int

    __slots__: ClassVar[tuple[str, ...]]

    # How the value of a slot becomes what the attribute holds, where that is another thing.
    _made: ClassVar[dict[str, Callable[[Any], Any]]] = {}

    def __repr__(self) -> str:
        slots = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).__slots__)
        return f"{type(self).__name__}({slots})"


class Unknown(Message):
    """An envelope without a message, or with one that this version does not know."""


class HealthRequest(Message):
    """Tag 1."""


class HealthResponse(Message):
    """Tag 2."""

    ok: bool
    message: str | None
    state: int
    version: str | None
    store_id: int
    epoch: int
    schema_version_max: int
    parent_store_id: int


class GetCursorRequest(Message):
    """Tag 3."""

    key: StreamKey | None


class GetCursorResponse(Message):
    """Tag 4."""

    key: StreamKey | None
    cursor: Head | None
    _made: ClassVar = {"cursor": lambda values: None if values is None else Head(*values)}


class SubscribeCandlesRequest(Message):
    """Tag 5."""

    key: StreamKey | None
    has_from_sequence: bool
    from_sequence_exclusive: int


class SubscribeCandlesAck(Message):
    """Tag 6."""

    accepted: bool
    reason: str | None
    key: StreamKey | None
    latest_sequence: int


class BackfillCandlesRequest(Message):
    """Tag 8."""

    key: StreamKey | None
    has_from_sequence: bool
    from_sequence_exclusive: int
    has_end_ts_ms: bool
    end_ts_ms: int
    limit: int


class BackfillCandlesResponse(Message):
    """Tag 9. `candles` (or `rows`) are CANDLE rows of their own, empty where the message has none."""

    key: StreamKey | None
    start_sequence: int
    candles: Rows
    has_more: bool
    next_sequence: int
    _made: ClassVar = {"candles": lambda rows: np.empty(0, CANDLE) if rows is None else rows}

    @property
    def rows(self) -> Rows:
        """The candles."""
        return self.candles


class ErrorResponse(Message):
    """Tag 10."""

    code: int
    message: str | None
    status: int
    retry_after_ms: int


class StreamStatusRequest(Message):
    """Tag 11."""

    key: StreamKey | None
    stream_id: int


class StreamStatusResponse(Message):
    """Tag 12; also an item of `StreamListResponse.streams`, with that message's envelope. `forming`: CANDLE
    rows."""

    key: StreamKey | None
    latest_sequence: int
    latest_ts_ms: int
    server_time_ms: int
    first_sequence: int
    epoch: int
    store_id: int
    stream_id: int
    forming: Rows
    _made: ClassVar = {"forming": lambda rows: np.empty(0, CANDLE) if rows is None else rows}


class BackfillRowsRequest(Message):
    """Tag 14."""

    key: StreamKey | None
    from_sequence_exclusive: int
    to_sequence_inclusive: int
    limit: int
    epoch: int
    store_id: int
    accept_zstd: bool
    end_ts_ms: int
    start_ts_ms: int


class BackfillRowsResponse(Message):
    """Tag 15. `rows` are CANDLE, TRADE or QUOTE rows by the key's interval: a read-only view of the frame,
    or, where the server compressed them, made when asked for (and each time: keep them)."""

    key: StreamKey | None
    start_sequence: int
    _candles: Rows | None
    epoch: int
    store_id: int
    has_more: bool
    first_available_sequence: int
    watermark_sequence: int
    status: int
    epoch_end_sequence: int
    row_count: int
    zstd: bytes | None
    trades: Rows | None
    quotes: Rows | None
    rows_epoch: int

    @property
    def rows(self) -> Rows:
        """The rows, decompressed if they came so; raises `DecodeError("zstd", 0)` where that fails."""
        kind = RowKind.CANDLE if self.key is None else self.key.kind
        if self.zstd is not None:
            return _unpacked(self.zstd, self.row_count, ROW_DTYPES[kind])
        rows = {RowKind.TRADE: self.trades, RowKind.QUOTE: self.quotes}.get(kind, self._candles)
        return np.empty(0, ROW_DTYPES[kind]) if rows is None else rows


class Heartbeat(Message):
    """Tag 16. `marks`: MARK rows, a read-only view of the frame."""

    store_id: int
    epoch: int
    boot_id: int
    server_time_ns: int
    number: int
    interval_ms: int
    marks: Rows
    state: int
    reason: str | None
    loop_age_ms: int
    parent_store_id: int
    _made: ClassVar = {"marks": lambda rows: np.empty(0, MARK) if rows is None else rows}


class StreamListRequest(Message):
    """Tag 17."""

    prefix: str | None
    after_stream_id: int
    limit: int


class StreamListResponse(Message):
    """Tag 18."""

    streams: list[StreamStatusResponse]
    has_more: bool


class GapListRequest(Message):
    """Tag 21."""

    key: StreamKey | None
    since_ms: int
    limit: int


class GapRecord(NamedTuple):
    """An item of `GapListResponse.gaps`."""

    key: StreamKey | None
    cause: int
    first_sequence: int
    last_sequence: int
    from_ts_ms: int
    to_ts_ms: int
    detected_ms: int
    repaired_ms: int


class GapListResponse(Message):
    """Tag 22."""

    gaps: list[GapRecord]
    has_more: bool
    _made: ClassVar = {"gaps": lambda records: [GapRecord(*record) for record in records or ()]}


class Forming(Message):
    """Tag 23. `rows`: one CANDLE row, a read-only view of the frame."""

    key: StreamKey | None
    rows: Rows
    after_sequence: int
    epoch: int
    store_id: int
    origin_ns: int
    recorded_ns: int
    stream_id: int
    _made: ClassVar = {"rows": lambda rows: np.empty(0, CANDLE) if rows is None else rows}


class SourcePositionRequest(Message):
    """Tag 24."""

    source_id: str | None
    run: int
    claim: int
    refused_after: int


class SourcePositionResponse(Message):
    """Tag 25. `refused`: REFUSED rows, a read-only view of the frame."""

    source_id: str | None
    run: int
    committed: int
    incarnation: int
    refused_total: int
    refused: Rows
    _made: ClassVar = {"refused": lambda rows: np.empty(0, REFUSED) if rows is None else rows}


MESSAGES: Final[dict[int, type[Message]]] = {
    1: HealthRequest,
    2: HealthResponse,
    3: GetCursorRequest,
    4: GetCursorResponse,
    5: SubscribeCandlesRequest,
    6: SubscribeCandlesAck,
    8: BackfillCandlesRequest,
    9: BackfillCandlesResponse,
    10: ErrorResponse,
    11: StreamStatusRequest,
    12: StreamStatusResponse,
    14: BackfillRowsRequest,
    15: BackfillRowsResponse,
    16: Heartbeat,
    17: StreamListRequest,
    18: StreamListResponse,
    21: GapListRequest,
    22: GapListResponse,
    23: Forming,
    24: SourcePositionRequest,
    25: SourcePositionResponse,
}
"""The class of each message by its tag; 7, 13, 19 and 20 are `Candles`, `Trades` and `Quotes`."""


def _unpacked(packed: bytes, row_count: int, dtype: np.dtype[np.void]) -> Rows:
    """Rows from one zstd frame of columns. What the frame declares is checked before anything is
    decompressed: the library's own `max_output_size` is ignored for a frame that declares its size."""
    import zstandard  # late: see _packed

    size = row_count * dtype.itemsize
    try:
        declared = zstandard.frame_content_size(packed)
        if declared != size or size > limits.MAX_FRAME_BYTES:
            raise DecodeError(
                "zstd", 0, f"declares {declared} bytes for {row_count} rows of {dtype.itemsize}"
            )
        decompressor = zstandard.ZstdDecompressor(max_window_size=limits.MAX_FRAME_BYTES).decompressobj()
        columns = decompressor.decompress(packed)
    except zstandard.ZstdError as error:
        raise DecodeError("zstd", 0, str(error)) from error
    if not decompressor.eof or decompressor.unused_data or len(columns) != size:
        raise DecodeError("zstd", 0, "is not exactly one frame of the declared size")
    rows, at = np.empty(row_count, dtype), 0
    for name in dtype.names or ():
        column = np.frombuffer(columns, dtype[name], row_count, at)
        rows[name] = column
        at += column.nbytes
    return rows
