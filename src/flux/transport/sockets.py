"""Sockets: the only place, with `keys.py` and `pump.py`, that imports zmq.

Every socket is bounded in messages and in bytes per message (`limits.py`). None sets HEARTBEAT_IVL: a ZMTP
PING kills a v1 peer, so liveness is our own heartbeat message, and TCP keepalive finds dead connections.

A socket belongs to one thread. It may be made in another, which then does not touch it again. What other
threads may do to a loop that polls is `Wake.set`.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Final, TypeAlias

import zmq
from zmq.utils.monitor import parse_monitor_message

from flux.errors import ConfigError, FluxError, InUseError
from flux.limits import (
    INGEST_HWM,
    LINGER_MS,
    LINK_EVENTS_PER_LOOK,
    LIVE_HWM,
    MAX_ASKS,
    MAX_FRAME_BYTES,
    MAX_REPLIES_PER_PEER,
    MAX_REQUEST_FRAME_BYTES,
    MAX_SUBSCRIBE_BYTES,
    RECONNECT_MAX_MS,
    RECONNECT_MIN_MS,
    REQUEST_HWM,
    SUBSCRIPTIONS_PER_LOOK,
)
from flux.transport.topics import Subscriptions
from flux.transport.wake import Wake as Wake

Socket: TypeAlias = "zmq.Socket[bytes]"

_LOG: Final = logging.getLogger("flux.transport")

# Finds a peer that vanished without a word within a minute, whatever libzmq's own heartbeat would have done.
_KEEPALIVE: Final = (
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 30),
    (zmq.TCP_KEEPALIVE_INTVL, 10),
    (zmq.TCP_KEEPALIVE_CNT, 3),
)

_MAX_PORT: Final = 65_535


class Poller:
    """Waits until one of several sockets has a message, or a `Wake` is up."""

    def __init__(self, *sources: Socket | Wake) -> None:
        self._poller = zmq.Poller()
        self._wakes: dict[int, Wake] = {}
        for source in sources:
            self.add(source)

    def add(self, source: Socket | Wake) -> None:
        """Wait for this one too."""
        self._poller.register(source, zmq.POLLIN)
        if isinstance(source, Wake):
            self._wakes[source.fileno()] = source

    def remove(self, source: Socket | Wake) -> None:
        """Wait for this one no longer."""
        self._poller.unregister(source)
        if isinstance(source, Wake):
            del self._wakes[source.fileno()]

    def wait(self, timeout: float | None = None) -> list[Socket | Wake]:
        """What is ready, at once or after at most `timeout` seconds (None: however long it takes)."""
        millis = None if timeout is None else max(0, round(timeout * 1_000))
        return [
            self._wakes[source] if isinstance(source, int) else source
            for source, _events in self._poller.poll(millis)
        ]


class LinkEvent(Enum):
    """What became of a connecting socket's connection."""

    UP = "up"  # connected, and both sides greeted each other
    DOWN = "down"
    REFUSED = "refused"  # the peer took the connection and refused who we are


_LINK_EVENTS: Final = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: LinkEvent.UP,
    zmq.EVENT_DISCONNECTED: LinkEvent.DOWN,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: LinkEvent.REFUSED,
}


class Link:
    """Tells what becomes of a connecting socket's connection; `socket` polls as readable when there is news."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket

    def events(self) -> list[LinkEvent]:
        """What happened since the last call, in order; at most LINK_EVENTS_PER_LOOK, the others at the next."""
        out = []
        for frames in receive_some(self.socket, LINK_EVENTS_PER_LOOK):
            event = _LINK_EVENTS.get(zmq.Event(parse_monitor_message(frames)["event"]))
            if event is not None:
                out.append(event)
        return out


class Publisher:
    """A bound XPUB socket and what its subscribers asked for.

    Plain, never VERBOSE: so the subscription messages of each prefix balance (`topics.Subscriptions`).
    """

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.subscriptions = Subscriptions()
        self.more = False
        """Whether `drain` left messages of subscribers waiting."""

    def hear(self, frame: bytes) -> list[bytes]:
        """Take one frame of a subscriber; the prefix whose topics it changed, if any (`Subscriptions.apply`)."""
        prefix = self.subscriptions.apply(frame)
        return [] if prefix is None else [prefix]

    def drain(self) -> list[bytes]:
        """Take what subscribers sent since the last call, at most `SUBSCRIPTIONS_PER_LOOK` messages (then `more` is
        True); the changed prefixes."""
        changed: list[bytes] = []
        self.more = False
        for _ in range(SUBSCRIPTIONS_PER_LOOK):
            frames = receive(self.socket)
            if frames is None:
                return changed
            if len(frames) == 1:
                changed += self.hear(frames[0])
        self.more = True
        return changed


class Sockets:
    """One zmq context and the sockets made from it; closing it closes them all.

    `insecure` allows endpoints that other machines can reach.
    """

    def __init__(self, *, io_threads: int = 1, insecure: bool = False) -> None:
        try:
            self._context: zmq.Context[Socket] = zmq.Context(io_threads)
        except zmq.ZMQError as error:
            raise FluxError(f"cannot begin with sockets: {error.strerror}") from error
        self._insecure = insecure
        self._all: list[Socket] = []

    def publisher(self, endpoint: str, *, hwm: int = LIVE_HWM) -> Publisher:
        """A bound XPUB; it never waits: a subscriber that is `hwm` messages behind loses the next ones."""
        socket = self._make(
            zmq.XPUB, send=hwm, receive=REQUEST_HWM, frame=MAX_SUBSCRIBE_BYTES, linger=LINGER_MS
        )
        return Publisher(self._bind(socket, endpoint))

    def router(self, endpoint: str) -> Socket:
        """A bound ROUTER for requests.

        ROUTER_MANDATORY makes a reply that cannot be queued an error, so that it is held or counted; without
        it libzmq drops such a reply and says nothing.
        """
        socket = self._make(
            zmq.ROUTER,
            send=MAX_REPLIES_PER_PEER,
            receive=REQUEST_HWM,
            frame=MAX_REQUEST_FRAME_BYTES,
            linger=LINGER_MS,
        )
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        return self._bind(socket, endpoint)

    def puller(self, endpoint: str) -> Socket:
        """A bound PULL for feeds: its high-water mark is what holds them back."""
        socket = self._make(zmq.PULL, send=1, receive=INGEST_HWM, frame=MAX_FRAME_BYTES, linger=0)
        return self._bind(socket, endpoint)

    def subscriber(self, endpoint: str, prefixes: Sequence[bytes] = (), *, hwm: int = LIVE_HWM) -> Socket:
        """A SUB that connects, and again by itself; `subscribe`, `unsubscribe` change what it asks for."""
        return self._connect(self._subscriber(prefixes, hwm), endpoint)

    def connect(self, socket: Socket, endpoint: str) -> None:
        """Connect a `subscriber` to one more publisher: it asks there for the same."""
        self._connect(socket, endpoint)

    def watched_subscriber(
        self, endpoint: str, prefixes: Sequence[bytes] = (), *, hwm: int = LIVE_HWM
    ) -> tuple[Socket, Link]:
        """A `subscriber`, and what tells how its connection fares."""
        socket = self._subscriber(prefixes, hwm)
        watcher: Socket = socket.get_monitor_socket(sum(_LINK_EVENTS))
        self._all.insert(0, watcher)  # closed before what it watches
        return self._connect(socket, endpoint), Link(watcher)

    def comings(self, socket: Socket) -> Callable[[], list[tuple[int, bool]]]:
        """What gives, at each call, who came to a bound socket since the last one: (descriptor, False if it left)."""
        watcher: Socket = socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
        )
        self._all.insert(0, watcher)

        def come() -> list[tuple[int, bool]]:
            events = map(parse_monitor_message, receive_some(watcher, LINK_EVENTS_PER_LOOK))
            return [(int(event["value"]), event["event"] == zmq.EVENT_ACCEPTED) for event in events]

        return come

    def _subscriber(self, prefixes: Sequence[bytes], hwm: int) -> Socket:
        # No bound on sending: what it sends are our own subscriptions, and libzmq drops them beyond a bound.
        socket = self._make(zmq.SUB, send=0, receive=hwm, frame=MAX_FRAME_BYTES, linger=0)
        for prefix in prefixes:
            subscribe(socket, prefix)
        return socket

    def dealer(self, endpoint: str) -> Socket:
        """A DEALER that connects, for many requests in flight."""
        socket = self._make(
            zmq.DEALER, send=2 * MAX_ASKS, receive=2 * MAX_ASKS, frame=MAX_FRAME_BYTES, linger=0
        )
        return self._connect(socket, endpoint)

    def pusher(self, endpoint: str, *, hwm: int = INGEST_HWM) -> Socket:
        """A PUSH that connects. IMMEDIATE: it queues only towards a server that is there."""
        socket = self._make(zmq.PUSH, send=hwm, receive=1, frame=MAX_FRAME_BYTES, linger=LINGER_MS)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        return self._connect(socket, endpoint)

    def release(self, socket: Socket) -> None:
        """Close one socket; libzmq goes on sending what it holds, at most LINGER_MS."""
        self._all.remove(socket)
        socket.close()

    def discard(self, socket: Socket) -> None:
        """Close one socket now, with what it had still to send."""
        self._all.remove(socket)
        socket.close(linger=0)

    def close(self) -> None:
        """Close every socket and the context; waits at most LINGER_MS for what is still to be sent."""
        for socket in self._all:
            socket.close()
        self._all.clear()
        self._context.term()

    def __enter__(self) -> Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self, kind: int, *, send: int, receive: int, frame: int, linger: int) -> Socket:
        try:
            socket = self._context.socket(kind)
        except zmq.ZMQError as error:
            raise FluxError(f"cannot make a socket: {error.strerror}") from error
        self._all.append(socket)
        socket.setsockopt(zmq.SNDHWM, send)
        socket.setsockopt(zmq.RCVHWM, receive)
        socket.setsockopt(zmq.MAXMSGSIZE, frame)
        socket.setsockopt(zmq.LINGER, linger)
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MIN_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
        for option, value in _KEEPALIVE:
            socket.setsockopt(option, value)
        return socket

    def _bind(self, socket: Socket, endpoint: str) -> Socket:
        self._check(socket, endpoint)
        if not is_local(endpoint):
            if not self._insecure:
                self.discard(socket)
                raise ConfigError(_refusal(endpoint))
            _LOG.warning("%s is open to every machine that reaches it: no key is asked for", endpoint)
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.discard(socket)
            if error.errno == errno.EADDRINUSE:
                raise InUseError(f"{endpoint} is in use by another process") from error
            raise ConfigError(f"cannot bind {endpoint!a}: {error.strerror}") from error
        return socket

    def _connect(self, socket: Socket, endpoint: str) -> Socket:
        self._check(socket, endpoint)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.discard(socket)
            raise ConfigError(f"cannot connect to {endpoint!a}: {error.strerror}") from error
        return socket

    def _check(self, socket: Socket, endpoint: str) -> None:
        if "://" not in endpoint:
            self.discard(socket)
            raise ConfigError(f"{endpoint!a} is no endpoint: write it like tcp://127.0.0.1:5556")
        # libzmq keeps the low 16 bits of a larger port and binds another one than was asked for.
        port = endpoint.rpartition(":")[2]
        if endpoint.startswith("tcp://") and port.isdigit() and int(port) > _MAX_PORT:
            self.discard(socket)
            raise ConfigError(f"{endpoint!a}: a port is at most {_MAX_PORT}")


def libzmq_version() -> str:
    """The libzmq that pyzmq uses, such as `4.3.5`."""
    return zmq.zmq_version()


def subscribe(socket: Socket, prefix: bytes) -> None:
    """Ask a subscriber's publisher for every topic that begins with `prefix`."""
    socket.setsockopt(zmq.SUBSCRIBE, prefix)


def unsubscribe(socket: Socket, prefix: bytes) -> None:
    """Take one `subscribe` back."""
    socket.setsockopt(zmq.UNSUBSCRIBE, prefix)


def endpoint_of(socket: Socket) -> str:
    """Where a socket is really bound: `tcp://127.0.0.1:*` has become a port."""
    told = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(told, bytes)
    return told.rstrip(b"\0").decode()


def receive(socket: Socket) -> list[bytes] | None:
    """The next message's frames, copied; None when there is none now."""
    try:
        return socket.recv_multipart(zmq.DONTWAIT)
    except zmq.Again:
        return None


def receive_some(socket: Socket, most: int) -> Iterator[list[bytes]]:
    """The messages that are there now, at most so many: a peer that sends faster than they are taken ends no loop."""
    for _ in range(most):
        frames = receive(socket)
        if frames is None:
            return
        yield frames


def send(socket: Socket, frames: Sequence[bytes]) -> bool:
    """Queue one message if there is room for it now; False when there is none."""
    try:
        socket.send_multipart(frames, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


def writable(socket: Socket) -> bool:
    """Whether a message would be queued now."""
    return bool(socket.poll(0, zmq.POLLOUT))


def send_back(socket: Socket, frames: Sequence[bytes]) -> bool | None:
    """As `send`, by a router, whose first frame is the peer; None when that peer is gone."""
    try:
        return send(socket, frames)
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return None
        raise


def is_local(endpoint: str) -> bool:
    """Whether only this machine can reach a bound endpoint."""
    if endpoint.startswith(("inproc://", "ipc://")):
        return True
    host = re.fullmatch(r"tcp://\[?([^\]]*?)\]?:(?:\d+|\*)", endpoint)
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host[1]).is_loopback
    except ValueError:
        return host[1] in ("localhost", "lo")


def _refusal(endpoint: str) -> str:
    port = endpoint.rpartition(":")[2]
    return (
        f"{endpoint!a} can be reached from other machines, and nothing would ask them for a key. Either bind "
        f"tcp://127.0.0.1:{port} and let others in through a tunnel (ssh -L); or give both sides CURVE keys "
        f"(flux keygen, in a later version); or say --insecure, and whoever reaches the port may read and ask"
    )
