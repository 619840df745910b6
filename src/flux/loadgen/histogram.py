"""The door of the histogram kernel: percentiles as a report shows them, and a file for plotting.

A percentile is HdrHistogram's own (the highest value equivalent to the one at that rank), cut at the exact
maximum, so that no percentile of a report ever lies above its `max`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from flux.kernels.histogram import (
    HIGHEST_NS,
    Histogram,
    Load,
    Schedule,
    Tally,
    Watch,
    sharpen_sleep,
    sleep_until,
)

__all__ = [
    "HIGHEST_NS",
    "PERCENTILES",
    "Histogram",
    "Load",
    "Schedule",
    "Tally",
    "Watch",
    "distribution",
    "percentile",
    "sharpen_sleep",
    "sleep_until",
    "summary",
]

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 99.99)
_TICKS_PER_HALF: Final = 5  # as HdrHistogram's own plotter expects


def percentile(histogram: Histogram, at: float) -> int:
    """The value in ns at percentile `at` (0 to 100), never above the exact maximum; 0 when empty."""
    return min(histogram.percentile(at), histogram.max)


def summary(histogram: Histogram) -> dict[str, float]:
    """min, mean, p50, p90, p99, p99.9, p99.99 and max in ns; all 0 when empty."""
    numbers: dict[str, float] = {"min": histogram.min, "mean": round(histogram.mean, 1)}
    numbers |= {f"p{at:g}": percentile(histogram, at) for at in PERCENTILES}
    return numbers | {"max": histogram.max}


def _levels() -> Iterator[float]:
    """0, 10, 20 .. 50, 55 .. 75, 77.5 ..: each half of what remains to 100 in equal ticks."""
    low, half = 0.0, 50.0
    while True:
        for tick in range(_TICKS_PER_HALF):
            yield low + half * tick / _TICKS_PER_HALF
        low, half = low + half, half / 2


def distribution(histogram: Histogram) -> str:
    """The percentile distribution as HdrHistogram's plotter reads it (`.hgrm`), values in µs."""
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    total = histogram.total
    slots = histogram.recorded()
    ranks, seen = [], 0
    for _, count in slots:
        seen += count
        ranks.append(seen)
    at = 0
    for level in _levels():
        rank = max(1, int(level * total / 100 + 0.5))
        if total == 0 or rank >= total or level >= 100.0:
            break
        while at < len(ranks) and ranks[at] < rank:
            at += 1
        upto = ranks[at] if at < len(ranks) else total
        value = percentile(histogram, level)
        lines.append(f"{value / 1e3:12.3f} {level / 100:2.12f} {upto:10d} {1 / (1 - level / 100):14.2f}")
    lines.append(f"{histogram.max / 1e3:12.3f} {1.0:2.12f} {total:10d}")
    lines.append(f"#[Mean    = {histogram.mean / 1e3:12.3f}, Min            = {histogram.min / 1e3:12.3f}]")
    lines.append(f"#[Max     = {histogram.max / 1e3:12.3f}, TotalCount     = {total:12d}]")
    return "\n".join(lines) + "\n"
