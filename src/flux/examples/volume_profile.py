"""The user's own function over each bucket: a volume profile and the vwap of every hour, out of one-minute candles.

    python -m flux.examples.volume_profile

`flux.Window` hands the function the rows of a bucket, compiled by numba; needs `pip install flux-marketdata[numba]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import flux

LEVELS = 12
Rows = npt.NDArray[np.void]


def vwap(rows: Any) -> float:
    """Volume-weighted average price: what was paid, over what was bought. NaN where nothing was."""
    turnover, volume = 0.0, 0.0
    for row in rows:
        turnover += row.turnover
        volume += row.volume
    return turnover / volume if volume > 0 else np.nan


def volume_profile(rows: Any, out: Any) -> None:
    """out[0], out[1]: lowest and highest price; then the volume of each of the levels between, low to high.

    A candle does not say at which prices it traded: its volume counts evenly from its low to its high.
    """
    low, high = rows[0].low, rows[0].high
    for row in rows:
        low, high = min(low, row.low), max(high, row.high)
    out[0], out[1] = low, high
    levels = len(out) - 2
    step = (high - low) / levels
    for row in rows:
        if row.high == row.low or step == 0.0:
            level = 0 if step == 0.0 else min(int((row.low - low) / step), levels - 1)
            out[2 + level] += row.volume
            continue
        for level in range(levels):
            begin = max(row.low, low + level * step)
            end = min(row.high, low + (level + 1) * step)
            if end > begin:
                out[2 + level] += row.volume * (end - begin) / (row.high - row.low)


def sample(hours: int, seed: int = 1) -> Rows:
    """One-minute candles of a price that wanders."""
    rng = np.random.default_rng(seed)
    path = 100 + np.cumsum(rng.normal(0, 0.05, 60 * hours + 1))
    rows = np.zeros(60 * hours, flux.CANDLE)
    rows["ts_ms"] = 1_700_002_800_000 + np.arange(len(rows)) * 60_000
    rows["open"], rows["close"] = path[:-1], path[1:]
    rows["high"] = np.maximum(path[:-1], path[1:]) + rng.exponential(0.02, len(rows))
    rows["low"] = np.minimum(path[:-1], path[1:]) - rng.exponential(0.02, len(rows))
    rows["volume"] = rng.exponential(3.0, len(rows))
    rows["turnover"] = rows["volume"] * (rows["high"] + rows["low"] + rows["close"]) / 3
    rows["trade_count"] = 5
    rows["flags"] = flux.CandleFlag.CLOSED | flux.CandleFlag.TRADED
    return rows


def main() -> None:
    """Print the vwap of three hours, as if they came live, and the profile of the last."""
    rows = sample(hours=3)
    prices = flux.Window("1h", of="1m", aggregate=vwap)
    profiles = flux.Window("1h", of="1m", aggregate=volume_profile, values=2 + LEVELS)
    for row in np.split(rows, len(rows)):
        for bucket in prices.push(row):
            print(f"{bucket['ts_ms']}  close {bucket['close']:.2f}  vwap {bucket['value']:.2f}")
        closed = profiles.push(row)
        if len(closed):
            profile = closed[-1]["value"]
    low, high, volumes = profile[0], profile[1], profile[2:]
    for level in reversed(range(LEVELS)):
        bar = "#" * round(40 * volumes[level] / volumes.max())
        print(f"{low + (high - low) * (level + 0.5) / LEVELS:8.2f} {volumes[level]:8.1f} {bar}")


if __name__ == "__main__":
    main()
