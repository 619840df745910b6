"""Messages as plain dicts, from three readers: flux.codec, the oracle, and what flatc made; and one of each
message."""

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from flux import codec
from flux.batch import Batch
from flux.model import CANDLE, MARK, QUOTE, REFUSED, TRADE, StreamKey
from flux.schema import messages
from flux.schema.generated.Envelope import Envelope
from flux.schema.generated.MessageBody import MessageBody
from tests.oracle import codec as oracle

TABLES = {tag: name for name, tag in vars(MessageBody).items() if name[0] != "_" and tag}
ROW_TAGS = {7: "candles", 13: "rows", 19: "rows", 20: "rows"}
STRUCTS = {
    oracle.CANDLE_ROW: ("CandleRow", CANDLE),
    oracle.TRADE_ROW: ("TradeRow", TRADE),
    oracle.QUOTE_ROW: ("QuoteRow", QUOTE),
    oracle.MARK: ("StreamMark", MARK),
    oracle.REFUSED: ("RefusedRow", REFUSED),
}
NULL_IS_EMPTY = {"candles", "forming", "marks", "gaps", "streams", "refused"}


def normal(value: Any, name: str = "", tag: int = 0) -> Any:
    """Doubles by their bits, null names as "", null vectors as what our classes say: so that == is exact."""
    if isinstance(value, float):
        return f"{struct.unpack('<Q', struct.pack('<d', value))[0]:016x}"
    if isinstance(value, dict):
        if set(value) == {"source_id", "symbol", "interval"}:
            return tuple(text or "" for text in value.values())
        return {key: normal(item, key, tag) for key, item in value.items()}
    if value is None and (name in NULL_IS_EMPTY or (name == "rows" and tag != 15)):
        return []
    if isinstance(value, np.ndarray):
        rows = value.tolist()
        return [normal(row[:6] if name == "candles" else row) for row in rows]
    if isinstance(value, list | tuple):
        made = [normal(item) for item in value]
        return made if isinstance(value, list) else tuple(made)
    return value


def _slots(tag: Any) -> list[tuple[str, str]]:
    return [(name, kind) for name, _, kind in (entry.partition(":") for entry in oracle.SHAPES[tag].split())]


def ours(message: Any) -> dict[str, Any]:
    """What flux.codec.decode gave."""
    tag = message.message_type
    out = {
        name: getattr(message, name)
        for name in ("schema_version", "type_hint", "correlation_id", "message_type")
    }
    out["message"] = None if isinstance(message, codec.Unknown) else _fields(message, tag)
    return normal(out, tag=tag)


def _fields(message: Any, tag: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, kind in _slots(tag):
        if isinstance(message, Batch):
            value = message.rows if name == ROW_TAGS[tag] else getattr(message, name)
        else:
            value = getattr(message, "_candles" if (tag, name) == (15, "rows") else name)
        if kind == "[12]":
            value = [_fields(stream, 12) for stream in value]
        elif kind == "[GapRecord]":
            value = [gap._asdict() for gap in value]
        elif kind == "Cursor" and value is not None:
            value = value._asdict()
        fields[name] = normal(value, name, tag)
    return fields


def by_oracle(frame: bytes) -> dict[str, Any]:
    """What the oracle gives, or raises."""
    out = oracle.decode(frame)
    return normal(out, tag=out["message_type"])


def by_flatc(frame: bytes) -> dict[str, Any]:
    """What flatc's readers give: for frames that are known to be right."""
    envelope = Envelope.GetRootAs(frame)
    tag, table = envelope.MessageType(), envelope.Message()
    out = {
        "schema_version": envelope.SchemaVersion(),
        "type_hint": envelope.TypeHint(),
        "correlation_id": _decoded(envelope.CorrelationId()),
        "message_type": tag,
        "message": None,
    }
    if tag in TABLES:
        message = _class(TABLES[tag])()
        message.Init(table.Bytes, table.Pos)
        out["message"] = _read(message, tag)
    return normal(out, tag=tag)


def _decoded(text: bytes | None) -> str | None:
    return None if text is None else text.decode()


def _class(name: str) -> Any:
    return getattr(importlib.import_module(f"flux.schema.generated.{name}"), name)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _read(message: Any, which: Any) -> dict[str, Any]:
    return {name: _read_slot(message, _camel(name), kind) for name, kind in _slots(which)}


def _read_slot(message: Any, name: str, kind: str) -> Any:
    accessor: Callable[..., Any] = getattr(message, name)
    if kind in oracle.SCALARS:
        return accessor()
    if kind == "str":
        return _decoded(accessor())
    if kind[0] not in "<[" and kind != "bytes":
        return None if accessor() is None else _read(accessor(), kind)
    if getattr(message, f"{name}IsNone")():
        return None
    items = [accessor(i) for i in range(getattr(message, f"{name}Length")())]
    if kind == "bytes":
        return bytes(items)
    if kind in STRUCTS:
        names = STRUCTS[kind][1].names or ()
        return [tuple(getattr(item, _camel(field))() for field in names) for item in items]
    tables = [_read(item, int(kind[1:-1]) if kind[1:-1].isdigit() else kind[1:-1]) for item in items]
    return [tuple(table.values()) for table in tables] if kind == "[Candle]" else tables


KEY = StreamKey("SIM", "BTC/USDT", "1m")


def sample(dtype: np.dtype[np.void], n: int, seed: int = 7) -> np.ndarray[Any, np.dtype[np.void]]:
    """Rows of any bits."""
    return np.frombuffer(np.random.default_rng(seed).bytes(n * dtype.itemsize), dtype, n)


def examples(version: int) -> dict[str, bytes]:
    """One frame of each message that exists in a version, by its name; no slot is at its default."""
    v: dict[str, Any] = {"schema_version": version, "correlation_id": f"c-{version}"}
    candles = sample(CANDLE, 3)
    made = {
        "health_request": messages.health_request(**v),
        "health_response": messages.health_response(
            ok=False,
            message="no",
            state=2,
            version="0.1",
            store_id=2**64 - 1,
            epoch=3,
            schema_version_max=2,
            **v,
        ),
        "health_response_of_a_copy": messages.health_response(store_id=1, parent_store_id=2**64 - 3, **v),
        "get_cursor_request": messages.get_cursor_request(key=KEY, **v),
        "get_cursor_response": messages.get_cursor_response(key=KEY, cursor=(2**63, -(2**63)), **v),
        "subscribe_candles_request": messages.subscribe_candles_request(
            key=KEY, has_from_sequence=True, from_sequence_exclusive=9, **v
        ),
        "subscribe_candles_ack": messages.subscribe_candles_ack(
            accepted=True, reason="données", key=KEY, latest_sequence=11, **v
        ),
        "backfill_candles_request": messages.backfill_candles_request(
            key=KEY,
            has_from_sequence=True,
            from_sequence_exclusive=2**64 - 1,
            has_end_ts_ms=True,
            end_ts_ms=-1,
            limit=2**32 - 1,
            **v,
        ),
        "backfill_candles_response": codec.encode_backfill(
            KEY, 5, candles, version=1, has_more=True, next_sequence=7, correlation_id="c-1"
        ),
        "error_response": messages.error_response(
            code=404, message="unknown", status=2, retry_after_ms=50, **v
        ),
        "candle_batch": codec.encode(candles, KEY, 2**63, version=1),
        "stream_status_request": messages.stream_status_request(key=KEY, stream_id=4, **v),
        "stream_status_response": messages.stream_status_response(key=KEY, **_status(), **v),
    }
    if version == 1:
        return made
    del made["backfill_candles_response"], made["candle_batch"]
    return made | _rows_of_version_2(v) | _others_of_version_2(v)


_PLACE: dict[str, Any] = {
    "epoch": 3,
    "store_id": 2**64 - 2,
    "stream_id": 12,
    "origin_ns": -5,
    "recorded_ns": 6,
}


def _rows_of_version_2(v: dict[str, Any]) -> dict[str, bytes]:
    trades, quotes = KEY._replace(interval="trade"), KEY._replace(interval="quote")
    candles = sample(CANDLE, 3)
    backfill: dict[str, Any] = {
        "has_more": True,
        "epoch": 3,
        "store_id": 4,
        "first_available_sequence": 5,
        "watermark_sequence": 6,
        "status": 4,
        "epoch_end_sequence": 8,
        "correlation_id": "c-2",
    }
    return {
        "candle_row_batch": codec.encode(candles, KEY, 2**63, **_PLACE),
        "trade_row_batch": codec.encode(sample(TRADE, 4), trades, 1, **_PLACE),
        "quote_row_batch": codec.encode(sample(QUOTE, 5), quotes, 1, **_PLACE),
        "candle_row_batch_empty": codec.encode(candles[:0], KEY, 1, **_PLACE),
        "backfill_rows_request": messages.backfill_rows_request(
            key=KEY,
            from_sequence_exclusive=1,
            to_sequence_inclusive=2,
            limit=3,
            epoch=4,
            store_id=5,
            accept_zstd=True,
            end_ts_ms=6,
            start_ts_ms=7,
            **v,
        ),
        "backfill_rows_response": codec.encode_backfill(KEY, 1, candles, **backfill),
        "backfill_rows_response_of_an_earlier_epoch": codec.encode_backfill(
            KEY, 1, candles, rows_epoch=2, **backfill
        ),
        "backfill_rows_response_trades": codec.encode_backfill(trades, 1, sample(TRADE, 4), **backfill),
        "backfill_rows_response_quotes": codec.encode_backfill(quotes, 1, sample(QUOTE, 5), **backfill),
    }


def _others_of_version_2(v: dict[str, Any]) -> dict[str, bytes]:
    marks = sample(MARK, 3)
    gap = codec.GapRecord(KEY, 1, 2, 3, 4, 5, 6, 7)
    return {
        "heartbeat": messages.heartbeat(
            store_id=1,
            epoch=2,
            boot_id=3,
            server_time_ns=4,
            number=5,
            interval_ms=6,
            marks=marks,
            state=3,
            reason="closing",
            loop_age_ms=7,
            **v,
        ),
        "heartbeat_of_a_copy": messages.heartbeat(
            store_id=1,
            epoch=2,
            boot_id=3,
            server_time_ns=4,
            number=5,
            interval_ms=6,
            parent_store_id=2**64 - 3,
            **v,
        ),
        "stream_list_request": messages.stream_list_request(prefix="SIM/", after_stream_id=3, limit=10, **v),
        "stream_list_response": messages.stream_list_response(
            streams=[{"key": KEY, **_status()}, {"key": None}], has_more=True, **v
        ),
        "gap_list_request": messages.gap_list_request(key=KEY, since_ms=3, limit=4, **v),
        "gap_list_response": messages.gap_list_response(
            gaps=[gap, gap._replace(key=None)], has_more=True, **v
        ),
        "forming": messages.forming(key=KEY, rows=sample(CANDLE, 3)[:1], after_sequence=9, **_PLACE, **v),
        "source_position_request": messages.source_position_request(source_id="SIM", run=2**64 - 1, **v),
        "source_position_request_with_a_claim": messages.source_position_request(
            source_id="SIM", run=1, claim=2**64 - 1, refused_after=8, **v
        ),
        "source_position_response": messages.source_position_response(
            source_id="SIM", run=1, committed=2, **v
        ),
        "source_position_response_with_refused_rows": messages.source_position_response(
            source_id="SIM",
            run=1,
            committed=2,
            incarnation=3,
            refused_total=4,
            refused=sample(REFUSED, 5),
            **v,
        ),
    }


def _status() -> dict[str, Any]:
    return {
        "latest_sequence": 1,
        "latest_ts_ms": 2,
        "server_time_ms": 3,
        "first_sequence": 4,
        "epoch": 5,
        "store_id": 6,
        "stream_id": 7,
        "forming": sample(CANDLE, 1),
    }
