"""The door of the pump: sockets of pyzmq on one side, compiled code on the other.

Receive, record and publish happen a batch at a time without Python per message (`ext/pump.h` draws how). libzmq's
functions are taken by pointer from whichever library pyzmq has loaded, so no second libzmq ever enters the process.
Where one of them cannot be had, each frame goes through pyzmq's own `recv` and `send`, and all else is the same code:
the same results, at some 3 us a message of two frames instead of 0.2 (`NATIVE` says which).
"""

from __future__ import annotations

import ctypes
import logging
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import zmq

from flux import limits
from flux.kernels import pump as kernel
from flux.model import ARRIVAL, CANDLE, HEAD, QUOTE, TRADE, RefusedReason, RowKind, StreamKey
from flux.ring import Arena, Ring
from flux.transport.intake import Taken
from flux.transport.topics import stream_topic, v1_topic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux.journal import Group

OTHERS_BYTES: Final = 2 * limits.MAX_FRAME_BYTES

# The counters of a receiver, in messages, of what a client refuses for what it is.
_UNREADABLE = "short size checksum verify frames version sequence rows kind key values"
UNREADABLE: Final = tuple(_UNREADABLE.split())

_ROW = {RowKind.CANDLE: CANDLE, RowKind.TRADE: TRADE, RowKind.QUOTE: QUOTE}

assert kernel.REFUSED_KEPT == limits.MAX_REFUSED_LISTED


_LOG: Final = logging.getLogger("flux.transport")


def _bind() -> str:
    """Gives libzmq's functions to the kernel; says why not when one of them is missing, "" when all are there."""
    try:
        from zmq.backend.cython import _zmq  # another backend of pyzmq has no such module

        library = ctypes.CDLL(_zmq.__file__)
        functions = [getattr(library, name) for name in kernel.ZMQ_FUNCTIONS]
    except (ImportError, OSError, AttributeError) as error:
        _LOG.warning("messages go through pyzmq one by one, libzmq's functions are out of reach: %s", error)
        return str(error)
    kernel.bind([ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions])
    return ""


def _receive_frame(socket: zmq.Socket[bytes], flags: int) -> tuple[bytes, bool] | int:
    try:
        return socket.recv(flags), bool(socket.getsockopt(zmq.RCVMORE))
    except zmq.ZMQError as error:
        return error.errno or zmq.EINVAL


def _send_frame(socket: zmq.Socket[bytes], frame: bytes, flags: int) -> int:
    try:
        socket.send(frame, flags)
    except zmq.ZMQError as error:
        return error.errno or zmq.EINVAL
    return 0


kernel.bind_python(_receive_frame, _send_frame)

FALL_BACK: Final[str] = _bind()
"""Why libzmq's functions are out of reach; "" when they are not."""

NATIVE: Final[bool] = not FALL_BACK
"""Whether receivers and senders call libzmq directly, and not through pyzmq."""


def calls(native: bool) -> int:
    """The address of libzmq's functions, or of those that stand in for them, for the bridge."""
    return kernel.calls(native)


def _handle(socket: zmq.Socket[bytes], native: bool) -> int:
    """What the kernel knows a socket by; whoever holds it keeps the socket alive."""
    return socket.underlying if native else id(socket)


def _error(number: int) -> zmq.ZMQError:
    return zmq.ContextTerminated(number) if number == zmq.ETERM else zmq.ZMQError(number)


class Drained(IntEnum):
    """Why `Receiver.receive` came back."""

    EMPTY = 0  # nothing waits any more
    FULL = 1  # more waits: record what arrived and call again
    UNKNOWN_STREAM = 2  # a message of a key that is not in the table is held: `unknown`, then add or discard
    UNKNOWN_RUN = 3  # the same, of a feed's run (server)
    HELD = 4  # the ring of the held message's stream is full of rows that the journal does not have yet
    SOCKET_ERROR = 5


class UnknownStream(NamedTuple):
    """What the held message says of itself; `key` is as received, its names unchecked. `slot` is None when the
    stream is unknown, else the stream whose feed run is."""

    key: tuple[bytes, bytes, bytes]
    kind: RowKind
    store_id: int
    epoch: int
    stream_id: int
    start: int
    rows: int
    slot: int | None


class Streams:
    """The streams of one process: slots with a ring each, found by key or by the head of a frame.

    Slots are numbered from 0 and never go. Only the thread that receives may add; other threads may read.
    """

    def __init__(self, limit: int = limits.MAX_STREAMS) -> None:
        self.kernel = kernel.Streams(limit)
        self.arena = Arena()
        self._rings: list[Ring] = []
        self._keys: list[StreamKey] = []
        self._slots: dict[StreamKey, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(
        self,
        key: StreamKey,
        *,
        stream_id: int = 0,
        ring_rows: int | None = None,
        first: int = 1,
        owner: int = 0,
    ) -> int:
        """A slot for a new key, with a ring of `ring_rows` rows (a power of two) that begins at sequence `first`."""
        rows = limits.ring_rows(len(self)) if ring_rows is None else ring_rows
        ring = Ring(rows, _ROW[key.kind], first=first, arena=self.arena)
        slot = self.kernel.add(
            key.source_id.encode(),
            key.symbol.encode(),
            key.interval.encode(),
            stream_topic(key),
            v1_topic(key),
            key.kind,
            stream_id,
            ring._address,
            owner,
        )
        self._rings.append(ring)
        self._keys.append(key)
        self._slots[key] = slot
        return slot

    def slot(self, key: StreamKey) -> int | None:
        return self._slots.get(key)

    def key(self, slot: int) -> StreamKey:
        return self._keys[slot]

    def keys(self) -> list[StreamKey]:
        """All keys, by slot."""
        return list(self._keys)

    def ring(self, slot: int) -> Ring:
        return self._rings[slot]

    def expect(self, slot: int, store_id: int, epoch: int) -> None:
        """Only frames with this store_id and epoch are placed from now on; others arrive as OTHER_EPOCH (client)."""
        self.kernel.expect(slot, store_id, epoch)

    def heads(self) -> NDArray[np.void]:
        """Committed heads of all streams, HEAD records by slot: a copy, from any thread."""
        out = np.zeros(len(self), HEAD)
        return out[: self.kernel.heads(out.view(np.uint8))]


NO_SLOT: Final = 2**32 - 1


def refill(
    streams: Streams, data: NDArray[np.uint8], have: int, end: int, slots: NDArray[np.uint32]
) -> tuple[int, bool]:
    """Lays journal records back into the rings of their streams, as far as a ring does not begin behind them.

    `data` holds `have` bytes of the journal from where a record begins, those before `end` are committed; `slots` is by
    stream_id (NO_SLOT: none). Returns where to go on, and whether a batch that does not verify ended it.
    """
    return kernel.refill(streams.kernel, data, have, end, slots)


class Receiver:
    """Drains one socket in batches: into rings (client) or into an inbox (server).

    Used by one thread. The arrivals returned are a view that the next call rewrites. `native`: see `NATIVE`.
    """

    def __init__(
        self,
        socket: zmq.Socket[bytes] | None,
        streams: Streams,
        *,
        server: bool = False,
        native: bool | None = None,
    ) -> None:
        self.native = NATIVE if native is None else native
        self._socket = socket  # keeps the socket behind the pointer alive
        self._streams = streams
        self._looks = self._emptied = 0
        self.arrivals = np.zeros(limits.MAX_ARRIVALS, ARRIVAL)
        self.inbox = np.zeros(limits.INBOX_BYTES if server else 0, np.uint8)
        max_rows = limits.MAX_INGEST_ROWS if server else limits.MAX_REPLY_ROWS
        self.kernel = kernel.Receiver(
            streams.kernel,
            0 if socket is None else _handle(socket, self.native),
            native=self.native,
            server=server,
            topic_frames=0 if server else 1,
            max_frame=limits.MAX_FRAME_BYTES,
            max_rows=max_rows,
            run_limit=limits.MAX_RUNS,
            ahead_ms=limits.MAX_AHEAD_MS if server else 0,
            arrivals=self.arrivals.view(np.uint8),
            inbox=self.inbox,
            others=np.zeros(0 if server else OTHERS_BYTES, np.uint8),
            scratch=np.zeros(0 if server else max_rows, CANDLE).view(np.uint8),
        )

    def receive(self) -> tuple[NDArray[np.void], Drained]:
        """What arrived since the last call, and why it stopped there.

        Raises `zmq.ZMQError` on a socket error, `zmq.ContextTerminated` when the context has ended; what had arrived
        before that is returned first. A signal's handler runs between two messages, and its exception costs none.
        """
        self._looks += 1
        count, status = self.kernel.receive()
        if status == Drained.EMPTY:
            self._emptied = self._looks
        if status == Drained.SOCKET_ERROR and count == 0 and not self.others:
            raise _error(self.kernel.socket_errno)
        return self.arrivals[:count], Drained(status)

    def taken(self) -> Taken:
        """What was taken from the socket so far, for the watch on it; from any thread."""
        counted, taken = self.kernel.counters(), Taken()
        taken.messages, taken.bytes, taken.odd = (counted[name] for name in ("messages", "bytes", "frames"))
        taken.looks, taken.emptied = self._looks, self._emptied
        return taken

    @property
    def others(self) -> list[bytes]:
        """The payloads without rows (heartbeats and whatever else) that the last `receive` met."""
        return self.kernel.other_payloads()

    @property
    def unknown(self) -> UnknownStream | None:
        """The held message of an unknown stream or run."""
        found = self.kernel.unknown()
        if found is None:
            return None
        return UnknownStream(found[:3], RowKind(found[3]), *found[4:])

    def last_refused(self) -> dict[str, tuple[StreamKey, int]]:
        """By counter: the stream of the last row that was refused for it, and how many rows of that stream ever were.
        `shared` has the last stream that two live runs were found to write. From any thread."""
        slots = dict(self.kernel.last_refused())
        shared = self.kernel.last_shared()
        if shared is not None:
            slots["shared"] = shared
        return {
            why: (self._streams.key(slot), self._streams.kernel.refused(slot)) for why, slot in slots.items()
        }

    @property
    def last_unsound(self) -> tuple[StreamKey, int, str] | None:
        """Of the last message (client) with a row that no server numbers: its stream, the row's sequence and why, the
        word of a `RefusedReason`. Such messages are dropped whole, and counted as `values`."""
        found = self.kernel.last_unsound()
        if found is None:
            return None
        return self._streams.key(found[0]), found[1], RefusedReason(found[2]).name.lower()

    def discard(self) -> None:
        """Drops the held message; it is counted."""
        self.kernel.discard()

    @property
    def counters(self) -> dict[str, int]:
        """Messages and rows by what became of them, since the beginning."""
        return self.kernel.counters()


def record(
    streams: Streams,
    group: Group,
    inbox: NDArray[np.uint8],
    runs: NDArray[np.void],
    *,
    store_id: int,
    epoch: int,
    max_rows: int = limits.MAX_LIVE_ROWS,
) -> None:
    """Copies runs (RUN records sorted by stream, in order of sequence) from the inbox into the rings, and encodes them
    into the group as batches of at most `max_rows` rows. The caller made sure of room in both."""
    if not kernel.record(
        streams.kernel, group._address, inbox, runs.view(np.uint8), len(runs), store_id, epoch, max_rows
    ):
        raise AssertionError("record without room: rings and groups are sized by limits.py")


class Sent(NamedTuple):
    """Messages in version 2, in version 1, and bytes."""

    sent: int
    sent_v1: int
    bytes: int


class Sender:
    """Sends groups through one PUB or XPUB socket; used by the thread that owns the socket. `native`: see `NATIVE`."""

    def __init__(self, socket: zmq.Socket[bytes], streams: Streams, *, native: bool | None = None) -> None:
        self.native = NATIVE if native is None else native
        self._socket = socket
        self._streams = streams
        self._scratch = np.zeros(16 * limits.KIB, np.uint8)

    def send(
        self,
        group: Group,
        order: NDArray[np.uint32] | None = None,
        spoilt: NDArray[np.uint8] | None = None,
    ) -> Sent:
        """Sends the batches of the group, in their order or as `order` says; never waits.

        `order` holds indices of the group's entries: an entry left out is a message lost, one that stands twice is sent
        twice. `spoilt` (as long as `order`) flips a bit of those payloads. Both exist to put faults in on purpose.

        Raises `zmq.ZMQError` on a socket error (`zmq.ContextTerminated` when the context has ended); signals wait
        until all is sent.
        """
        *sent, error = kernel.publish(
            self._streams.kernel,
            _handle(self._socket, self.native),
            group._address,
            self._scratch,
            order,
            spoilt,
            native=self.native,
        )
        if error:
            raise _error(error)
        return Sent(*sent)
