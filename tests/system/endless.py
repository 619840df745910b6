"""A peer that sends one message for ever: raw ZMTP, parts with MORE that never end; and a server with a small bound."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

from flux import limits

BOUND: Final = 450 * limits.MIB
"""Bytes of memory of the server that this module runs."""

HWM: Final = 2_000
"""Messages that it keeps for a subscriber."""

CUT_OFF_S: Final = 5.0
"""A connection that was ended by one side may leave the other waiting for room, which will not come."""

GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\x00" + bytes(31)


def connected(endpoint: str, kind: bytes) -> socket.socket:
    """A connection that has greeted a ZMTP 3.0 server as a socket of this kind."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    made = socket.create_connection((host, int(port)))
    made.sendall(GREETING)
    ready = b"\x05READY" + bytes([11]) + b"Socket-Type" + struct.pack(">I", len(kind)) + kind
    made.sendall(bytes([4, len(ready)]) + ready)
    read(made, 64)
    flags, size = read(made, 2)
    assert flags == 4, "a command comes first"
    read(made, size)
    return made


def read(made: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = made.recv(size - len(found))
        assert more, "the server closed the connection"
        found += more
    return found


def endless(made: socket.socket, part: int, most: int) -> int:
    """Send parts of `part` bytes until the server ends the connection or takes no more of it: how many bytes went."""
    frame = b"\x03" + struct.pack(">Q", part) + bytes(part)  # long, and more parts follow
    chunk = frame * max(1, 1_048_576 // len(frame))
    sent = 0
    with made:
        made.settimeout(CUT_OFF_S)
        try:
            while sent < most:
                made.sendall(chunk)
                sent += len(chunk)
        except OSError:
            return sent
    raise AssertionError(f"{sent} bytes of one message were taken")


if __name__ == "__main__":
    limits.LIVE_HWM = HWM  # before those are imported who take it

    from flux.cli.main import main

    limits.server_bytes = lambda streams=0: {
        "all": BOUND
    }  # a small bound, so that a test needs little memory
    sys.exit(main(["serve", *sys.argv[1:]]))
