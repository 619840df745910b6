"""A server that sends one message for ever to whoever connects: the mirror of `endless.py`."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Final

from tests.system.endless import CUT_OFF_S, GREETING, read
from tests.system.processes import free_port

MOST: Final = 64 << 30
"""Bytes; nobody takes so many."""


class EndlessServer:
    """One port of it, as a socket of `kind`; every part has `part` bytes. `whole`: every message ends after so many
    parts, and the next begins.
    """

    def __init__(self, kind: bytes, part: int, whole: int = 0) -> None:
        self.connections = 0
        self.cut = threading.Event()
        """A connection was ended by its client."""
        self._kind = kind
        size = struct.pack(">Q", part) if part > 255 else bytes([part])
        frame = bytes([3 if part > 255 else 1]) + size + bytes(part)
        if whole:
            self._chunk = (frame * (whole - 1) + bytes([frame[0] - 1]) + frame[1:]) * 8
        else:
            self._chunk = frame * max(1, 65_536 // len(frame))
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self._open: list[socket.socket] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while not self._stopping:
            made, _ = self._listener.accept()
            self._open.append(made)
            with made, contextlib.suppress(OSError, AssertionError):
                made.sendall(GREETING)
                ready = (
                    b"\x05READY"
                    + bytes([11])
                    + b"Socket-Type"
                    + struct.pack(">I", len(self._kind))
                    + self._kind
                )
                made.sendall(bytes([4, len(ready)]) + ready)
                read(made, 64)
                self.connections += 1
                self._send(made)

    def _send(self, made: socket.socket) -> None:
        sent = 0
        try:
            made.settimeout(CUT_OFF_S)
            while sent < MOST:
                made.sendall(self._chunk)
                sent += len(self._chunk)
        except OSError:
            if not self._stopping:
                self.cut.set()

    def close(self) -> None:
        """End it; the port is free then."""
        self._stopping = True
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname()).close()  # it may be waiting for one
        for made in self._open:
            with contextlib.suppress(OSError):
                made.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def __enter__(self) -> EndlessServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
