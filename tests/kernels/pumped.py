"""A receiver at the end of a real socket, and frames to send it: for the tests of the pump."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from types import TracebackType

import numpy as np
import zmq
from numpy.typing import NDArray

from flux import codec
from flux.journal import Group
from flux.model import ROW_DTYPES, RowKind, StreamKey
from flux.transport.pump import Drained, Receiver, Streams, record
from flux.transport.sockets import Sockets, endpoint_of
from tests.numbered import number
from tests.patience import PATIENCE_S

FREE_PORT = "tcp://127.0.0.1:*"
KEY = StreamKey("SIM", "BTC/USDT", "1m")
TRADES = StreamKey("SIM", "BTC/USDT", "trade")
QUOTES = StreamKey("SIM", "BTC/USDT", "quote")
STORE = 0x1122_3344_5566_7788
NOW_MS = 1_700_000_040_000  # a whole minute

Rows = NDArray[np.void]


def rows_of(kind: RowKind, first: int, count: int) -> Rows:
    """Sound rows that differ in every value; row i is the one of sequence first + i."""
    rows = np.zeros(count, ROW_DTYPES[kind])
    n = np.arange(first, first + count)
    if kind is RowKind.CANDLE:
        rows["ts_ms"], rows["flags"], rows["trade_count"] = NOW_MS + 60_000 * n, 1, n % 2**31
        for name, plus in (("open", 1), ("high", 2), ("low", 0), ("close", 1)):
            rows[name] = n + plus
        return rows
    for name in rows.dtype.names or ():
        rows[name] = n
    rows["ts_ns"] = (NOW_MS + n) * 1_000_000
    if kind is RowKind.TRADE:
        rows["flags"] %= 4  # the others are the server's
    return rows


def frame_of(key: StreamKey, first: int, rows: Rows | int, **patched: int) -> bytes:
    """A message of version 2 with the rows of `first` and the sequences after it."""
    given = rows_of(key.kind, first, rows) if isinstance(rows, int) else rows
    made = codec.encode(given, key, first, **({"store_id": STORE, "epoch": 1, "stream_id": 7} | patched))
    assert isinstance(made, bytes)
    return made


def resealed(frame: bytes, at: int, data: bytes) -> bytes:
    """The frame with other bytes at `at`, and the checksum that belongs to them."""
    body = frame[:at] + data + frame[at + len(data) : -4]
    return body + codec.crc32c(body).to_bytes(4, "little")


def of_version(frame: bytes, version: int) -> bytes:
    """The frame with another schema_version."""
    root = struct.unpack_from("<I", frame)[0]
    vtable = root - struct.unpack_from("<i", frame, root)[0]
    return resealed(frame, root + struct.unpack_from("<H", frame, vtable + 4)[0], struct.pack("<I", version))


class Pumped:
    """A receiver and the socket that feeds it: SUB over TCP, PULL over TCP, or either within the process."""

    def __init__(self, *, server: bool = False, tcp: bool = True, limit: int = 64) -> None:
        self.streams = Streams(limit)
        self.server = server
        self.sent = 0
        self._sockets = Sockets()
        self._context = zmq.Context()
        if not tcp:
            self.source, sink = self._context.socket(zmq.PUSH), self._context.socket(zmq.PULL)
            sink.bind("inproc://pumped")
            self.source.connect("inproc://pumped")
        elif server:
            sink = self._sockets.puller(FREE_PORT)
            self.source = self._sockets.pusher(endpoint_of(sink))
        else:
            publisher = self._sockets.publisher(FREE_PORT)
            sink = self._sockets.subscriber(endpoint_of(publisher.socket), [b""])
            self.source = publisher.socket
            assert self.source.poll(PATIENCE_S * 1_000), "nobody subscribed"
            publisher.drain()
        self.sink = sink
        self.receiver = Receiver(sink, self.streams, server=server)
        self.group = Group(1 << 20)
        self.taken: np.ndarray | None = None

    def add(self, key: StreamKey = KEY, rows: int = 64, **options: int) -> int:
        slot = self.streams.add(key, ring_rows=rows, **options)
        if self.server:
            self.streams.ring(slot).keep = 0
        else:
            self.streams.expect(slot, STORE, 1)
        return slot

    def send(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.send_frames(payload) if self.server else self.send_frames(b"topic", payload)

    def send_frames(self, *frames: bytes) -> None:
        self.source.send_multipart(frames)
        self.sent += 1

    @property
    def counted(self) -> dict[str, int]:
        """The counters that are not zero, without messages and bytes."""
        return {
            name: n for name, n in self.receiver.counters.items() if n and name not in ("messages", "bytes")
        }

    @property
    def looked_at(self) -> int:
        counters = self.receiver.counters
        return counters["messages"] + counters["frames"]

    def receive(self) -> tuple[Rows, Drained]:
        """Arrivals (copied) until all that was sent was looked at, or until something else than that happens."""
        found, deadline = [], time.monotonic() + PATIENCE_S
        while True:
            arrivals, status = self.receiver.receive()
            found.append(self._kept(arrivals, earlier=bool(found)))
            if status is not Drained.EMPTY or self.looked_at == self.sent:
                return np.concatenate(found), status
            assert self.sink.poll(100) or time.monotonic() < deadline, f"{self.looked_at} of {self.sent} came"

    def _kept(self, arrivals: Rows, earlier: bool) -> Rows:
        """A copy whose rows are in `taken`: the next call of the receiver rewrites arrivals and inbox."""
        arrivals = arrivals.copy()
        if earlier and self.taken is not None:
            arrivals["at"] += len(self.taken)
            self.taken = np.concatenate([self.taken, self.receiver.inbox])
        else:
            self.taken = self.receiver.inbox.copy()
        return arrivals

    def record(self, arrivals: Rows, **options: int) -> Rows:
        """What the server's loop does with arrivals; the runs."""
        runs = number(self.streams, arrivals)
        inbox = self.receiver.inbox if self.taken is None else self.taken
        self.taken = None  # rows that are offered next are in the receiver's own
        record(self.streams, self.group, inbox, runs, **({"store_id": STORE, "epoch": 1} | options))
        return runs

    def inbox(self, arrival: np.void, kind: RowKind = RowKind.CANDLE) -> Rows:
        """The rows of one arrival, as they lie in the inbox."""
        at, dtype = int(arrival["at"]), ROW_DTYPES[kind]
        inbox = self.receiver.inbox if self.taken is None else self.taken
        return inbox[at : at + int(arrival["rows"]) * dtype.itemsize].view(dtype)

    def close(self) -> None:
        self._sockets.close()
        self._context.destroy(linger=0)

    def __enter__(self) -> Pumped:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def payloads(group: Group) -> Iterator[bytes]:
    """The payloads of a group's batches."""
    for entry in group.entries[group.entries["kind"] == 1]:
        body = bytes(group.data[int(entry["at"]) : int(entry["at"] + entry["size"])])
        yield body[2 + struct.unpack_from("<H", body)[0] :]
