"""The requester against a router written here: many in flight, errors translated, time-outs, dead peers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from flux import codec
from flux.errors import (
    FluxError,
    InvalidArgumentError,
    NotFoundError,
    RequestError,
    RequestTimeout,
    UnavailableError,
    VersionError,
)
from flux.limits import MAX_ASKS
from flux.model import StreamKey
from flux.schema import messages
from flux.server.requests.answers import Answers
from flux.server.requests.router import Requests
from flux.transport.requester import Outcome, Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.unit.served import KEY, Served, Stream, rows_at


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Peer:
    """A server that answers what a test tells it to."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVTIMEO, int(PATIENCE_S * 1_000))
        self.endpoint = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"

    def take(self) -> tuple[bytes, Any]:
        peer, empty, payload = self.socket.recv_multipart()
        assert empty == b"", "a REP server needs the delimiter"
        return peer, codec.decode(payload)

    def give(self, peer: bytes, reply: bytes) -> None:
        self.socket.send_multipart([peer, b"", reply])


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as made:
        yield made


@pytest.fixture
def peer() -> Iterator[Peer]:
    with zmq.Context() as context:
        made = Peer(context)
        yield made
        made.socket.close()


def outcomes(requester: Requester, count: int = 1) -> list[Outcome]:
    some: list[Outcome] = []
    while len(some) < count:
        ended = requester.receive(PATIENCE_S)
        assert ended, f"only {some}"
        some += ended
    return some


def test_replies_find_their_requests_in_any_order(sockets: Sockets, peer: Peer) -> None:
    requester = Requester(sockets, peer.endpoint)
    ids = [
        requester.send(messages.get_cursor_request, timeout=PATIENCE_S, key=KEY._replace(symbol=f"S{n}"))
        for n in range(3)
    ]
    assert requester.receive() == [], "it does not wait"
    taken = [peer.take() for _ in range(3)]
    assert [message.key.symbol for _, message in taken] == ["S0", "S1", "S2"]
    for who, message in reversed(taken):
        cursor = (int(message.key.symbol[1:]), 0)
        peer.give(
            who,
            messages.get_cursor_response(
                key=message.key, cursor=cursor, correlation_id=message.correlation_id
            ),
        )
    ended = {outcome.id: outcome.reply.cursor.latest_sequence for outcome in outcomes(requester, 3)}
    assert ended == dict(zip(ids, range(3), strict=True))
    assert requester.in_flight == 0


def test_a_server_that_echoes_no_ids_answers_in_order(sockets: Sockets, peer: Peer) -> None:
    requester = Requester(sockets, peer.endpoint, version=1)
    first, second = (requester.send(messages.health_request, timeout=PATIENCE_S) for _ in range(2))
    for _ in range(2):
        who, message = peer.take()
        assert message.schema_version == 1
        peer.give(who, messages.health_response(schema_version=1))
    assert [outcome.id for outcome in outcomes(requester, 2)] == [first, second]


@pytest.mark.parametrize(
    ("slots", "kind"),
    [
        ({"code": 404, "message": "unknown stream key"}, NotFoundError),
        ({"code": 404, "message": "unsupported message_type"}, RequestError),
        ({"code": 400, "message": "missing stream key"}, InvalidArgumentError),
        ({"code": 400, "message": "unsupported schema_version"}, VersionError),
        ({"code": 1, "message": None}, RequestError),
        ({"code": 404, "message": "x", "status": 2}, NotFoundError),
        ({"code": 400, "message": "x", "status": 1}, InvalidArgumentError),
        ({"code": 501, "message": "x", "status": 3}, RequestError),
        ({"code": 429, "message": "x", "status": 4, "retry_after_ms": 7}, UnavailableError),
        ({"code": 503, "message": "x", "status": 5, "retry_after_ms": 7}, UnavailableError),
        ({"code": 500, "message": "x", "status": 6}, RequestError),
    ],
)
def test_errors_are_translated_with_what_they_say(
    sockets: Sockets, peer: Peer, slots: dict[str, Any], kind: type[FluxError]
) -> None:
    requester = Requester(sockets, peer.endpoint)
    requester.send(messages.health_request, timeout=PATIENCE_S)
    who, message = peer.take()
    version = 2 if "status" in slots else 1
    peer.give(
        who, messages.error_response(**slots, correlation_id=message.correlation_id, schema_version=version)
    )
    (outcome,) = outcomes(requester)
    assert type(outcome.error) is kind
    assert outcome.reply is None
    assert str(slots["message"] or "error 1") in str(outcome.error)
    if isinstance(outcome.error, RequestError):
        assert outcome.error.code == slots["code"]
        assert outcome.error.retry_after_ms == slots.get("retry_after_ms", 0)


def test_ask_waits_and_raises(sockets: Sockets) -> None:
    server = Served(Stream(KEY, 1, rows_at(range(10))))
    requests = Requests(sockets, "tcp://127.0.0.1:*", Answers(server))
    requests.start()
    requester = Requester(sockets, requests.endpoint)
    patient = {"timeout": PATIENCE_S}
    reply = requester.ask(messages.backfill_rows_request, **patient, key=KEY, from_sequence_exclusive=8)
    assert len(reply.rows) == 2
    with pytest.raises(NotFoundError, match="did you mean SIM/TEST/1s"):
        requester.ask(messages.get_cursor_request, **patient, key=KEY._replace(symbol="TSET"))
    assert requester.ask(messages.health_request, **patient, version=1).schema_version == 1
    requests.stop()
    with pytest.raises(RequestTimeout, match="did not answer health_request"):
        requester.ask(messages.health_request, timeout=0.02)


def test_deadlines_are_by_the_monotonic_clock(sockets: Sockets, peer: Peer) -> None:
    clock = Clock()
    requester = Requester(sockets, peer.endpoint, clock=clock)
    late = requester.send(messages.health_request, timeout=2.0)
    later = requester.send(messages.health_request, timeout=4.0)
    assert requester.next_deadline() == 102.0
    who, first = peer.take()
    _, second = peer.take()
    clock.now = 101.0
    peer.give(who, messages.health_response(correlation_id="none of yours"))
    while not requester.strays:
        requester.receive(0.01)
    clock.now = 102.0
    (outcome,) = requester.receive()
    assert (outcome.id, type(outcome.error)) == (late, RequestTimeout)
    assert requester.reopened == 0, "something was heard meanwhile"
    peer.give(who, messages.health_response(correlation_id=first.correlation_id))
    peer.give(who, messages.health_response(correlation_id=second.correlation_id))
    assert [outcome.id for outcome in outcomes(requester)] == [later]
    assert requester.strays == 2, "what came too late is not given"
    assert requester.next_deadline() == float("inf")


def test_a_dead_peer_is_connected_to_anew_at_growing_intervals(sockets: Sockets, peer: Peer) -> None:
    clock = Clock()
    requester = Requester(sockets, peer.endpoint, clock=clock)
    old = requester.socket
    short = requester.send(messages.health_request, timeout=1.0)
    long = requester.send(messages.health_request, timeout=9.0)
    clock.now += 1.0
    assert [(o.id, type(o.error)) for o in requester.receive()] == [
        (short, RequestTimeout),
        (long, RequestTimeout),
    ]
    assert requester.reopened == 1
    assert requester.socket is not old
    for pause, reopened in ((0.001, 1), (0.2, 2), (0.001, 2), (0.4, 3)):
        requester.send(messages.health_request, timeout=pause)
        clock.now += pause
        assert len(requester.receive()) == 1
        assert requester.reopened == reopened
    # It is heard again, behind whatever the closed connections still delivered, and answers come.
    sent = requester.send(messages.health_request, timeout=60.0)
    while True:
        who, message = peer.take()
        if message.correlation_id == str(sent):
            break
    peer.give(who, messages.health_response(correlation_id=message.correlation_id))
    assert [outcome.id for outcome in outcomes(requester)] == [sent]


def test_too_many_in_flight_end_at_once(sockets: Sockets, peer: Peer) -> None:
    requester = Requester(sockets, peer.endpoint)
    for _ in range(MAX_ASKS):
        requester.send(messages.health_request)
    refused = requester.send(messages.health_request)
    (outcome,) = requester.receive()
    assert (outcome.id, type(outcome.error)) == (refused, UnavailableError)


def test_what_is_no_message_is_counted(sockets: Sockets, peer: Peer) -> None:
    requester = Requester(sockets, peer.endpoint)
    sent = requester.send(messages.get_cursor_request, timeout=PATIENCE_S, key=StreamKey("A", "B", "1m"))
    who, message = peer.take()
    peer.give(who, b"garbage")
    peer.give(who, messages.health_response(correlation_id=message.correlation_id))
    assert [outcome.id for outcome in outcomes(requester)] == [sent]
    assert requester.bad_frames == 1
    requester.close()


def test_a_flood_of_strays_holds_no_caller_past_its_deadline(sockets: Sockets, peer: Peer) -> None:
    streams = [
        {"key": ("SIM", f"S{i}", "1m"), "latest_sequence": 1, "stream_id": i + 1} for i in range(1_000)
    ]
    stray = messages.stream_list_response(
        streams=streams, has_more=True, correlation_id="999999999", schema_version=2
    )
    requester = Requester(sockets, peer.endpoint)
    over = threading.Event()

    def flood() -> None:
        asker, _ = peer.take()
        until = time.monotonic() + PATIENCE_S
        peer.socket.setsockopt(zmq.SNDTIMEO, 100)
        while not over.is_set() and time.monotonic() < until:
            try:
                peer.give(asker, stray)
            except zmq.ZMQError:  # the asker took a while, or has another connection
                continue

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        with pytest.raises(RequestTimeout):
            requester.ask(messages.health_request, timeout=0.5)
        assert flooding.is_alive(), "the caller came back only when the flood was over"
        assert requester.strays
    finally:
        over.set()
        flooding.join()
