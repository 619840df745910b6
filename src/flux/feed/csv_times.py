"""Times in CSV files as vendors write them: whole numbers by magnitude, dates in three orders, with a zone or none."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from flux.limits import ZONE_HOURS

INTEGER = re.compile(rb"\d{1,19}")
_ZONE = rb"(?: ?(?:Z|UTC|GMT)?(?: ?(?P<z>[+-]\d\d:?\d\d))?)?"
_CLOCK = rb"(?:[ T](?P<H>\d\d):(?P<M>\d\d)(?::(?P<S>\d\d)(?:\.(?P<f>\d{1,9}))?)?" + _ZONE + rb")?"
FORMS: Final = (
    re.compile(rb"(?P<y>\d{4})(?P<s>[-./])(?P<m>\d\d)(?P=s)(?P<d>\d\d)" + _CLOCK),
    re.compile(rb"(?P<d>\d\d)\.(?P<m>\d\d)\.(?P<y>\d{4})" + _CLOCK),
    re.compile(
        rb"(?P<y>\d{4})(?P<m>\d\d)(?P<d>\d\d)"
        rb"(?:[ T](?P<H>\d\d)(?P<c>:?)(?P<M>\d\d)(?:(?P=c)(?P<S>\d\d)(?:\.(?P<f>\d{1,9}))?)?" + _ZONE + rb")?"
    ),
)
"""What vendors write: year, month, day with - . or /; day.month.year; all in one. A zone is that of a time of day: a
date alone has none, as in `flux.units`. Read line by line."""
TIME_OF_DAY = re.compile(rb"\d\d:?\d\d(?::?\d\d(?:\.\d{1,9})?)?")
"""The second column of files that have date and time apart."""
WHOLE_NUMBERS: Final = -1
_WRITTEN: Final = ("YYYY-MM-DD HH:MM:SS", "DD.MM.YYYY HH:MM:SS", "YYYYMMDD HHMMSS")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_TIME_UNITS: Final = ((10**11, 1_000, 1), (10**14, 1, 1), (10**17, 1, 1_000), (10**19, 1, 1_000_000))
"""(integer times below, multiplied by, divided by) to be ms: s, ms, us, ns."""


def unit(time: int) -> tuple[int, int]:
    """(multiplied by, divided by) of an integer time to be ms, by its magnitude."""
    return next((multiply, divide) for beyond, multiply, divide in _TIME_UNITS if time < beyond)


def form_of(text: bytes) -> int | None:
    """Which form a time has: WHOLE_NUMBERS, an index of FORMS, or None. Eight digits are a day."""
    if INTEGER.fullmatch(text) and len(text) != 8:
        return WHOLE_NUMBERS
    return next((at for at, form in enumerate(FORMS) if form.fullmatch(text)), None)


def time_of(text: bytes, form: int) -> int:
    """Epoch ms of a time of this form; the unit of whole numbers is told for each by its magnitude.

    Raises `ValueError`.
    """
    if form == WHOLE_NUMBERS:
        if not INTEGER.fullmatch(text):
            raise ValueError(f"{shown(text)} is no integer time")
        multiply, divide = unit(int(text))
        if int(text) % divide:
            raise ValueError("finer than a millisecond")
        return int(text) * multiply // divide
    found = FORMS[form].fullmatch(text)
    if not found:
        raise ValueError(f"{shown(text)} is no time ({_WRITTEN[form]})")
    part = found.groupdict()
    fraction = (part["f"] or b"").ljust(9, b"0")
    if int(fraction) % 1_000_000:
        raise ValueError("finer than a millisecond")
    year, month, day, hour, minute, second = (int(part[name] or 0) for name in "ymdHMS")
    moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    return (moment - _EPOCH) // _MS + int(fraction) // 1_000_000 - _zone_ms(part["z"])


def _zone_ms(zone: bytes | None) -> int:
    """How much later than UTC the clock of a zone is; raises `ValueError` where no zone is that far."""
    if zone is None:
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if minutes >= 60 or hours * 60 + minutes > ZONE_HOURS * 60:
        raise ValueError(f"{shown(zone)} is no zone: at most {ZONE_HOURS} hours from UTC")
    return (hours * 60 + minutes) * (-60_000 if zone[:1] == b"-" else 60_000)


def shown(text: bytes) -> str:
    """The text so that it cannot alter a terminal, and not all of it."""
    return ascii(text[:40].decode("latin1"))
