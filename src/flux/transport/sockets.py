"""Sockets: the only place, with `frames.py` and `pump.py`, that imports zmq.

Every socket is bounded in messages and in bytes per message (`limits.py`). None sets HEARTBEAT_IVL: a ZMTP
PING kills a v1 peer, so liveness is our own heartbeat message, and TCP keepalive finds dead connections.

A socket belongs to one thread. It may be made in another, which then does not touch it again. What other
threads may do to a loop that polls is `Wake.set`.
"""

from __future__ import annotations

import errno
import logging
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, NoReturn

import zmq
from zmq.utils.monitor import parse_monitor_message

from flux.errors import ConfigError, FluxError, InUseError
from flux.limits import (
    CLIENT_QUEUE_BYTES,
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
)
from flux.transport.endpoints import OpenAddress, hold, malformed, refusal
from flux.transport.endpoints import is_local as is_local
from flux.transport.forked import only_here
from flux.transport.frames import Socket as Socket
from flux.transport.frames import receive as receive
from flux.transport.frames import receive_some as receive_some
from flux.transport.frames import send as send
from flux.transport.frames import send_back as send_back
from flux.transport.frames import writable as writable
from flux.transport.intake import Intake, Taken, Watched
from flux.transport.publisher import Publisher as Publisher
from flux.transport.wake import Wake as Wake

_LOG: Final = logging.getLogger("flux.transport")

# Finds a peer that vanished without a word within a minute, whatever libzmq's own heartbeat would have done.
_KEEPALIVE: Final = (
    (zmq.TCP_KEEPALIVE, 1),
    (zmq.TCP_KEEPALIVE_IDLE, 30),
    (zmq.TCP_KEEPALIVE_INTVL, 10),
    (zmq.TCP_KEEPALIVE_CNT, 3),
)


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
    zmq.EVENT_CONNECTED: None,  # it has not greeted yet
    zmq.EVENT_HANDSHAKE_SUCCEEDED: LinkEvent.UP,
    zmq.EVENT_DISCONNECTED: LinkEvent.DOWN,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: LinkEvent.REFUSED,
}


_COMINGS: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_CONNECTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED


def _coming(said: Mapping[str, Any]) -> tuple[int, bool]:
    """A descriptor, and False if its connection is no more."""
    return int(said["value"]), said["event"] in (zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED)


class Link:
    """Tells what becomes of a connecting socket's connection; `socket` polls as readable when there is news."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self._comings: deque[tuple[int, bool]] = deque()

    def comings(self) -> list[tuple[int, bool]]:
        """As `Sockets.comings` gives, of the events that were seen; from another thread."""
        return [self._comings.popleft() for _ in range(len(self._comings))]

    def events(self) -> list[LinkEvent]:
        """What happened since the last call, in order; at most LINK_EVENTS_PER_LOOK, the others at the next."""
        out = []
        for frames in receive_some(self.socket, LINK_EVENTS_PER_LOOK):
            said = parse_monitor_message(frames)
            event = _LINK_EVENTS.get(zmq.Event(said["event"]))
            if said["event"] & _COMINGS:
                self._comings.append(_coming(said))
            if event is not None:
                out.append(event)
        return out


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
        self.check: Final = only_here("connection")  # raises FluxError in a forked process
        self._all: list[Socket] = []
        self._intake = Intake()
        self._watched: dict[Socket, Watched] = {}
        self._monitors: dict[Socket, Socket] = {}
        self._held: list[tuple[Socket, str, OpenAddress]] = []
        weakref.finalize(self, self._intake.stop, wait=False).atexit = False

    def publisher(self, endpoint: str, *, hwm: int = LIVE_HWM, listen: bool = True) -> Publisher:
        """A bound XPUB; it never waits: a subscriber that is `hwm` messages behind loses the next ones. `listen` False:
        nobody is let in before `listen()`."""
        socket = self._make(
            zmq.XPUB, send=hwm, receive=REQUEST_HWM, frame=MAX_SUBSCRIBE_BYTES, linger=LINGER_MS
        )
        return Publisher(self._bind(socket, endpoint, listen))

    def router(self, endpoint: str, *, listen: bool = True) -> Socket:
        """A bound ROUTER for requests; `listen` as of `publisher`.

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
        return self._bind(socket, endpoint, listen)

    def puller(self, endpoint: str, *, listen: bool = True) -> Socket:
        """A bound PULL for feeds: its high-water mark is what holds them back; `listen` as of `publisher`."""
        socket = self._make(zmq.PULL, send=1, receive=INGEST_HWM, frame=MAX_FRAME_BYTES, linger=0)
        return self._bind(socket, endpoint, listen)

    def listen(self) -> None:
        """Let peers in where `listen` was False. Raises InUseError and ConfigError."""
        while self._held:
            socket, endpoint, held = self._held.pop()
            held.close()
            self._bind_now(socket, endpoint)

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
        watcher = self._monitor(socket, sum(_LINK_EVENTS))
        return self._connect(socket, endpoint), Link(watcher)

    def comings(self, socket: Socket) -> Callable[[], list[tuple[int, bool]]]:
        """What gives, at each call, which connections of a socket were made since the last one, or since it was made
        with `listen` False: (descriptor, False if it is no more)."""
        watcher = self._monitors.get(socket) or self._monitor(socket, _COMINGS)

        def come() -> list[tuple[int, bool]]:
            return [
                _coming(parse_monitor_message(frames))
                for frames in receive_some(watcher, LINK_EVENTS_PER_LOOK)
            ]

        return come

    def watch(self, socket: Socket, watched: Watched) -> Watched:
        """Have a connecting socket's intake watched until it or all are closed; `watched` is given back."""
        try:
            self._intake.add(watched)
        except RuntimeError as error:
            raise FluxError(f"cannot begin a thread: {error}") from error
        self._watched[socket] = watched
        return watched

    def _subscriber(self, prefixes: Sequence[bytes], hwm: int) -> Socket:
        # No bound on sending: what it sends are our own subscriptions, and libzmq drops them beyond a bound.
        socket = self._make(zmq.SUB, send=0, receive=hwm, frame=MAX_FRAME_BYTES, linger=0)
        for prefix in prefixes:
            subscribe(socket, prefix)
        return socket

    def dealer(self, endpoint: str) -> Socket:
        """A DEALER that connects, for many requests in flight."""
        return self._connect(self._dealer(), endpoint)

    def watched_dealer(
        self, endpoint: str, taken: Taken, look: Callable[[], None] | None = None
    ) -> tuple[Socket, Watched]:
        """A `dealer`, and the watch on what comes (see `Watched`)."""
        socket = self._dealer()
        watched = Watched(endpoint, self.comings(socket), lambda: taken, look, CLIENT_QUEUE_BYTES)
        self._connect(socket, endpoint)
        return socket, self.watch(socket, watched)

    def _dealer(self) -> Socket:
        return self._make(
            zmq.DEALER, send=2 * MAX_ASKS, receive=2 * MAX_ASKS, frame=MAX_FRAME_BYTES, linger=0
        )

    def pusher(self, endpoint: str, *, hwm: int = INGEST_HWM) -> Socket:
        """A PUSH that connects. IMMEDIATE: it queues only towards a server that is there."""
        return self._connect(self._pusher(hwm), endpoint)

    def watched_pusher(self, endpoint: str) -> tuple[Socket, Watched]:
        """A `pusher`, and the watch on what comes: nothing is to come."""
        socket = self._pusher(INGEST_HWM)
        watched = Watched(endpoint, self.comings(socket), Taken)
        self._connect(socket, endpoint)
        return socket, self.watch(socket, watched)

    def _pusher(self, hwm: int) -> Socket:
        socket = self._make(zmq.PUSH, send=hwm, receive=1, frame=MAX_FRAME_BYTES, linger=LINGER_MS)
        socket.setsockopt(zmq.IMMEDIATE, 1)
        return socket

    def release(self, socket: Socket) -> None:
        """Close one socket; libzmq goes on sending what it holds, at most LINGER_MS."""
        self._forget(socket)
        socket.close()

    def discard(self, socket: Socket) -> None:
        """Close one socket now, with what it had still to send."""
        self._forget(socket)
        socket.close(linger=0)

    def _forget(self, socket: Socket) -> None:
        self._all.remove(socket)
        if (watched := self._watched.pop(socket, None)) is not None:
            self._intake.remove(watched)
        if (watcher := self._monitors.pop(socket, None)) is not None:
            socket.disable_monitor()
            watcher.close()

    def _monitor(self, socket: Socket, events: int) -> Socket:
        """What the socket's events come by. Disabled before it is closed: libzmq would wait to say the next one.
        Where the system gives none, the socket is closed too."""
        try:
            watcher: Socket = socket.get_monitor_socket(events)
        except zmq.ZMQError as error:
            socket.disable_monitor()
            self.discard(socket)
            raise FluxError(f"cannot watch a socket: {error.strerror}") from error
        self._monitors[socket] = watcher
        return watcher

    def close(self) -> None:
        """Close every socket and the context; waits at most LINGER_MS for what is still to be sent."""
        self._intake.stop()
        for watched, watcher in self._monitors.items():
            watched.disable_monitor()
            watcher.close()
        self._monitors.clear()
        for _, _, held in self._held:
            held.close()
        self._held.clear()
        for socket in self._all:
            socket.close()
        self._all.clear()
        self._context.term()

    def __enter__(self) -> Sockets:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self, kind: int, *, send: int, receive: int, frame: int, linger: int) -> Socket:
        self.check()
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

    def _bind(self, socket: Socket, endpoint: str, listen: bool) -> Socket:
        self._check(socket, endpoint)
        if not is_local(endpoint):
            if not self._insecure:
                self.discard(socket)
                raise ConfigError(refusal(endpoint))
            _LOG.warning("%s is open to every machine that reaches it: no key is asked for", endpoint)
        if not listen:
            self._monitor(socket, _COMINGS)  # whoever comes as soon as they can is heard of
            try:
                held = hold(endpoint)
            except OSError as error:
                self._refused(socket, endpoint, error)
            if held is not None:
                self._held.append((socket, endpoint, held))
                return socket
        return self._bind_now(socket, endpoint)

    def _bind_now(self, socket: Socket, endpoint: str) -> Socket:
        try:
            socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._refused(socket, endpoint, error)
        return socket

    def _refused(self, socket: Socket, endpoint: str, error: OSError | zmq.ZMQError) -> NoReturn:
        self.discard(socket)
        if error.errno == errno.EADDRINUSE:
            raise InUseError(f"{endpoint} is in use by another process") from error
        raise ConfigError(f"cannot bind {endpoint!a}: {error.strerror}") from error

    def _connect(self, socket: Socket, endpoint: str) -> Socket:
        self._check(socket, endpoint)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            self.discard(socket)
            raise ConfigError(f"cannot connect to {endpoint!a}: {error.strerror}") from error
        return socket

    def _check(self, socket: Socket, endpoint: str) -> None:
        if why := malformed(endpoint):
            self.discard(socket)
            raise ConfigError(why)


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
