"""N4: buckets below a day, and those of sessions and trading days, by the clock on the wall of a zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux import window as door
from flux import zone
from flux.errors import InvalidNameError
from flux.indicator import VWAP
from flux.model import INTERVALS_MS, TRADE, CandleFlag, TradeFlag
from flux.window import Resampler, Window, resample
from tests.unit.test_window import candles, ms

HOUR = 3_600_000
ZONES = ["UTC", "Asia/Kolkata", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu"]


def opens(
    timezone: str, begin: str, end: str, interval: str, offset: str = "00:00", step: int = HOUR // 4
) -> list[str]:
    rows = candles(np.arange(ms(begin), ms(end), step))
    found = resample(rows, interval, timezone=timezone, offset=offset)
    return [
        f"{datetime.fromtimestamp(b / 1000, ZoneInfo(timezone)):%d %H:%M}" for b in found["ts_ms"].tolist()
    ]


def test_hours_of_a_half_hour_zone() -> None:
    assert opens("Asia/Kolkata", "2024-01-15T03:45", "2024-01-15T06:00", "1h") == [
        "15 09:00",
        "15 10:00",
        "15 11:00",
    ]
    session = opens("Asia/Kolkata", "2024-01-15T03:45", "2024-01-15T10:00", "1h", "09:15")
    assert session == ["15 09:15", "15 10:15", "15 11:15", "15 12:15", "15 13:15", "15 14:15", "15 15:15"]


@pytest.mark.parametrize(
    ("begin", "end"), [("2024-01-16T14:30", "2024-01-16T21:00"), ("2024-07-16T13:30", "2024-07-16T20:00")]
)
def test_a_session_from_half_past_nine_in_summer_and_winter(begin: str, end: str) -> None:
    assert opens("America/New_York", begin, end, "1h", "09:30") == [
        f"16 {hour:02}:30" for hour in range(9, 16)
    ]
    assert opens("America/New_York", begin, end, "4h", "09:30") == ["16 09:30", "16 13:30"]


@pytest.mark.parametrize("offset", ["17:00", "-07:00"])
def test_trading_days_from_five_in_the_afternoon(offset: str) -> None:
    """Over both changes of clocks: days of 23, 24 and 25 hours, all from 17:00."""
    for begin, end in (("2024-03-07T22:00", "2024-03-13T21:00"), ("2024-10-31T21:00", "2024-11-06T22:00")):
        rows = candles(np.arange(ms(begin), ms(end), HOUR))
        rows["volume"] = 1.0
        found = resample(rows, "1d", timezone="America/New_York", offset=offset)
        walls = [
            datetime.fromtimestamp(b / 1000, ZoneInfo("America/New_York")) for b in found["ts_ms"].tolist()
        ]
        assert {wall.hour for wall in walls} == {17}
        assert sorted(set(found["volume"].tolist())) in ([23, 24], [24, 25])


def test_weeks_of_trading_days_begin_on_sunday_evening() -> None:
    found = opens("America/New_York", "2024-01-14T22:00", "2024-01-28T22:00", "1w", "-07:00")
    assert found == ["14 17:00", "21 17:00"]


def test_where_clocks_change() -> None:
    night = opens("Europe/Berlin", "2024-10-26T22:00", "2024-10-27T04:00", "1h")
    assert night == ["27 00:00", "27 01:00", "27 02:00", "27 02:00", "27 03:00", "27 04:00"]
    assert opens("Europe/Berlin", "2024-10-26T22:00", "2024-10-27T08:00", "4h") == [
        "27 00:00",
        "27 04:00",
        "27 08:00",
    ]
    assert opens("Europe/Berlin", "2024-03-30T23:00", "2024-03-31T03:00", "1h") == [
        *("31 00:00", "31 01:00", "31 03:00", "31 04:00"),
    ]
    assert opens("Europe/Berlin", "2024-03-30T23:00", "2024-03-31T08:00", "4h") == [
        "31 00:00",
        "31 04:00",
        "31 08:00",
    ]


def wall_of(at: int, timezone: str, offset: int) -> datetime:
    wall = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at)).astimezone(ZoneInfo(timezone))
    return wall.replace(tzinfo=None) - timedelta(milliseconds=offset)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ZONES),
    st.sampled_from(["1m", "15m", "30m", "1h", "2h", "4h", "12h"]),
    st.sampled_from(["00:00", "09:15", "09:30", "17:00", "-07:00", "00:01"]),
    st.lists(st.integers(ms("2023-01-01"), ms("2025-12-31")), min_size=1, max_size=20),
)
def test_buckets_open_at_multiples_of_the_clock_on_the_wall(
    timezone: str, interval: str, offset: str, times: list[int]
) -> None:
    """Python's own zones are the oracle: an open is a multiple, or where clocks changed; and nothing lies between."""
    length, shift = INTERVALS_MS[interval], zone.offset_ms(offset)
    rows = candles(sorted(set(times)))
    found = resample(rows, interval, timezone=timezone, offset=offset)["ts_ms"].tolist()
    for at in rows["ts_ms"].tolist():
        open_ms = max(b for b in found if b <= at)
        begin, now = wall_of(open_ms, timezone, shift), wall_of(at, timezone, shift)
        multiple = (begin - datetime(2020, 1, 1)) % timedelta(milliseconds=length) == timedelta(0)
        changed = (now - begin) != timedelta(milliseconds=at - open_ms)
        before = wall_of(open_ms - 1, timezone, shift)
        jumped = begin - before != timedelta(milliseconds=1)
        assert multiple or jumped, (open_ms, at)
        assert changed or now - begin < timedelta(milliseconds=length)


@pytest.mark.parametrize("timezone", ZONES)
def test_live_is_bulk_and_so_is_a_resampler(timezone: str) -> None:
    rows = candles(np.arange(ms("2023-12-20"), ms("2024-11-20"), 7 * HOUR))
    for interval in ("1h", "4h", "1d"):
        bulk = resample(rows, interval, timezone=timezone, offset="09:15")
        window = Window(interval, timezone=timezone, offset="09:15")
        live = [window.push(part) for part in np.array_split(rows, 40)]
        assert np.concatenate([*live, window.partial()]).tobytes() == bulk.tobytes()
        views = Resampler(rows, timezone=timezone, offset="09:15")
        assert views.get(interval).tobytes() == bulk.tobytes()


def test_a_row_of_other_years_leaves_the_open_bucket_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A late row brings the grid of its own years; rows of the open bucket went just then."""
    monkeypatch.setattr(door, "WINDOW_OPEN_ROWS", 4)
    day = candles(ms("2024-06-12T04:00") + np.arange(8) * 60_000)
    within = candles([ms("2024-06-12T04:06:30")])
    window = Window("1d", timezone="America/New_York", keep=1)
    for row in range(8):
        assert len(window.push(day[row : row + 1])) == 0
    window.push(candles([ms("2023-05-10")]))
    window.push(within)
    assert (window.late, window.corrected) == (1, 1)
    bulk = resample(np.concatenate([day, within]), "1d", timezone="America/New_York")
    assert window.partial().tobytes() == bulk.tobytes()
    found = window.push(candles([ms("2024-06-14T04:00")]))
    assert found["ts_ms"].tolist() == [ms("2024-06-12T04:00")]


def test_live_is_the_bulk_of_the_rows_that_were_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows out of order, some of other years, with little kept: what was late changed nothing, all else counted."""
    late = 0
    for seed in range(20_263, 20_323):
        print("seed", seed)
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(door, "WINDOW_OPEN_ROWS", int(rng.choice([3, 10, 40])))
        step = int(rng.choice([HOUR // 4, HOUR, 12 * HOUR, 24 * HOUR]))
        back = rng.integers(-12, 0, 200) * (rng.random(200) < 0.2)
        times = ms("2023-11-14") + int(rng.integers(-300, 300)) * 24 * HOUR + (np.arange(200) + back) * step
        times -= 400 * 24 * HOUR * (rng.random(200) < 0.03)
        asked = {
            "interval": str(rng.choice(["1h", "4h", "1d", "1w", "1M"])),
            "timezone": str(rng.choice(ZONES)),
            "offset": str(rng.choice(["00:00", "09:15", "-07:00"])),
        }
        window, rows, out = Window(**asked, keep=int(rng.choice([0, 1, 5, 64]))), candles(times, seed), []
        applied = np.zeros(len(rows), bool)
        for at in range(len(rows)):
            before = window.late
            out.append(window.push(rows[at : at + 1]))
            applied[at] = window.late == before
            assert applied[at] or len(out[-1]) == 0
        late += window.late
        live = {int(bucket["ts_ms"]): bucket for bucket in np.concatenate([*out, window.partial()])}
        for bucket in live.values():
            bucket["flags"] &= ~np.uint32(CandleFlag.CORRECTION | CandleFlag.LATE)
        bulk = resample(rows[applied], **asked)
        assert [live[at].tobytes() for at in sorted(live)] == [bucket.tobytes() for bucket in bulk], asked
    assert late > 500


def test_an_anchor_is_that_of_its_windows() -> None:
    rows = candles(np.arange(ms("2024-01-15"), ms("2024-01-18"), HOUR // 2))
    found = VWAP(anchor="1d", timezone="America/New_York", offset="09:30").push(rows)
    at = int(np.flatnonzero(rows["ts_ms"] == ms("2024-01-16T14:30"))[0])
    assert found[at] == rows["turnover"][at] / rows["volume"][at]


def test_what_is_no_offset_and_what_would_be_too_many_buckets() -> None:
    for offset in ("9:15", "24:00", "1h", "", "17:60", "--01:00"):
        with pytest.raises(InvalidNameError, match="offset"):
            Window("1h", offset=offset)
    with pytest.raises(ValueError, match="take fewer years"):
        resample(candles([ms("1901-01-01"), ms("2024-01-01")]), "1m", timezone="Asia/Kolkata")


def test_a_correction_of_another_year_finds_the_buckets_of_the_trades_it_replaces() -> None:
    first = np.zeros(6, TRADE)
    first["ts_ns"] = (ms("2024-06-12T04:00") + np.arange(6) * 12 * HOUR) * 1_000_000
    first["price"], first["size"], first["trade_id"] = np.arange(6) + 1.0, 1.0, np.arange(6) + 1
    again = first[[2, 5]].copy()
    again["flags"], again["price"] = TradeFlag.CORRECTION, 50.0
    again["ts_ns"] = [ms("2025-06-12T04:00") * 1_000_000, ms("2025-06-12T05:00") * 1_000_000]
    window = Window("1d", timezone="America/New_York")
    out = [window.push(first), window.push(again[:1]), window.push(again[1:]), window.partial()]
    live = {int(bucket["ts_ms"]): bucket for bucket in np.concatenate(out)}
    for bucket in live.values():
        bucket["flags"] &= ~np.uint32(CandleFlag.CORRECTION | CandleFlag.LATE)
    bulk = resample(np.concatenate([first, again]), "1d", timezone="America/New_York")
    assert [live[at].tobytes() for at in sorted(live)] == [bucket.tobytes() for bucket in bulk]
    assert (window.late, window.corrected) == (0, 2)
