"""Random messages of every kind, built with the flatbuffers package from the oracle's shapes: any slot may be missing,
null or at its default, vectors may be empty, the order of slots in a table and of tables in a frame is any."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import flatbuffers

from flux import codec
from tests.oracle import codec as oracle

TAGS = [which for which in oracle.SHAPES if isinstance(which, int)]
BUILT_BY_TAG = [*TAGS, 7, 13, 19, 20]  # live rows twice as often
FIRST_CHECKED_TAG = 13  # from here on a message exists in version 2 only
EDGES = {
    "u8": (0, 1, 255),
    "u32": (0, 1, 2**32 - 1),
    "u64": (0, 1, 2**63, 2**64 - 1),
    "i64": (0, -1, -(2**63)),
}
TEXTS = ("", "SIM", "BTC/USDT", "1m", "trade", "quote", "é", "日本", "\U0001f600", "a\0b")
RANGES = {"u8": (0, 2**8 - 1), "u32": (0, 2**32 - 1), "u64": (0, 2**64 - 1), "i64": (-(2**63), 2**63 - 1)}


def message(rng: random.Random) -> bytes:
    """A frame that is right: version 1, or version 2 with identifier and checksum."""
    tag = rng.choice(BUILT_BY_TAG)
    checked = tag >= FIRST_CHECKED_TAG or rng.random() < 0.5
    builder = flatbuffers.Builder(0)
    builder.ForceDefaults(rng.random() < 0.3)
    correlation = builder.CreateString(_text(rng)) if rng.random() < 0.5 else None
    body = _table(builder, rng, tag)
    builder.StartObject(5)
    slots: list[Callable[[], None]] = [
        lambda: builder.PrependUint32Slot(0, rng.choice((0, 1, 2, 99)), 1),
        lambda: builder.PrependInt8Slot(1, rng.randrange(-128, 128), 0),
        lambda: builder.PrependUint8Slot(3, tag, 0),
        lambda: builder.PrependUOffsetTRelativeSlot(4, body, 0),
    ]
    if correlation is not None:
        slots.append(lambda: builder.PrependUOffsetTRelativeSlot(2, correlation, 0))
    for put in rng.sample(slots, len(slots)):
        put()
    root = builder.EndObject()
    builder.Finish(root, file_identifier=b"FLX2" if checked else None)
    frame = bytes(builder.Output())
    return frame + codec.crc32c(frame).to_bytes(4, "little") if checked else frame


def damaged(rng: random.Random, frame: bytes) -> bytes:
    """The frame with a few of its bytes, words or its length changed, and the checksum right again."""
    checked = frame[4:8] == b"FLX2"
    body = bytearray(frame[:-4] if checked else frame)
    for _ in range(rng.randint(1, 3)):
        at = rng.choice((rng.randrange(len(body)), rng.randrange(min(len(body), 120))))
        if 4 <= at < 8:
            continue  # it is version 2, or it is not
        way = rng.randrange(4)
        if way == 0:
            body[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            body[at] = rng.randrange(256)
        elif way == 2 and len(body) > 12:
            at = max(8, at - at % 4)
            word = rng.choice((0, 1, 4, 2**31, 2**32 - 1, len(body), len(body) - at, rng.randrange(2**32)))
            body[at : at + 4] = word.to_bytes(4, "little")[: len(body) - at]
        elif way == 3 and len(body) > 40:
            del body[rng.randrange(20, len(body)) :]
    return bytes(body) + codec.crc32c(body).to_bytes(4, "little") if checked else bytes(body)


def _text(rng: random.Random) -> str:
    return rng.choice(TEXTS) if rng.random() < 0.8 else "x" * rng.randrange(300)


def _scalar(rng: random.Random, kind: str) -> Any:
    if kind in ("bool", "true"):
        return rng.random() < 0.5
    if kind == "f64":
        return rng.choice((0.0, -0.0, float("nan"), float("inf"), rng.gauss(0, 1e5)))
    return rng.choice(EDGES[kind]) if rng.random() < 0.4 else rng.randint(*RANGES[kind])


def _table(builder: flatbuffers.Builder, rng: random.Random, which: Any) -> int:
    slots, present = oracle.SHAPES[which].split(), 0.9 if rng.random() < 0.8 else 0.4
    put: list[Callable[[], None]] = []
    for slot, entry in enumerate(slots):
        name, _, kind = entry.partition(":")
        if rng.random() > present:
            continue
        if kind in oracle.SCALARS:
            put.append(_scalar_slot(builder, slot, kind, _scalar(rng, kind)))
            continue
        made = _object(builder, rng, kind, name)
        put.append(lambda slot=slot, made=made: builder.PrependUOffsetTRelativeSlot(slot, made, 0))
    builder.StartObject(len(slots))
    for each in rng.sample(put, len(put)):
        each()
    return int(builder.EndObject())


def _scalar_slot(builder: flatbuffers.Builder, slot: int, kind: str, value: Any) -> Callable[[], None]:
    prepend = {
        "bool": builder.PrependBoolSlot,
        "true": builder.PrependBoolSlot,
        "u8": builder.PrependUint8Slot,
        "u32": builder.PrependUint32Slot,
        "u64": builder.PrependUint64Slot,
        "i64": builder.PrependInt64Slot,
        "f64": builder.PrependFloat64Slot,
    }[kind]
    return lambda: prepend(slot, value, kind == "true")


def _object(builder: flatbuffers.Builder, rng: random.Random, kind: str, name: str) -> int:
    if kind == "str":
        return int(builder.CreateString(_text(rng)))
    if kind == "bytes":
        return int(builder.CreateByteVector(rng.randbytes(rng.randrange(40))))
    if kind.startswith("<"):
        count = rng.choice((0, 1, 1, 2, 5, rng.randrange(60)))
        return _structs(builder, rng.randbytes(struct.calcsize(kind) * count), count)
    if not kind.startswith("["):
        return _table(builder, rng, kind)
    of = kind[1:-1]
    count = rng.choice((0, 1, 2, rng.randrange(20)))
    items = [_table(builder, rng, int(of) if of.isdigit() else of) for _ in range(count)]
    items += rng.choices(items, k=2) if items and rng.random() < 0.3 else []  # offsets may be shared
    builder.StartVector(4, len(items), 4)
    for item in items:
        builder.PrependUOffsetTRelative(item)
    return int(builder.EndVector())


def _structs(builder: flatbuffers.Builder, data: bytes, count: int) -> int:
    builder.StartVector(len(data) // count if count else 8, count, 8)
    for word in reversed(struct.unpack(f"<{len(data) // 8}Q", data)):
        builder.PrependUint64(word)
    return int(builder.EndVector())
