"""A generated sample that looks like a market, the same for the same seed everywhere, and its CSV.

Only integers and correctly rounded operations (+ - x /) touch the numbers, so that the bits do not depend on
the machine's math library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flux.model import CANDLE, INTERVALS_MS, CandleFlag

FIRST_TS_MS: Final = 1_704_067_200_000  # 2024-01-01T00:00:00Z
_STEPS: Final = 12  # moves of the price within one candle
_TICKS: Final = 100  # per unit of price
_CALM: Final = 5_000_000  # the larger, the quieter: some 0.05 % a candle
_HEADER: Final = "ts_ms,open,high,low,close,volume\n"


def candles(
    n: int,
    seed: int = 1,
    *,
    interval: str = "1m",
    start_ms: int = FIRST_TS_MS,
    price: float = 42_000.0,
    quiet_share: float = 0.0,
) -> NDArray[np.void]:
    """`n` closed candles (CANDLE[n]) of a random walk whose pace changes with the hour and in bursts.

    Prices are whole hundredths above zero, each open is the close before, volumes are whole thousandths and
    larger when the price moves. `quiet_share` of the intervals, chosen by the seed, have no candle, as in a
    thin market. Raises `ValueError` for a calendar month or a share outside [0, 1).
    """
    step = INTERVALS_MS[interval]
    if not step or not 0 <= quiet_share < 1:
        raise ValueError(f"no regular sample of {interval} with {quiet_share} quiet")
    rng = np.random.Generator(np.random.PCG64(seed))
    base = int(price * _TICKS)
    walk = _walk(rng, n, base)
    # Reflected far below, so that a long walk never reaches zero.
    levels = np.abs(base + walk - base // 10) + base // 10

    rows = np.zeros(n, CANDLE)
    rows["ts_ms"] = start_ms + step * _slots(rng, n, quiet_share)
    rows["open"] = levels[:, 0] / _TICKS
    rows["high"] = levels.max(axis=1) / _TICKS
    rows["low"] = levels.min(axis=1) / _TICKS
    rows["close"] = levels[:, -1] / _TICKS
    moved = np.abs(np.diff(levels, axis=1)).sum(axis=1) * 10_000 // base  # in basis points
    rows["volume"] = rng.integers(100, 5_000, n) * (5 + moved) / 1_000
    rows["flags"] = int(CandleFlag.CLOSED)
    return rows


def write_csv(path: Path | str, rows: NDArray[np.void]) -> None:
    """Write candles so that reading them gives the same bits: the shortest digits that name each double."""
    columns = [rows[name].tolist() for name in _HEADER.strip().split(",")]
    with open(path, "w", encoding="ascii", newline="\n") as file:
        file.write(_HEADER)
        file.writelines(",".join(map(repr, row)) + "\n" for row in zip(*columns, strict=True))


def _walk(rng: np.random.Generator, n: int, base: int) -> NDArray[np.int64]:
    """Ticks away from the start, [n, steps + 1]; row i begins where row i - 1 ended."""
    # A sum of a few uniform integers is near enough to normal, and the same bits everywhere.
    moves = rng.integers(-100, 101, (4, n, _STEPS)).sum(axis=0)
    pace = 4 + 3 * (np.abs(np.arange(n) % 1_440 - 720) // 240)  # quieter in the middle of the day
    bursts = np.where(rng.integers(0, 200, n) == 0, 6, 1)
    scaled = moves * (pace * bursts)[:, None] * base
    ticks = np.sign(scaled) * (np.abs(scaled) // _CALM)
    ends = np.cumsum(ticks).reshape(n, _STEPS)
    starts = np.concatenate(([0], ends[:, -1]))[:n]
    walk: NDArray[np.int64] = np.concatenate((starts[:, None], ends), axis=1)
    return walk


def _slots(rng: np.random.Generator, n: int, quiet_share: float) -> NDArray[np.int64]:
    """Which interval each candle stands in, from 0, rising."""
    slots = np.zeros(0, np.int64)
    while len(slots) < n:
        traded = rng.integers(0, 1_000_000, 2 * n) >= quiet_share * 1_000_000
        slots = np.concatenate((slots, np.flatnonzero(traded) + (slots[-1] + 1 if len(slots) else 0)))
    return slots[:n] - slots[0] if n else slots
