"""The loop commits in the committer's place while that waits: when it may, when it must not, and what it hands back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import zmq

from flux import codec, journal
from flux.journal import Fence, Journal
from flux.journal.records import SourceRecord, pack
from flux.model import ROW_DTYPES, RowKind, StreamKey
from flux.server.pipeline.exchange import Exchange
from flux.transport import bridge
from flux.transport.bridge import Commits, Committed, Turns
from flux.transport.pump import Receiver, Streams
from flux.transport.sockets import Socket, Sockets, Wake, send
from tests.patience import PATIENCE_S

KEY = StreamKey("SIM", "X", "1m")
BIG = 1_500  # rows of 64 bytes: more than a group may have that the loop commits itself


class Served:
    """A loop in this thread that is fed by hand, and what a committer in another needs. It is the PUB socket, too."""

    def __init__(self, directory: Path) -> None:
        self.streams = Streams(1)
        self.streams.add(KEY, stream_id=1, ring_rows=4_096, owner=1)
        self.exchange = Exchange()
        self.sockets = Sockets()
        puller = self.sockets.puller("inproc://fed")  # what is sent there has come
        self.pusher = self.sockets.pusher("inproc://fed")
        self.receiver = Receiver(puller, self.streams, server=True)
        begins = pack(SourceRecord("feed:SIM:7", (0, 0)))[:-3]
        self.receiver.kernel.add_run(b"SIM", 7, 0, 1, begins)
        self.turns = Turns(self.exchange.handover, self.receiver, puller, Wake(), store_id=1, epoch=1)
        self.log, self.fence = Journal.create(directory, b"", file_bytes=1 << 20), Fence(directory)
        self.sent: list[int] = []  # the thread of every frame
        self.ended = threading.Event()
        self.said: Callable[[], bytes | None] = lambda: None  # by a subscriber, when it is asked for

    def feed(self, count: int = 1) -> None:
        """The next rows come, and the loop turns once for them."""
        before = self.streams.kernel.head(0)
        rows = np.zeros(count, ROW_DTYPES[RowKind.CANDLE])
        rows["ts_ms"], rows["flags"] = 60_000 * (28_333_334 + before + np.arange(count)), 1
        frame = codec.encode(rows, KEY, before + 1, store_id=7, stream_id=1)
        assert isinstance(frame, bytes)
        assert send(self.pusher, [frame])
        deadline = time.monotonic() + PATIENCE_S
        while self.streams.kernel.head(0) < before + count:
            assert time.monotonic() < deadline
            self.turns.run(0.01)

    @property
    def borrowed(self) -> int:
        return self.exchange.handover.kernel.borrowed

    def feed_until_borrowed(self) -> None:
        """The committer waits from here on: to be borrowed does not wake it."""
        before, deadline = self.borrowed, time.monotonic() + PATIENCE_S
        while self.borrowed == before:
            assert time.monotonic() < deadline
            self.feed()

    def send(self, frame: bytes, flags: int) -> None:
        self.sent.append(threading.get_ident())

    def recv(self, flags: int) -> bytes:
        said = self.said()
        if said is None:
            raise zmq.Again
        return said

    def getsockopt(self, option: int) -> int:
        assert option == zmq.RCVMORE
        return 0

    def commits(self, *, disk: bool = False) -> Commits:
        return Commits(
            self.exchange.handover, self.receiver, self.streams, cast("Socket", self), store_id=1, epoch=1, disk=disk,
            by_python=False,
        )  # fmt: skip

    @contextmanager
    def committing(self, *, disk: bool = False) -> Iterator[list[Committed]]:
        """A committer in a thread of its own, until something is for Python or no more is filled."""
        done: list[Committed] = []
        commits = self.commits(disk=disk)

        def run() -> None:
            done.append(commits.run(2 * PATIENCE_S, self.log, self.fence))
            self.ended.set()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield done
        finally:
            self.exchange.close()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setattr(bridge, "NATIVE", False)  # its frames go through `Served.send`
    made = Served(tmp_path)
    yield made
    made.fence.close()
    made.log.close(clean=False)
    made.sockets.close()


def test_rows_that_trickle_in_are_committed_by_the_loop(served: Served) -> None:
    with served.committing():
        served.feed_until_borrowed()
        served.feed()
        assert served.sent[-1] == threading.get_ident()
    rows = served.streams.kernel.head(0)
    assert served.streams.kernel.committed(0)[0] == rows
    scanned = journal.scan(journal.read_file(served.log.path))
    assert (scanned.records["kind"] == journal.BATCH).sum() == rows


def test_with_a_sync_for_each_group_it_is_the_committers(served: Served) -> None:
    with served.committing(disk=True):
        for _ in range(20):
            before = served.exchange.handover.position
            served.feed()
            assert served.exchange.handover.wait_past(before, PATIENCE_S) > before
    assert served.borrowed == 0
    assert threading.get_ident() not in served.sent


def test_nothing_is_borrowed_while_nobody_lends(served: Served) -> None:
    served.feed()
    assert (served.borrowed, served.exchange.empty) == (0, False)
    assert served.commits().run(0, served.log, served.fence).groups == 1
    served.feed()
    assert (served.borrowed, served.exchange.empty) == (0, False), "what was lent is had back"


def test_a_large_group_is_left_to_the_committer(served: Served) -> None:
    with served.committing():
        served.feed_until_borrowed()
        before, position = served.borrowed, served.exchange.handover.position
        served.feed(BIG)
        assert served.borrowed == before
        assert served.exchange.handover.wait_past(position, PATIENCE_S) > position
        assert served.sent[-1] != threading.get_ident()


def test_it_does_not_borrow_from_a_committer_that_works(served: Served) -> None:
    """It hears a subscriber meanwhile: both would use the socket."""
    here, inside, go = threading.get_ident(), threading.Event(), threading.Event()
    both: list[int] = []

    def said() -> None:
        if threading.get_ident() == here:
            both.append(1) if inside.is_set() and not go.is_set() else None
        elif beaten.is_set() and not inside.is_set():
            inside.set()
            assert go.wait(PATIENCE_S)

    beaten = threading.Event()
    served.said = said
    with served.committing():
        served.feed_until_borrowed()
        beaten.set()
        assert served.exchange.handover.leave_beat(b"beat", 0)  # after which it hears
        assert inside.wait(PATIENCE_S)
        before = served.borrowed
        served.feed()
        assert (served.borrowed, both) == (before, [])
        go.set()


def test_what_a_subscriber_said_meanwhile_is_pythons_with_the_group(served: Served) -> None:
    here = threading.get_ident()
    saying = [b"\x01candles."]

    def said() -> bytes | None:
        return saying.pop() if saying and threading.get_ident() == here and armed else None

    armed = False
    served.said = said
    with served.committing() as done:
        served.feed_until_borrowed()
        armed = True
        while saying:
            served.feed()
        assert served.ended.wait(PATIENCE_S), "it has not come to Python"
    assert (done[0].noted, done[0].heard) == (True, b"\x01candles.")
    taken = served.exchange.taken()
    assert taken.group.count == 2, "the row and how far its run is"
    assert served.streams.kernel.committed(0)[0] == served.streams.kernel.head(0) - 1


def test_a_group_that_python_committed_is_an_ordinary_one_again(served: Served) -> None:
    commits = served.commits()
    with served.exchange.fill() as filled:
        filled.group.append(journal.SOURCE, pack(SourceRecord("file:X", (1, 0))))
    done = commits.run(0, served.log, served.fence)
    assert (done.groups, done.noted) == (0, True)
    served.exchange.give_back(served.exchange.taken())
    for _ in range(3):  # both groups, and the first again
        served.feed()
        done = commits.run(0, served.log, served.fence)
        assert (done.groups, done.noted) == (1, False)


def test_a_heartbeat_is_sent_once(served: Served) -> None:
    commits = served.commits()
    assert served.exchange.handover.leave_beat(b"beat", 0)
    for _ in range(3):
        commits.run(0, served.log, served.fence)
    assert (commits.beats, len(served.sent)) == (1, 2), "its topic and the frame"
    assert served.exchange.handover.leave_beat(b"beat", 0), "there is room for the next"
    commits.send_beat()
    commits.send_beat()
    assert commits.beats == 2
