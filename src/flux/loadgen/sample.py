"""The rows of a started server: what any sequence of any stream must hold, known on both sides from the seed.

Stream n is a random walk of SAMPLE_ROWS candles, the same for all but for its volumes, which n is added to; behind
its end it begins again, its times moved on by its span. The first SAMPLE_ROWS of each stream are there when a run
starts, what follows is sent while it runs.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from flux.feed import synth
from flux.model import INTERVALS_MS, StreamKey

SOURCE: Final = "LOAD"
INTERVAL: Final = "1s"
SAMPLE_ROWS: Final = 8_192  # per stream; a server that was started again has half of them in memory


def key_of(stream: int) -> StreamKey:
    return StreamKey(SOURCE, f"R{stream}", INTERVAL)


def stream_of(key: StreamKey) -> int:
    """The number of a stream that `key_of` named."""
    return int(key.symbol[1:])


class Sample:
    """The rows of all streams; memory for one of them."""

    def __init__(self, seed: int) -> None:
        self._base = synth.candles(SAMPLE_ROWS, seed, interval=INTERVAL)
        self._span_ms = SAMPLE_ROWS * INTERVALS_MS[INTERVAL]

    def rows(self, stream: int, first: int, count: int) -> NDArray[np.void]:
        """Sequences `first` (from 1) to `first + count - 1` of a stream: CANDLE[count], the caller's."""
        at = np.arange(first - 1, first - 1 + count)
        made = self._base[at % SAMPLE_ROWS]
        made["ts_ms"] += at // SAMPLE_ROWS * self._span_ms
        made["volume"] += stream
        return made
