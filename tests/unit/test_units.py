"""C-7: the one door for times, in Python and on the command line."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flux.errors import ConfigError
from flux.feed.csv_times import form_of, time_of
from flux.units import moment_of, range_ns, time_ns

NOW = 1_705_314_645_123_456_789  # 2024-01-15 10:30:45.123456789
DAY = 86_400_000
MIDNIGHT = 1_705_276_800_000  # 2024-01-15
MOMENT = 1_705_314_600_000  # 2024-01-15 10:30

TEXTS = {
    "2024-01-15": MIDNIGHT,
    "20240115": MIDNIGHT,
    " 2024-01-15 ": MIDNIGHT,
    "2024-01-15T10:30": MOMENT,
    "2024-01-15 10:30:00": MOMENT,
    "20240115T103000": MOMENT,
    "20240115T1030Z": MOMENT,
    "2024-01-15T10:30:00Z": MOMENT,
    "2024-01-15T10:30:00 UTC": MOMENT,
    "2024-01-15T16:00:00+05:30": MOMENT,
    "20240115T053000-0500": MOMENT,
    "2024-W03-1": MIDNIGHT,
    "2024-W03-1T10:30": MOMENT,
    "2024-01-15T10:30Z": MOMENT,
    "2024-01-16T00:30+14:00": MOMENT,
    "2024-01-15T05-0530": MOMENT,
    "2024-01-15 05:30:00-05": MOMENT,
    "2024-01-15T10:30:00.5": MOMENT + 500,
    "2024-01-15T10:30:00,5": MOMENT + 500,
    "2024-01-15T10:30:00.000001": MOMENT + 1,  # the end of its millisecond
    "2024-01-15T10:30:00.000000001": MOMENT + 1,
    "2024-01-15T10:30:00.000000000": MOMENT,
    "1705314600": MOMENT,
    "1705314600000": MOMENT,
    "1705314600000000": MOMENT,
    "1705314600000000000": MOMENT,
    "1705314600.5": MOMENT + 500,
    "1705314600000.0": MOMENT,
    "now": NOW // 1_000_000 + 1,
    "now-1h": NOW // 1_000_000 + 1 - 3_600_000,
    "now-1.5d": NOW // 1_000_000 + 1 - DAY * 3 // 2,
    "now+500ms": NOW // 1_000_000 + 501,
    "today": MIDNIGHT,
    "yesterday": MIDNIGHT - DAY,
    "1899-12-31": -2_209_075_200_000,
}

REFUSED = (
    *(
        "",
        " ",
        "2022-02",
        "2022-02-30",
        "15.01.2024",
        "01/15/2024",
        "now-1",
        "now-1y",
        "now - 1h",
        "-1h",
        "1h",
    ),
    *("tomorrow?", "NaN", "inf", "1e9", "-1705314600", "+1705314600", "0", "60000", "123456", "20241301"),
    *("20240230", "1989-13-01", "2024-01-15T25:00", "2024-01-15T10:30+99:00", "9" * 20, "9" * 5_000),
    *(
        "2024-01-15+05:30",
        "2024-01-15-0500",
        "2024-01-15Z05",
        "2024-01-15Z",
        "2024-01-15 UTC",
        "20240115+0530",
    ),
    *("2024-01-15/10:30", "2024-01-15_10:30", "2024-01-15x10:30", "2024-01-15T10,5", "2024-01-15T10:30,5"),
    *("2024-01-15T10:30+05:60", "2024-01-15T10:30+14:01", "2024-01-15T10:30-23:59", "2024-01-15T10:3000"),
    *("2024-01-15T10:30+05:30:00.1234567", "2024-01-15T10:30Z UTC", "2024-01-15T10:30:00."),
    *("now-999999999999999w", "２０２４-01-15", "2024-01-15\x1b[2J", "x" * 1_000),
)


def time_ms(given: Any, what: str = "time", *, now_ns: int | None = None) -> int:
    """The end of the millisecond, as candles see it."""
    return -(-time_ns(given, what, now_ns=now_ns) // 1_000_000)


@pytest.mark.parametrize("text", TEXTS)
def test_texts(text: str) -> None:
    assert time_ms(text, now_ns=NOW) == TEXTS[text]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_time_is_one_sentence(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^start .* is no time: a date, ISO 8601") as caught:
        time_ms(text, "start", now_ns=NOW)
    said = str(caught.value)
    assert len(said) < 200
    assert said.isprintable()
    assert said.isascii()


def test_what_python_has() -> None:
    pandas = pytest.importorskip("pandas")
    zone = timezone(timedelta(hours=5, minutes=30))
    given: list[Any] = [
        1_705_314_600,
        1_705_314_600_000,
        1_705_314_600_000_000,
        1_705_314_600_000_000_000,
        1_705_314_600.0,
        1_705_314_600_000.0,
        np.int64(1_705_314_600_000),
        np.uint32(1_705_314_600),
        np.float64(1_705_314_600),
        np.datetime64("2024-01-15T10:30"),
        np.datetime64("2024-01-15T10:30", "ns"),
        np.array(["2024-01-15T10:30"], "M8[ms]")[0],
        datetime(2024, 1, 15, 10, 30),
        datetime(2024, 1, 15, 10, 30, tzinfo=UTC),
        datetime(2024, 1, 15, 16, 0, tzinfo=zone),
        pandas.Timestamp("2024-01-15 10:30"),
        pandas.Timestamp("2024-01-15 16:00", tz="Asia/Kolkata"),
    ]
    assert [time_ms(value) for value in given] == [MOMENT] * len(given)
    days: list[Any] = [date(2024, 1, 15), np.datetime64("2024-01-15"), 20_240_115, np.int32(20_240_115)]
    assert [time_ms(value) for value in days] == [MIDNIGHT] * len(days)
    assert time_ms(np.datetime64("2024-01")) == MIDNIGHT - 14 * DAY
    assert time_ms(pandas.Timestamp("2024-01-15 10:30:00.000000001")) == MOMENT + 1
    assert time_ms(np.datetime64("2024-01-15T10:30:00.000000001")) == MOMENT + 1
    assert time_ms(1_705_314_600.123) == MOMENT + 123
    nothing: list[Any] = [
        *(True, np.True_, 0, 60_000, -1, 631_151_999, 4_102_444_800, 10**25, 20_240_230, float("nan"), 1e300),
        *(
            np.datetime64("NaT"),
            pandas.NaT,
            np.timedelta64(5, "s"),
            timedelta(1),
            b"2024-01-15",
            [],
            object(),
        ),
        *(np.datetime64(2**62, "s"), np.datetime64(1, "as"), np.array([1_705_314_600])),
    ]
    for value in nothing:
        with pytest.raises(ConfigError, match="is no time"):
            time_ms(value)


@given(
    st.integers(631_152_000, 4_102_444_799),
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from([int, np.int64, str]),
)
def test_the_unit_is_told_by_magnitude(seconds: int, thousands: int, kind: type) -> None:
    assert time_ms(kind(seconds * 1_000**thousands)) == seconds * 1_000


@given(st.integers(631_152_000_000, 4_102_444_799_999))
def test_milliseconds_as_floats_of_seconds(ms: int) -> None:
    assert time_ms(ms / 1_000) == ms
    assert time_ms(float(ms)) == ms


@given(st.datetimes(timezones=st.sampled_from([None, UTC, timezone(timedelta(hours=-7))])))
def test_datetimes_and_their_text_are_the_same(moment: datetime) -> None:
    try:
        found = time_ms(moment)
    except ConfigError:
        assert moment.year in (1, 9999)  # UTC has no such moment
        return
    assert time_ms(moment.isoformat()) == found
    assert time_ms(moment.isoformat(" ")) == found


@given(
    st.sampled_from(["2024-01-15", "20240115", "2023-02-30", "0001-01-01", "9999-12-31"]),
    st.sampled_from(["", "", " ", "T", "/", "_"]),
    st.sampled_from(["", "10:30", "1030", "10:30:45", "103045", "10:3045", "10:30:45.5", "10:30.5", "24:30"]),
    st.sampled_from(
        ["", "Z", "Z05", " UTC", "+05:30", "-0500", "+14:00", "-1400", "+14:01", "+05:60", "+99:99"]
    ),
)
def test_a_file_and_a_caller_mean_the_same(day: str, between: str, clock_time: str, zone: str) -> None:
    """The doors of rows and of requests: one moment, or refused by both."""
    assume(between if clock_time else between != " ")  # digits alone are a number; a caller's blanks go
    assume("-" not in day or ":" in clock_time or not clock_time)  # a file writes both with signs, or neither
    text = day + between + clock_time + zone
    try:
        asked: int | None = time_ns(text)
    except ConfigError:
        asked = None
    form = form_of(text.encode())
    try:
        read = None if form is None else time_of(text.encode(), form) * 1_000_000
    except ValueError:
        read = None
    assert asked == read


@given(st.text(max_size=30))
def test_any_text_is_a_time_or_one_sentence(text: str) -> None:
    said = ""
    try:
        found: int | None = time_ms(text, now_ns=NOW)
    except ConfigError as error:
        found, said = None, str(error)
    assert said.isprintable()
    assert (found is None) == bool(said)


def test_a_range_has_its_start_before_its_end() -> None:
    assert range_ns("yesterday", "today", now_ns=NOW) == (MIDNIGHT * 10**6 - DAY * 10**6, MIDNIGHT * 10**6)
    assert range_ns(None, None) == (None, None)
    assert range_ns("now", None, now_ns=NOW) == (NOW, None)
    assert range_ns(MOMENT * 10**6, MOMENT * 10**6 + 1) == (MOMENT * 10**6, MOMENT * 10**6 + 1)
    for start, end in (("today", "yesterday"), ("today", "today"), ("2024-01-15", MIDNIGHT)):
        with pytest.raises(ConfigError, match="is not before end"):
            range_ns(start, end, now_ns=NOW)
    with pytest.raises(ConfigError, match=r"^end 'x' is no time"):
        range_ns("today", "x")


@given(st.integers(-(2**62), 2**62))
def test_a_time_is_exact_to_the_ns_and_is_handed_on_so(ns: int) -> None:
    assert time_ns(np.datetime64(ns, "ns")) == ns
    assert time_ns(moment_of(ns)) == ns
    assert time_ms(moment_of(ns * 1_000)) == -(-ns // 1_000), "the end of the ms where ns do not reach"
