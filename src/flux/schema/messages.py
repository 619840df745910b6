"""Builds control messages, one function each, with the flatbuffers package and what flatc made.

Keywords are the schema's slots (`schemas/market_data.fbs` has the units). Every function takes
`correlation_id` and `schema_version`: version 2 frames are finished with FLX2 and end in their checksum,
version 1 frames have neither and leave out the slots that version 2 appended. Messages with rows come from
`flux.codec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from flux.model import CANDLE, MARK, REFUSED
from flux.schema import SCHEMA_VERSION
from flux.schema.envelope import EnvelopeSlots, Key, Rows, Table, checked_rows, finish, key_table
from flux.schema.generated import (
    BackfillCandlesRequest,
    BackfillRowsRequest,
    Cursor,
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
    SourcePositionRequest,
    SourcePositionResponse,
    StreamListRequest,
    StreamListResponse,
    StreamStatusRequest,
    StreamStatusResponse,
    SubscribeCandlesAck,
    SubscribeCandlesRequest,
)


def health_request(**envelope: Unpack[EnvelopeSlots]) -> bytes:
    return finish(Table(HealthRequest, {}), **envelope)


def health_response(
    *,
    ok: bool = True,
    message: str | None = None,
    state: int = 0,
    version: str | None = None,
    store_id: int = 0,
    epoch: int = 0,
    schema_version_max: int = 0,
    parent_store_id: int = 0,
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
            "ParentStoreId": parent_store_id,
        }
    return finish(Table(HealthResponse, slots), **envelope)


def get_cursor_request(*, key: Key | None, **envelope: Unpack[EnvelopeSlots]) -> bytes:
    return finish(Table(GetCursorRequest, {"Key": key_table(key)}), **envelope)


def get_cursor_response(
    *,
    key: Key | None,
    cursor: tuple[int, int] | None,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    """`cursor` is (latest_sequence, latest_ts_ms)."""
    table = None if cursor is None else Table(Cursor, {"LatestSequence": cursor[0], "LatestTsMs": cursor[1]})
    slots = {"Key": key_table(key), "Cursor": table}
    return finish(Table(GetCursorResponse, slots), **envelope)


def subscribe_candles_request(
    *,
    key: Key | None,
    has_from_sequence: bool = False,
    from_sequence_exclusive: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {
        "Key": key_table(key),
        "HasFromSequence": has_from_sequence,
        "FromSequenceExclusive": from_sequence_exclusive,
    }
    return finish(Table(SubscribeCandlesRequest, slots), **envelope)


def subscribe_candles_ack(
    *,
    accepted: bool,
    reason: str | None = None,
    key: Key | None = None,
    latest_sequence: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {"Accepted": accepted, "Reason": reason, "Key": key_table(key), "LatestSequence": latest_sequence}
    return finish(Table(SubscribeCandlesAck, slots), **envelope)


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
        "Key": key_table(key),
        "HasFromSequence": has_from_sequence,
        "FromSequenceExclusive": from_sequence_exclusive,
        "HasEndTsMs": has_end_ts_ms,
        "EndTsMs": end_ts_ms,
        "Limit": limit,
    }
    return finish(Table(BackfillCandlesRequest, slots), **envelope)


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
    return finish(Table(ErrorResponse, slots), **envelope)


def stream_status_request(
    *,
    key: Key | None = None,
    stream_id: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {"Key": key_table(key), "StreamId": stream_id}
    return finish(Table(StreamStatusRequest, slots), **envelope)


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
) -> Table:
    slots = {
        "Key": key_table(key),
        "LatestSequence": latest_sequence,
        "LatestTsMs": latest_ts_ms,
        "ServerTimeMs": server_time_ms,
        "FirstSequence": first_sequence,
        "Epoch": epoch,
        "StoreId": store_id,
        "StreamId": stream_id,
        "Forming": checked_rows(forming, CANDLE),
    }
    return Table(StreamStatusResponse, slots)


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
    return finish(table, **envelope)


def stream_list_request(
    *,
    prefix: str | None = None,
    after_stream_id: int = 0,
    limit: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {"Prefix": prefix, "AfterStreamId": after_stream_id, "Limit": limit}
    return finish(Table(StreamListRequest, slots), **envelope)


def stream_list_response(
    *,
    streams: Iterable[Mapping[str, Any]],
    has_more: bool = False,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    """`streams`: for each the keywords of `stream_status_response` (without the envelope's)."""
    slots = {"Streams": [_status(**stream) for stream in streams], "HasMore": has_more}
    return finish(Table(StreamListResponse, slots), **envelope)


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
        "Key": key_table(key),
        "FromSequenceExclusive": from_sequence_exclusive,
        "ToSequenceInclusive": to_sequence_inclusive,
        "Limit": limit,
        "Epoch": epoch,
        "StoreId": store_id,
        "AcceptZstd": accept_zstd,
        "EndTsMs": end_ts_ms,
        "StartTsMs": start_ts_ms,
    }
    return finish(Table(BackfillRowsRequest, slots), **envelope)


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
    parent_store_id: int = 0,
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
        "Marks": checked_rows(marks, MARK),
        "State": state,
        "Reason": reason,
        "LoopAgeMs": loop_age_ms,
        "ParentStoreId": parent_store_id,
    }
    return finish(Table(Heartbeat, slots), **envelope)


def gap_list_request(
    *,
    key: Key | None = None,
    since_ms: int = 0,
    limit: int = 0,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    slots = {"Key": key_table(key), "SinceMs": since_ms, "Limit": limit}
    return finish(Table(GapListRequest, slots), **envelope)


def gap_list_response(
    *,
    gaps: Iterable[tuple[Key | None, int, int, int, int, int, int, int]],
    has_more: bool = False,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    """`gaps`: for each the slots of a GapRecord in their order (`flux.codec.GapRecord` is one)."""
    names = ("Cause", "FirstSequence", "LastSequence", "FromTsMs", "ToTsMs", "DetectedMs", "RepairedMs")
    records = [
        Table(GapRecord, {"Key": key_table(gap[0]), **dict(zip(names, gap[1:], strict=True))}) for gap in gaps
    ]
    slots = {"Gaps": records, "HasMore": has_more}
    return finish(Table(GapListResponse, slots), **envelope)


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
        "Key": key_table(key),
        "Rows": checked_rows(rows, CANDLE),
        "AfterSequence": after_sequence,
        "Epoch": epoch,
        "StoreId": store_id,
        "OriginNs": origin_ns,
        "RecordedNs": recorded_ns,
        "StreamId": stream_id,
    }
    return finish(Table(Forming, slots), **envelope)


def source_position_request(
    *, source_id: str, run: int, claim: int = 0, refused_after: int = 0, **envelope: Unpack[EnvelopeSlots]
) -> bytes:
    slots = {"SourceId": source_id, "Run": run, "Claim": claim, "RefusedAfter": refused_after}
    return finish(Table(SourcePositionRequest, slots), **envelope)


def source_position_response(
    *,
    source_id: str,
    run: int,
    committed: int,
    incarnation: int = 0,
    refused_total: int = 0,
    refused: Rows | None = None,
    **envelope: Unpack[EnvelopeSlots],
) -> bytes:
    """`refused`: 1-d rows of `flux.model.REFUSED`."""
    slots = {
        "SourceId": source_id,
        "Run": run,
        "Committed": committed,
        "Incarnation": incarnation,
        "RefusedTotal": refused_total,
        "Refused": checked_rows(refused, REFUSED),
    }
    return finish(Table(SourcePositionResponse, slots), **envelope)
