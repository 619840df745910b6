"""The indicators' door: SMA, EMA, RSI, ATR and VWAP over a live stream.

Each object takes rows as they come and gives one float64 for each, NaN while it has too few; in bulk is one push of
everything, and equal to the bit. Rows are CANDLE rows in order of time. One of the newest one's time (a correction,
the same forming candle again) takes its place, so that live, with every revision, ends where the final candles in bulk
end. An older one (late, or a correction further back) is `skipped` and gives the value before again: to have it
counted, push the corrected rows into a new object. SMA, EMA and RSI also take plain float64 arrays, every value a row
of its own.

A NaN is no value: its row gives NaN and is otherwise as if it had not been. So an indicator of an indicator begins
after the leading NaN, as TA-Lib's do, and one goes on after a hole over the last `n` values that were there. ATR looks
at high, low and close, VWAP at volume and at turnover or high, low and close.

One thread at a time pushes (another gets `RuntimeError`); an object owns its memory.
"""

from __future__ import annotations

import operator
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from flux import zone
from flux.batch import Batch
from flux.errors import InvalidNameError
from flux.kernels import indicator as _kernel
from flux.limits import MAX_INDICATOR_ROWS
from flux.model import CANDLE, INTERVALS_MS

Values = npt.NDArray[np.float64]
Input = npt.NDArray[np.void] | Values

_FIELDS: Final = {
    name: int(offset)
    for name, (dtype, offset, *_) in (CANDLE.fields or {}).items()
    if dtype == np.float64 and isinstance(offset, int)
}
_MONDAY_MS: Final = 4 * INTERVALS_MS["1d"]


class _Indicator:
    """What all have in common."""

    _takes_values: ClassVar[bool] = False

    def __init__(self, kind: int, n: int, *, field: str = "close", length: int = 0, origin: int = 0) -> None:
        n = operator.index(n)
        if not 1 <= n <= MAX_INDICATOR_ROWS:
            raise ValueError(f"{n} rows are not 1 to {MAX_INDICATOR_ROWS}")
        if field not in _FIELDS:
            raise ValueError(f"field {field[:80]!a} is none of {' '.join(_FIELDS)}")
        self._field = _FIELDS[field]
        self._kernel = _kernel.Indicator(kind, n, length, origin)

    def push(self, rows: Input | Batch) -> Values:
        """The indicator after each of `rows` (one dimension, contiguous; or a batch of candles), an array of its own.

        Raises `ValueError` for rows of another dtype or layout.
        """
        if isinstance(rows, Batch):
            rows = rows.rows
        candles = rows.dtype == CANDLE
        known = candles or (self._takes_values and rows.dtype == np.float64)
        if not known or rows.ndim != 1 or not rows.flags.c_contiguous:
            wanted = "CANDLE or float64" if self._takes_values else "CANDLE"
            raise ValueError(f"rows are {rows.dtype} of shape {rows.shape}, not {wanted}, contiguous")
        out = np.empty(len(rows), np.float64)
        self._kernel.push(rows, self._field if candles else None, out)
        return out

    @property
    def value(self) -> float:
        """What the newest row gave; NaN before there were enough, and where that row has one."""
        return self._kernel.value

    @property
    def skipped(self) -> int:
        """Candles that were older than the newest."""
        return self._kernel.skipped


class SMA(_Indicator):
    """Simple moving average: the mean of the last `n` values. Its sum never subtracts, so no error piles up."""

    _takes_values = True

    def __init__(self, n: int, *, field: str = "close") -> None:
        """`n` rows, 1 to `limits.MAX_INDICATOR_ROWS`; `field` of a candle. Raises `ValueError`, and `TypeError` for
        an `n` that is no whole number."""
        super().__init__(_kernel.SMA, n, field=field)


class EMA(_Indicator):
    """Exponential moving average: e += (value - e) * 2 / (n + 1), from the mean of the first `n` values on.

    The seed is TA-Lib's.
    """

    _takes_values = True

    def __init__(self, n: int, *, field: str = "close") -> None:
        """As `SMA`."""
        super().__init__(_kernel.EMA, n, field=field)


class RSI(_Indicator):
    """Relative strength index, 0 to 100: 100 - 100 / (1 + average gain / average loss) of the changes.

    J. W. Wilder, New Concepts in Technical Trading Systems (1978): the mean of the first `n`, from then on
    (average * (n - 1) + value) / n; the first value follows n + 1 rows. Without losses it is 100, without any
    change 50.
    """

    _takes_values = True

    def __init__(self, n: int = 14, *, field: str = "close") -> None:
        """As `SMA`."""
        super().__init__(_kernel.RSI, n, field=field)


class ATR(_Indicator):
    """Average true range: Wilder's average (see `RSI`) of the largest of high - low, |high - close before| and
    |low - close before|.

    J. W. Wilder, New Concepts in Technical Trading Systems (1978), whose first true range is high - low.
    """

    def __init__(self, n: int = 14) -> None:
        """As `SMA`."""
        super().__init__(_kernel.ATR, n)


class VWAP(_Indicator):
    """Volume-weighted average price: turnover / volume, over the last `n` candles or since the `anchor` began.

    A candle without TRADED or TURNOVER stands with its typical price, (high + low + close) / 3, times its volume.
    Anchored, as S. A. Berkowitz, D. E. Logue and E. A. Noser, The Total Cost of Transactions on the NYSE (1988) have
    it, for the day: the sums begin anew at each bucket of `anchor`, in `timezone` (an IANA name) and with `offset`,
    as `flux.Window` has them. NaN where nothing was traded.
    """

    def __init__(
        self, n: int | None = None, *, anchor: str = "1d", timezone: str = "UTC", offset: str = "00:00"
    ) -> None:
        """Rolling with `n`, else anchored. Raises `ValueError` for `n`, `InvalidNameError` for `anchor` and
        `timezone`."""
        self._anchor, self._timezone = anchor, zone.checked(timezone)
        self._offset = zone.offset_ms(offset)
        self._zoned = n is None and (timezone != "UTC" or (anchor == "1M" and self._offset != 0))
        if anchor not in INTERVALS_MS:
            raise InvalidNameError(f"interval {anchor[:80]!a} is none of {' '.join(INTERVALS_MS)}")
        if n is not None:
            super().__init__(_kernel.VWAP, n)
        else:
            length = INTERVALS_MS[anchor]
            origin = ((_MONDAY_MS if anchor == "1w" else 0) + self._offset) % length if length else 0
            super().__init__(_kernel.VWAP_ANCHORED, 1, length=length, origin=origin)

    def push(self, rows: Input | Batch) -> Values:
        """See `SMA.push`; in a named zone also `ValueError` for times outside `limits.ZONE_YEARS`."""
        if isinstance(rows, Batch):
            rows = rows.rows
        if self._zoned and rows.dtype == CANDLE and rows.size:
            candles: npt.NDArray[Any] = rows
            times = candles["ts_ms"]
            grid = zone.grid(self._anchor, self._timezone, self._offset, int(times.min()), int(times.max()))
            if isinstance(grid, int):
                self._kernel.set_origin(grid)
            else:
                self._kernel.set_edges(grid)
        return super().push(rows)
