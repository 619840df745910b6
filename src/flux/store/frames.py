"""What a server and its store's process say to each other: msgpack frames over a socketpair.

frame    length u32, little endian | msgpack of one message
rows     travel as the bytes they are: nothing here is per row
"""

from __future__ import annotations

import socket
import struct
import threading
from typing import Any, Final, TypeAlias

import msgspec

from flux.limits import STORE_FRAME_BYTES

_LENGTH: Final = struct.Struct("<I")


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The first message to the process: whose database it is, and where the journal stands."""

    directory: str
    url: str
    store_id: int
    parent_store_id: int
    epoch: int
    first: tuple[int, int]
    """Where a new store begins."""
    end: tuple[int, int]
    """Of the journal, when the server started."""


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    """A call of a reading method of the store."""

    number: int
    method: str
    arguments: tuple[Any, ...]


class Stop(msgspec.Struct, frozen=True, array_like=True, tag="stop"):
    """Project what is committed, then end."""


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """What came of a call: `value`, of rows with their bytes, or an error."""

    number: int
    value: Any = None
    rows: bytes = b""
    error: str = ""
    damaged: bool = False


class Told(msgspec.Struct, frozen=True, array_like=True, tag="told"):
    """How the process is, unasked: after every transaction, and every STORE_TOLD_MS."""

    position: tuple[int, int] | None
    """How far the journal is in the database; None while it does not open."""
    stored: dict[int, int]
    """By stream_id the last sequence, of what was stored since the last time."""
    error: str = ""
    damaged: bool = False


ToStore: TypeAlias = Hello | Ask | Stop
FromStore: TypeAlias = Answer | Told

_encode = msgspec.msgpack.Encoder().encode


class Frames:
    """One end of the socketpair. Any thread sends, one receives."""

    def __init__(self, end: socket.socket, expected: Any) -> None:
        self._end = end
        self._decode = msgspec.msgpack.Decoder(expected).decode
        self._sending = threading.Lock()

    def send(self, message: ToStore | FromStore) -> None:
        """Raises OSError: the other end is gone, or (with a timeout on the socket) does not read."""
        body = _encode(message)
        with self._sending:
            self._end.sendall(_LENGTH.pack(len(body)) + body)

    def receive(self) -> Any | None:
        """The next message; None when the other end is gone. Raises OSError, and ValueError for what is none."""
        head = self._exactly(_LENGTH.size)
        if head is None:
            return None
        (length,) = _LENGTH.unpack(head)
        if length > STORE_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes")
        body = self._exactly(length)
        return None if body is None else self._decode(body)

    def close(self) -> None:
        """Let go of the socket: the other end hears of it."""
        self._end.close()

    def _exactly(self, size: int) -> bytearray | None:
        found = bytearray(size)
        view, have = memoryview(found), 0
        while have < size:
            got = self._end.recv_into(view[have:])
            if got == 0:
                return None
            have += got
        return found
