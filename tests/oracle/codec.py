"""The codec again in plain Python, byte by byte: the specification of what is accepted and what it says.

`decode(frame)` gives a dict of the envelope, or raises `Refused(reason)`. Nothing is shared with the kernel,
not even the table of shapes. Null strings are None, null vectors None, a null key None.
"""

from __future__ import annotations

import struct
from typing import Any

MAX_FRAME = 4 << 20
MAX_TABLES = 1_000_000
MAX_LISTED = 65_536
MAX_TEXT = 64 << 20

CANDLE_ROW = "<qddddddII"
TRADE_ROW = "<qddQII"
QUOTE_ROW = "<qdddd"
MARK = "<QqII"
REFUSED = "<QII"

_KEY = "key:StreamKey"
_BATCH = "start_sequence:u64 rows:{} epoch:u32 store_id:u64 origin_ns:i64 recorded_ns:i64 stream_id:u32"
SHAPES = {
    1: "",
    2: "ok:true message:str state:u8 version:str store_id:u64 epoch:u32 schema_version_max:u32"
    " parent_store_id:u64",
    3: _KEY,
    4: f"{_KEY} cursor:Cursor",
    5: f"{_KEY} has_from_sequence:bool from_sequence_exclusive:u64",
    6: f"accepted:bool reason:str {_KEY} latest_sequence:u64",
    7: f"{_KEY} start_sequence:u64 candles:[Candle]",
    8: f"{_KEY} has_from_sequence:bool from_sequence_exclusive:u64 has_end_ts_ms:bool end_ts_ms:i64"
    " limit:u32",
    9: f"{_KEY} start_sequence:u64 candles:[Candle] has_more:bool next_sequence:u64",
    10: "code:u32 message:str status:u8 retry_after_ms:u32",
    11: f"{_KEY} stream_id:u32",
    12: f"{_KEY} latest_sequence:u64 latest_ts_ms:i64 server_time_ms:i64 first_sequence:u64 epoch:u32"
    f" store_id:u64 stream_id:u32 forming:{CANDLE_ROW}",
    13: f"{_KEY} {_BATCH.format(CANDLE_ROW)}",
    14: f"{_KEY} from_sequence_exclusive:u64 to_sequence_inclusive:u64 limit:u32 epoch:u32 store_id:u64"
    " accept_zstd:bool end_ts_ms:i64 start_ts_ms:i64",
    15: f"{_KEY} start_sequence:u64 rows:{CANDLE_ROW} epoch:u32 store_id:u64 has_more:bool"
    " first_available_sequence:u64 watermark_sequence:u64 status:u8 epoch_end_sequence:u64 row_count:u32"
    f" zstd:bytes trades:{TRADE_ROW} quotes:{QUOTE_ROW} rows_epoch:u32",
    16: f"store_id:u64 epoch:u32 boot_id:u64 server_time_ns:i64 number:u64 interval_ms:u32 marks:{MARK}"
    " state:u8 reason:str loop_age_ms:u32 parent_store_id:u64",
    17: "prefix:str after_stream_id:u32 limit:u32",
    18: "streams:[12] has_more:bool",
    19: f"{_KEY} {_BATCH.format(TRADE_ROW)}",
    20: f"{_KEY} {_BATCH.format(QUOTE_ROW)}",
    21: f"{_KEY} since_ms:i64 limit:u32",
    22: "gaps:[GapRecord] has_more:bool",
    23: f"{_KEY} rows:{CANDLE_ROW} after_sequence:u64 epoch:u32 store_id:u64 origin_ns:i64 recorded_ns:i64"
    " stream_id:u32",
    24: "source_id:str run:u64 claim:u64 refused_after:u64",
    25: f"source_id:str run:u64 committed:u64 incarnation:u32 refused_total:u64 refused:{REFUSED}",
    "StreamKey": "source_id:str symbol:str interval:str",
    "Cursor": "latest_sequence:u64 latest_ts_ms:i64",
    "Candle": "ts_ms:i64 open:f64 high:f64 low:f64 close:f64 volume:f64",
    "GapRecord": f"{_KEY} cause:u8 first_sequence:u64 last_sequence:u64 from_ts_ms:i64 to_ts_ms:i64"
    " detected_ms:i64 repaired_ms:i64",
}
SCALARS = {"bool": "<?", "true": "<?", "u8": "<B", "u32": "<I", "i64": "<q", "u64": "<Q", "f64": "<d"}


class Refused(Exception):  # noqa: N818  it is an answer, not a fault
    """The frame is not what it says; the argument is the reason's word."""


def crc32c(data: bytes, value: int = 0) -> int:
    """Bit by bit."""
    state = ~value & 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = (state >> 1) ^ (0x82F63B78 if state & 1 else 0)
    return ~state & 0xFFFFFFFF


class Reader:
    """One frame's FlatBuffer: every access says where it reads and is refused outside or misaligned."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.tables = 0
        self.text = MAX_TEXT

    def item(self, at: int, code: str, align: int | None = None) -> Any:
        size = struct.calcsize(code)
        if at % (align or size) or at < 0 or at + size > len(self.data):
            raise Refused("verify")
        if code == "<?":
            return self.data[at] != 0
        return struct.unpack_from(code, self.data, at)[0]

    def table(self, at: int) -> dict[int, int]:
        """Position of each slot that is present."""
        vtable = at - self.item(at, "<i")
        size = self.item(vtable, "<H")
        if size % 2 or vtable + size > len(self.data):
            raise Refused("verify")
        self.tables += 1
        if self.tables > MAX_TABLES:
            raise Refused("verify")
        offsets = [self.item(vtable + entry, "<H") for entry in range(4, size, 2)]
        return {slot: at + offset for slot, offset in enumerate(offsets) if offset}

    def vector(self, field: int, width: int, align: int) -> tuple[int, int]:
        """(first item, count) of the vector whose offset stands at `field`."""
        at = field + self.item(field, "<I")
        count = self.item(at, "<I")
        if (at + 4) % align or at + 4 + count * width > len(self.data):
            raise Refused("verify")
        return at + 4, count

    def string(self, field: int) -> str:
        at, size = self.vector(field, 1, 1)
        if at + size >= len(self.data) or self.data[at + size] != 0 or size > self.text:
            raise Refused("verify")
        self.text -= size
        try:
            return self.data[at : at + size].decode()
        except UnicodeDecodeError:
            raise Refused("verify") from None

    def shape(self, at: int, which: Any) -> dict[str, Any]:
        slots, out = self.table(at), {}
        for slot, entry in enumerate(SHAPES[which].split()):
            name, _, kind = entry.partition(":")
            out[name] = self.value(slots.get(slot), kind)
        return out

    def value(self, at: int | None, kind: str) -> Any:
        if kind in SCALARS:
            return (
                self.item(at, SCALARS[kind]) if at else {"true": True, "bool": False, "f64": 0.0}.get(kind, 0)
            )
        if at is None:
            return None
        if kind == "str":
            return self.string(at)
        if kind == "bytes":
            first, count = self.vector(at, 1, 1)
            return self.data[first : first + count]
        if kind.startswith("<"):
            width = struct.calcsize(kind)
            first, count = self.vector(at, width, 8)
            return [struct.unpack_from(kind, self.data, first + i * width) for i in range(count)]
        if kind.startswith("["):
            return self.list(at, kind[1:-1])
        return self.shape(at + self.item(at, "<I"), kind)

    def list(self, at: int, of: str) -> list[Any]:
        first, count = self.vector(at, 4, 4)
        if of != "Candle" and count > MAX_LISTED:
            raise Refused("verify")
        which = int(of) if of.isdigit() else of
        found = [self.shape(i + self.item(i, "<I"), which) for i in range(first, first + 4 * count, 4)]
        return [tuple(candle.values()) for candle in found] if of == "Candle" else found


def decode(frame: bytes) -> dict[str, Any]:
    """schema_version, type_hint, correlation_id, message_type, message (None when unknown or absent)."""
    if len(frame) < 8:
        raise Refused("short")
    if len(frame) > MAX_FRAME:
        raise Refused("size")
    wrong = int.from_bytes(frame[4:8], "little") ^ int.from_bytes(b"FLX2", "little")
    checked = wrong == 0
    if wrong.bit_count() == 1 or (checked and len(frame) < 12):
        raise Refused("checksum")
    if checked:
        frame, checksum = frame[:-4], int.from_bytes(frame[-4:], "little")
        if crc32c(frame) != checksum:
            raise Refused("checksum")
    reader = Reader(frame)
    slots = reader.table(reader.item(0, "<I"))
    tag = reader.item(slots[3], "<B") if 3 in slots else 0
    if tag >= 13 and not checked:
        raise Refused("checksum")
    out = {
        "schema_version": reader.item(slots[0], "<I") if 0 in slots else 1,
        "type_hint": reader.item(slots[1], "<b") if 1 in slots else 0,
        "correlation_id": reader.string(slots[2]) if 2 in slots else None,
        "message_type": tag,
        "message": None,
    }
    if (3 in slots) != (4 in slots):
        raise Refused("verify")
    if tag in SHAPES:
        out["message"] = reader.shape(slots[4] + reader.item(slots[4], "<I"), tag)
    return out
