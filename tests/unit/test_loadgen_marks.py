"""What mode sub makes of heartbeats: by slot, store and epoch, and behind the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from flux import codec
from flux.feed import synth
from flux.loadgen.marks import MAX_EPOCHS, Marks
from flux.loadgen.plan import NS_PER_S, Plan, Servers
from flux.loadgen.workers import sub
from flux.model import ARRIVAL, MARK, StreamKey
from flux.schema import messages
from flux.transport.sockets import Poller, Publisher, Socket, Sockets, endpoint_of, send
from flux.transport.topics import BEAT, stream_topic
from tests.patience import PATIENCE_S

STORE, EPOCH = 77, 3
KEY = StreamKey("SIM", "ONE", "1s")


def beat(heads: dict[int, int], *, store_id: int = STORE, epoch: int = EPOCH) -> bytes:
    """A heartbeat; `heads`: latest sequence by stream_id."""
    marks = np.zeros(len(heads), MARK)
    marks["stream_id"], marks["latest_sequence"] = list(heads), list(heads.values())
    told = {"boot_id": 1, "server_time_ns": 1, "number": 1, "interval_ms": 1_000}
    return messages.heartbeat(store_id=store_id, epoch=epoch, marks=marks, **told)


def arrivals(*of: tuple[int, int, int]) -> Any:
    """ARRIVAL records of (slot, store_id, epoch)."""
    made = np.zeros(len(of), ARRIVAL)
    made["stream"], made["store_id"], made["epoch"] = np.array(of).T
    return made


@pytest.fixture
def marks() -> Marks:
    """Two streams of one store, whose ids there are 10 and 11."""
    made = Marks()
    made.add(STORE, EPOCH, 10)
    made.add(STORE, EPOCH, 11)
    return made


def test_a_mark_finds_its_stream_by_store_epoch_and_id(marks: Marks) -> None:
    marks.hear(beat({10: 500, 12: 9}))
    marks.hear(beat({11: 7}, store_id=STORE + 1))
    marks.hear(beat({11: 7}, epoch=EPOCH - 1))
    assert marks.heads() == {0: 500}
    marks.hear(beat({10: 501, 11: 3}))
    assert marks.heads() == {0: 501, 1: 3}
    assert marks.heartbeats == 4


def test_what_is_no_heartbeat_says_nothing(marks: Marks) -> None:
    marks.hear(b"no frame")
    marks.hear(messages.get_cursor_response(key=KEY, cursor=(500, 1)))
    marks.hear(beat({0: 5}, store_id=0))
    assert (marks.heads(), marks.heartbeats) == ({}, 0)


def test_a_new_epoch_has_marks_of_its_own(marks: Marks) -> None:
    marks.hear(beat({10: 500, 11: 600}))
    marks.follow(arrivals((0, STORE, EPOCH + 1), (0, STORE, EPOCH), (1, STORE, EPOCH), (1, 0, 0)))
    assert marks.heads() == {1: 600}, "an older epoch and version 1 change nothing"
    marks.hear(beat({10: 20}, epoch=EPOCH + 1))
    assert marks.heads() == {0: 20, 1: 600}


def test_of_a_stream_that_another_store_took_over_nothing_is_known(marks: Marks) -> None:
    marks.hear(beat({10: 500, 11: 600}))
    marks.follow(arrivals((1, STORE + 1, EPOCH)))
    marks.hear(beat({11: 600}, store_id=STORE + 1))
    assert marks.heads() == {0: 500}


def test_marks_of_old_epochs_are_forgotten(marks: Marks) -> None:
    for epoch in range(EPOCH, EPOCH + MAX_EPOCHS + 1):
        marks.hear(beat({10: epoch}, epoch=epoch))
    assert marks.heads() == {}
    marks.follow(arrivals((0, STORE, EPOCH + MAX_EPOCHS)))
    assert marks.heads() == {0: EPOCH + MAX_EPOCHS}


class Line:
    """A publisher and the subscribing side of mode sub, in one process."""

    def __init__(self, sockets: Sockets) -> None:
        self.publisher: Publisher = sockets.publisher("tcp://127.0.0.1:*", hwm=1_000)
        endpoint = endpoint_of(self.publisher.socket)
        plan = Plan(mode="sub", servers=Servers(pub=endpoint), warmup_ns=0)
        prefixes = sub.prefixes_of(plan)
        self.socket: Socket = sockets.subscriber(endpoint, prefixes, hwm=1_000)
        self.run = sub.Watching(plan, self.socket)
        self.start_ns = time.monotonic_ns()
        heard = Poller(self.publisher.socket)
        while not set(prefixes) <= self.publisher.subscriptions.prefixes:
            assert heard.wait(PATIENCE_S), "nobody subscribed"
            self.publisher.drain()

    def row(
        self, sequence: int, *, store_id: int = STORE, epoch: int = EPOCH, close: float | None = None
    ) -> None:
        rows = synth.candles(1, interval="1s")
        if close is not None:
            rows["close"] = close
        told = {"store_id": store_id, "epoch": epoch, "stream_id": 10, "recorded_ns": time.time_ns()}
        frame = codec.encode(rows, KEY, sequence, **told)
        assert isinstance(frame, bytes)
        assert send(self.publisher.socket, [stream_topic(KEY), frame])

    def beat(self, head: int, **whose: int) -> None:
        assert send(self.publisher.socket, [BEAT, beat({10: head}, **whose)])

    def take_until(self, there: Callable[[dict[str, Any]], bool]) -> None:
        """Drain until what is told fits."""
        poller, deadline = Poller(self.socket), time.monotonic() + PATIENCE_S
        while not there({"received": self.run.watch.received, "heartbeats": self.run._marks.heartbeats}):
            assert time.monotonic() < deadline
            poller.wait(0.01)
            self.run.drain(self.start_ns)

    def result(self) -> dict[str, Any]:
        sub.take_what_is_under_way(self.run, self.socket, self.start_ns)
        return self.run.result(NS_PER_S)


@pytest.fixture
def line() -> Iterator[Line]:
    with Sockets() as sockets:
        yield Line(sockets)


def test_rows_behind_the_end_are_counted_and_not_timed(line: Line) -> None:
    while not line.run.measuring:
        line.run.drain(line.start_ns)
    for sequence in (41, 42, 44):
        line.row(sequence)
    line.beat(49)
    line.take_until(lambda told: told == {"received": 3, "heartbeats": 1})
    line.run.end()
    assert line.run.behind() == {0: 5}
    line.beat(60)  # behind the end: not asked about
    for sequence in (45, 46, 48):
        line.row(sequence)
    line.take_until(lambda told: told["received"] == 6)
    got = line.result()
    assert (got["received"], got["missing"], got["missing_at_end"], got["heartbeats"]) == (6, 3, 1, 1)
    (stream,) = got["streams"]
    assert (stream["first"], stream["last"], stream["received"], stream["missing"]) == (41, 48, 6, 3)
    assert (got["measured_messages"], got["measured_rows"], line.run.recorded.total) == (3, 3, 3)


def test_what_is_under_way_at_the_end_is_waited_for(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sub, "UNDER_WAY_S", PATIENCE_S)  # in vain where it takes so long
    line.row(1)
    line.beat(3)
    line.take_until(lambda told: told == {"received": 1, "heartbeats": 1})
    line.run.end()
    late = threading.Timer(0.05, lambda: [line.row(sequence) for sequence in (2, 3)])
    late.start()
    got = line.result()
    late.join()
    assert (got["received"], got["missing"], got["missing_at_end"]) == (3, 0, 0)


def test_all_that_was_numbered_is_here_and_nothing_is_waited_for(line: Line) -> None:
    line.row(1)
    line.beat(2)
    line.row(2)
    line.row(3)
    line.take_until(lambda told: told == {"received": 3, "heartbeats": 1})
    line.run.end()
    got = line.result()
    assert (got["missing"], got["missing_at_end"]) == (0, 0)


def test_a_stream_that_goes_on_is_no_reason_to_wait_for_ever(line: Line) -> None:
    """The lost rows of one stream never come, and another's never stop."""
    line.row(1)
    line.beat(3)
    line.take_until(lambda told: told == {"received": 1, "heartbeats": 1})
    line.run.end()
    flowing, ended = StreamKey("SIM", "FLOWING", "1s"), threading.Event()
    frame = codec.encode(
        synth.candles(1, interval="1s"), flowing, 1, store_id=STORE, epoch=EPOCH, stream_id=11
    )
    assert isinstance(frame, bytes)

    def flow() -> None:
        while not ended.wait(0.001):
            send(line.publisher.socket, [stream_topic(flowing), frame])

    thread = threading.Thread(target=flow)
    thread.start()
    try:
        got = line.result()
    finally:
        ended.set()
        thread.join()
    assert (got["missing"], got["missing_at_end"]) == (2, 2)


def test_a_mark_of_an_epoch_that_ended_meanwhile_says_no_more(line: Line) -> None:
    line.row(5)
    line.beat(9)
    line.take_until(lambda told: told == {"received": 1, "heartbeats": 1})
    line.run.end()
    line.row(6, epoch=EPOCH + 1)
    line.take_until(lambda told: told["received"] == 2)
    got = line.result()
    assert (got["received"], got["restarts"], got["missing"]) == (2, 1, 0)


def test_the_window_opens_at_a_time_and_not_with_a_message(line: Line) -> None:
    """What waits when the measured time begins came before it (L3): 3 messages a second read as 3.1 to 4.3."""
    poller = Poller(line.socket)
    line.row(1)
    assert poller.wait(PATIENCE_S), "the first message did not come"
    while line.run.watch.received == 0:  # before the measured time; a stream that is new takes another call
        line.run.drain(time.monotonic_ns() + NS_PER_S)
    assert not line.run.measuring
    line.row(2)
    assert poller.wait(PATIENCE_S), "the second message did not come"
    line.run.drain(time.monotonic_ns())
    assert line.run.measuring
    assert line.run.watch.received == 2
    for sequence in (3, 4, 5):
        line.row(sequence)
    line.take_until(lambda now: now["received"] == 5)
    line.run.end()
    result = line.result()
    assert (result["measured_messages"], result["measured_rows"], result["received"]) == (3, 3, 5)


def test_a_message_refused_for_its_values_is_corrupt_and_says_why(line: Line) -> None:
    """Sequence 2 is missing as rows, and not as if the network had lost it."""
    line.row(1)
    line.row(2, close=float("nan"))
    line.row(3)
    line.take_until(lambda now: now["received"] == 2)
    line.run.end()
    result = line.result()
    assert (result["received"], result["missing"], result["corrupt"]) == (2, 1, 1)
    assert result["refused"] == {"values": 1}
