"""The heartbeat (S13): every second, every head within 30 s, the age of the receiving loop, its reason in bounds."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import zmq

from flux import codec, limits, testing
from flux.model import HEAD, State
from flux.server.identity import Identity
from flux.server.pipeline.heartbeat import Heart
from flux.server.vitals import Vitals
from flux.transport.bridge import BEAT_BYTES, Handover
from flux.transport.pump import Streams
from flux.transport.topics import BEAT
from tests.patience import PATIENCE_S
from tests.unit.live_server import eventually

BEATS_A_ROUND = limits.MARK_ROUND_MS // limits.HEARTBEAT_MS


class Table:
    """Heads of `count` streams, of which those in `moved` moved just now."""

    def __init__(self, count: int) -> None:
        self.all = np.zeros(count, HEAD)
        self.all["stream_id"] = np.arange(1, count + 1)
        self.all["committed"] = 1_000 + self.all["stream_id"]
        self.all["moved_ns"] = -(10**18)

    def heads(self) -> Any:
        return self.all.copy()


class Left:
    """What the committer would send."""

    def __init__(self) -> None:
        self.frames: list[tuple[float, bytes]] = []

    def leave_beat(self, frame: bytes, _: float) -> bool:
        self.frames.append((time.monotonic(), frame))
        return True


def heart(table: Table, left: Left | None = None, vitals: Vitals | None = None) -> Heart:
    return Heart(Identity(7, 1, 3), cast(Streams, table), vitals or Vitals(), cast(Handover, left or Left()))


def marked(frames: list[bytes]) -> list[int]:
    ids = []
    for frame in frames:
        marks = codec.decode(frame).marks
        assert len(marks) <= limits.MAX_MARKS
        assert (marks["latest_sequence"] == 1_000 + marks["stream_id"]).all()
        ids += marks["stream_id"].tolist()
    return ids


@pytest.mark.parametrize("count", [0, 1, 29, 30, 31, 1_000, 10_007])
def test_every_head_comes_round_within_thirty_seconds_wherever_one_begins(count: int) -> None:
    made = heart(Table(count))
    beats = [marked(made.frames()) for _ in range(3 * BEATS_A_ROUND)]
    for begin in range(2 * BEATS_A_ROUND):
        seen = {stream for beat in beats[begin : begin + BEATS_A_ROUND] for stream in beat}
        assert len(seen) == count, f"a round from beat {begin} on"
    assert max(map(len, beats)) <= -(-count // BEATS_A_ROUND)


def test_a_head_that_moved_lately_is_in_every_beat() -> None:
    table = Table(3_000)
    made = heart(table)
    table.all["moved_ns"][[5, 2_999]] = time.monotonic_ns() - (limits.MARK_RECENT_MS - 3_000) * 1_000_000
    table.all["moved_ns"][7] = time.monotonic_ns() - limits.MARK_RECENT_MS * 1_000_000
    made._mark_from = 1_000
    assert {6, 3_000} < set(marked(made.frames()))
    assert 8 not in marked(made.frames())


def test_more_marks_than_a_message_holds_are_several_with_numbers_of_their_own() -> None:
    table = Table(2 * limits.MAX_MARKS + 1)
    table.all["moved_ns"] = time.monotonic_ns()
    frames = heart(table).frames()
    assert [codec.decode(frame).number for frame in frames] == [1, 2, 3]
    assert sorted(marked(frames)) == table.all["stream_id"].tolist()


def test_the_age_of_the_loop_is_that_of_whichever_turned_last() -> None:
    vitals = Vitals()
    made = heart(Table(1), vitals=vitals)
    now = time.monotonic_ns()
    for python, kernel, least in ((9_000, 20_000, 9_000), (20_000, 4_000, 4_000)):
        vitals.loop_turned_ns = now - python * 1_000_000
        vitals.also_turned = lambda kernel=kernel: now - kernel * 1_000_000  # type: ignore[misc]  # its default
        age = codec.decode(made.frames()[0]).loop_age_ms
        assert least <= age < least + PATIENCE_S * 1_000
    vitals.turned()
    assert codec.decode(made.frames()[0]).loop_age_ms < 4_000


def test_a_reason_however_long_leaves_room_for_every_mark() -> None:
    vitals = Vitals()
    vitals.set("store", State.DEGRADED, "the database said " + "\u20ac" * 200_000)
    table = Table(limits.MAX_MARKS)
    table.all["moved_ns"] = time.monotonic_ns()
    frame = heart(table, vitals=vitals).frames()[0]
    assert len(frame) <= BEAT_BYTES
    assert codec.decode(frame).reason.startswith("the database said")


def test_the_period_is_the_interval_and_a_slow_beat_does_not_shift_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flux.limits.HEARTBEAT_MS", 50)
    left, beats = Left(), 0
    made = heart(Table(1), left)

    def look() -> None:
        nonlocal beats
        beats += 1
        if beats == 8:
            made.stop()

    began = time.monotonic()
    made.run(look)
    assert [codec.decode(frame).number for _, frame in left.frames] == list(range(1, 9))
    assert {codec.decode(frame).interval_ms for _, frame in left.frames} == {50}
    assert time.monotonic() - began >= 7 * 0.050 - 0.005


def test_a_loop_that_hangs_is_seen_in_the_beats_of_a_real_server(tmp_path: Path) -> None:
    hang = threading.Event()
    with (
        testing.server(data=tmp_path) as server,
        zmq.Context() as context,
        context.socket(zmq.SUB) as subscriber,
    ):
        subscriber.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1_000))
        subscriber.setsockopt(zmq.SUBSCRIBE, BEAT)
        subscriber.connect(server.live_pub)

        def beat() -> Any:
            return codec.decode(subscriber.recv_multipart()[1])

        first, second = beat(), beat()
        assert second.number == first.number + 1
        took_ms = (second.server_time_ns - first.server_time_ns) / 1e6
        assert took_ms >= limits.HEARTBEAT_MS * 0.9
        server.loop._note_moved = lambda: hang.wait(PATIENCE_S)  # type: ignore[method-assign]  # the fault
        try:
            server._wake.set()
            eventually(lambda: beat().loop_age_ms > 2 * limits.HEARTBEAT_MS)
        finally:
            hang.set()
