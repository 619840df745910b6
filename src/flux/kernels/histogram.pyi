"""HDR buckets, the pacing clock, and the rows of the load generator. No object here is thread-safe.

An `object` given to a method is a buffer.
"""

from collections.abc import Sequence
from typing import ClassVar, Final, final

HIGHEST_NS: Final[int]
"""The largest value with a slot of its own, 100 s in ns; larger ones are counted in `over`."""

@final
class Histogram:
    """Counts of times in ns, 1 ns to 100 s at three significant digits, in HdrHistogram's slots.

    Min, max and mean are exact. Values above 100 s count in `total`, `over`, `max` and the mean; negative
    values and doubles that are no time count in `refused` alone.
    """

    def __init__(self) -> None: ...
    def record(self, value: int) -> None:
        """Count one value in ns."""
    def record_column(self, values: object) -> None:
        """Count each value (ns) of a one-dimensional int64 or float64 buffer, strided too, without the GIL.

        Raises TypeError for another type or shape.
        """
    def record_since(self, times: object, now: int) -> None:
        """Count `now` minus each time (ns) of such a buffer."""
    def merge(self, other: Histogram) -> None:
        """Add all that `other` counted."""
    def reset(self) -> None:
        """Back to empty."""
    def percentile(self, percentile: float) -> int:
        """The highest value equivalent to the one at this percentile (0 to 100), as HdrHistogram defines it.

        0 when empty; it may lie above `max` by less than a slot's width. Raises ValueError outside 0 to 100.
        """
    def recorded(self) -> list[tuple[int, int]]:
        """(lowest value of the slot in ns, count) of each slot that has counts, ascending; without `over`."""
    def dump(self) -> bytes:
        """The whole state, for `load` in a process of the same build."""
    @staticmethod
    def load(dumped: object) -> Histogram:
        """What `dump` gave. Raises ValueError where length or counts are wrong."""
    def __eq__(self, other: object, /) -> bool: ...
    __hash__: ClassVar[None]  # type: ignore[assignment]  # mutable, so not hashable
    @property
    def total(self) -> int: ...
    @property
    def over(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def min(self) -> int:
        """ns; 0 when empty."""
    @property
    def max(self) -> int:
        """ns; 0 when empty."""
    @property
    def mean(self) -> float:
        """ns; 0.0 when empty."""

@final
class Schedule:
    """An absolute schedule: message k is intended at `start_ns` + floor(k * 1e9 / rate), without drift.

    `rate` is 1 to 1e9 messages per second (else ValueError), times are CLOCK_MONOTONIC ns.
    """

    def __new__(cls, rate: int, start_ns: int) -> Schedule: ...
    @property
    def rate(self) -> int: ...
    @property
    def start_ns(self) -> int: ...
    def intended(self, k: int) -> int:
        """When message k (from 0) is intended."""
    def due(self, now_ns: int) -> int:
        """How many messages are intended at or before `now_ns`, from the start on."""

def sleep_until(ns: int) -> None:
    """Sleep, without the GIL, until CLOCK_MONOTONIC reads `ns`; a signal's handler runs at once."""

def sharpen_sleep() -> None:
    """From now on this thread's sleeps end within 1 µs of their time (timer slack; the default is 50 µs)."""

@final
class Load:
    """What message k of a run is (`ext/load.h`): stream k mod `streams`, its next `rows` sequences."""

    def __new__(cls, rate: int, streams: int, rows: int, seed: int) -> Load: ...
    def fill(
        self,
        first: int,
        count: int,
        sent_ns: int,
        rows: object,
        runs: object,
        messages: object = None,
    ) -> int:
        """Write messages `first` .. `first + count - 1`, sent at `sent_ns` of the run; the number of runs.

        `rows` takes count * rows CANDLE rows, `runs` min(count, streams) RUN records (one per stream,
        sorted), `messages` where wanted the number of each message in the order of its rows, int64. All are
        writable and contiguous. Raises ValueError where one is too short.
        """
    def lay(self, first: int, count: int, sent_ns: int, rows: object, slots: object) -> None:
        """The same messages in their order, for a feed that pushes them; `slots` (u4) takes each one's stream."""

@final
class Tally:
    """Accounts for arrivals by sequence and times their rows, which lie in the streams' rings.

    `rings` are the addresses of the streams' candle rings, slot by slot; whoever owns them keeps them alive.
    """

    def __new__(cls, load: Load, rings: Sequence[int], warmup_messages: int) -> Tally: ...
    def account(
        self, arrivals: object, now_ns: int, schedule: Histogram, send: Histogram, interval: Histogram
    ) -> None:
        """Count ARRIVAL records, all of them here at `now_ns` of the run.

        Rows behind the warm-up are timed from their intended (`schedule`) and actual send time (`send`),
        every row from the intended one in `interval`. Raises IndexError for a slot that is no stream's.
        """
    @property
    def received(self) -> int:
        """Distinct sequences, all streams."""
    @property
    def reached(self) -> int:
        """Sum of the streams' highest sequences: minus `received`, what is missing so far."""
    @property
    def duplicate(self) -> int: ...
    @property
    def reordered(self) -> int: ...
    @property
    def corrupt(self) -> int:
        """Rows whose bytes are not what was sent."""
    @property
    def measured(self) -> int:
        """Of `received`, those behind the warm-up."""
    @property
    def unread(self) -> int:
        """Of `received`, those that the ring did not hold: nobody saw their bytes or their send time."""
    @property
    def last_ns(self) -> int:
        """When the last of these was here, ns of the run; 0 = none."""
