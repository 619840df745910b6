"""The one door for times: what a caller, a flag or a variable gives, as epoch nanoseconds UTC.

    2024-01-15, 20240115                 a day, at its midnight
    2024-01-15T10:30, 20240115T103000Z   ISO 8601, basic and extended; without a zone UTC is meant
    2024-01-15 10:30:00+05:30            with one, at most 14 hours from UTC; a date alone has none
    1705314600, ...600000, ...           epoch in s, ms, us or ns: told by its magnitude, for 1990 to 2100
    now, now-1h, now-1.5d                with ms, s, m, h, d or w
    today, yesterday                     at their midnight, UTC

and in Python also int, float, numpy's integers, floats and `datetime64`, `datetime`, `date` and pandas' `Timestamp`.
Everything else is a `ConfigError` of one sentence. The times of rows do not come through here: they are epoch ms or ns
already, of any year.
"""

from __future__ import annotations

import re
import time as clock
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, TypeAlias

import numpy as np

from flux.errors import ConfigError
from flux.limits import ZONE_HOURS

Time: TypeAlias = int | float | str | date | np.integer[Any] | np.floating[Any] | np.datetime64
"""A moment, as the head of this file lists; `datetime` and pandas' `Timestamp` are dates to Python."""

_NS_PER_MS: Final = 1_000_000
_FIRST_S: Final = 631_152_000  # 1990-01-01
_BEYOND_S: Final = 4_102_444_800  # 2100-01-01
_UNITS_NS: Final = (1_000_000_000, 1_000_000, 1_000, 1)  # s, ms, us, ns
_LENGTHS_NS: Final = {
    "ns": 1,
    "us": 1_000,
    "ms": _NS_PER_MS,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
    "d": 86_400 * 10**9,
    "w": 7 * 86_400 * 10**9,
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER = re.compile(r"\d{1,20}(?:\.\d{1,20})?")
_NOW = re.compile(r"now(?:([+-])(\d{1,15}(?:\.\d{1,9})?)(ms|s|m|h|d|w))?")
_ISO = re.compile(
    r"(?:\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?\d)?)"
    r"(?:[T ]\d\d(?:(:?)\d\d(?:\1\d\d(?:[.,]\d+)?)?)?"
    r"(?:Z| UTC|[+-](?P<h>\d\d)(?:(:?)(?P<m>[0-5]\d)(?:\3(?P<s>[0-5]\d))?)?)?)?"
)
_FINER = re.compile(r"(?<=[.,]\d{6})\d+")
_KNOWN: Final = "a date, ISO 8601, epoch s, ms, us or ns of 1990 to 2100, now-1h, today or yesterday"


def time_ns(given: Time, what: str = "time", *, now_ns: int | None = None) -> int:
    """`given` as epoch ns UTC. `what` names the field in the error; `now_ns` (epoch) stands for the clock. Raises
    `ConfigError`.
    """
    return _ns(given, what, clock.time_ns() if now_ns is None else now_ns)


def moment_of(ns: int) -> np.datetime64:
    """Epoch ns as a time to hand on; of years that ns do not reach, which no trade has, the end of the millisecond."""
    return np.datetime64(ns, "ns") if abs(ns) < 2**63 else np.datetime64(-(-ns // _NS_PER_MS), "ms")


def range_ns(
    start: Time | None, end: Time | None, *, now_ns: int | None = None
) -> tuple[int | None, int | None]:
    """Both ends of a half-open range as epoch ns (None: no bound), by one clock; exact, for trades come within a ms.

    Raises `ConfigError` as `time_ns` does, and where the start is not before the end.
    """
    now = clock.time_ns() if now_ns is None else now_ns
    first = None if start is None else _ns(start, "start", now)
    beyond = None if end is None else _ns(end, "end", now)
    if first is not None and beyond is not None and first >= beyond:
        raise ConfigError(f"start {_shown(start)} is not before end {_shown(end)}")
    return first, beyond


def _ns(given: Any, what: str, now_ns: int) -> int:
    if isinstance(given, str):
        return _of_text(given, what, now_ns)
    if isinstance(given, bool | np.bool_):
        raise _refused(given, what)
    if isinstance(given, int | np.integer) and not isinstance(given, np.timedelta64):
        return _of_number(int(given), given, what)
    if isinstance(given, float | np.floating):
        if not np.isfinite(given):
            raise _refused(given, what)
        return _of_number(Fraction(float(given)), given, what)
    if isinstance(given, np.datetime64):
        return _of_datetime64(given, what)
    if isinstance(given, date):  # a datetime and a Timestamp, too
        return _of_date(given, what)
    raise _refused(given, what)


def _of_number(value: int | Fraction, given: Any, what: str) -> int:
    """By its magnitude; eight digits are a day."""
    for unit in _UNITS_NS:
        scale = 10**9 // unit
        if _FIRST_S * scale <= value < _BEYOND_S * scale:
            if isinstance(value, int):
                return value * unit
            # A double of these years has microseconds: what is finer is its own rounding.
            return round(value * unit / 1_000) * 1_000
    if isinstance(value, int) and 19_900_101 <= value <= 20_991_231:
        return _of_text(str(value), what, 0)
    raise _refused(given, what)


def _of_text(given: str, what: str, now_ns: int) -> int:
    text = given.strip()
    if not text.isascii():
        raise _refused(given, what)
    if text in ("today", "yesterday"):
        day = now_ns // _LENGTHS_NS["d"] - (text == "yesterday")
        return day * _LENGTHS_NS["d"]
    if moment := _NOW.fullmatch(text):
        sign, count, unit = moment.groups()
        if sign is None:
            return now_ns
        ago = int(Decimal(count) * _LENGTHS_NS[unit])
        found = now_ns - ago if sign == "-" else now_ns + ago
        if abs(found) >= 2**63:
            raise _refused(given, what)
        return found
    if _NUMBER.fullmatch(text) and len(text) != 8:
        number = Fraction(text)
        return _of_number(int(number) if number.denominator == 1 else number, given, what)
    return _of_iso(text, given, what)


def _of_iso(text: str, given: str, what: str) -> int:
    found = _ISO.fullmatch(
        text
    )  # fromisoformat takes any character for the T, and a zone after a date for a time
    if not found:
        raise _refused(given, what)
    hours, minutes, seconds = (int(found[part] or 0) for part in "hms")
    if hours * 3_600 + minutes * 60 + seconds > ZONE_HOURS * 3_600:
        raise _refused(given, what)
    finer = _FINER.search(text)  # datetime knows six digits
    if finer:
        text = text[: finer.start()] + text[finer.end() :]
    if text.endswith(" UTC"):
        text = text.removesuffix(" UTC") + "Z"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _refused(given, what) from error
    return _of_date(moment, what) + (int(finer[0][:3].ljust(3, "0")) if finer else 0)


def _of_date(given: Any, what: str) -> int:
    if given != given:  # pandas' NaT is a datetime
        raise _refused(given, what)
    if not isinstance(given, datetime):
        given = datetime(given.year, given.month, given.day, tzinfo=UTC)
    moment = given.replace(tzinfo=UTC) if given.tzinfo is None else given
    try:
        since: timedelta = moment - _EPOCH
    except OverflowError as error:
        raise _refused(given, what) from error
    micros = since.days * 86_400_000_000 + since.seconds * 1_000_000 + since.microseconds
    return micros * 1_000 + int(getattr(given, "nanosecond", 0))


def _of_datetime64(given: np.datetime64, what: str) -> int:
    unit, count = np.datetime_data(given.dtype)
    if np.isnat(given) or unit in ("generic", "ps", "fs", "as"):
        raise _refused(given, what)
    if unit in ("Y", "M", "W"):
        given, unit, count = given.astype("M8[D]"), "D", 1
    ns = int(given.astype(np.int64)) * count * _LENGTHS_NS[unit.lower()]
    if abs(ns) >= 2**63 * 1_000:
        raise _refused(given, what)
    return ns


def _shown(given: Any) -> str:
    """What was given, so that it cannot alter a terminal, and not all of it."""
    return ascii(given[:60]) if isinstance(given, str) else ascii(str(given))[1:-1][:60]


def _refused(given: Any, what: str) -> ConfigError:
    return ConfigError(f"{what} {_shown(given)} is no time: {_KNOWN}")
