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
    def address(self) -> int:
        """Where the C struct is, for the drive kernel; whoever uses it keeps this object alive."""
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
    """When message k of a run is intended (`ext/loadgen/schedule.h`), in whole ns, absolute and without drift.

    The constructor is the constant rate: message k at `start_ns` + floor(k * 1e9 / rate), `rate` 1 to 1e9 messages
    per second. Times are CLOCK_MONOTONIC ns; each maker raises ValueError where its numbers are out of range.
    """

    def __new__(cls, rate: int, start_ns: int) -> Schedule: ...
    @staticmethod
    def ramp(first: int, last: int, flat_ns: int, over_ns: int, start_ns: int) -> Schedule:
        """At `first` messages per second for `flat_ns`, then evenly to `last` over `over_ns`, then at `last`.

        Rates are 1 to 1e8, times at most a day each.
        """
    @staticmethod
    def burst(messages: int, period_ns: int, start_ns: int) -> Schedule:
        """`messages` at once at the start and after each `period_ns`."""
    @staticmethod
    def replay(times: object, start_ns: int) -> Schedule:
        """Message k at `start_ns` + `times[k]`: a contiguous int64 buffer in ns, ascending from 0 or more; it is
        held, not copied, and must not change. Behind its end nothing is due."""
    @staticmethod
    def at_once(start_ns: int) -> Schedule:
        """Every message at the start: no schedule, the sender is held back by something else."""
    @property
    def start_ns(self) -> int: ...
    def intended(self, k: int) -> int:
        """When message k (from 0) is intended."""
    def due(self, now_ns: int) -> int:
        """How many messages are intended at or before `now_ns`, from the start on."""

def sleep_until(ns: int) -> None:
    """Sleep, without the GIL, until CLOCK_MONOTONIC reads `ns`; a signal's handler runs at once."""

def wait_readable(descriptors: list[int], ns: int) -> None:
    """Wait, without the GIL, until one of at most 64 descriptors, of whatever number, can be read, or `ns` are over; to
    the microsecond. A signal ends it, its handler runs."""

def sharpen_sleep() -> None:
    """From now on this thread's sleeps end within 1 µs of their time (timer slack; the default is 50 µs)."""

@final
class Load:
    """What message k of a run is (`ext/loadgen/load.h`): stream k mod `streams`, its next `rows` sequences.

    Publisher `part` of `parts` has streams and messages mod `parts` = `part`, and counts its own from 0. Raises
    ValueError where `parts` does not divide `streams`.
    """

    def __new__(
        cls, schedule: Schedule, streams: int, rows: int, seed: int, *, part: int = 0, parts: int = 1
    ) -> Load: ...
    def address(self) -> int:
        """As a histogram's."""
    def fill(
        self,
        first: int,
        count: int,
        sent_ns: int,
        rows: object,
        runs: object,
        messages: object = None,
    ) -> int:
        """Write its messages `first` .. `first + count - 1`, sent at `sent_ns` of the run; the number of runs.

        `rows` takes count * rows CANDLE rows, `runs` min(count, its streams) RUN records (one per stream,
        sorted), `messages` where wanted the number of each message in the order of its rows, int64. All are
        writable and contiguous. Raises ValueError where one is too short.
        """

@final
class Tally:
    """Accounts for arrivals by sequence and times their rows, which lie in the streams' rings.

    `rings` are the addresses of the streams' candle rings, slot by slot; whoever owns them keeps them alive.
    """

    def __new__(cls, load: Load, rings: Sequence[int], warmup_messages: int) -> Tally: ...
    def addresses(self) -> tuple[int, int]:
        """Of the tally and of its table of rings; as a histogram's."""
    def account(
        self, arrivals: object, now_ns: int, schedule: Histogram, send: Histogram, interval: Histogram
    ) -> None:
        """Count ARRIVAL records, all of them here at `now_ns` of the run.

        Rows behind the warm-up are timed from their intended (`schedule`) and actual send time (`send`),
        every row from the intended one in `interval`. Raises IndexError for a slot that is no stream's.
        """
    def streams(self) -> bytes:
        """By slot five u8: the sequence behind the highest, then rows received, duplicate, reordered, corrupt."""
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

@final
class Watch:
    """Accounts by sequence for streams of which nothing is known beforehand (`ext/loadgen/watch.h`); at most `limit`.

    The first sequence seen of a stream is its start. Rows are counted, neither kept nor read.
    """

    def __new__(cls, limit: int) -> Watch: ...
    def __len__(self) -> int: ...
    def add(self, window: int) -> int:
        """One more stream, which remembers its last `window` sequences (a power of two from 64); its slot.

        Raises ValueError for another window, or beyond the limit.
        """
    def account(
        self,
        arrivals: object,
        now_ns: int,
        measured: bool,
        recorded: Histogram,
        origin: Histogram,
        interval: Histogram,
    ) -> int:
        """Count ARRIVAL records, all of them here at `now_ns` (epoch ns); how many rows were new.

        New rows are timed in `interval` from their frame's recorded_ns; `measured` ones in `recorded` too, and
        in `origin` from its origin_ns, each where the frame has it. Raises IndexError for a slot not added.
        """
    def stream(self, slot: int) -> dict[str, int]:
        """Rows of one stream: `first` and `last` sequence of its present epoch, and its counts."""
    @property
    def received(self) -> int:
        """Distinct sequences, all streams."""
    @property
    def missing(self) -> int:
        """Sequences below a later one that came, which did not, all streams."""
    @property
    def untimed(self) -> int:
        """Measured rows whose frame says no recorded_ns: version 1."""
    @property
    def behind(self) -> int:
        """Measured rows that were here before they were recorded: the two clocks disagree."""
