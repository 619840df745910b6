"""Days, weeks and months of a named time zone, as instants.

A local day begins at the first instant whose local date is that day: at midnight, or where clocks skip midnight when
they do; a day that a zone skipped altogether has no bucket. So days have 23, 24 or 25 hours.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from flux.errors import InvalidNameError
from flux.limits import ZONE_EDGE_LISTS, ZONE_YEARS

Edges = npt.NDArray[np.int64]

_DAYS: Final = {"1d": 1, "3d": 3, "1w": 7}
_EPOCH: Final = date(1970, 1, 1).toordinal()
_MONDAY: Final = date(1970, 1, 5).toordinal()

CALENDAR: Final = frozenset({*_DAYS, "1M"})
"""Intervals that a zone moves; all shorter ones are multiples since the epoch everywhere."""


def checked(timezone: str) -> str:
    """`timezone` once it is known to be one (an IANA name). Raises `InvalidNameError`."""
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidNameError(
            f"no time zone {timezone[:80]!a}: an IANA name such as Europe/Berlin, or UTC"
        ) from error
    return timezone


def edges(interval: str, timezone: str, low_ms: int, high_ms: int) -> Edges:
    """Where the buckets open (epoch ms, ascending, read-only) that cover `low_ms` to `high_ms` and their years.

    Raises `ValueError` for times outside `limits.ZONE_YEARS`.
    """
    first, last = _year(low_ms), _year(high_ms)
    if not ZONE_YEARS[0] <= first <= last <= ZONE_YEARS[1]:
        raise ValueError(
            f"times from {low_ms} to {high_ms} ms in {timezone}: only the years {ZONE_YEARS[0]} to {ZONE_YEARS[1]}"
        )
    return _edges(interval, timezone, first, last)


def _year(ts_ms: int) -> int:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts_ms)).year
    except OverflowError:
        return 0 if ts_ms < 0 else 10_000


@lru_cache(maxsize=ZONE_EDGE_LISTS)
def _edges(interval: str, timezone: str, first: int, last: int) -> Edges:
    zone = ZoneInfo(timezone)
    # A local year begins up to a day beside UTC's, and the bucket in it up to a month before.
    low, high = date(first, 1, 1) - timedelta(32), date(last, 12, 31) + timedelta(32)
    if interval == "1M":
        days = [date(month // 12, month % 12 + 1, 1) for month in range(_month(low), _month(high) + 2)]
    else:
        step, origin = _DAYS[interval], _MONDAY if interval == "1w" else _EPOCH
        begin = low.toordinal() - (low.toordinal() - origin) % step
        days = [date.fromordinal(day) for day in range(begin, high.toordinal() + step, step)]
    opens = np.unique([_first_instant_ms(day, zone) for day in days])
    opens.flags.writeable = False
    return opens


def _month(day: date) -> int:
    return day.year * 12 + day.month - 1


def _first_instant_ms(day: date, zone: ZoneInfo) -> int:
    # fold=0: of a midnight that comes twice the first, of one that is skipped the moment clocks jump.
    return round(datetime(day.year, day.month, day.day, tzinfo=zone).timestamp() * 1000)
