"""A loop and a committer without a server: what a feed sends is committed into a journal, and sent to an object that
looks at what others could see by then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import zmq

from flux import codec, journal
from flux.journal import Fence, FenceMark, Journal, Position
from flux.journal.records import source_begins
from flux.kernels.journal import COMMIT_SIZE
from flux.model import ROW_DTYPES, RowKind, StreamKey
from flux.server.pipeline.exchange import Exchange
from flux.transport.bridge import Commits, Turns
from flux.transport.pump import Receiver, Streams
from flux.transport.sockets import Socket, Sockets, Wake, send
from tests.patience import PATIENCE_S

KEY = StreamKey("SIM", "X", "1m")
BEGINS = source_begins("feed:SIM:7")
ROOM = 1 << 20  # bytes of a file


class Committing:
    """One stream, written by run 7 of a feed; `send` and `recv` are those of its PUB socket. `bridge.NATIVE` must be
    False, and the journal is begun by `begin`."""

    def __init__(self) -> None:
        self.streams = Streams(1)
        self.streams.add(KEY, stream_id=1, ring_rows=4_096, owner=1)
        self.exchange = Exchange()
        self._sockets = Sockets()
        puller = self._sockets.puller("inproc://fed")  # what is sent there has come
        self._pusher = self._sockets.pusher("inproc://fed")
        self.receiver = Receiver(puller, self.streams, server=True)
        self.receiver.kernel.add_run(b"SIM", 7, 0, 1, BEGINS)
        self._turns = Turns(self.exchange.handover, self.receiver, puller, Wake(), store_id=1, epoch=1)
        self.heard: list[bytes] = []
        self.while_sending: Callable[[], None] = lambda: None
        self.seen: list[tuple[int, int, Position, FenceMark | None, int]] = []
        """At each frame: rows and the run's rows that are committed, the position, the fence, the journal's end."""
        self.senders: set[int] = set()

    def fill(self, count: int = 3, frames: int = 1) -> None:
        """The feed's next rows, in so many frames, taken in by one turn of this thread."""
        first = self.streams.kernel.head(0) + 1
        for numbers in np.array_split(first + np.arange(count), frames):
            rows = np.zeros(len(numbers), ROW_DTYPES[RowKind.CANDLE])
            rows["ts_ms"], rows["flags"] = 1_700_000_040_000 + 60_000 * numbers, 1
            frame = codec.encode(rows, KEY, int(numbers[0]), store_id=7, stream_id=1)
            assert isinstance(frame, bytes)
            assert send(self._pusher, [frame])
        deadline = time.monotonic() + PATIENCE_S
        while self.streams.kernel.head(0) < first + count - 1:
            assert time.monotonic() < deadline
            self._turns.run(0.01)

    def begin(self, directory: Path, room: int = ROOM) -> None:
        """Go on with a journal and a fence of their own."""
        self.directory = directory
        self.log, self.fence = Journal.create(directory, b"", file_bytes=room), Fence(directory)
        self.before = self.log.position.offset

    @property
    def size(self) -> int:
        """Bytes of the group that was filled first, with its COMMIT."""
        return self.exchange._filled[0].group.used + COMMIT_SIZE

    def commits(self, *, disk: bool = False, ask_always: bool = False) -> Commits:
        return Commits(
            self.exchange.handover, self.log, self.fence, self.receiver, self.streams, cast("Socket", self),
            store_id=1, epoch=1, disk=disk, ask_always=ask_always,
        )  # fmt: skip

    def send(self, frame: bytes, flags: int) -> None:
        scanned = journal.scan(journal.read_file(self.log.path))
        mark, position = Fence(self.directory).load(), self.exchange.handover.position
        rows = self.streams.kernel.committed(0)[0]
        self.seen.append((rows, self.receiver.kernel.run_committed(0)[0], position, mark, scanned.committed))
        self.senders.add(threading.get_ident())
        self.while_sending()

    def recv(self, flags: int) -> bytes:
        if not self.heard:
            raise zmq.Again
        return self.heard.pop()

    def getsockopt(self, option: int) -> Any:
        assert option == zmq.RCVMORE
        return 0

    def close(self) -> None:
        self.fence.close()
        self.log.close(clean=False)
        self._sockets.close()
