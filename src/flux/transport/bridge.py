"""The door of the bridge: the server's loop and committer on their ordinary way.

What is ordinary runs in compiled code without the GIL, for as long as nothing is to be decided (`ext/bridge.h` draws
it). So nothing that Python does meanwhile, a projection or a request, holds up a row.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from flux import limits
from flux.journal import Group, Position
from flux.kernels import bridge as kernel
from flux.model import MARK
from flux.transport.pump import NATIVE, Receiver, Sent, Streams, _error, _handle, calls
from flux.transport.topics import BEAT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux.journal import Fence, Journal
    from flux.transport.sockets import Socket, Wake

NS_PER_S: Final = 1_000_000_000
SCRATCH_BYTES: Final = 16 * limits.KIB
BEAT_BYTES: Final = limits.MAX_MARKS * MARK.itemsize + 64 * limits.KIB  # marks, and a reason in words


def _ns(seconds: float) -> int:
    return max(0, round(seconds * NS_PER_S))


class Handover:
    """Two groups between the thread that fills one and the thread that commits the other, by index 0 and 1."""

    def __init__(self, first: Group, second: Group) -> None:
        self._groups = (first, second)  # kept alive
        self.kernel = kernel.Exchange(first._address, second._address, np.zeros(BEAT_BYTES, np.uint8))

    def leave_beat(self, frame: bytes, timeout: float) -> bool:
        """Let the committer send a heartbeat, behind what it is publishing; False when the one before still waits
        after `timeout` seconds."""
        return self.kernel.leave_beat(frame, _ns(timeout))

    def wait_for_room(self, need: int, records: int, timeout: float) -> bool:
        """Whether the group being filled has room for `need` bytes in `records` records, waiting at most `timeout`
        seconds for it."""
        return self.kernel.room(need, records, _ns(timeout))

    def committed(self, position: Position) -> None:
        """The journal is committed so far."""
        self.kernel.committed(*position)

    @property
    def position(self) -> Position:
        """The committed position; from any thread."""
        return Position(*self.kernel.wait_past(0, 0, 0))

    def wait_past(self, position: Position, timeout: float) -> Position:
        """The committed position, once it is past `position` or `timeout` seconds have gone by."""
        return Position(*self.kernel.wait_past(*position, _ns(timeout)))


class Turned(IntEnum):
    """Why `Turns.run` came back; the first are `pump.Drained`'s."""

    UNKNOWN_STREAM = 2
    UNKNOWN_RUN = 3
    HELD = 4
    SOCKET_ERROR = 5
    TIME = kernel.TIME
    WOKEN = kernel.WOKEN
    NO_ROOM = kernel.NO_ROOM


class Turns:
    """The loop's side: receives, numbers and records until something is out of the ordinary. One thread."""

    def __init__(
        self,
        handover: Handover,
        receiver: Receiver,
        puller: Socket | None,
        wake: Wake,
        *,
        store_id: int,
        epoch: int,
    ) -> None:
        self._kept = (
            handover,
            receiver,
            puller,
            wake,
        )  # what the kernel has the addresses and descriptors of
        self._kernel = kernel.Turns(
            handover.kernel,
            receiver.kernel.address(),
            store_id=store_id,
            epoch=epoch,
            max_rows=limits.MAX_LIVE_ROWS,
            room=limits.TURN_BYTES,
            room_records=limits.TURN_RECORDS,
            pull_fd=-1 if puller is None else puller.fileno(),
            wake_fd=wake.fileno(),
        )

    def run(self, timeout: float) -> Turned:
        """Turn for `timeout` seconds, or until something is to be decided."""
        return Turned(self._kernel.run(_ns(timeout)))

    @property
    def turned_ns(self) -> int:
        """When it last came round (monotonic), at least each 250 ms; from any thread."""
        return self._kernel.turned_ns

    def record(self) -> None:
        """Number and record the receiver's arrivals into the group being filled, which the caller holds."""
        self._kernel.record()


class Why(IntEnum):
    """Why `Commits.run` came back; with all but the first and `HEARD` a group is held that the next call goes on with,
    and with `HEARD` there may be one."""

    TIME = kernel.COMMITTED  # or a heartbeat was sent, or it is closed
    HEARD = kernel.COMMIT_HEARD  # a subscriber said something
    NO_ROOM = kernel.COMMIT_NO_ROOM  # the journal's file has none for the group
    REFUSED = kernel.COMMIT_REFUSED  # the disk refuses the group ...
    UNMARKED = kernel.COMMIT_UNMARKED  # ... or its mark in the fence
    ASKED = kernel.COMMIT_ASKED  # the group is in the journal; the next call shows it


class Committed(NamedTuple):
    """What one call of `Commits.run` did."""

    why: Why
    groups: int
    sent: Sent
    heard: bytes  # a frame that a subscriber sent
    refused: int  # errno of the disk that refused, 0: it did not


Order = tuple["NDArray[np.uint32]", "NDArray[np.uint8]"]
"""Which entries of a group are sent in which order (u4), and where a bit is to be flipped (u1, as long)."""


class Commits:
    """The committer's side: writes, marks and publishes groups (`ext/commit.h`). Used by the thread that owns journal
    and PUB socket."""

    def __init__(
        self,
        handover: Handover,
        journal: Journal,
        fence: Fence,
        receiver: Receiver,
        streams: Streams,
        socket: Socket,
        *,
        store_id: int,
        epoch: int,
        disk: bool,
        ask_always: bool,
    ) -> None:
        """`disk`: each group is on the disk before it is shown. `ask_always`: `run` comes back before it shows a group
        whoever filled it (to choose what is sent, say)."""
        self._kept = (handover, journal, fence, receiver, streams, socket)
        self._heard = np.zeros(limits.MAX_SUBSCRIBE_BYTES, np.uint8)
        self._kernel = kernel.Commits(
            handover.kernel,
            journal._address,
            fence._address,
            receiver.kernel.address(),
            streams.kernel.address(),
            calls(NATIVE),
            _handle(socket, NATIVE),
            store_id=store_id,
            epoch=epoch,
            disk=disk,
            ask_always=ask_always,
            beat_topic=BEAT,
            scratch=np.zeros(SCRATCH_BYTES, np.uint8),
            heard=self._heard,
        )

    def run(self, timeout: float, order: Order | None = None) -> Committed:
        """Commit groups for `timeout` seconds, or until something is to be decided; first the one that was, sent by
        `order`.

        A disk that refuses added nothing. Raises `zmq.ZMQError` on a socket error.
        """
        why, groups, sent, error, heard, refused = self._kernel.run(_ns(timeout), *(order or ()))
        if error:
            raise _error(error)
        return Committed(Why(why), groups, Sent(*sent), self._heard[:heard].tobytes(), refused)

    def send_beat(self) -> None:
        """Send the heartbeat that waits, if one does."""
        self._kernel.send_beat()

    @property
    def beats(self) -> int:
        """Heartbeats sent so far."""
        return self._kernel.beats
