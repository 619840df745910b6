"""What the request thread holds for a peer that does not read: bounded, in order, and every reply is accounted for."""

from __future__ import annotations

import threading

import pytest
import zmq

from flux import limits
from flux.server.requests.answers import Answers
from flux.server.requests.router import Requests
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.unit.served import KEY, Served, Stream, rows_at


def candles() -> Served:
    return Served(Stream(KEY, 1, rows_at(range(1_000, 11_000, 1_000))))


@pytest.mark.parametrize(
    ("size", "kept"),
    [(10, limits.MAX_HELD_REPLIES), (limits.MAX_REPLY_BYTES // 3, 3), (limits.MAX_REPLY_BYTES, 1)],
)
def test_what_is_held_for_one_peer_is_bounded_in_number_and_bytes(
    size: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.server.requests.router.send_back", lambda *_: False)  # it never reads
    with Sockets() as sockets:
        requests = Requests(sockets, "tcp://127.0.0.1:*", Answers(candles()))
        for peer in (b"one", b"two"):
            for _ in range(kept + 5):
                requests._reply([peer], bytes(size))
        assert requests.waiting == 2 * kept
        assert requests.counts.dropped_full == 2 * 5
        assert requests.counts.replied == 0
        monkeypatch.setattr("flux.server.requests.router.send_back", lambda *_: True)
        requests._retry_held()
        assert (requests.waiting, requests.counts.replied) == (0, 2 * kept)


def test_what_is_held_past_the_deadline_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux.server.requests.router.REQUEST_DEADLINE_MS", limits.REQUEST_DEADLINE_MS)
    monkeypatch.setattr("flux.server.requests.router.send_back", lambda *_: False)
    now = 100.0
    with Sockets() as sockets:
        requests = Requests(sockets, "tcp://127.0.0.1:*", Answers(candles()), clock=lambda: now)
        requests._reply([b"one"], b"a reply")
        now = 101.9
        requests._retry_held()
        assert (requests.waiting, requests.counts.dropped_full) == (1, 0)
        now = 102.1
        requests._retry_held()
        assert (requests.waiting, requests.counts.dropped_full) == (0, 1)


def test_what_is_held_goes_in_its_order_and_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """`ends`: what becomes of the next replies: handed to the socket, not taken by it, or the peer is gone."""
    sent: list[bytes] = []
    ends: list[bool | None] = []

    def send_back(_: object, frames: list[bytes]) -> bool | None:
        end = ends.pop(0)
        if end:
            sent.append(frames[-1])
        return end

    monkeypatch.setattr("flux.server.requests.router.send_back", send_back)
    with Sockets() as sockets:
        requests = Requests(sockets, "tcp://127.0.0.1:*", Answers(candles()))
        ends = [False]
        for reply in (b"first", b"second", b"third"):
            requests._reply([b"one"], reply)  # only the first is tried: the others wait behind it
        assert (ends, requests.waiting, requests._held[b"one"].bytes) == ([], 3, len(b"firstsecondthird"))
        ends = [True, False]
        requests._retry_held()
        assert (ends, sent, requests.waiting) == ([], [b"first"], 2)
        assert requests._held[b"one"].bytes == len(b"secondthird")
        ends = [True, None]
        requests._retry_held()
        assert (ends, sent, requests.waiting, requests._held) == ([], [b"first", b"second"], 0, {})
        counts = requests.counts
        assert (counts.replied, counts.dropped_gone, counts.dropped_full) == (2, 1, 0)
        ends = [True]
        requests._reply([b"one"], b"fourth")
        assert sent[-1] == b"fourth", "nothing is held, so it is tried at once"


def test_what_is_held_at_the_end_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()

    def send_back(_: object, __: list[bytes]) -> bool:
        held.set()
        return False

    monkeypatch.setattr("flux.server.requests.router.send_back", send_back)
    with Sockets() as sockets, zmq.Context() as context:
        requests = Requests(sockets, "tcp://127.0.0.1:*", Answers(candles()))
        requests.start()
        deaf = context.socket(zmq.DEALER)
        deaf.setsockopt(zmq.LINGER, 0)
        deaf.connect(requests.endpoint)
        deaf.send(b"what is no request has an answer too")
        assert held.wait(PATIENCE_S)
        requests.stop()
        deaf.close()
    assert (requests.counts.received, requests.counts.dropped_full, requests.waiting) == (1, 1, 0)
