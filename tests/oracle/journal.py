"""The journal's scan in plain Python: the specification of ext/journal.h. Bytes in, records out."""

from __future__ import annotations

import functools
from typing import NamedTuple

BATCH, COMMIT = 1, 6
HEADER, FILE_HEADER, COMMIT_BODY = 12, 24, 24
FORMAT = 2


def _table() -> list[int]:
    out = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        out.append(byte)
    return out


_TABLE = _table()


def crc32c(data: bytes, before: int = 0) -> int:
    crc = before ^ 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def sealed(data: bytes) -> bytes:
    return data + crc32c(data).to_bytes(4, "little")


def u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def record(kind: int, content: bytes) -> bytes:
    body = content if kind == BATCH else sealed(content)
    head = sealed(len(body).to_bytes(4, "little") + kind.to_bytes(4, "little"))
    return head + body + bytes(-(HEADER + len(body)) % 8)


def batch(topic: bytes, payload: bytes) -> bytes:
    return record(BATCH, len(topic).to_bytes(2, "little") + topic + sealed(payload))


def covered(crc: int, data: bytes) -> int:
    """A group's CRC, from format 2 on, behind one more record: its header and topic, and the body's own CRC."""
    length, front = u32(data, 0), HEADER
    if u32(data, 4) == BATCH and length >= 2:
        front += 2 + int.from_bytes(data[HEADER : HEADER + 2], "little")
    tail = HEADER + length - 4
    return crc32c(data[:front], crc) ^ u32(data, tail)


def group(start: int, synced: int, records: list[bytes], version: int = FORMAT) -> bytes:
    data = b"".join(records)
    crc = crc32c(data) if version == 1 else functools.reduce(covered, records, 0)
    marks = start.to_bytes(8, "little") + synced.to_bytes(8, "little")
    return data + record(COMMIT, marks + crc.to_bytes(4, "little"))


def file_header(number: int, version: int = FORMAT, before: int = 0) -> bytes:
    fields = b"".join(value.to_bytes(4, "little") for value in (version, number, before))
    return sealed(b"fluxlog\n" + fields)


class Scan(NamedTuple):
    records: list[tuple[int, int, int]]  # at, size, kind
    committed: int
    end: int
    tail: int
    reason: str
    resumes: bool
    number: int
    version: int
    before: int


def scan(data: bytes, start: int = 0, version: int = FORMAT) -> Scan:
    number = before = 0
    if start == 0:
        if len(data) < FILE_HEADER or data[:8] != b"fluxlog\n" or sealed(data[:20]) != data[:24]:
            return Scan([], 0, 0, *_rest(data, 0, 0), 0, 0, 0)._replace(reason="file")
        version, number, before, start = u32(data, 8), u32(data, 12), u32(data, 16), FILE_HEADER
        if version not in (1, FORMAT):
            raise ValueError("format")
    records: list[tuple[int, int, int]] = []
    committed, end, kept = start, start, 0
    while isinstance(found := _record(data, end, committed, version), tuple):
        records.append(found)
        end += -(-(HEADER + u32(data, end)) // 8) * 8
        if found[2] == COMMIT:
            committed, kept = end, len(records)
    tail, _, resumes = _rest(data, committed, end)
    return Scan(records[:kept], committed, end, tail, found, resumes, number, version, before)


def _record(data: bytes, at: int, group_start: int, version: int) -> tuple[int, int, int] | str:
    head = data[at : at + HEADER]
    if not any(head):
        return "end"
    if len(head) < HEADER:
        return "short"
    if sealed(head[:8]) != head:
        return "header"
    length, kind = u32(head, 0), u32(head, 4)
    if at + -(-(HEADER + length) // 8) * 8 > len(data):
        return "short"
    body = data[at + HEADER : at + HEADER + length]
    checked = body
    if kind == BATCH:
        checked = body[2 + int.from_bytes(body[:2], "little") :] if length >= 2 else b""
    if len(checked) < 4 or sealed(checked[:-4]) != checked:
        return "body"
    padding = data[at + HEADER + length : at + -(-(HEADER + length) // 8) * 8]
    if version > 1 and any(padding):
        return "body"
    if kind == COMMIT and (
        length != COMMIT_BODY
        or any(padding)
        or u64(body, 0) != group_start
        or u32(body, 16) != _group_crc(data[group_start:at], version)
    ):
        return "group"
    return at + HEADER, length if kind == BATCH else length - 4, kind


def _group_crc(data: bytes, version: int) -> int:
    if version == 1:
        return crc32c(data)
    crc = at = 0
    while at < len(data):
        size = -(-(HEADER + u32(data, at)) // 8) * 8
        crc = covered(crc, data[at : at + size])
        at += size
    return crc


def _rest(data: bytes, committed: int, end: int) -> tuple[int, str, bool]:
    """(tail, "", resumes): what is behind the last COMMIT, and whether it had been on the disk already."""
    tail = max(committed, len(data.rstrip(b"\0")))
    for at in range(end, min(tail, len(data) - 39), 8):
        if data[at : at + 8] == bytes([COMMIT_BODY, 0, 0, 0, COMMIT, 0, 0, 0]):
            head, body = data[at : at + HEADER], data[at + HEADER : at + HEADER + COMMIT_BODY]
            if sealed(head[:8]) == head and sealed(body[:-4]) == body and u64(body, 8) > end:
                return tail, "", True
    return tail, "", False
