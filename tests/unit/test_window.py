"""The window's door: labels, calendars, trades and quotes, corrections, the user's function, several intervals."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import numpy as np
import pytest

import flux
from flux import window as door
from flux.errors import InvalidNameError
from flux.limits import WINDOW_OUT_ROWS
from flux.model import CANDLE, QUOTE, TRADE, CandleFlag
from flux.window import Resampler, Window, resample

CLOSED, CORRECTION, LATE = CandleFlag.CLOSED, CandleFlag.CORRECTION, CandleFlag.LATE
TRADED = CandleFlag.TRADED
HOUR = 3_600_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def candles(times: list[int] | np.ndarray, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.zeros(len(times), CANDLE)
    rows["ts_ms"] = times
    rows["open"], rows["close"] = rng.uniform(90, 110, (2, len(times)))
    rows["high"] = np.maximum(rows["open"], rows["close"]) + rng.random(len(times))
    rows["low"] = np.minimum(rows["open"], rows["close"]) - rng.random(len(times))
    rows["volume"] = rng.random(len(times))
    rows["turnover"] = rows["volume"] * rows["close"]
    rows["trade_count"] = 2
    rows["flags"] = CLOSED | TRADED
    return rows


def minutes(count: int, start: int = 0, seed: int = 1) -> np.ndarray:
    return candles(np.arange(start, start + count) * 60_000, seed)


def test_a_bucket_has_its_open_as_label_and_the_last_is_not_closed() -> None:
    rows = minutes(12)
    found = flux.resample(rows, "5m")
    assert found.dtype == CANDLE
    assert found["ts_ms"].tolist() == [0, 300_000, 600_000]
    assert found["flags"].tolist() == [CLOSED | TRADED, CLOSED | TRADED, TRADED]
    first = rows[:5]
    assert found[0]["open"] == first[0]["open"]
    assert found[0]["high"] == first["high"].max()
    assert found[0]["low"] == first["low"].min()
    assert found[0]["close"] == first[4]["close"]
    assert found[0]["volume"] == sum(first["volume"].tolist())
    assert (found[0]["turnover"], found[0]["trade_count"]) == (sum(first["turnover"].tolist()), 10)


def test_empty_buckets_do_not_exist() -> None:
    assert resample(candles([-1, 0, HOUR * 5]), "1h")["ts_ms"].tolist() == [-HOUR, 0, HOUR * 5]
    for dtype in (CANDLE, TRADE, QUOTE):
        assert len(resample(np.empty(0, dtype), "1h")) == 0


def test_what_one_row_has_and_what_all_have() -> None:
    rows = minutes(5)
    rows["flags"][2] = CLOSED | CandleFlag.INJECTED
    rows["flags"][3] = CLOSED | TRADED | CandleFlag.SYNTHETIC | CORRECTION | LATE
    (found,) = resample(rows, "5m")
    assert found["flags"] == CandleFlag.INJECTED | CandleFlag.SYNTHETIC
    assert (found["turnover"], found["trade_count"]) == (0, 0)


def test_weeks_begin_on_monday_and_months_are_months() -> None:
    times = [ms(day) for day in ("2023-12-31", "2024-01-01", "2024-01-07T23:59", "2024-02-29", "2024-03-01")]
    weeks = resample(candles(times), "1w")["ts_ms"].tolist()
    assert weeks == [ms(day) for day in ("2023-12-25", "2024-01-01", "2024-02-26")]
    months = resample(candles(times), "1M")["ts_ms"].tolist()
    assert months == [ms(day) for day in ("2023-12-01", "2024-01-01", "2024-02-01", "2024-03-01")]


def local_days(zone: str, begin: str, end: str, interval: str = "1d") -> list[tuple[str, float]]:
    """(open, hours in it) of the buckets of hourly candles."""
    rows = candles(np.arange(ms(begin), ms(end), HOUR))
    rows["volume"] = 1.0
    found = resample(rows, interval, timezone=zone)
    return [(str(datetime.fromtimestamp(b["ts_ms"] / 1000, UTC))[:16], float(b["volume"])) for b in found]


def test_days_of_a_zone_have_23_or_25_hours_when_clocks_change() -> None:
    spring = local_days("Europe/Berlin", "2024-03-29T23:00", "2024-04-01T22:00")
    assert [hours for _, hours in spring] == [24, 23, 24]
    assert spring[1][0] == "2024-03-30 23:00"
    autumn = local_days("America/New_York", "2024-11-02T04:00", "2024-11-05T05:00")
    assert autumn == [("2024-11-02 04:00", 24), ("2024-11-03 04:00", 25), ("2024-11-04 05:00", 24)]


def test_a_day_whose_midnight_is_skipped_begins_when_clocks_jump() -> None:
    found = local_days("America/Sao_Paulo", "2018-11-03T03:00", "2018-11-06T02:00")
    assert found == [("2018-11-03 03:00", 24), ("2018-11-04 03:00", 23), ("2018-11-05 02:00", 24)]


def test_a_day_that_a_zone_skipped_has_no_bucket() -> None:
    found = local_days("Pacific/Apia", "2011-12-29T10:00", "2011-12-31T10:00")
    assert found == [("2011-12-29 10:00", 24), ("2011-12-30 10:00", 24)]


def test_weeks_and_months_of_a_zone() -> None:
    weeks = local_days("Europe/Berlin", "2024-03-24T23:00", "2024-04-07T22:00", "1w")
    assert weeks == [("2024-03-24 23:00", 167), ("2024-03-31 22:00", 168)]
    months = local_days("Asia/Tokyo", "2023-12-31T15:00", "2024-02-29T15:00", "1M")
    assert months == [("2023-12-31 15:00", 744), ("2024-01-31 15:00", 696)]
    threes = local_days("Europe/Berlin", "1969-12-31T23:00", "1970-01-06T23:00", "3d")
    assert threes == [("1969-12-31 23:00", 72), ("1970-01-03 23:00", 72)]


def test_a_zone_is_followed_live_over_years() -> None:
    times = np.array([ms(f"{year}-0{month}-15") for year in range(1995, 2030) for month in (1, 7)])
    rows = candles(times)
    window = Window("1M", timezone="Europe/Berlin")
    found = [window.push(rows[i : i + 1]) for i in range(len(rows))]
    bulk = resample(rows, "1M", timezone="Europe/Berlin")
    assert np.concatenate([*found, window.partial()]).tobytes() == bulk.tobytes()
    assert len(bulk) == 70


def test_trades_become_candles() -> None:
    trades = np.zeros(3, TRADE)
    trades["ts_ns"] = [-1, 0, 999_999_999]
    trades["price"], trades["size"] = [10.0, 11.0, 9.0], [1.0, 2.0, 0.5]
    before, after = resample(trades, "1s")
    assert before.item() == (-1000, 10.0, 10.0, 10.0, 10.0, 1.0, 10.0, 1, CLOSED | TRADED)
    assert after.item() == (0, 11.0, 11.0, 9.0, 9.0, 2.5, 26.5, 2, TRADED)


def test_quotes_become_candles_of_the_middle() -> None:
    quotes = np.zeros(2, QUOTE)
    quotes["bid"], quotes["ask"] = [1.0, 3.0], [2.0, 5.0]
    quotes["bid_size"] = 7.0
    assert resample(quotes, "1m").tolist() == [(0, 1.5, 4.0, 1.5, 4.0, 0.0, 0.0, 0, 0)]


@pytest.mark.parametrize("pieces", [1, 7, 400])
def test_live_is_bulk_to_the_bit(pieces: int) -> None:
    rows = minutes(2_000, start=-500, seed=3)
    window = Window("1h")
    found = [window.push(part) for part in np.array_split(rows, pieces)]
    assert np.concatenate([*found, window.partial()]).tobytes() == resample(rows, "1h").tobytes()


def test_more_buckets_than_one_call_writes() -> None:
    rows = candles(np.arange(2 * WINDOW_OUT_ROWS + 5) * 1000)
    bulk = resample(rows, "1s")
    window = Window("1s")
    live = window.push(rows)
    assert bulk["ts_ms"].tolist() == rows["ts_ms"].tolist()
    assert np.concatenate([live, window.partial()]).tobytes() == bulk.tobytes()
    # First and last say nothing about what lies between them.
    rows["ts_ms"][-1] = rows["ts_ms"][0] - 1000
    assert resample(rows, "1s")["ts_ms"].tolist() == sorted(rows["ts_ms"].tolist())
    assert len(resample(rows, "1M")) == 2


def test_rows_in_any_order_and_the_latest_revision_of_each() -> None:
    rows = minutes(600)
    revised = candles(rows["ts_ms"][100:200], seed=9)
    order = np.random.default_rng(5).permutation(600)
    expected = rows.copy()
    expected[100:200] = revised
    found = resample(np.concatenate([rows[order], revised]), "15m")
    assert found.tobytes() == resample(expected, "15m").tobytes()


def test_a_correction_of_a_closed_bucket_brings_it_again() -> None:
    rows = minutes(12)
    window = Window("5m")
    window.push(rows)
    rows["close"][4] = 500.0
    rows["flags"][4] |= CORRECTION
    (again,) = window.push(rows[4:5])
    assert (again["ts_ms"], again["close"]) == (0, 500.0)
    assert again["flags"] == CLOSED | TRADED | CORRECTION
    assert (window.corrected, window.late) == (1, 0)
    assert len(window.push(rows[4:5])) == 0  # a repeat
    assert window.corrected == 1


def test_a_correction_of_the_open_bucket_is_silent() -> None:
    rows = minutes(8)
    window = Window("5m")
    window.push(rows)
    rows["volume"][6] = 50.0
    assert len(window.push(rows[6:7])) == 0
    assert window.partial().tobytes() == resample(rows, "5m")[1:].tobytes()


def test_a_late_row_makes_a_bucket_that_was_empty() -> None:
    rows = candles([0, HOUR * 2, HOUR * 3, HOUR])
    (found,) = Window("1h").push(rows)[2:]
    assert (found["ts_ms"], found["flags"]) == (HOUR, CLOSED | TRADED | LATE)


def test_a_row_too_old_is_counted_and_changes_nothing() -> None:
    rows = minutes(100)
    window = Window("5m", keep=10)
    before = np.concatenate([window.push(rows), window.partial()])
    assert len(window.push(minutes(20, seed=8))) == 0
    assert (window.late, window.corrected) == (20, 0)
    assert window.partial().tobytes() == before[-1:].tobytes()
    window.push(minutes(1, start=97, seed=8))
    assert (window.late, window.corrected) == (20, 1)


def test_two_swapped_trades_of_a_bucket_of_thousands_are_both_there() -> None:
    """N1."""
    trades = np.zeros(9_000, TRADE)
    trades["ts_ns"] = np.arange(9_000) * 300_000_000
    trades["price"], trades["size"] = 10 + np.arange(9_000) % 7, 0.1
    swapped = trades.copy()
    swapped[[-1, -2]] = swapped[[-2, -1]]
    for pieces in (1, 90, 9_000):
        window = Window("1h")
        assert sum(len(window.push(part)) for part in np.array_split(swapped, pieces)) == 0
        assert window.late == 0
        assert window.partial().tobytes() == resample(trades, "1h").tobytes()


def test_forming_candles_of_a_month_are_all_counted() -> None:
    """N1: every minute is seen forming before it is closed."""
    rows = minutes(20_000)
    forming = rows.copy()
    forming["close"], forming["flags"] = 1.0, 0
    both = np.stack([forming, rows], axis=1).reshape(-1)
    window = Window("1M", of="1m")
    for part in np.array_split(both, 500):
        window.push(part)
    assert window.late == 0
    assert window.partial().tobytes() == resample(rows, "1M").tobytes()


def test_the_same_forming_candle_again_and_again() -> None:
    rows = minutes(4)
    window = Window("5m")
    window.push(rows[:3])
    for close in (1.0, 2.0, 3.0):
        rows["close"][3] = close
        rows["flags"][3] = 0
        assert len(window.push(rows[3:4])) == 0
        assert window.partial()[0]["close"] == close
    assert window.partial().tobytes() == resample(rows, "5m").tobytes()


def test_of_lets_a_bucket_out_with_its_last_row() -> None:
    rows = minutes(5)
    window = Window("5m", of="1m")
    assert len(window.push(rows[:4])) == 0
    forming = rows[4:].copy()
    forming["flags"] = 0
    assert len(window.push(forming)) == 0
    (found,) = window.push(rows[4:])
    assert (found["flags"], len(window.partial())) == (CLOSED | TRADED, 0)
    assert resample(rows, "5m", of="1m").tolist() == [found.item()]
    for interval, of in (("5m", "1h"), ("5m", "1M"), ("5m", "7m"), ("1M", "1M")):
        with pytest.raises(ValueError, match="of="):
            Window(interval, of=of)
    with pytest.raises(ValueError, match="of="):
        resample(np.zeros(1, TRADE), "1m", of="1s")


def test_rows_may_be_read_only_and_the_result_is_the_callers_own() -> None:
    rows = minutes(10)
    rows.flags.writeable = False
    found = resample(rows, "1m")
    assert found.flags.writeable
    assert not np.shares_memory(found, rows)


def test_rows_and_names_are_checked() -> None:
    for rows in (np.zeros(3), minutes(4)[::2], minutes(4).reshape(2, 2)):
        with pytest.raises(ValueError, match="rows are"):
            resample(rows, "5m")
        with pytest.raises(ValueError, match="rows are"):
            Resampler(rows)
    for interval in ("7m", "trade", ""):
        with pytest.raises(InvalidNameError, match="interval"):
            Window(interval)
    for zone in ("Mars/Olympus", "../etc/passwd", ""):
        with pytest.raises(InvalidNameError, match="zone"):
            resample(minutes(1), "1d", timezone=zone)
    for time in (-(2**63), 2**63 - 1, ms("1899-12-31T12:00")):
        with pytest.raises(ValueError, match="only the years"):
            resample(candles([time]), "1d", timezone="Europe/Berlin")
    with pytest.raises(ValueError, match="keep"):
        Window("5m", keep=-1)
    window = Window("5m")
    window.push(minutes(1))
    with pytest.raises(ValueError, match="those before"):
        window.push(np.zeros(1, TRADE))


def spread(rows: np.ndarray) -> float:
    return float(rows[-1].close - rows[0].open)


def closes(rows: np.ndarray, out: np.ndarray) -> None:
    for i in range(min(len(rows), len(out))):
        out[i] += rows[i].close


def test_the_users_function_over_the_rows_of_each_bucket() -> None:
    pytest.importorskip("numba")
    rows = minutes(700)
    expected = [rows["close"][min(at + 59, 699)] - rows["open"][at] for at in range(0, 700, 60)]
    for pieces in (1, 30):
        window = Window("1h", aggregate=spread, keep=0)
        found = [window.push(part) for part in np.array_split(rows, pieces)]
        whole = np.concatenate([*found, window.partial()])
        assert whole["value"].tolist() == expected
        assert whole[list(CANDLE.names or ())].astype(CANDLE).tobytes() == resample(rows, "1h").tobytes()


def test_the_users_function_writes_several_values_and_sees_corrections() -> None:
    pytest.importorskip("numba")
    rows = minutes(12)
    window = Window("5m", aggregate=closes, values=3)
    assert window.partial().dtype["value"].shape == (3,)
    found = window.push(rows)
    assert found["value"].tolist() == [rows["close"][:3].tolist(), rows["close"][5:8].tolist()]
    assert window.partial()["value"].tolist() == [[*rows["close"][10:].tolist(), 0.0]]
    rows["close"][[1, 6, 11]] = 7.0
    again = window.push(rows[[1, 6, 11]])
    assert again["value"].tolist() == [rows["close"][:3].tolist(), rows["close"][5:8].tolist()]
    assert (again["flags"] & CORRECTION).all()
    assert window.partial()["value"].tolist() == [[rows["close"][10], 7.0, 0.0]]


def test_an_open_bucket_has_a_bound_for_aggregates(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    monkeypatch.setattr(door, "MAX_BUCKET_ROWS", 50)
    with pytest.raises(ValueError, match="more than 50 rows"):
        Window("1h", aggregate=spread, keep=0).push(minutes(60))


def test_without_numba_an_aggregate_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(ImportError, match=r"flux-marketdata\[numba\]"):
        Window("5m", aggregate=spread)


def test_intervals_are_resampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, pushed = minutes(1_000), []

    class Counted(Window):
        def push(self, rows: np.ndarray) -> np.ndarray:
            pushed.append(len(rows))
            return super().push(rows)

    monkeypatch.setattr(door, "Window", Counted)
    views = Resampler(rows)
    five, hour = views.get("5m"), views.get("1h")
    assert views.get("5m") is five
    assert views.get("1h") is hour
    assert pushed == [1_000, 1_000]
    assert five.tobytes() == resample(rows, "5m").tobytes()
    assert not five.flags.writeable
    more = minutes(7, start=1_000)
    views.push(more)
    assert views.get("1h").tobytes() == resample(np.concatenate([rows, more]), "1h").tobytes()
    assert pushed == [1_000, 1_000, 7]
    assert five.tobytes() == resample(rows, "5m").tobytes()


def test_a_resampler_takes_corrections_and_what_is_too_old_for_a_window() -> None:
    rows = minutes(10_000)
    views = Resampler(rows)
    views.get("15m")
    for at in (9_990, 3, 9_000):
        revised = minutes(2, start=at, seed=at)
        rows = rows.copy()
        rows[at : at + 2] = revised
        views.push(revised)
        assert views.get("15m").tobytes() == resample(rows, "15m").tobytes()


def test_a_resampler_forgets_the_interval_used_longest_ago() -> None:
    views = Resampler(minutes(1_000), limit_bytes=64 * 300)
    five = views.get("5m")
    hour = views.get("1h")
    assert views.get("5m") is five
    views.get("10m")  # 200 + 17 + 100 buckets are too many
    assert views.get("5m") is five
    assert views.get("1h") is not hour


def test_public_names() -> None:
    assert flux.resample is resample
    assert flux.Window is Window
