"""The log that the shim (shim.h) writes, read: one `Entry` for each change of a data directory, in order."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import NamedTuple

import numpy as np

ENTRY = np.dtype(
    [
        ("kind", "<u4"), ("thread", "<u4"), ("time_ns", "<i8"), ("inode", "<u8"), ("a", "<u8"), ("b", "<u8"),
        ("size", "<u4"), ("process", "<u4"), ("number", "<u8"), ("reserved", "<u8"),
    ]
)  # fmt: skip


class Kind(IntEnum):
    """`enum shim_kind`."""

    START = 1
    WRITE = 2
    SIZE = 3
    CREATE = 4
    RENAME = 5
    LINK = 6
    UNLINK = 7
    FOLDER = 8
    SYNCING = 9
    SYNCED = 10
    STORE = 11
    FAILED = 12
    KILLED = 13


class Call(IntFlag):
    """`enum shim_class`."""

    WRITE = 1
    SYNC = 2
    OPEN = 4
    RENAME = 8
    ALLOCATE = 16
    MAP = 32
    SOCKET = 64
    DESCRIPTOR = 128


class Entry(NamedTuple):
    """One entry; `a`, `b` and `data` as shim.h says for its kind."""

    kind: Kind
    time_ns: int
    inode: int
    a: int
    b: int
    data: bytes
    process: int
    number: int

    @property
    def path(self) -> str:
        """Where `data` is a path: the last one in it."""
        return self.data.rpartition(b"\0")[2].decode()


def read(path: Path) -> list[Entry]:
    """Every entry that is there whole."""
    return list(_entries(path.read_bytes()))


def _entries(log: bytes) -> Iterator[Entry]:
    at = 0
    while at + ENTRY.itemsize <= len(log):
        head = np.frombuffer(log, ENTRY, 1, at)[0]
        begin, size = at + ENTRY.itemsize, int(head["size"])
        at = begin + size + -size % 8
        if at > len(log):
            return
        yield Entry(
            Kind(int(head["kind"])), int(head["time_ns"]), int(head["inode"]), int(head["a"]), int(head["b"]),
            log[begin : begin + size], int(head["process"]), int(head["number"]),
        )  # fmt: skip
