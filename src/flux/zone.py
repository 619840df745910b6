"""Buckets of a named time zone, as instants: days, weeks and months, and the shorter ones that divide its days.

A local day begins at the first instant whose local date is that day: at midnight, or where clocks skip midnight when
they do; a day that a zone skipped altogether has no bucket. So days have 23, 24 or 25 hours. With an offset they begin
that much later by the clock on the wall: 17:00 for a trading day, -07:00 for one that has its date from its end.

Shorter intervals open where the clock on the wall, less the offset, shows a multiple: hours of Kolkata at half past of
UTC, with an offset of 09:15 those of its exchange. Where clocks go back, an hour that comes twice is two; where they
jump, a bucket is shorter. Where every offset from UTC in those years leaves the same grid, it is kept as its origin.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

from flux.errors import InvalidNameError
from flux.limits import ZONE_EDGE_LISTS, ZONE_EDGES, ZONE_YEARS
from flux.model import INTERVALS_MS, RowKind, StreamKey

Edges = npt.NDArray[np.int64]

_DAYS: Final = {"1d": 1, "3d": 3, "1w": 7}
_EPOCH: Final = date(1970, 1, 1).toordinal()
_MONDAY: Final = date(1970, 1, 5).toordinal()

_CALENDAR: Final = frozenset({*_DAYS, "1M"})
_DAY_MS: Final = 86_400_000
_OFFSET = re.compile(r"(-?)([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")


def offset_ms(offset: str) -> int:
    """`HH:MM` or `HH:MM:SS`, with a minus or without, in ms. Raises `InvalidNameError`."""
    found = _OFFSET.fullmatch(offset) if isinstance(offset, str) else None
    if not found:
        raise InvalidNameError(f"offset {offset!a:.80} is no time of day: 09:15, 17:00, -07:00")
    size = int(found[2]) * 3_600_000 + int(found[3]) * 60_000 + int(found[4] or 0) * 1_000
    return -size if found[1] else size


def grid(interval: str, timezone: str, offset: int, low_ms: int, high_ms: int) -> Edges | int:
    """The buckets that cover `low_ms` to `high_ms` and their years, `offset` (ms) later: their opens (epoch ms,
    ascending, read-only), or one open of an even grid (from 0 to below its length).

    Raises `ValueError` for times outside `limits.ZONE_YEARS`, and where the even grid changes within them that short an
    interval would need more than `limits.ZONE_EDGES` opens.
    """
    if interval in _CALENDAR:
        return edges(interval, timezone, low_ms, high_ms, offset)
    first, last = _years(timezone, low_ms, high_ms)
    return _divided(INTERVALS_MS[interval], timezone, first, last, offset)


def checked(timezone: str) -> str:
    """`timezone` once it is known to be one (an IANA name). Raises `InvalidNameError`."""
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InvalidNameError(
            f"no time zone {timezone[:80]!a}: an IANA name such as Europe/Berlin, or UTC"
        ) from error
    return timezone


def edges(interval: str, timezone: str, low_ms: int, high_ms: int, offset: int = 0) -> Edges:
    """Of days, weeks and months: where they open (epoch ms, ascending, read-only), to cover `low_ms` to `high_ms` and
    their years, `offset` ms later by the clock on the wall.

    Raises `ValueError` for times outside `limits.ZONE_YEARS`.
    """
    first, last = _years(timezone, low_ms, high_ms)
    return _edges(interval, timezone, first, last, offset)


def _years(timezone: str, low_ms: int, high_ms: int) -> tuple[int, int]:
    first, last = _year(low_ms), _year(high_ms)
    if not ZONE_YEARS[0] <= first <= last <= ZONE_YEARS[1]:
        raise ValueError(
            f"times from {low_ms} to {high_ms} ms in {timezone}: only the years {ZONE_YEARS[0]} to {ZONE_YEARS[1]}"
        )
    return first, last


def _year(ts_ms: int) -> int:
    try:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ts_ms)).year
    except OverflowError:
        return 0 if ts_ms < 0 else 10_000


@lru_cache(maxsize=ZONE_EDGE_LISTS)
def _edges(interval: str, timezone: str, first: int, last: int, offset: int) -> Edges:
    zone = ZoneInfo(timezone)
    # A local year begins up to a day beside UTC's, and the bucket in it up to a month before.
    low, high = date(first, 1, 1) - timedelta(32), date(last, 12, 31) + timedelta(32)
    if interval == "1M":
        days = [date(month // 12, month % 12 + 1, 1) for month in range(_month(low), _month(high) + 2)]
    else:
        step, origin = _DAYS[interval], _MONDAY if interval == "1w" else _EPOCH
        begin = low.toordinal() - (low.toordinal() - origin) % step
        days = [date.fromordinal(day) for day in range(begin, high.toordinal() + step, step)]
    opens = np.unique([_first_instant_ms(day, zone, offset) for day in days])
    opens.flags.writeable = False
    return opens


@lru_cache(maxsize=ZONE_EDGE_LISTS)
def _divided(length: int, timezone: str, first: int, last: int, offset: int) -> Edges | int:
    changes = _changes(timezone, first, last)
    origins = {(offset - shift) % length for _, shift in changes}
    if len(origins) == 1:
        return origins.pop()
    if (last - first + 2) * 366 * _DAY_MS // length > ZONE_EDGES:
        raise ValueError(
            f"{timezone} from {first} to {last} has no even grid of {length} ms: take fewer years"
        )
    pieces: list[Edges] = []
    ends = [at for at, _ in changes[1:]] + [_instant_ms(date(last, 12, 31)) + 2 * _DAY_MS]
    for (begin, shift), end in zip(changes, ends, strict=True):
        opens = np.arange(begin + (offset - shift - begin) % length, end, length, dtype=np.int64)
        if pieces and (offset - shift - begin) % length:  # the bucket that is open when clocks change goes on
            opens = opens[opens > begin]
        pieces.append(opens)
    found = np.concatenate(pieces)
    found.flags.writeable = False
    return found


@lru_cache(maxsize=ZONE_EDGE_LISTS)
def _changes(timezone: str, first: int, last: int) -> list[tuple[int, int]]:
    """(epoch ms, offset from UTC in ms from then on): the first before these years, then each change in them."""
    zone = ZoneInfo(timezone)

    def shift(at: int) -> int:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)
        return round((moment.astimezone(zone).utcoffset() or timedelta()).total_seconds() * 1_000)

    begin, end = _instant_ms(date(first, 1, 1)) - 2 * _DAY_MS, _instant_ms(date(last, 12, 31)) + 2 * _DAY_MS
    found = [(begin, shift(begin))]
    for day in range(begin + _DAY_MS, end + 1, _DAY_MS):
        low, high = day - _DAY_MS, day
        if shift(high) == found[-1][1]:
            continue
        while high - low > 1_000:  # clocks change on whole seconds
            middle = (low + high) // 2_000 * 1_000
            low, high = (middle, high) if shift(middle) == found[-1][1] else (low, middle)
        found.append((high, shift(high)))
    return found


def _instant_ms(day: date) -> int:
    return (day.toordinal() - _EPOCH) * _DAY_MS


def _month(day: date) -> int:
    return day.year * 12 + day.month - 1


def _first_instant_ms(day: date, zone: ZoneInfo, offset: int) -> int:
    # fold=0: of a midnight that comes twice the first, of one that is skipped the moment clocks jump.
    wall = datetime(day.year, day.month, day.day) + timedelta(milliseconds=offset)
    return round(wall.replace(tzinfo=zone).timestamp() * 1000)


def check_step(key: StreamKey, interval: str) -> None:
    """Refuse candles of a stream that buckets of `interval` would cut, or hold in uneven numbers. Raises ValueError."""
    if key.kind is RowKind.CANDLE and interval in INTERVALS_MS and not fits(key.interval, interval):
        raise ValueError(
            f"candles of {key.interval} ({key}) do not make candles of {interval}: it is no multiple of theirs"
        )


def fits(step: str, interval: str) -> bool:
    """Whether candles of `step` fill buckets of `interval` whole."""
    step_ms, length = INTERVALS_MS.get(step, 0), INTERVALS_MS[interval]
    if step == interval:
        return True
    if not length:  # a month is of whole days
        return 0 < step_ms <= INTERVALS_MS["1d"]
    return step_ms > 0 and length % step_ms == 0
