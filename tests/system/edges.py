"""Every integer and string field of every message, request and reply, of both versions, at its edges: as raw frames.

The tables of slots are written out here a second time, apart from the schema that the code is made from, so that a slot
whose bound is forgotten is a frame that somebody sends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import flatbuffers
import numpy as np

from flux.codec import crc32c
from flux.model import CANDLE, MARK, QUOTE, TRADE

INTEGERS: Final = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
DOUBLES: Final = (float("nan"), float("inf"), -float("inf"), -0.0, 1.7e308)
STRINGS: Final = (None, "", "\0", "\x1b[31m", "9" * 5_000, "x" * 65_536)
WIDTHS: Final = {"u8": 8, "u32": 32, "u64": 64, "i64": 64, "bool": 1}

Shape = list[tuple[str, Any]]
"""Slots in order: (name, kind), a kind being a scalar, "str", ("table", shape), ("tables", shape), ("rows", dtype)."""

KEY: Final[Shape] = [("source_id", "str"), ("symbol", "str"), ("interval", "str")]
CURSOR: Final[Shape] = [("latest_sequence", "u64"), ("latest_ts_ms", "i64")]
CANDLE_TABLE: Final[Shape] = [
    ("ts_ms", "i64"),
    *((name, "f64") for name in ("open", "high", "low", "close", "volume")),
]
GAP: Final[Shape] = [
    ("key", ("table", KEY)), ("cause", "u8"), ("first_sequence", "u64"), ("last_sequence", "u64"),
    ("from_ts_ms", "i64"), ("to_ts_ms", "i64"), ("detected_ms", "i64"), ("repaired_ms", "i64"),
]  # fmt: skip
STATUS: Final[Shape] = [
    ("key", ("table", KEY)), ("latest_sequence", "u64"), ("latest_ts_ms", "i64"), ("server_time_ms", "i64"),
    ("first_sequence", "u64"), ("epoch", "u32"), ("store_id", "u64"), ("stream_id", "u32"),
    ("forming", ("rows", CANDLE)),
]  # fmt: skip


def _batch(dtype: np.dtype[np.void]) -> Shape:
    return [
        ("key", ("table", KEY)), ("start_sequence", "u64"), ("rows", ("rows", dtype)), ("epoch", "u32"),
        ("store_id", "u64"), ("origin_ns", "i64"), ("recorded_ns", "i64"), ("stream_id", "u32"),
    ]  # fmt: skip


SHAPES: Final[dict[int, Shape]] = {
    1: [],
    2: [("ok", "bool"), ("message", "str"), ("state", "u8"), ("version", "str"), ("store_id", "u64"), ("epoch", "u32"),
        ("schema_version_max", "u32"), ("parent_store_id", "u64")],
    3: [("key", ("table", KEY))],
    4: [("key", ("table", KEY)), ("cursor", ("table", CURSOR))],
    5: [("key", ("table", KEY)), ("has_from_sequence", "bool"), ("from_sequence_exclusive", "u64")],
    6: [("accepted", "bool"), ("reason", "str"), ("key", ("table", KEY)), ("latest_sequence", "u64")],
    7: [("key", ("table", KEY)), ("start_sequence", "u64"), ("candles", ("tables", CANDLE_TABLE))],
    8: [("key", ("table", KEY)), ("has_from_sequence", "bool"), ("from_sequence_exclusive", "u64"),
        ("has_end_ts_ms", "bool"), ("end_ts_ms", "i64"), ("limit", "u32")],
    9: [("key", ("table", KEY)), ("start_sequence", "u64"), ("candles", ("tables", CANDLE_TABLE)), ("has_more", "bool"),
        ("next_sequence", "u64")],
    10: [("code", "u32"), ("message", "str"), ("status", "u8"), ("retry_after_ms", "u32")],
    11: [("key", ("table", KEY)), ("stream_id", "u32")],
    12: STATUS,
    13: _batch(CANDLE),
    14: [("key", ("table", KEY)), ("from_sequence_exclusive", "u64"), ("to_sequence_inclusive", "u64"),
         ("limit", "u32"), ("epoch", "u32"), ("store_id", "u64"), ("accept_zstd", "bool"), ("end_ts_ms", "i64"),
         ("start_ts_ms", "i64")],
    15: [("key", ("table", KEY)), ("start_sequence", "u64"), ("rows", ("rows", CANDLE)), ("epoch", "u32"),
         ("store_id", "u64"), ("has_more", "bool"), ("first_available_sequence", "u64"), ("watermark_sequence", "u64"),
         ("status", "u8"), ("epoch_end_sequence", "u64"), ("row_count", "u32"), ("zstd", "bytes"),
         ("trades", ("rows", TRADE)), ("quotes", ("rows", QUOTE)), ("rows_epoch", "u32")],
    16: [("store_id", "u64"), ("epoch", "u32"), ("boot_id", "u64"), ("server_time_ns", "i64"), ("number", "u64"),
         ("interval_ms", "u32"), ("marks", ("rows", MARK)), ("state", "u8"), ("reason", "str"), ("loop_age_ms", "u32"),
         ("parent_store_id", "u64")],
    17: [("prefix", "str"), ("after_stream_id", "u32"), ("limit", "u32")],
    18: [("streams", ("tables", STATUS)), ("has_more", "bool")],
    19: _batch(TRADE),
    20: _batch(QUOTE),
    21: [("key", ("table", KEY)), ("since_ms", "i64"), ("limit", "u32"), ("after_id", "u64")],
    22: [("gaps", ("tables", GAP)), ("has_more", "bool")],
    23: [("key", ("table", KEY)), ("rows", ("rows", CANDLE)), ("after_sequence", "u64"), ("epoch", "u32"),
         ("store_id", "u64"), ("origin_ns", "i64"), ("recorded_ns", "i64"), ("stream_id", "u32")],
    24: [("source_id", "str"), ("run", "u64"), ("claim", "u64"), ("refused_after", "u64")],
    25: [("source_id", "str"), ("run", "u64"), ("committed", "u64"), ("incarnation", "u32"), ("refused_total", "u64"),
         ("refused", ("rows", np.dtype([("row", "<u8"), ("reason", "<u4"), ("reserved", "<u4")])))],
}  # fmt: skip
REQUESTS: Final = (1, 3, 5, 8, 11, 14, 17, 21, 24)
BATCHES: Final = (7, 13, 19, 20)


class Edge(NamedTuple):
    """One message with one value changed; `what` names it in a failure."""

    tag: int
    what: str
    slots: dict[str, Any]
    envelope: dict[str, Any]

    def frame(self, version: int, correlation_id: str | None = "1") -> bytes:
        return frame(
            self.tag, self.slots, **{"version": version, "correlation_id": correlation_id, **self.envelope}
        )


def honest(tag: int, **known: Any) -> dict[str, Any]:
    """A message's slots with what is `known` (by name: key, store_id, rows ...); other numbers 0, strings absent."""
    slots: dict[str, Any] = {}
    for name, kind in SHAPES[tag]:
        if name in known:
            slots[name] = known[name]
        elif isinstance(kind, tuple) and kind[0] == "tables":
            slots[name] = [{"key": known.get("key")}]
        else:
            slots[name] = 0 if isinstance(kind, str) and kind in WIDTHS else None
    return slots


def edges(tag: int, base: dict[str, Any]) -> Iterator[Edge]:
    """Every field of a message at each of its edges, all others as in `base`."""
    yield Edge(tag, f"tag {tag} as it is", base, {})
    for what, slots in _varied(SHAPES[tag], base):
        yield Edge(tag, f"tag {tag} {what}", slots, {})
    for version in (v for v in INTEGERS if v < 2**32):
        yield Edge(tag, f"tag {tag} schema_version {version}", base, {"version": version})
    for hint in (-128, -1, 0, 127):
        yield Edge(tag, f"tag {tag} type_hint {hint}", base, {"hint": hint})


def correlations(tag: int, base: dict[str, Any]) -> Iterator[Edge]:
    """A message under each edge of a correlation_id."""
    for text in (*STRINGS, *map(str, INTEGERS), "-1", "1e3", "\u0661"):
        yield Edge(tag, f"tag {tag} correlation_id {_short(text)}", base, {"correlation_id": text})


def _varied(shape: Shape, base: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, kind in shape:
        value = base.get(name)
        if isinstance(kind, tuple) and value is not None:
            for what, inner in _inside(kind, value):
                yield f"{name}.{what}", {**base, name: inner}
        if isinstance(kind, tuple) or kind == "bytes":
            yield f"{name} absent", {**base, name: None}
            continue
        for edge in _values(kind):
            yield f"{name} {_short(edge)}", {**base, name: edge}


def _inside(kind: tuple[str, Any], value: Any) -> Iterator[tuple[str, Any]]:
    what, of = kind
    if what == "table":
        yield from _varied(of, value)
    elif what == "tables":
        for name, first in _varied(of, value[0]):
            yield name, [first, *value[1:]]
        yield "empty", []
    else:
        for name in of.names or ():
            for edge in DOUBLES if of[name].kind == "f" else INTEGERS:
                rows = value.copy()
                bits = 8 * of[name].itemsize
                rows[name][0] = edge if of[name].kind == "f" else _fitted(edge, bits, of[name].kind == "i")
                yield f"{name} {edge}", rows
        yield "empty", value[:0]


def _fitted(value: int, bits: int, signed: bool) -> int:
    value %= 2**bits
    return value - 2**bits if signed and value >= 2 ** (bits - 1) else value


def _values(kind: str) -> list[Any]:
    if kind == "str":
        return list(STRINGS)
    if kind == "f64":
        return list(DOUBLES)
    if kind == "bool":
        return [False, True]
    if kind == "u8":
        return [0, 1, 4, 5, 127, 128, 255]
    return list(dict.fromkeys(_fitted(value, WIDTHS[kind], kind == "i64") for value in INTEGERS))


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:20]}... ({len(text)})"


# Raw frames


def frame(
    tag: int, slots: dict[str, Any], *, version: int = 2, correlation_id: str | None = "1", hint: int = 0
) -> bytes:
    """The bytes of a message: version 2 and later ones with identifier and a right checksum."""
    builder = flatbuffers.Builder(1_024)
    correlation = None if correlation_id is None else builder.CreateString(correlation_id)
    message = _table(builder, SHAPES[tag], slots)
    builder.StartObject(5)
    builder.PrependUint32Slot(0, version, None)
    builder.PrependInt8Slot(1, hint, None)
    if correlation is not None:
        builder.PrependUOffsetTRelativeSlot(2, correlation, 0)
    builder.PrependUint8Slot(3, tag, None)
    builder.PrependUOffsetTRelativeSlot(4, message, 0)
    root = builder.EndObject()
    if version == 1 and tag < 13:
        builder.Finish(root)
        return bytes(builder.Output())
    builder.Finish(root, b"FLX2")
    body = bytes(builder.Output())
    return body + struct.pack("<I", crc32c(body))


_PREPEND: Final = {
    "bool": "PrependBoolSlot", "u8": "PrependUint8Slot", "u32": "PrependUint32Slot", "u64": "PrependUint64Slot",
    "i64": "PrependInt64Slot", "f64": "PrependFloat64Slot",
}  # fmt: skip


def _table(builder: flatbuffers.Builder, shape: Shape, values: dict[str, Any]) -> int:
    ready = {
        name: _child(builder, kind, values[name]) for name, kind in shape if values.get(name) is not None
    }
    builder.StartObject(len(shape))
    for slot, (name, kind) in enumerate(shape):
        if name not in ready:
            continue
        if isinstance(kind, str) and kind in _PREPEND:
            getattr(builder, _PREPEND[kind])(slot, ready[name], None)
        else:
            builder.PrependUOffsetTRelativeSlot(slot, ready[name], 0)
    return int(builder.EndObject())


def _child(builder: flatbuffers.Builder, kind: Any, value: Any) -> Any:
    if kind == "str":
        return builder.CreateString(value)
    if kind == "bytes":
        return builder.CreateByteVector(value)
    if not isinstance(kind, tuple):
        return value
    what, of = kind
    if what == "table":
        return _table(builder, of, value)
    if what == "tables":
        offsets = [_table(builder, of, item) for item in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    data = value.tobytes()
    builder.StartVector(of.itemsize, len(value), 8)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return builder.EndVector()
