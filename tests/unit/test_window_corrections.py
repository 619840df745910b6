"""F5: a trade that came again with CORRECTION counts once in bars, with its last values, in bulk as live."""

from __future__ import annotations

import numpy as np
import pytest

from flux import window as door
from flux.model import CANDLE, TRADE, CandleFlag, TradeFlag
from flux.window import Resampler, Window, resample
from tests.oracle import window as oracle

CORRECTION = TradeFlag.CORRECTION
REVISED = np.uint32(CandleFlag.CORRECTION | CandleFlag.LATE)
SECOND = 1_000_000_000


def trades(count: int, every_ns: int = SECOND, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, TRADE)
    rows["ts_ns"] = np.arange(count) * every_ns
    rows["price"], rows["size"] = rng.uniform(90, 110, count), rng.random(count)
    rows["trade_id"] = np.arange(count) + 1
    rows["flags"] = TradeFlag.BUY
    return rows


def corrected(row: np.ndarray, price: float, **others: float) -> np.ndarray:
    again = np.array([row])
    again["price"] = price
    again["flags"] |= np.uint32(CORRECTION)
    for name, value in others.items():
        again[name] = value
    return again


def latest(found: list[np.ndarray]) -> bytes:
    """The latest revision of each bucket, by time, as `resample` flags it."""
    rows = np.concatenate(found)
    rows["flags"] &= ~REVISED
    return np.array([row for _, row in sorted({row["ts_ms"]: row for row in rows}.items())], CANDLE).tobytes()


def test_a_corrected_trade_of_the_open_bucket_counts_once() -> None:
    rows = trades(5)
    rows["price"][2] = 500.0
    again, fixed = corrected(rows[2], 100.0), rows.copy()
    fixed["price"][2] = 100.0
    expected = resample(fixed, "1m")
    assert (expected[0]["trade_count"], expected[0]["high"]) == (5, fixed["price"].max())
    window = Window("1m")
    window.push(rows)
    assert len(window.push(again)) == 0
    assert window.partial().tobytes() == expected.tobytes()
    assert (window.corrected, window.late) == (1, 0)
    assert resample(np.concatenate([rows, again]), "1m").tobytes() == expected.tobytes()
    assert len(window.push(again)) == 0  # a repeat
    assert window.corrected == 1


@pytest.mark.parametrize("at", [0, 4])
def test_the_first_and_the_last_trade_are_open_and_close(at: int) -> None:
    """Among trades of one time, too: the correction stands where the trade stood."""
    rows = trades(5, every_ns=0)
    again, fixed = corrected(rows[at], 7.0), rows.copy()
    fixed["price"][at] = 7.0
    window = Window("1m")
    window.push(np.concatenate([rows, again]))
    assert window.partial().tobytes() == resample(fixed, "1m").tobytes()
    assert resample(np.concatenate([rows, again]), "1m").tobytes() == resample(fixed, "1m").tobytes()
    assert window.partial()[0]["close" if at else "open"] == 7.0


def test_a_bucket_that_was_out_comes_again() -> None:
    rows = trades(130)
    again = corrected(rows[3], 1.0)
    window = Window("1m")
    found = [window.push(rows)]
    (bucket,) = window.push(again)
    assert (bucket["ts_ms"], bucket["low"], bucket["trade_count"]) == (0, 1.0, 60)
    assert bucket["flags"] == CandleFlag.CLOSED | CandleFlag.TRADED | CandleFlag.CORRECTION
    bulk = resample(np.concatenate([rows, again]), "1m")
    assert latest([*found, np.array([bucket]), window.partial()]) == bulk.tobytes()


def test_a_trade_whose_time_was_corrected_moves_to_its_bucket() -> None:
    rows = trades(130)
    again = corrected(rows[3], 1.0, ts_ns=int(rows["ts_ns"][70]))
    window = Window("1m")
    window.push(rows)
    left, entered = window.push(again)
    assert (left["ts_ms"], left["trade_count"]) == (0, 59)
    assert (entered["ts_ms"], entered["trade_count"], entered["low"]) == (60_000, 61, 1.0)
    assert left["flags"] & entered["flags"] & CandleFlag.CORRECTION
    ahead = corrected(rows[129], 2.0, ts_ns=200 * SECOND)
    (closed,) = window.push(ahead)
    assert (closed["ts_ms"], closed["trade_count"]) == (120_000, 9)
    assert window.partial()[0]["ts_ms"] == 180_000
    assert window.late == 0


def test_without_an_id_or_a_flag_nothing_is_replaced() -> None:
    rows = trades(4)
    rows["trade_id"] = [0, 0, 7, 7]
    rows["flags"][1] = CORRECTION
    window = Window("1m")
    window.push(rows)
    assert window.partial()[0]["trade_count"] == 4
    assert resample(rows, "1m")[0]["trade_count"] == 4


def test_a_trade_that_is_gone_is_not_replaced_and_counts_as_late() -> None:
    rows = trades(600)
    window = Window("1m", keep=100)
    window.push(rows)
    before = window.partial()
    assert len(window.push(corrected(rows[3], 1.0))) == 0
    moved = corrected(
        rows[4], 1.0, ts_ns=int(rows["ts_ns"][-1])
    )  # its place is there, what it replaces is not
    assert len(window.push(moved)) == 0
    assert (window.late, window.corrected) == (2, 0)
    assert window.partial().tobytes() == before.tobytes()
    unknown = corrected(rows[-1], 1.0, trade_id=1_000)  # of a trade that never came: one like others
    window.push(unknown)
    assert (window.late, int(window.partial()[0]["trade_count"])) == (2, 61)


def test_a_trade_that_the_open_bucket_no_longer_holds_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "WINDOW_OPEN_ROWS", 50)
    rows = trades(500)
    window = Window("1h", keep=10)
    window.push(rows)
    window.push(corrected(rows[3], 1.0))
    assert window.late == 1
    window.push(corrected(rows[490], 1.0))
    rows["price"][490] = 1.0
    assert window.partial().tobytes() == resample(rows, "1h").tobytes()
    assert window.late == 1


def test_a_bucket_does_not_lose_its_only_trade() -> None:
    rows = trades(3, every_ns=60 * SECOND)
    window = Window("1m")
    window.push(rows)
    assert len(window.push(corrected(rows[0], 1.0, ts_ns=int(rows["ts_ns"][1])))) == 0
    assert (window.late, window.corrected) == (1, 0)
    (again,) = window.push(corrected(rows[0], 1.0, ts_ns=SECOND))  # within it
    assert (again["ts_ms"], again["trade_count"], again["low"]) == (0, 1, 1.0)


def test_corrections_at_random_places_and_over_pushes_are_those_of_the_bulk() -> None:
    seed = 20_265
    print("seed", seed)
    rng = np.random.default_rng(seed)
    late = 0
    for _ in range(300):
        count = int(rng.integers(1, 60))
        rows = trades(count, seed=int(rng.integers(1 << 30)))
        rows["ts_ns"] = rng.integers(0, 20, count) * (SECOND // 4)
        rows["trade_id"] = rng.integers(0, count // 2 + 2, count)
        rows["flags"] = rng.choice([1, 2, 16, CORRECTION | 1, CORRECTION], count)
        bulk = resample(rows, "1s")
        grid = oracle.Grid(length=1_000)
        assert bulk.tobytes() == b"".join(oracle.resample(2, grid, [tuple(row) for row in rows.tolist()]))
        window, views = Window("1s"), Resampler(rows[:0])
        found = []
        for part in np.array_split(rows, int(rng.integers(1, 9))):
            found.append(window.push(part))
            views.push(part)
            views.get("1s")
        assert views.get("1s").tobytes() == bulk.tobytes()
        late += window.late > 0
        if not window.late:
            assert latest([*found, window.partial()]) == bulk.tobytes()
    assert late < 250


def test_corrections_in_a_long_open_bucket() -> None:
    seed = 20_266
    print("seed", seed)
    rng = np.random.default_rng(seed)
    rows = trades(6_000, every_ns=SECOND // 4)
    again = rows[rng.integers(0, 6_000, 400)]
    again["price"], again["flags"] = rng.uniform(90, 110, 400), CORRECTION
    pushed = np.concatenate([rows[:3_000], again[again["trade_id"] <= 3_000], rows[3_000:], again])
    window = Window("1h")
    for part in np.array_split(pushed, 70):
        window.push(part)
    expected = resample(pushed, "1h")
    assert window.late == 0
    assert window.partial().tobytes() == expected.tobytes()
    assert expected[0]["trade_count"] == 6_000


def test_the_users_function_sees_the_last_version() -> None:
    pytest.importorskip("numba")
    rows = trades(70)
    window = Window("1m", aggregate=total)
    window.push(rows)
    (again,) = window.push(corrected(rows[3], 1.0))
    rows["price"][3] = 1.0
    assert again["value"] == pytest.approx(rows["price"][:60].sum())


def total(rows: np.ndarray) -> float:
    found = 0.0
    for row in rows:
        found += row["price"]
    return found


def test_a_corrected_candle_alone_in_its_bucket_is_a_correction() -> None:
    """The class: a revision replaces, it does not add, and what was out comes again as a correction."""
    rows = np.zeros(3, CANDLE)
    rows["ts_ms"] = np.arange(3) * 3_600_000
    rows["volume"], rows["flags"] = 5.0, CandleFlag.CLOSED
    window = Window("1h")
    window.push(rows)
    again = rows[:1].copy()
    again["volume"] = 6.0
    again["flags"] |= np.uint32(CandleFlag.CORRECTION)
    (found,) = window.push(again)
    assert (found["volume"], found["flags"]) == (6.0, CandleFlag.CLOSED | CandleFlag.CORRECTION)
    assert resample(np.concatenate([rows, again]), "1h")["volume"].tolist() == [6.0, 5.0, 5.0]


def test_a_correction_to_a_later_time_is_in_order_from_then_on() -> None:
    rows = trades(5)
    moved = corrected(rows[2], 1.0, ts_ns=40 * SECOND)
    between = trades(1)
    between["ts_ns"], between["trade_id"], between["price"] = 30 * SECOND, 6, 2.0
    window = Window("1m")
    for part in (rows, moved, between):
        window.push(part)
    assert window.partial()[0]["close"] == 1.0
    assert window.partial().tobytes() == resample(np.concatenate([rows, moved, between]), "1m").tobytes()


def test_trades_moved_within_a_long_open_bucket() -> None:
    rows = trades(6_000, every_ns=SECOND // 4)
    late = corrected(rows[5_999], 3.0)  # lays the base near the end
    moved = corrected(rows[10], 1.0, ts_ns=int(rows["ts_ns"][5_998]))
    window = Window("1h")
    for part in (rows, late, moved):
        window.push(part)
    assert window.partial().tobytes() == resample(np.concatenate([rows, late, moved]), "1h").tobytes()
    assert window.partial()[0]["trade_count"] == 6_000


def test_a_bucket_of_which_rows_are_gone_is_neither_left_nor_entered() -> None:
    rows = trades(150)  # the newest 60 begin amid the second minute
    window = Window("1m", keep=60)
    for row in rows:
        window.push(np.array([row]))
    half_gone = 150 - 60 - 60
    leaving = corrected(rows[115], 1.0, ts_ns=int(rows["ts_ns"][140]))
    entering = corrected(rows[140], 1.0, ts_ns=int(rows["ts_ns"][half_gone]))
    kernel = window._kernel
    assert kernel is not None
    kernel.cut()
    before = window.partial().tobytes()
    assert len(window.push(leaving)) == len(window.push(entering)) == 0
    assert (window.late, window.corrected) == (2, 0)
    assert window.partial().tobytes() == before
