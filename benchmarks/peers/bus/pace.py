"""When a publisher sends: the absolute schedule of flux-loadgen, as steps that a library carries out.

Open loop: each tick of 100 µs what is due goes out, and what is late stays late. Saturation: batches as fast as the
library takes them, as long as fewer than WINDOW messages are under way, so that a bus that would drop or hoard is
measured at what it carries. Before the run and after it probes go out until the other side is there, and is through.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Generator
from typing import Final, NamedTuple

import numpy as np

from benchmarks.peers.bus.board import Board, Place
from benchmarks.peers.bus.spec import MAX_BATCH, PROBE, WINDOW, Spec, frame
from flux.loadgen.histogram import Schedule, sharpen_sleep, sleep_until
from flux.loadgen.plan import NS_PER_S, TICK_NS
from flux.loadgen.process import settle

LEAD_NS: Final = NS_PER_S // 20  # from the last probe to the start: both are in their loops
PROBE_NS: Final = NS_PER_S // 50
GRACE_NS: Final = NS_PER_S // 4  # behind the run's end a publisher that is late gives up
OPEN_LIMIT_NS: Final = 20 * NS_PER_S  # for the way to open, or for the subscriber to end
FEW: Final = 24  # below, one by one is cheaper than numpy

_STAMP: Final = struct.Struct("<qq")


class Batch(NamedTuple):
    """Messages `first` .. to send now."""

    first: int
    payloads: list[bytes]


Step = Batch | int  # an int: sleep until this time (ns)


class Stamped:
    """Payloads with their number and intended time in front."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._rest = frame()[_STAMP.size :]
        self._size = len(frame())
        self._many = np.zeros((MAX_BATCH, self._size), np.uint8)
        self._many[:] = np.frombuffer(frame(), np.uint8)
        self._stamps = self._many[:, : _STAMP.size].view("<i8")

    def probe(self) -> Batch:
        return Batch(0, [_STAMP.pack(PROBE, 0) + self._rest])

    def due(self, first: int, count: int, schedule: Schedule) -> Batch:
        """Messages at their intended times."""
        if count < FEW:
            pack, rest = _STAMP.pack, self._rest
            return Batch(first, [pack(k, schedule.intended(k)) + rest for k in range(first, first + count)])
        numbers = np.arange(first, first + count)
        return self._filled(first, numbers, schedule.start_ns + numbers * NS_PER_S // self._rate)

    def now(self, first: int, count: int, now_ns: int) -> Batch:
        """Messages that are intended now."""
        return self._filled(first, np.arange(first, first + count), now_ns)

    def _filled(self, first: int, numbers: np.ndarray, intended: np.ndarray | int) -> Batch:
        count, size = len(numbers), self._size
        self._stamps[:count, 0], self._stamps[:count, 1] = numbers, intended
        joined = self._many[:count].tobytes()
        return Batch(first, [joined[at : at + size] for at in range(0, count * size, size)])


class Pace:
    """The whole life of a publisher, as steps that somebody carries out."""

    def __init__(self, spec: Spec, board: Board) -> None:
        self.spec, self.board = spec, board
        self.cpu_s = 0.0  # of this process, all threads, from the run's start to the subscriber's end
        self._stamped = Stamped(spec.rate)

    def steps(self) -> Generator[Step, None, None]:
        """Probes, the run, probes until the subscriber is done. Raises TimeoutError."""
        yield from self._probes(Place.HEARD)
        start_ns = time.monotonic_ns() + LEAD_NS
        self.board[Place.START] = start_ns
        settle()
        yield start_ns
        before_s = time.process_time()
        run = self._saturate if self.spec.rate == 0 else self._open_loop
        self.board[Place.SENT] = yield from run(start_ns)
        yield from self._probes(Place.DONE)
        self.cpu_s = time.process_time() - before_s

    def _probes(self, until: Place) -> Generator[Step, None, None]:
        limit = time.monotonic_ns() + OPEN_LIMIT_NS
        while not self.board[until]:
            if time.monotonic_ns() > limit:
                raise TimeoutError(f"no sign of the subscriber: {until.name}")
            yield self._stamped.probe()
            yield time.monotonic_ns() + PROBE_NS

    def _open_loop(self, start_ns: int) -> Generator[Step, None, int]:
        spec = self.spec
        schedule, total = Schedule(spec.rate, start_ns), spec.messages
        sent = 0
        while sent < total:
            now = time.monotonic_ns()
            if now > start_ns + spec.run_ns + GRACE_NS:
                break
            due = min(schedule.due(now), total)
            count = min(due - sent, MAX_BATCH)
            if count:
                yield self._stamped.due(sent, count, schedule)
                sent += count
            if sent == due:
                yield start_ns + ((now - start_ns) // TICK_NS + 1) * TICK_NS
        return sent

    def _saturate(self, start_ns: int) -> Generator[Step, None, int]:
        sent, end_ns = 0, start_ns + self.spec.run_ns
        while (now := time.monotonic_ns()) < end_ns:
            count = min(MAX_BATCH, WINDOW - (sent - self.board[Place.RECEIVED]))
            if count > 0:
                yield self._stamped.now(sent, count, now)
                sent += count
            else:
                yield now + TICK_NS
        return sent


def publish(pace: Pace, send: Callable[[int, list[bytes]], None]) -> None:
    """Drive a library that blocks: `send(first, payloads)` hands message `first` and those after it to it."""
    sharpen_sleep()
    for step in pace.steps():
        if isinstance(step, int):
            sleep_until(step)
        else:
            send(step.first, step.payloads)
