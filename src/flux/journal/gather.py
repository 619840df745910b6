"""Journal records back into rows. Part of the journal's door."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flux.kernels import journal as _kernel
from flux.model import CANDLE, GATHERED, QUOTE, TRADE, RowKind

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROW = {RowKind.CANDLE: CANDLE, RowKind.TRADE: TRADE, RowKind.QUOTE: QUOTE}


class Gathered(NamedTuple):
    """Rows out of a stretch of journal; `stopped` is the byte behind the last record taken."""

    stopped: int
    records: NDArray[np.void]
    rows: dict[RowKind, NDArray[np.void]]


class Gatherer:
    """Reads journal records back into rows, at most `max_rows` of each kind and as many records at once.

    The arrays are made once: fresh ones for each step cost more than the step, because the system clears their pages.
    The pages of `ready` rows are cleared at once, the others when they are needed.
    """

    def __init__(self, max_rows: int, ready: int = 0) -> None:
        self._records = np.zeros(max_rows, GATHERED)
        self._rows = {kind: np.zeros(max_rows, dtype) for kind, dtype in _ROW.items()}
        for array in (self._records, *self._rows.values()):
            array[:ready] = 0

    def __call__(self, data: bytes | memoryview, at: int) -> Gathered:
        """The records from byte `at` on, and their rows laid end to end by kind.

        The arrays are ours, and hold until the next call. Raises ValueError where a batch does not verify.
        """
        stopped, count, candles, trades, quotes = _kernel.gather(
            data, at, self._records.view(np.uint8), *(rows.view(np.uint8) for rows in self._rows.values())
        )
        counts = dict(zip(self._rows, (candles, trades, quotes), strict=True))
        return Gathered(
            stopped, self._records[:count], {kind: self._rows[kind][:n] for kind, n in counts.items()}
        )
