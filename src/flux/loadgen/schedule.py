"""The shapes of a load: when message k is intended, in ns since the run's start.

    constant   k / rate                                       Plan.rate
    ramp       its first rate during the warm-up, then linear to its last, which it keeps          Ramp
    burst      so many at once at 0, at the period, at twice the period, ..                        Burst
    replay     the time of a file's row k behind its first, divided by the speed                   Replay

Each is a function of the plan and k alone, so every process of a run has the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flux.errors import ConfigError

NS_PER_S: Final = 1_000_000_000
_NS_PER_MS: Final = 1_000_000
MAX_REPLAY_MESSAGES: Final = 10_000_000  # rows of a replayed file: 80 MB of times in each process
_READ_ROWS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Ramp:
    """From one rate to another (messages per second), in a straight line over `over_ns` of measured time."""

    first: int
    last: int
    over_ns: int


@dataclass(frozen=True, slots=True)
class Burst:
    """`messages` at once at the start of each `period_ns`."""

    messages: int
    period_ns: int


@dataclass(frozen=True, slots=True)
class Replay:
    """A message for each candle of a CSV file, as far from the first as theirs lie apart, divided by `speed`."""

    file: str
    speed: float = 1.0

    def times(self) -> NDArray[np.int64]:
        """Intended times in ns from 0, ascending; shared and read-only.

        Raises ConfigError (`SourceFileError`) where the file cannot be read, is empty or too long.
        """
        return _times(self.file, self.speed)


@lru_cache(maxsize=1)
def _times(file: str, speed: float) -> NDArray[np.int64]:
    from flux.feed.replay import CsvSource  # late: only a replay needs it

    source = CsvSource(file)  # whatever its step is
    parts = []
    rows = 0
    try:
        while (chunk := source.read(_READ_ROWS)) is not None:
            parts.append(chunk.rows["ts_ms"].copy())
            rows += len(chunk.rows)
            if rows > MAX_REPLAY_MESSAGES:
                raise ConfigError(f"--replay {file}: more than {MAX_REPLAY_MESSAGES:,} rows")
    finally:
        source.close()
    if not rows:
        raise ConfigError(f"--replay {file}: no row")
    ts_ms = np.concatenate(parts)
    # In double: one order of operations in every process, so all of them cut to the same ns.
    times: NDArray[np.int64] = ((ts_ms - ts_ms[0]) * (_NS_PER_MS / speed)).astype(np.int64)
    times.flags.writeable = False
    return times
