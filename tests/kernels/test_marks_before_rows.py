"""A group is written, marked and counted before it is sent: who asks for what it just got is never ahead of the head.
Python is asked where it has to be, and only then."""

from __future__ import annotations

import errno
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
from flux.journal.records import source_begins
from flux.kernels.journal import COMMIT_SIZE
from flux.model import ROW_DTYPES, RowKind, StreamKey
from flux.server.pipeline.exchange import Exchange
from flux.transport import bridge
from flux.transport.bridge import Commits, Turns, Why
from flux.transport.pump import Receiver, Streams
from flux.transport.sockets import Socket, Sockets, Wake, endpoint_of, send
from tests.full_disk import descriptor_of, refusing
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
        self.written = self.size
        self.begin(directory)
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
            self.receiver.kernel.add_run(b"SIM", 7, 0, 1, source_begins("feed:SIM:7"))
            turns = Turns(self.exchange.handover, self.receiver, puller, Wake(), store_id=1, epoch=1)
            assert pusher.poll(int(PATIENCE_S * 1_000), zmq.POLLOUT)
            assert send(pusher, [frame])
            deadline = time.monotonic() + PATIENCE_S
            while self.streams.kernel.head(0) < 3 and time.monotonic() < deadline:
                turns.run(0.05)

    def begin(self, directory: Path, room: int = ROOM) -> None:
        """Go on with a journal and a fence of their own."""
        self.directory = directory
        self.log, self.fence = Journal.create(directory, b"", file_bytes=room), Fence(directory)

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

    def commits(self, *, ask_always: bool = False) -> Commits:
        return Commits(
            self.exchange.handover, self.log, self.fence, self.receiver, self.streams, cast("Socket", self),
            store_id=1, epoch=1, disk=False, ask_always=ask_always,
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
    done = lent.commits().run(0)
    assert (done.groups, done.why, done.refused) == (1, Why.TIME, 0)
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
    lent.begin(lent.directory / "tight", lent.before + size + CLOSE_BYTES + room)
    before = lent.log.path.read_bytes()
    commits = lent.commits()
    done = commits.run(0)
    assert (done.groups, done.why, done.refused) == ((0, Why.NO_ROOM, 0) if room < 0 else (1, Why.TIME, 0))
    if room < 0:
        assert lent.seen == []
        assert (lent.log.position.offset, lent.log.path.read_bytes()) == (lent.before, before)
        monkeypatch.setattr(lent.log, "_file_bytes", ROOM)
        lent.log.rotate(b"")
        assert commits.run(0).groups == 1, "the next call goes on with it"
        assert lent.seen[0][0] == 3
        assert (lent.log.position.file, lent.log.position.offset) == (2, lent.before + size)
    else:
        assert lent.log.position.offset == lent.before + size


def test_python_is_asked_between_the_fence_and_the_marks(lent: Lent) -> None:
    """What it is asked about is in the journal and seen by nobody; the next call shows it, in the order it is given."""
    commits = lent.commits(ask_always=True)
    done = commits.run(0)
    end = lent.log.position
    assert (done.groups, done.why, lent.seen, end.offset) == (0, Why.ASKED, [], lent.before + lent.written)
    assert (lent.streams.kernel.committed(0)[0], lent.exchange.handover.position) == (0, Position(0, 0))
    assert lent.fence.load() == FenceMark(1, 1, *end)
    assert not lent.exchange.empty
    with pytest.raises(IndexError, match="entry 2 of"):
        commits.run(0, (np.array([2], np.uint32), np.zeros(1, np.uint8)))
    with pytest.raises(ValueError, match="a buffer of 1"):
        commits.run(0, (np.array([0, 0], np.uint32), np.zeros(1, np.uint8)))
    done = commits.run(0, (np.array([0, 0], np.uint32), np.zeros(2, np.uint8)))
    assert (done.groups, done.why, done.sent.sent, len(lent.seen)) == (1, Why.TIME, 2, 4)
    assert lent.seen[0][:3] == (3, 3, end)
    assert lent.exchange.empty
    assert lent.log.position == end, "it was written once"


@pytest.mark.parametrize("what", ["journal", "fence"])
def test_a_group_that_the_disk_refuses_is_committed_by_a_later_call(lent: Lent, what: str) -> None:
    commits = lent.commits()
    path = lent.log.path if what == "journal" else lent.fence.path
    with refusing(descriptor_of(path)):
        for _ in range(2):
            done = commits.run(0)
            assert done.why is (Why.REFUSED if what == "journal" else Why.UNMARKED)
            assert (done.groups, done.refused, lent.seen) == (0, errno.ENOSPC, [])
            assert (lent.log.position.offset, lent.fence.load()) == (lent.before, None)
    assert commits.run(0).groups == 1
    assert lent.seen[0][:3] == (3, 3, lent.log.position)
    assert journal.scan(journal.read_file(lent.log.path)).committed == lent.before + lent.written
