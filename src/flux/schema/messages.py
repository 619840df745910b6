"""Builds control messages, one function each, with the flatbuffers package and what flatc made.

Keywords are the schema's slots (`schemas/market_data.fbs` has the units). Every function takes
`correlation_id` and `schema_version`: version 2 frames are finished with FLX2 and end in their checksum,
version 1 frames have neither and leave out the slots that version 2 appended. Messages with rows come from
`flux.codec`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any, Final, TypedDict, Unpack

import flatbuffers
import numpy as np

from flux.kernels import codec as _kernel
from flux.model import CANDLE, MARK, StreamKey
from flux.schema import FILE_IDENTIFIER, SCHEMA_VERSION, SCHEMA_VERSIONS
from flux.schema.generated import (
    BackfillCandlesRequest,
    BackfillRowsRequest,
    Cursor,
    Envelope,
    ErrorResponse,
    Forming,
    GapListRequest,
    GapListResponse,
    GapRecord,
    GetCursorRequest,
    GetCursorResponse,
    HealthRequest,
    HealthResponse,
    Heartbeat,
    MessageBody,
    MessageType,
    SourcePositionRequest,
    SourcePositionResponse,
    StreamListRequest,
    StreamListResponse,
    StreamStatusRequest,
    StreamStatusResponse,
    SubscribeCandlesAck,
    SubscribeCandlesRequest,
)
from flux.schema.generated import StreamKey as StreamKeyTable

Key = StreamKey | tuple[str, str, str]
Rows = np.ndarray[Any, np.dtype[np.void]]

_TAGS: Final[dict[str, int]] = {
    name: tag for name, tag in vars(MessageBody.MessageBody).items() if name[0] != "_"
}


class EnvelopeSlots(TypedDict, total=False):
    """What every builder takes beside its own slots: correlation_id (None) and schema_version (2)."""

    correlation_id: str | None
    schema_version: int


class _Table:
    """A table to come: its generated module and its slots by CamelCase name."""

    def __init__(self, module: ModuleType, slots: Mapping[str, Any]) -> None:
        self.module = module
        self.slots = slots

    def build(self, builder: flatbuffers.Builder) -> int:
        # Children first: FlatBuffers cannot begin one while a table is open.
        ready = {name: _child(builder, value) for name, value in self.slots.items() if value is not None}
        self.module.Start(builder)
        for name, value in ready.items():
            getattr(self.module, f"Add{name}")(builder, value)
        return int(self.module.End(builder))


def _child(builder: flatbuffers.Builder, value: Any) -> Any:
    """What a slot is given: an offset for what is not a number."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, _Table):
        return value.build(builder)
    if isinstance(value, np.ndarray):
        return _structs(builder, value)
    if isinstance(value, list):
        offsets = [table.build(builder) for table in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    return value


def _structs(builder: flatbuffers.Builder, rows: Rows) -> int:
    data = rows.tobytes()
    builder.StartVector(rows.dtype.itemsize, len(rows), 8)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return int(builder.EndVector())


def _key(key: Key | None) -> _Table | None:
    if key is None:
        return None
    return _Table(StreamKeyTable, {"SourceId": key[0], "Symbol": key[1], "Interval": key[2]})


def _rows(rows: Rows | None, dtype: np.dtype[np.void]) -> Rows | None:
    if rows is not None and (rows.dtype != dtype or rows.ndim != 1):
        raise TypeError(f"rows are {rows.ndim}-d {rows.dtype}, not 1-d {dtype}")
    return rows


def _message(table: _Table, correlation_id: str | None = None, schema_version: int = SCHEMA_VERSION) -> bytes:
    if schema_version not in SCHEMA_VERSIONS:
        raise ValueError(f"schema version {schema_version}: this flux writes {SCHEMA_VERSIONS}")
    name = table.module.__name__.rpartition(".")[2]
    tag = _TAGS[name]
    builder = flatbuffers.Builder(256)
    correlation = None if correlation_id is None else builder.CreateString(correlation_id)
    message = table.build(builder)
    root_table: Any = Envelope  # flatc writes no types
    root_table.Start(builder)
    root_table.AddSchemaVersion(builder, schema_version)
    hint = MessageType.MessageType.ERROR_RESPONSE if tag == 10 else tag - (tag > 10)
    root_table.AddTypeHint(builder, hint)
    if correlation is not None:
        root_table.AddCorrelationId(builder, correlation)
    root_table.AddMessageType(builder, tag)
    root_table.AddMessage(builder, message)
    root = root_table.End(builder)
    if schema_version == 1:
        builder.Finish(root)
        return bytes(builder.Output())
    builder.Finish(root, FILE_IDENTIFIER)
    body = bytes(builder.Output())
    return body + struct.pack("<I", _kernel.crc32c(body))


def health_request(**envelope: Unpack[EnvelopeSlots]) -> bytes:
    return _message(_Table(HealthRequest, {}), **envelope)


def health_response(
    *,
    ok: bool = True,
    message: str | None = None,
    state: int = 0,
    version: str | None = None,
    store_id: int = 0,
    epoch: int = 0,
    schema_version_max: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots: dict[str, Any] = {"Ok": ok, "Message": message}
    if envelope.get("schema_version", SCHEMA_VERSION) >= 2:
        slots |= {
            "State": state,
            "Version": version,
            "StoreId": store_id,
            "Epoch": epoch,
            "SchemaVersionMax": schema_version_max,
        }
    return _message(_Table(HealthResponse, slots), **envelope)


def get_cursor_request(*, key: Key | None, **envelope: Unpack[EnvelopeSlots]) -> bytes:
    return _message(_Table(GetCursorRequest, {"Key": _key(key)}), **envelope)


def get_cursor_response(
    *,
    key: Key | None,
    cursor: tuple[int, int] | None,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    """`cursor` is (latest_sequence, latest_ts_ms)."""
    table = None if cursor is None else _Table(Cursor, {"LatestSequence": cursor[0], "LatestTsMs": cursor[1]})
    slots = {"Key": _key(key), "Cursor": table}
    return _message(_Table(GetCursorResponse, slots), **envelope)


def subscribe_candles_request(
    *,
    key: Key | None,
    has_from_sequence: bool = False,
    from_sequence_exclusive: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {
        "Key": _key(key),
        "HasFromSequence": has_from_sequence,
        "FromSequenceExclusive": from_sequence_exclusive,
    }
    return _message(_Table(SubscribeCandlesRequest, slots), **envelope)


def subscribe_candles_ack(
    *,
    accepted: bool,
    reason: str | None = None,
    key: Key | None = None,
    latest_sequence: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {"Accepted": accepted, "Reason": reason, "Key": _key(key), "LatestSequence": latest_sequence}
    return _message(_Table(SubscribeCandlesAck, slots), **envelope)


def backfill_candles_request(
    *,
    key: Key | None,
    has_from_sequence: bool = False,
    from_sequence_exclusive: int = 0,
    has_end_ts_ms: bool = False,
    end_ts_ms: int = 0,
    limit: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {
        "Key": _key(key),
        "HasFromSequence": has_from_sequence,
        "FromSequenceExclusive": from_sequence_exclusive,
        "HasEndTsMs": has_end_ts_ms,
        "EndTsMs": end_ts_ms,
        "Limit": limit,
    }
    return _message(_Table(BackfillCandlesRequest, slots), **envelope)


def error_response(
    *,
    code: int,
    message: str | None = None,
    status: int = 0,
    retry_after_ms: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots: dict[str, Any] = {"Code": code, "Message": message}
    if envelope.get("schema_version", SCHEMA_VERSION) >= 2:
        slots |= {"Status": status, "RetryAfterMs": retry_after_ms}
    return _message(_Table(ErrorResponse, slots), **envelope)


def stream_status_request(
    *,
    key: Key | None = None,
    stream_id: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {"Key": _key(key), "StreamId": stream_id}
    return _message(_Table(StreamStatusRequest, slots), **envelope)


def _status(
    *,
    key: Key | None,
    latest_sequence: int = 0,
    latest_ts_ms: int = 0,
    server_time_ms: int = 0,
    first_sequence: int = 0,
    epoch: int = 0,
    store_id: int = 0,
    stream_id: int = 0,
    forming: Rows | None = None,
) -> _Table:
    slots = {
        "Key": _key(key),
        "LatestSequence": latest_sequence,
        "LatestTsMs": latest_ts_ms,
        "ServerTimeMs": server_time_ms,
        "FirstSequence": first_sequence,
        "Epoch": epoch,
        "StoreId": store_id,
        "StreamId": stream_id,
        "Forming": _rows(forming, CANDLE),
    }
    return _Table(StreamStatusResponse, slots)


def stream_status_response(
    *,
    key: Key | None,
    latest_sequence: int = 0,
    latest_ts_ms: int = 0,
    server_time_ms: int = 0,
    first_sequence: int = 0,
    epoch: int = 0,
    store_id: int = 0,
    stream_id: int = 0,
    forming: Rows | None = None,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    table = _status(
        key=key,
        latest_sequence=latest_sequence,
        latest_ts_ms=latest_ts_ms,
        server_time_ms=server_time_ms,
        first_sequence=first_sequence,
        epoch=epoch,
        store_id=store_id,
        stream_id=stream_id,
        forming=forming,
    )
    return _message(table, **envelope)


def stream_list_request(
    *,
    prefix: str | None = None,
    after_stream_id: int = 0,
    limit: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {"Prefix": prefix, "AfterStreamId": after_stream_id, "Limit": limit}
    return _message(_Table(StreamListRequest, slots), **envelope)


def stream_list_response(
    *,
    streams: Iterable[Mapping[str, Any]],
    has_more: bool = False,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    """`streams`: for each the keywords of `stream_status_response` (without the envelope's)."""
    slots = {"Streams": [_status(**stream) for stream in streams], "HasMore": has_more}
    return _message(_Table(StreamListResponse, slots), **envelope)


def backfill_rows_request(
    *,
    key: Key | None,
    from_sequence_exclusive: int = 0,
    to_sequence_inclusive: int = 0,
    limit: int = 0,
    epoch: int = 0,
    store_id: int = 0,
    accept_zstd: bool = False,
    end_ts_ms: int = 0,
    start_ts_ms: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {
        "Key": _key(key),
        "FromSequenceExclusive": from_sequence_exclusive,
        "ToSequenceInclusive": to_sequence_inclusive,
        "Limit": limit,
        "Epoch": epoch,
        "StoreId": store_id,
        "AcceptZstd": accept_zstd,
        "EndTsMs": end_ts_ms,
        "StartTsMs": start_ts_ms,
    }
    return _message(_Table(BackfillRowsRequest, slots), **envelope)


def heartbeat(
    *,
    store_id: int,
    epoch: int,
    boot_id: int,
    server_time_ns: int,
    number: int,
    interval_ms: int,
    marks: Rows | None = None,
    state: int = 0,
    reason: str | None = None,
    loop_age_ms: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    """`marks`: 1-d rows of `flux.model.MARK`."""
    slots = {
        "StoreId": store_id,
        "Epoch": epoch,
        "BootId": boot_id,
        "ServerTimeNs": server_time_ns,
        "Number": number,
        "IntervalMs": interval_ms,
        "Marks": _rows(marks, MARK),
        "State": state,
        "Reason": reason,
        "LoopAgeMs": loop_age_ms,
    }
    return _message(_Table(Heartbeat, slots), **envelope)


def gap_list_request(
    *,
    key: Key | None = None,
    since_ms: int = 0,
    limit: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {"Key": _key(key), "SinceMs": since_ms, "Limit": limit}
    return _message(_Table(GapListRequest, slots), **envelope)


def gap_list_response(
    *,
    gaps: Iterable[tuple[Key | None, int, int, int, int, int, int, int]],
    has_more: bool = False,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    """`gaps`: for each the slots of a GapRecord in their order (`flux.codec.GapRecord` is one)."""
    names = ("Cause", "FirstSequence", "LastSequence", "FromTsMs", "ToTsMs", "DetectedMs", "RepairedMs")
    records = [
        _Table(GapRecord, {"Key": _key(gap[0]), **dict(zip(names, gap[1:], strict=True))}) for gap in gaps
    ]
    slots = {"Gaps": records, "HasMore": has_more}
    return _message(_Table(GapListResponse, slots), **envelope)


def forming(
    *,
    key: Key | None,
    rows: Rows,
    after_sequence: int = 0,
    epoch: int = 0,
    store_id: int = 0,
    origin_ns: int = 0,
    recorded_ns: int = 0,
    stream_id: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    """`rows`: one row of `flux.CANDLE`, 1-d."""
    slots = {
        "Key": _key(key),
        "Rows": _rows(rows, CANDLE),
        "AfterSequence": after_sequence,
        "Epoch": epoch,
        "StoreId": store_id,
        "OriginNs": origin_ns,
        "RecordedNs": recorded_ns,
        "StreamId": stream_id,
    }
    return _message(_Table(Forming, slots), **envelope)


def source_position_request(*, source_id: str, run: int, **envelope: Unpack[EnvelopeSlots]) -> bytes:
    slots = {"SourceId": source_id, "Run": run}
    return _message(_Table(SourcePositionRequest, slots), **envelope)


def source_position_response(
    *,
    source_id: str,
    run: int,
    committed: int,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {"SourceId": source_id, "Run": run, "Committed": committed}
    return _message(_Table(SourcePositionResponse, slots), **envelope)
