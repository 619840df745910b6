"""A row is marked committed before it is sent: who asks for what it just got is never ahead of the head."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from flux import codec, journal
from flux.model import ROW_DTYPES, RowKind, StreamKey
from flux.server.exchange import Exchange
from flux.server.records import SourceRecord, pack
from flux.transport import bridge
from flux.transport.bridge import Commits, Turns
from flux.transport.pump import Receiver, Streams
from flux.transport.sockets import Sockets, Wake, endpoint_of, send
from tests.patience import PATIENCE_S

KEY = StreamKey("SIM", "X", "1m")


class Seen:
    """Stands in for a PUB socket: at each frame it looks at how far the stream is committed."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self.committed: list[int] = []

    def send(self, frame: bytes, flags: int) -> None:
        self.committed.append(self._streams.kernel.committed(0)[0])

    def recv(self, flags: int) -> bytes:
        raise zmq.Again


def test_the_marks_move_before_anything_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "NATIVE", False)  # its frames go through `Seen.send`
    streams = Streams(1)
    streams.add(KEY, stream_id=1, ring_rows=64, owner=1)
    exchange = Exchange()
    rows = np.zeros(3, ROW_DTYPES[RowKind.CANDLE])
    rows["ts_ms"], rows["flags"] = 1_700_000_040_000 + 60_000 * np.arange(3), 1
    frame = codec.encode(rows, KEY, 1, store_id=7, stream_id=1)
    assert isinstance(frame, bytes)
    with Sockets() as sockets:
        puller = sockets.puller("tcp://127.0.0.1:*")
        pusher = sockets.pusher(endpoint_of(puller))
        receiver = Receiver(puller, streams, server=True)
        receiver.kernel.add_run(b"SIM", 7, 0, 1, pack(SourceRecord("feed:SIM:7", (0, 0)))[:-3])
        turns = Turns(exchange.handover, receiver, puller, Wake(), store_id=1, epoch=1)
        assert pusher.poll(PATIENCE_S * 1_000, zmq.POLLOUT)
        assert send(pusher, [frame])
        deadline = time.monotonic() + PATIENCE_S
        while streams.kernel.head(0) < 3 and time.monotonic() < deadline:
            turns.run(0.05)
    seen = Seen(streams)
    log = journal.Journal.create(tmp_path, b"", file_bytes=1 << 20)
    fence = journal.Fence(tmp_path)
    commits = Commits(
        exchange.handover, receiver, streams, seen, store_id=1, epoch=1, disk=False, by_python=False
    )
    done = commits.run(0, log, fence)
    assert (done.groups, done.noted) == (1, False)
    assert seen.committed == [3, 3], "topic and payload were sent once the mark had moved"
    fence.close()
    log.close()
