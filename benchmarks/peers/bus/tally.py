"""What a subscriber makes of its messages: counts by number, times from the intended send time.

Each message is timed by itself when the library has handed it over; numbers and times are looked at by the column, so
that the accounting costs a peer some 0.1 µs a message beside the 3 µs and more of receiving it.
"""

from __future__ import annotations

import struct
import time
from typing import Any, Final

import numpy as np

from benchmarks.peers.bus.board import Board, Place
from benchmarks.peers.bus.spec import PROBE, Spec, frame
from flux.loadgen.histogram import Histogram, percentile
from flux.loadgen.plan import NS_PER_S

QUIET_NS: Final = NS_PER_S  # nothing new for so long behind the publisher's end: it is lost
DRAIN_NS: Final = 5 * NS_PER_S  # a backlog that takes longer is not waited for
ACCOUNT: Final = 512  # messages; a bound on how long looking at them takes

_PROBE: Final = struct.pack("<q", PROBE)
_MESSAGE: Final = np.dtype(
    {"names": ["k", "intended"], "formats": ["<i8", "<i8"], "offsets": [0, 8], "itemsize": len(frame())}
)


class Tally:
    """A run of the subscriber. A receiving loop calls `take` for each payload and, where it knows that nothing waits,
    `account`; one that blocks for the next message needs not: probes come behind the last."""

    def __init__(self, spec: Spec, board: Board) -> None:
        self.spec, self.board = spec, board
        self.histogram = Histogram()
        self.received = self.disorder = self.measured = self.last_ns = 0
        self._highest = -1
        self._payloads: list[bytes] = []
        self._times: list[int] = []
        self._start_ns = 0
        self._active_ns = 0
        self._ended_ns = 0
        self._cpu_s = 0.0

    def take(self, payload: bytes) -> None:
        """One message, now."""
        self._times.append(time.monotonic_ns())
        self._payloads.append(payload)
        if len(self._payloads) >= ACCOUNT or payload.startswith(_PROBE):
            self.account()

    def account(self) -> None:
        """Look at what was taken."""
        if not self._payloads:
            return
        messages = np.frombuffer(b"".join(self._payloads), _MESSAGE)
        times = np.array(self._times)
        self._payloads.clear()
        self._times.clear()
        numbers = messages["k"]
        if numbers.min() < 0:
            real = numbers >= 0
            messages, times, numbers = messages[real], times[real], numbers[real]
            self._hear()
        if len(numbers):
            self._count(numbers, messages["intended"], times)

    def _hear(self) -> None:
        if not self.board[Place.HEARD]:
            self._cpu_s = time.process_time()
            self.board[Place.HEARD] = 1

    def _count(self, numbers: np.ndarray, intended: np.ndarray, times: np.ndarray) -> None:
        if not self._start_ns:
            self._start_ns = self.board[Place.START]
        before = np.maximum.accumulate(np.concatenate(([self._highest], numbers[:-1])))
        new = numbers > before
        self.received += int(new.sum())
        self.disorder += len(new) - int(new.sum())
        self._highest = max(self._highest, int(numbers.max()))
        self.board[Place.RECEIVED] = self.received
        self._active_ns = int(times[-1])
        since = times - self._start_ns
        if self.spec.rate == 0:
            inside = new & (since >= self.spec.warmup_ns) & (since < self.spec.run_ns)
        else:
            inside = new & (numbers >= self.spec.warmup_messages)
            self.histogram.record_column(np.ascontiguousarray((times - intended)[inside]))
        if inside.any():
            self.measured += int(inside.sum())
            self.last_ns = int(since[inside][-1])

    def finished(self) -> bool:
        """Whether all is here, or the rest is not coming in time. Also tells the publisher."""
        sent = self.board[Place.SENT]
        if sent < 0:
            return False
        now = time.monotonic_ns()
        self._ended_ns = self._ended_ns or now
        over = (
            self.received >= sent
            or now - max(self._active_ns, self._ended_ns) > QUIET_NS
            or now - self._ended_ns > DRAIN_NS
        )
        if over:
            self.board[Place.DONE] = 1
        return over

    def result(self) -> dict[str, Any]:
        """What the parent is told."""
        return {
            "received": self.received,
            "disorder": self.disorder,
            "measured": self.measured,
            "last_ns": self.last_ns,
            "p50": percentile(self.histogram, 50.0),
            "p99": percentile(self.histogram, 99.0),
            "p999": percentile(self.histogram, 99.9),
            "max": self.histogram.max,
            "cpu_s": time.process_time() - self._cpu_s,
        }
