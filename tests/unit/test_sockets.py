"""Sockets: bounds, binding, who may reach them, subscriptions and wake-ups. Real sockets, free ports."""

import threading
from collections.abc import Callable, Iterator

import pytest
import zmq

from flux.errors import ConfigError, FluxError, InUseError
from flux.limits import (
    INGEST_HWM,
    LIVE_HWM,
    MAX_FRAME_BYTES,
    MAX_REPLIES_PER_PEER,
    MAX_REQUEST_FRAME_BYTES,
    MAX_TOPIC_BYTES,
    RECONNECT_MAX_MS,
    RECONNECT_MIN_MS,
)
from flux.transport.intake import Taken
from flux.transport.sockets import (
    Poller,
    Publisher,
    Sockets,
    Wake,
    endpoint_of,
    is_local,
    receive,
    send,
    send_back,
    subscribe,
    unsubscribe,
)
from flux.transport.topics import Subscriptions
from tests.no_descriptors import no_descriptors
from tests.patience import PATIENCE_S

FREE = "tcp://127.0.0.1:*"


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as made:
        yield made


def changes_of(publisher: Publisher, count: int) -> list[bytes]:
    poller = Poller(publisher.socket)
    changes: list[bytes] = []
    while len(changes) < count:
        assert poller.wait(PATIENCE_S), f"only {changes}"
        changes += publisher.drain()
    return changes


def test_a_free_port_is_told(sockets: Sockets) -> None:
    endpoint = endpoint_of(sockets.router(FREE))
    assert int(endpoint.removeprefix("tcp://127.0.0.1:")) > 0


def test_a_port_in_use_is_named(sockets: Sockets) -> None:
    endpoint = endpoint_of(sockets.router(FREE))
    with pytest.raises(InUseError, match=endpoint) as caught:
        sockets.publisher(endpoint)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    "endpoint", ["tcp://*:5556", "tcp://0.0.0.0:5556", "tcp://192.0.2.1:5556", "tcp://[::]:1"]
)
def test_another_machine_may_not_reach_a_socket_unless_told_so(sockets: Sockets, endpoint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        sockets.publisher(endpoint)
    for way_out in ("127.0.0.1", "CURVE", "--insecure"):
        assert way_out in str(caught.value)
    assert caught.value.exit_code == 2


def test_insecure_binds_and_warns(caplog: pytest.LogCaptureFixture) -> None:
    with Sockets(insecure=True) as sockets:
        sockets.router("tcp://*:*")
    assert "is open to every machine" in caplog.text


def test_what_is_local() -> None:
    local = [
        "tcp://127.0.0.1:5556",
        "tcp://127.9.9.9:*",
        "tcp://[::1]:5556",
        "tcp://localhost:1",
        "inproc://x",
        "ipc://x",
    ]
    assert all(is_local(endpoint) for endpoint in local)
    assert not any(
        is_local(e) for e in ["tcp://*:1", "tcp://10.0.0.1:1", "tcp://example.org:1", "udp://127.0.0.1:1", ""]
    )


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://127.0.0.1:no", "tcp://127.0.0.1:99999"])
def test_an_endpoint_that_is_none_is_a_usage_error(sockets: Sockets, endpoint: str) -> None:
    with pytest.raises(ConfigError):
        sockets.router(endpoint)
    with pytest.raises(ConfigError):
        sockets.dealer(endpoint)


def test_every_socket_is_bounded_and_none_pings(sockets: Sockets) -> None:
    publisher = sockets.publisher(FREE).socket
    router = sockets.router(FREE)
    others = [
        sockets.puller(FREE),
        sockets.subscriber(endpoint_of(publisher)),
        sockets.dealer(endpoint_of(router)),
        sockets.pusher("tcp://127.0.0.1:9"),
    ]
    for socket in (publisher, router, *others):
        assert 0 < socket.getsockopt(zmq.MAXMSGSIZE) <= MAX_FRAME_BYTES
        assert socket.getsockopt(zmq.RCVHWM) > 0
        assert socket.getsockopt(zmq.LINGER) >= 0, "a close always ends"
        assert socket.getsockopt(zmq.HEARTBEAT_IVL) <= 0, "a ping kills a v1 peer"
        assert socket.getsockopt(zmq.TCP_KEEPALIVE) == 1
    assert publisher.getsockopt(zmq.SNDHWM) == LIVE_HWM
    assert router.getsockopt(zmq.SNDHWM) == MAX_REPLIES_PER_PEER
    assert router.getsockopt(zmq.MAXMSGSIZE) == MAX_REQUEST_FRAME_BYTES


def test_subscriptions_are_told_once_and_taken_back(sockets: Sockets) -> None:
    publisher = sockets.publisher(FREE)
    endpoint = endpoint_of(publisher.socket)
    one = sockets.subscriber(endpoint, [b"", b"candles.SIM"])
    assert sorted(changes_of(publisher, 2)) == [b"", b"candles.SIM"]
    assert publisher.subscriptions.prefixes == {b"", b"candles.SIM"}

    two = sockets.subscriber(endpoint, [b"candles.SIM", b"two"])
    assert changes_of(publisher, 1) == [b"two"]
    unsubscribe(one, b"candles.SIM")
    unsubscribe(one, b"")
    assert changes_of(publisher, 1) == [b""]
    assert publisher.subscriptions.wants(b"candles.SIM.BTCUSDT.1m"), "the second one still asks for it"
    sockets.discard(two)
    assert sorted(changes_of(publisher, 2)) == [b"candles.SIM", b"two"]
    assert publisher.subscriptions.prefixes == set()
    subscribe(one, b"again")
    assert changes_of(publisher, 1) == [b"again"]


def test_what_is_wanted() -> None:
    some = Subscriptions()
    assert not some.wants(b"candles.A")
    assert some.apply(b"\x01candles.A") == b"candles.A"
    assert some.apply(b"\x01candles.A") is None, "told twice changes nothing"
    assert some.wants(b"candles.A")
    assert some.wants(b"candles.AB")
    assert not some.wants(b"candles.")
    assert some.apply(b"\x01") == b""
    assert some.wants(b"anything")
    assert some.apply(b"\x00") == b""
    assert not some.wants(b"anything")
    for other in (b"", b"\x02x", b"hello", b"\x01" + b"x" * (MAX_TOPIC_BYTES + 1), b"\x00never"):
        assert some.apply(other) is None
    assert some.prefixes == {b"candles.A"}


def test_more_subscriptions_than_the_limit_cost_nothing_and_lose_nothing() -> None:
    some = Subscriptions(limit=2)
    changed = [some.apply(b"\x01" + prefix) for prefix in (b"a", b"b", b"c", b"d")]
    assert changed == [b"a", b"b", b"", None], "beyond the limit everything counts as wanted"
    assert len(some.prefixes) == 2
    assert some.unlisted == 2
    assert some.wants(b"c")
    assert [some.apply(b"\x00" + prefix) for prefix in (b"c", b"d")] == [None, b""]
    assert some.unlisted == 0
    assert not some.wants(b"c")
    assert some.wants(b"a")


def test_send_and_receive_never_wait(sockets: Sockets) -> None:
    router = sockets.router(FREE)
    dealer = sockets.dealer(endpoint_of(router))
    assert receive(dealer) is None
    assert send(dealer, [b"", b"question"])
    assert Poller(router).wait(PATIENCE_S) == [router]
    peer, *rest = receive(router) or []
    assert rest == [b"", b"question"]
    assert send_back(router, [peer, b"", b"answer"])
    assert Poller(dealer).wait(PATIENCE_S) == [dealer]
    assert receive(dealer) == [b"", b"answer"]
    assert send_back(router, [b"nobody", b"answer"]) is None
    full = [send_back(router, [peer, b"x" * 200_000]) for _ in range(1_000)]
    assert full[0] is True
    assert full[-1] is False, "a peer that does not read is bounded"


def test_a_wake_ends_a_wait_from_another_thread(sockets: Sockets) -> None:
    router, wake = sockets.router(FREE), Wake()
    poller = Poller(router, wake)
    assert poller.wait(0) == []
    thread = threading.Thread(target=wake.set)
    thread.start()
    assert poller.wait(PATIENCE_S) == [wake]
    thread.join()
    wake.set()
    assert poller.wait(0) == [wake], "it stays up"
    wake.clear()
    wake.clear()
    assert poller.wait(0) == []
    poller.remove(wake)
    wake.set()
    assert poller.wait(0) == []
    wake.close()
    wake.close()
    wake.set()


def test_what_is_pushed_to_nobody_is_not_queued(sockets: Sockets) -> None:
    """A feed keeps its rows itself until they are committed: in a queue of libzmq they would be lost with it."""
    endpoint = endpoint_of(sockets.router(FREE))  # somebody who takes no pushes
    pusher = sockets.pusher(endpoint)
    assert not send(pusher, [b"a row"])
    puller = sockets.puller(FREE)
    there = sockets.pusher(endpoint_of(puller))
    ready = Poller(puller)
    while not send(there, [b"a row"]):  # until it is linked
        assert not ready.wait(0.01)
    assert ready.wait(PATIENCE_S)
    assert receive(puller) == [b"a row"]


def test_what_waits_for_a_server_is_bounded(sockets: Sockets) -> None:
    assert sockets.puller(FREE).getsockopt(zmq.RCVHWM) == INGEST_HWM
    assert sockets.pusher("tcp://127.0.0.1:1").getsockopt(zmq.SNDHWM) == INGEST_HWM


def test_every_socket_that_connects_backs_off(sockets: Sockets) -> None:
    nobody = "tcp://127.0.0.1:1"
    for socket in (
        sockets.subscriber(nobody, []),
        sockets.watched_subscriber(nobody)[0],
        sockets.dealer(nobody),
        sockets.pusher(nobody),
    ):
        assert socket.getsockopt(zmq.RECONNECT_IVL) == RECONNECT_MIN_MS
        assert socket.getsockopt(zmq.RECONNECT_IVL_MAX) == RECONNECT_MAX_MS
    for socket in (sockets.puller(FREE), sockets.router(FREE)):
        assert socket.getsockopt(zmq.RCVHWM) > 0


MAKERS: list[Callable[[Sockets, str], object]] = [
    lambda made, endpoint: made.watched_subscriber(endpoint),
    lambda made, endpoint: made.watched_dealer(endpoint, Taken()),
    lambda made, endpoint: made.watched_pusher(endpoint),
    lambda made, endpoint: made.comings(made.dealer(endpoint)),
]


@pytest.mark.parametrize("make", MAKERS)
def test_a_socket_for_which_there_are_no_descriptors_is_an_error_and_nothing_is_left(
    sockets: Sockets, make: Callable[[Sockets, str], object]
) -> None:
    """However few there are: the monitor of a socket needs some of its own. (Without any, libzmq aborts in `bind`.)"""
    endpoint = endpoint_of(sockets.router(FREE))  # the context has its own descriptors
    said: list[str] = []
    while True:
        before = len(sockets._all)
        try:
            with no_descriptors(len(said)):
                make(sockets, endpoint)
            break
        except FluxError as error:
            said.append(str(error))
        assert len(sockets._all) == before
    assert len(said) > 1
    assert all("Too many open files" in sentence for sentence in said), said
    sockets.close()  # does not wait for a monitor that nobody reads
