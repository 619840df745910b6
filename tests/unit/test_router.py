"""The request thread over real sockets: one reply per request, nobody waits behind a backfill."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq

from flux import codec, limits
from flux.errors import DamagedError, FluxError, StorageError
from flux.limits import MAX_REQUEST_BYTES, MAX_REQUESTS_PER_PEER
from flux.model import StreamKey
from flux.schema import messages
from flux.server.requests.answers import Answers
from flux.server.requests.live_view import Watched
from flux.server.requests.router import Requests, split
from flux.server.requests.view import Rows, StreamView
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.unit.served import KEY, Served, Stream, rows_at

WAIT_MS = int(PATIENCE_S * 1_000)


@pytest.fixture(autouse=True)
def _no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two seconds pass on a machine that is stalled: only the tests of the deadline have one."""
    monkeypatch.setattr("flux.server.requests.router.REQUEST_DEADLINE_MS", WAIT_MS)


class Serving:
    """A request thread and the sockets of its clients, which are plain pyzmq."""

    def __init__(self, server: Served, store: Any = None) -> None:
        self.sockets = Sockets()
        self.said: list[FluxError | None] = []
        watched = None if store is None else Watched(store, self.said.append)
        self.requests = Requests(self.sockets, "tcp://127.0.0.1:*", Answers(server), watched)
        self.context = zmq.Context()
        # Made before the socket is the request thread's; says when a peer has left.
        self.left = self.requests.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self.sockets._all.insert(0, self.left)
        self.requests.start()

    def client(self, kind: int, **options: int) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        for name, value in {"LINGER": 0, "RCVTIMEO": WAIT_MS, **options}.items():
            socket.setsockopt(getattr(zmq, name), value)
        socket.connect(self.requests.endpoint)
        return socket

    def close(self) -> None:
        self.requests.stop()
        self.context.destroy(linger=0)
        self.sockets.close()


@contextmanager
def serving(server: Served, store: Any = None) -> Iterator[Serving]:
    made = Serving(server, store)
    try:
        yield made
    finally:
        made.close()
        counts = made.requests.counts
        ended = counts.replied + counts.dropped_gone + counts.dropped_full
        assert made.requests.waiting == 0
        assert counts.received == ended, "every request ends in exactly one column"


def candles() -> Served:
    return Served(Stream(KEY, 1, rows_at(range(1_000, 11_000, 1_000))))


def health(n: int = 0) -> bytes:
    return messages.health_request(correlation_id=str(n))


class Failing(Served):
    """A server with a fault of its own: the first look at a stream, a ring or the store raises something unforeseen."""

    def __init__(self, where: str) -> None:
        super().__init__(Stream(KEY, 1, rows_at(range(1_000, 11_000, 1_000)), ring_first=6, stored=10))
        self._where: str | None = where

    def _fail(self, where: str) -> None:
        if where == self._where:
            self._where = None
            raise OverflowError(f"unforeseen in {where}")

    def stream(self, key: StreamKey) -> StreamView | None:
        self._fail("stream")
        return super().stream(key)

    def ring_first(self, stream_id: int) -> int:
        self._fail("ring")
        return super().ring_first(stream_id)

    def read(self, *bounds: Any) -> tuple[int, Rows]:
        self._fail("store")
        return super().read(*bounds)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("where", ["stream", "ring", "store"])
def test_an_unforeseen_error_is_this_peers_answer_and_nobodys_end(where: str, version: int) -> None:
    server = Failing(where)
    build: Any = messages.backfill_rows_request if version == 2 else messages.backfill_candles_request
    ask = build(key=KEY, correlation_id="7", schema_version=version)
    with serving(server, server) as made:
        client = made.client(zmq.REQ)
        client.send(ask)
        refused = codec.decode(client.recv())
        assert isinstance(refused, codec.ErrorResponse)
        assert (refused.code, refused.correlation_id, refused.schema_version) == (500, "7", version)
        assert refused.status == (6 if version == 2 else 0)
        client.send(ask)
        assert len(codec.decode(client.recv()).rows) == 10
        assert made.requests.counts.internal == (where != "stream")


@pytest.mark.parametrize("error", [StorageError("a full disk"), DamagedError("a bad block")])
def test_a_store_that_cannot_be_read_is_unavailable_and_said(error: FluxError) -> None:
    class Broken(Served):
        def read(self, *bounds: Any) -> tuple[int, Rows]:
            raise error

    server = Broken(Stream(KEY, 1, rows_at(range(1_000, 11_000, 1_000)), ring_first=6, stored=10))
    with serving(server, server) as made:
        client = made.client(zmq.REQ)
        for after, kind in ((0, codec.ErrorResponse), (5, codec.BackfillRowsResponse)):
            client.send(messages.backfill_rows_request(key=KEY, from_sequence_exclusive=after))
            reply = codec.decode(client.recv())
            assert isinstance(reply, kind)
            if isinstance(reply, codec.ErrorResponse):
                assert reply.status == 5
        assert made.said == [error]


def test_a_req_peer_and_dealers_with_and_without_the_delimiter_are_answered_as_they_asked() -> None:
    with serving(candles()) as it:
        req, dealer = it.client(zmq.REQ), it.client(zmq.DEALER)
        req.send(health(1))
        assert codec.decode(req.recv()).correlation_id == "1"
        dealer.send_multipart([b"", health(2)])
        empty, reply = dealer.recv_multipart()
        assert (empty, codec.decode(reply).correlation_id) == (b"", "2")
        dealer.send(health(3))
        (reply,) = dealer.recv_multipart()
        assert codec.decode(reply).correlation_id == "3"
        dealer.send_multipart([b"hop", b"", health(4)])
        hop, empty, reply = dealer.recv_multipart()
        assert (hop, empty, codec.decode(reply).correlation_id) == (b"hop", b"", "4")
        assert it.requests.counts.received == 4


def test_how_a_reply_begins() -> None:
    assert split([b"p", b"x"]) == ([b"p"], [b"x"])
    assert split([b"p", b""]) == ([b"p"], [b""])
    assert split([b"p", b"", b""]) == ([b"p", b""], [b""])
    assert split([b"p", b"", b"x", b"y"]) == ([b"p", b""], [b"x", b"y"])
    assert split([b"p", b"x", b"y"]) == ([b"p"], [b"x", b"y"])
    assert split([b"p", b"h", b"", b"x"]) == ([b"p", b"h", b""], [b"x"])


def test_what_a_reply_begins_with_has_a_bound() -> None:
    within = [b"peer", *[b"router"] * 14, b"", b"request"]
    assert split(within) == (within[:-1], [b"request"])
    for beyond in (
        [b"peer", *[b"router"] * 15, b"", b"request"],
        [b"peer", bytes([1]) * MAX_REQUEST_BYTES, b"", b"request"],
    ):
        assert split(beyond) == ([b"peer"], beyond[1:])


def test_wrong_frame_counts_and_sizes_get_one_error_each() -> None:
    with serving(candles()) as it:
        for frames in ([b""], [b"a", b"b"], [b"x" * (MAX_REQUEST_BYTES + 1)]):
            req = it.client(zmq.REQ)
            req.send_multipart(frames)
            assert codec.decode(req.recv()).code == 400


def test_what_is_larger_than_any_request_ends_the_connection_not_the_server() -> None:
    with serving(candles()) as it:
        big, other = it.client(zmq.DEALER), it.client(zmq.REQ)
        watch = big.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        big.send(b"x" * (limits.MAX_REQUEST_FRAME_BYTES + 1))
        other.send(health())
        assert other.recv()
        assert watch.poll(WAIT_MS), "the connection was not ended"
        big.disable_monitor()
        assert not big.poll(0), "and nothing was answered"


class Gate:
    """A store that answers once it is let."""

    def __init__(self, inner: Served) -> None:
        self.inner = inner
        self.asked = threading.Event()
        self.open = threading.Event()
        self.fails = False

    def read(self, *bounds: Any) -> tuple[int, Rows]:
        self.asked.set()
        assert self.open.wait(PATIENCE_S)
        if self.fails:
            raise StorageError("disk full")
        return self.inner.read(*bounds)

    def sequence_range(self, *bounds: Any) -> tuple[int, int] | None:
        return self.inner.sequence_range(*bounds)


def stored() -> Served:
    return Served(Stream(KEY, 1, rows_at(range(10)), ring_first=6, stored=10))


def backfill(n: int, after: int = 0) -> bytes:
    return messages.backfill_rows_request(key=KEY, from_sequence_exclusive=after, correlation_id=str(n))


def test_health_and_what_memory_has_do_not_wait_for_the_store() -> None:
    server = stored()
    store = Gate(server)
    with serving(server, store) as it:
        dealer = it.client(zmq.DEALER)
        dealer.send(backfill(1))
        assert store.asked.wait(PATIENCE_S)
        dealer.send(health(2))
        dealer.send(backfill(3, after=7))
        assert {codec.decode(dealer.recv()).correlation_id for _ in range(2)} == {"2", "3"}
        store.open.set()
        reply = codec.decode(dealer.recv())
        assert (reply.correlation_id, len(reply.rows)) == ("1", 10)
        assert it.requests.counts.from_store == 1


def test_a_store_that_fails_or_is_not_there_is_said() -> None:
    server = stored()
    store = Gate(server)
    store.fails = True
    store.open.set()
    for it_is in (store, None):
        with serving(server, it_is) as it:
            req = it.client(zmq.REQ)
            req.send(backfill(1))
            reply = codec.decode(req.recv())
            assert (reply.code, reply.status) == (503, 5)


def test_a_backfill_past_its_deadline_is_answered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux.server.requests.router.REQUEST_DEADLINE_MS", 30)
    server = stored()
    store = Gate(server)
    with serving(server, store) as it:
        dealer = it.client(zmq.DEALER)
        dealer.send(backfill(1))
        reply = codec.decode(dealer.recv())
        assert (reply.correlation_id, reply.status, reply.retry_after_ms > 0) == ("1", 5, True)
        store.open.set()
        dealer.send(health(2))
        assert codec.decode(dealer.recv()).correlation_id == "2", "the late answer is not sent"
        assert it.requests.counts.refused == 1


def test_one_peer_has_only_so_many_backfills_waiting() -> None:
    server = stored()
    store = Gate(server)
    with serving(server, store) as it:
        dealer, other = it.client(zmq.DEALER), it.client(zmq.DEALER)
        for n in range(MAX_REQUESTS_PER_PEER + 3):
            dealer.send(backfill(n))
        refused = [codec.decode(dealer.recv()) for _ in range(3)]
        assert {reply.status for reply in refused} == {4}
        other.send(backfill(99))
        store.open.set()
        assert codec.decode(other.recv()).correlation_id == "99"
        rest = {codec.decode(dealer.recv()).correlation_id for _ in range(MAX_REQUESTS_PER_PEER)}
        assert rest == {str(n) for n in range(MAX_REQUESTS_PER_PEER)}


def test_a_client_may_have_many_small_requests_in_flight() -> None:
    with serving(candles()) as it:
        dealer = it.client(zmq.DEALER)
        for n in range(200):
            dealer.send(health(n))
        assert [codec.decode(dealer.recv()).correlation_id for _ in range(200)] == [
            str(n) for n in range(200)
        ]


def test_a_peer_that_never_reads_costs_a_bounded_amount(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux.server.requests.router.REQUEST_DEADLINE_MS", 200)
    server = Served(Stream(KEY, 1, rows_at(range(10_000))))
    with serving(server) as it:
        deaf = it.client(zmq.DEALER, RCVHWM=1, RCVBUF=4_096, SNDHWM=0)
        other = it.client(zmq.REQ)
        for n in range(100):
            deaf.send(backfill(n))
        held = 0
        while it.requests.counts.received < 100 or it.requests.waiting:
            other.send(health())
            other.recv()
            held = max(held, sum(some.bytes for some in list(it.requests._held.values())))
        assert held <= limits.MAX_REPLY_BYTES
        counts = it.requests.counts
        assert counts.dropped_full + counts.refused > 0


def test_a_peer_that_left_is_counted() -> None:
    server = stored()
    store = Gate(server)
    with serving(server, store) as it:
        gone, other = it.client(zmq.DEALER), it.client(zmq.REQ)
        gone.send(backfill(1))
        assert store.asked.wait(PATIENCE_S)
        gone.close(linger=0)
        assert it.left.poll(WAIT_MS)
        other.send(health())  # behind the news that the peer has left
        other.recv()
        store.open.set()
        while it.requests.waiting:
            other.send(health())
            other.recv()
        assert it.requests.counts.dropped_gone == 1


def test_stopping_answers_what_waits() -> None:
    server = stored()
    store = Gate(server)
    with serving(server, store) as it:
        dealer = it.client(zmq.DEALER)
        dealer.send(backfill(1))
        assert store.asked.wait(PATIENCE_S)
        store.open.set()
        it.requests.stop()
        reply = codec.decode(dealer.recv())
        assert reply.correlation_id == "1"
        assert isinstance(reply, codec.BackfillRowsResponse) or "closing" in reply.message


def test_an_unforeseen_error_is_told(caplog: pytest.LogCaptureFixture) -> None:
    failures: list[BaseException] = []

    class Broken:
        def answer(self, body: object) -> bytes:
            raise RuntimeError("a bug")

    with Sockets() as sockets, zmq.Context() as context:
        requests = Requests(sockets, "tcp://127.0.0.1:*", Broken(), failed=failures.append)
        requests.start()
        req = context.socket(zmq.REQ)
        req.setsockopt(zmq.LINGER, 0)
        req.connect(requests.endpoint)
        req.send(b"x")
        requests._threads[0].join(PATIENCE_S)
        requests.stop()
        req.close()
    assert [str(error) for error in failures] == ["a bug"]
    assert "the thread flux requests ended" in caplog.text


def test_the_figures_that_are_promised() -> None:
    assert limits.MAX_REQUEST_BYTES == 64 * 1_024
    assert (limits.MAX_REPLY_BYTES, limits.MAX_REPLY_ROWS) == (4 * 1_024**2, 10_000)
    assert (limits.MAX_REPLIES_PER_PEER, limits.REQUEST_DEADLINE_MS) == (8, 2_000)
