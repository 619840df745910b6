"""How fast the rows of a file are let go. Sans I/O: monotonic nanoseconds in, how many rows are due out.

The schedule is absolute: rows are due by the time since the start, so a late turn is made up and nothing
drifts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flux.errors import ConfigError

_UNLIMITED = 2**62


class Pacing:
    """One of three paces: as fast as it goes (`speed` None), `speed` times the rows' own, or by the tick.

    With `tick_ns`, `batch_rows` rows are due at the start and at every tick after it, and their times do not
    matter. `speed` 10 lets a minute of candles go in six seconds: the first row at once, each other row when
    the time since the first, divided by the speed, has passed.
    """

    def __init__(
        self, speed: float | None = None, *, tick_ns: int | None = None, batch_rows: int = 50
    ) -> None:
        """Raises `ConfigError` where a value is not above zero."""
        for name, value in (("speed", speed), ("tick", tick_ns), ("batch-rows", batch_rows)):
            if value is not None and not 0 < value < _UNLIMITED:
                raise ConfigError(f"{name} must be above 0, not {value}")
        self._speed = speed
        self._tick_ns = tick_ns
        self._batch_rows = batch_rows
        self._start_ns: int | None = None
        self._taken = 0  # rows let go
        self._first_ms: int | None = None  # time of the first row asked about

    @classmethod
    def parse(cls, speed: str = "max", *, tick_ns: int | None = None, batch_rows: int = 50) -> Pacing:
        """The pace of `--speed max|1|10 [--tick T --batch-rows N]`; raises `ConfigError`."""
        try:
            factor = None if speed == "max" else float(speed)
        except ValueError:
            raise ConfigError(f"--speed is max or a number, not {speed[:40]!a}") from None
        return cls(factor, tick_ns=tick_ns, batch_rows=batch_rows)

    def due(self, ts_ms: NDArray[np.int64], now_ns: int) -> int:
        """How many of the next rows, whose times are `ts_ms` (ascending), may go at `now_ns` (monotonic).

        The clock starts with the first call. The caller says with `took` how many of them went.
        """
        if self._start_ns is None:
            self._start_ns = now_ns
        if self._tick_ns is not None:
            ticks = 1 + (now_ns - self._start_ns) // self._tick_ns
            return max(0, min(len(ts_ms), ticks * self._batch_rows - self._taken))
        if self._speed is None or not len(ts_ms):
            return len(ts_ms)
        return int(np.searchsorted(self._due_ns(ts_ms), now_ns - self._start_ns, side="right"))

    def took(self, rows: int) -> None:
        """So many rows were let go."""
        self._taken += rows

    def wait_ns(self, ts_ms: NDArray[np.int64], now_ns: int) -> int:
        """Nanoseconds from `now_ns` until the first of these rows is due; 0 when it is or there is none."""
        if not len(ts_ms) or self.due(ts_ms[:1], now_ns):
            return 0
        assert self._start_ns is not None
        if self._tick_ns is not None:
            return self._start_ns + self._taken // self._batch_rows * self._tick_ns - now_ns
        return self._start_ns + int(self._due_ns(ts_ms[:1])[0]) - now_ns

    def _due_ns(self, ts_ms: NDArray[np.int64]) -> NDArray[np.int64]:
        """When each row is due, in ns since the start."""
        assert self._speed is not None
        if self._first_ms is None:
            self._first_ms = int(ts_ms[0])
        since: NDArray[np.int64] = ((ts_ms - self._first_ms) * (1e6 / self._speed)).astype(np.int64)
        return since
