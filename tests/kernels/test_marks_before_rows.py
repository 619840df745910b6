"""A group is written, marked and counted before it is sent: who asks for what it just got is never ahead of the head.
And a group that the file has no room for is Python's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import zmq

from flux import codec, journal
from flux.journal import Fence, FenceMark, Journal, Position
from flux.journal.disk import CLOSE_BYTES
from flux.journal.records import SourceRecord, pack
from flux.kernels.journal import COMMIT_SIZE
from flux.model import ROW_DTYPES, RowKind, StreamKey
from flux.server.pipeline.exchange import Exchange
from flux.transport import bridge
from flux.transport.bridge import Commits, Turns
from flux.transport.pump import Receiver, Streams
from flux.transport.sockets import Socket, Sockets, Wake, endpoint_of, send
from tests.patience import PATIENCE_S

KEY = StreamKey("SIM", "X", "1m")
ROOM = 1 << 16  # bytes of a file


class Lent:
    """Streams of one key, and an exchange with one group: three rows of a feed's run 7, position 3."""

    def __init__(self, directory: Path) -> None:
        self.streams = Streams(1)
        self.streams.add(KEY, stream_id=1, ring_rows=64, owner=1)
        self.exchange = Exchange()
        self._fill()
        self.directory = directory
        self.log, self.fence = Journal.create(directory, b"", file_bytes=ROOM), Fence(directory)
        self.before = self.log.position.offset
        self.seen: list[tuple[int, int, Position, FenceMark | None, int]] = []

    def _fill(self) -> None:
        rows = np.zeros(3, ROW_DTYPES[RowKind.CANDLE])
        rows["ts_ms"], rows["flags"] = 1_700_000_040_000 + 60_000 * np.arange(3), 1
        frame = codec.encode(rows, KEY, 1, store_id=7, stream_id=1)
        assert isinstance(frame, bytes)
        with Sockets() as sockets:
            puller = sockets.puller("tcp://127.0.0.1:*")
            pusher = sockets.pusher(endpoint_of(puller))
            self.receiver = Receiver(puller, self.streams, server=True)
            self.receiver.kernel.add_run(b"SIM", 7, 0, 1, pack(SourceRecord("feed:SIM:7", (0, 0)))[:-3])
            turns = Turns(self.exchange.handover, self.receiver, puller, Wake(), store_id=1, epoch=1)
            assert pusher.poll(int(PATIENCE_S * 1_000), zmq.POLLOUT)
            assert send(pusher, [frame])
            deadline = time.monotonic() + PATIENCE_S
            while self.streams.kernel.head(0) < 3 and time.monotonic() < deadline:
                turns.run(0.05)

    @property
    def size(self) -> int:
        """Bytes of the group that waits, with its COMMIT."""
        return self.exchange._filled[0].group.used + COMMIT_SIZE

    def send(self, frame: bytes, flags: int) -> None:
        """As a PUB socket: at each frame it looks at what others could see by now."""
        scanned = journal.scan(journal.read_file(self.log.path))
        mark, position = Fence(self.directory).load(), self.exchange.handover.position
        rows = self.streams.kernel.committed(0)[0]
        self.seen.append((rows, self.receiver.kernel.run_committed(0)[0], position, mark, scanned.committed))

    def recv(self, flags: int) -> bytes:
        raise zmq.Again

    def commits(self, *, by_python: bool = False) -> Commits:
        return Commits(
            self.exchange.handover, self.receiver, self.streams, cast("Socket", self), store_id=1, epoch=1, disk=False,
            by_python=by_python,
        )  # fmt: skip

    def close(self) -> None:
        self.fence.close()
        self.log.close(clean=False)


@pytest.fixture
def lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lent]:
    monkeypatch.setattr(bridge, "NATIVE", False)  # its frames go through `Lent.send`
    made = Lent(tmp_path)
    yield made
    made.close()


def test_a_group_is_written_marked_and_counted_before_anything_of_it_is_sent(lent: Lent) -> None:
    done = lent.commits().run(0, lent.log, lent.fence)
    assert (done.groups, done.noted, done.refused) == (1, False, 0)
    end = lent.log.position
    assert end.offset > lent.before
    expected = (3, 3, end, FenceMark(1, 1, *end), end.offset)
    assert lent.seen == [expected, expected], "topic and payload"


@pytest.mark.parametrize("room", [-1, 0, 1])
def test_a_group_that_the_file_has_no_room_for_is_pythons(
    lent: Lent, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte: `room` more than the group and its COMMIT take."""
    size = lent.size
    monkeypatch.setattr(lent.log, "_file_bytes", lent.before + size + CLOSE_BYTES + room)
    before = lent.log.path.read_bytes()
    done = lent.commits().run(0, lent.log, lent.fence)
    assert (done.groups, done.noted, done.refused) == ((0, True, 0) if room < 0 else (1, False, 0))
    if room < 0:
        assert lent.seen == []
        assert (lent.log.position.offset, lent.log.path.read_bytes()) == (lent.before, before)
    else:
        assert lent.log.position.offset == lent.before + size


def test_every_group_is_pythons_where_that_is_wanted(lent: Lent) -> None:
    done = lent.commits(by_python=True).run(0, lent.log, lent.fence)
    assert (done.groups, done.noted, lent.seen, lent.log.position.offset) == (0, True, [], lent.before)
