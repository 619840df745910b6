"""The door of the drive kernel: the loops of publisher, feeder and subscriber, from one told second to the next.

What is due goes out, and what comes is accounted for, in compiled code without the GIL (`ext/loadgen/drive.h` draws
it). Python comes round for what the parent says, for each second that is told, and for what is out of the ordinary.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from enum import IntEnum
from typing import TYPE_CHECKING, Final

import numpy as np

from flux.journal import Group
from flux.kernels import drive as kernel
from flux.limits import MAX_HEAD_BYTES, MAX_TOPIC_BYTES
from flux.loadgen.plan import FEED_TICK_NS, MAX_UNDER_WAY, TICK_NS, Plan
from flux.loadgen.process import Commands, tell
from flux.loadgen.streams import EPOCH
from flux.model import CANDLE, RUN
from flux.transport.pump import NATIVE, Receiver, Streams, _error, _handle, calls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from flux.loadgen.histogram import Histogram, Tally
    from flux.transport.sockets import Socket, Wake

PIECE: Final = 256
"""Messages with one send time, at most: their rows, records and frames (90 kB) stay in a core's cache."""
PIECE_ROWS: Final = 16_384
"""Rows of a piece at most, of all publishers together: it goes out stream by stream, and what a stream gets at once
must fit the subscriber's ring."""
FEED_PIECE_ROWS: Final = 1_024
BITE: Final = 32
"""Messages that count as received at one time."""
LOOK_NS: Final = 50_000_000
"""Python comes round at least so often."""


class Drove(IntEnum):
    """Why a loop came back."""

    TIME = kernel.TIME
    DONE = kernel.DONE  # all is sent, or its time is over; subscriber: it has got as far as it should
    LAID = kernel.LAID  # publisher: a piece is in the group, and Python sends it
    TAKEN = kernel.TAKEN  # subscriber: a bite brought something
    WOKEN = kernel.WOKEN  # subscriber: the parent has said something
    HELD = kernel.HELD  # subscriber: a message that is of no stream here
    SOCKET = kernel.SOCKET  # never seen: raised as what it is


class Flight:
    """Messages under way in a closed loop, counted in memory that the processes of a run share.

    The parent makes it (`shared`) and gives the descriptor on; whoever opens it has it mapped for as long as it lives.
    """

    def __init__(self, fd: int, subscribers: int) -> None:
        counts = mmap.mmap(fd, kernel.COUNT_BYTES * (1 + subscribers))
        self.kernel = kernel.Flight(counts, subscribers, MAX_UNDER_WAY)

    @staticmethod
    @contextmanager
    def shared(subscribers: int) -> Iterator[int]:
        """The descriptor of such memory, all counts 0."""
        fd = os.memfd_create("flux-loadgen")
        try:
            os.truncate(fd, kernel.COUNT_BYTES * (1 + subscribers))
            yield fd
        finally:
            os.close(fd)


class PublisherLoop:
    """Publishes the share of publisher `part`, each tick what is due; the slip of measured rows goes into `slip`.

    With faults a piece is laid into `group`, its messages' numbers into `numbers`, and Python sends it: `Drove.LAID`.
    """

    def __init__(
        self,
        plan: Plan,
        part: int,
        socket: Socket,
        streams: Streams,
        slip: Histogram,
        *,
        store_id: int,
        start_ns: int,
        flight: Flight | None,
    ) -> None:
        piece = piece_of(plan)
        self.all = plan.shared(plan.messages, part)  # messages of the run
        self._closed = plan.saturate
        self.group = Group(piece * (plan.rows * CANDLE.itemsize + MAX_HEAD_BYTES + MAX_TOPIC_BYTES + 64) * 2)
        self.numbers: NDArray[np.int64] | None = np.zeros(piece, np.int64) if plan.faults else None
        load = plan.share(part)
        self._kept = (load, slip, streams, socket, self.group)
        self._kernel = kernel.Publisher(
            load.address(),
            slip.address(),
            streams.kernel.address(),
            self.group._address,
            calls(NATIVE),
            _handle(socket, NATIVE),
            store_id=store_id,
            epoch=EPOCH,
            messages=self.all,
            warmup=self.all if plan.saturate else plan.shared(plan.warmup_messages, part),
            start_ns=start_ns,
            end_ns=start_ns + plan.sending_ns,
            tick_ns=TICK_NS,
            piece=piece,
            rows=np.zeros(piece * plan.rows, CANDLE),
            runs=np.zeros(piece, RUN),
            numbers=self.numbers,
            flight=None if flight is None else flight.kernel,
        )

    def run(self, until_ns: int) -> Drove:
        """Send what is due until then (CLOCK_MONOTONIC). Raises `zmq.ZMQError` on a socket error."""
        return _drove(self._kernel.run(until_ns), self._kernel.error)

    @property
    def messages(self) -> int:
        """Numbered so far: sent, or left to Python."""
        return self._kernel.messages

    @property
    def due(self) -> int:
        """Messages due by the last look; without a schedule, those that were numbered."""
        return self.messages if self._closed else self._kernel.due


class FeederLoop:
    """Pushes the load as the feed run `run`, each tick what is due and what the socket did not take before."""

    def __init__(
        self, plan: Plan, socket: Socket, streams: Streams, slip: Histogram, *, run: int, start_ns: int
    ) -> None:
        piece = max(1, FEED_PIECE_ROWS // plan.rows)
        self.all = plan.messages
        load = plan.load()
        self._kept = (load, slip, streams, socket)
        self._kernel = kernel.Feeder(
            load.address(),
            slip.address(),
            streams.kernel.address(),
            calls(NATIVE),
            _handle(socket, NATIVE),
            run=run,
            messages=self.all,
            warmup=plan.warmup_messages,
            start_ns=start_ns,
            end_ns=start_ns + plan.sending_ns,
            tick_ns=FEED_TICK_NS,
            piece=piece,
            rows=np.zeros(piece * plan.rows, CANDLE),
            slots=np.zeros(piece, np.uint32),
            scratch=np.zeros(plan.rows * CANDLE.itemsize + 2 * MAX_HEAD_BYTES, np.uint8),
        )

    def run(self, until_ns: int) -> Drove:
        """Push what is due until then (CLOCK_MONOTONIC). Raises `zmq.ZMQError` on a socket error."""
        return _drove(self._kernel.run(until_ns), self._kernel.error)

    @property
    def messages(self) -> int:
        """Taken by the socket so far."""
        return self._kernel.messages

    @property
    def due(self) -> int:
        """Messages due by the last look."""
        return self._kernel.due

    @property
    def blocked(self) -> int:
        """Times the socket was full."""
        return self._kernel.blocked


class SubscriberLoop:
    """Receives what is there, in bites of `bite` messages, and accounts for it into tally and histograms."""

    def __init__(
        self,
        plan: Plan,
        socket: Socket,
        receiver: Receiver,
        tally: Tally,
        times: tuple[Histogram, Histogram, Histogram],
        wake: Wake,
        *,
        start_ns: int,
        bite: int = BITE,
        flight: Flight | None = None,
        number: int = 0,
    ) -> None:
        """`times`: of measured rows from the schedule and from the send, of every row from the schedule. In a closed
        loop it tells as subscriber `number` how far it is, and what counts as measured goes by the time of receipt."""
        load = plan.load()
        self._receiver = receiver
        self._kept = (load, tally, times, wake, socket)
        self._kernel = kernel.Subscriber(
            receiver.kernel.address(),
            load.address(),
            *tally.addresses(),
            *(each.address() for each in times),
            socket_fd=socket.fileno(),
            wake_fd=wake.fileno(),
            bite=bite,
            start_ns=start_ns,
            measure_ns=(plan.warmup_ns, plan.run_ns) if plan.saturate else None,
            flight=None if flight is None else flight.kernel,
            number=number,
        )

    def run(self, until_ns: int, goal: int = 2**64 - 1, *, once: bool = False) -> Drove:
        """Receive until then (CLOCK_MONOTONIC), until the streams' highest sequences add up to `goal` and nothing more
        waits, or with `once` until something came. Raises `zmq.ZMQError` on a socket error."""
        return _drove(self._kernel.run(until_ns, goal, once), self._receiver.kernel.socket_errno)

    @property
    def messages(self) -> int:
        """Received so far, whatever became of them."""
        return self._kernel.messages


def piece_of(plan: Plan) -> int:
    """Messages of a publisher's piece, at most."""
    return max(1, min(PIECE, PIECE_ROWS // plan.rows // plan.publishers))


def _drove(status: int, error: int) -> Drove:
    if status == Drove.SOCKET:
        raise _error(error)
    return Drove(status)


def _nothing() -> None:
    return


def send_all(
    loop: PublisherLoop | FeederLoop,
    plan: Plan,
    start_ns: int,
    commands: Commands,
    laid: Callable[[], None] = _nothing,
) -> None:
    """Send until the plan is done or the parent says stop, and tell each second how many rows went.

    `laid` sends what was only laid down.
    """
    seconds = iter(plan.seconds())
    t_s, ends_ns = next(seconds)
    told, drove = 0, Drove.TIME
    while drove is not Drove.DONE and not commands.stopping:
        now = time.monotonic_ns()
        while now - start_ns >= ends_ns and ends_ns < plan.run_ns:
            tell("second", t_s=t_s, sent=(loop.messages - told) * plan.rows)
            told = loop.messages
            t_s, ends_ns = next(seconds)
        look_ns = now + LOOK_NS
        drove = loop.run(min(look_ns, start_ns + ends_ns) if ends_ns < plan.run_ns else look_ns)
        if drove is Drove.LAID:
            laid()
    tell("second", t_s=t_s, sent=(loop.messages - told) * plan.rows)
    if drove is Drove.DONE:  # its last message may come seconds before the end
        for later_s, _ in seconds:
            tell("second", t_s=later_s, sent=0)
