"""The door of the histogram kernel: percentiles as a report shows them, and a file for plotting.

A percentile is HdrHistogram's own (the highest value equivalent to the one at that rank), cut at the exact
maximum, so that no percentile of a report ever lies above its `max`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

from flux.kernels.histogram import (
    HIGHEST_NS,
    Histogram,
    Load,
    Schedule,
    Tally,
    Watch,
    sharpen_sleep,
    sleep_until,
    wait_readable,
)

__all__ = [
    "HIGHEST_NS",
    "PERCENTILES",
    "Histogram",
    "Load",
    "Point",
    "Schedule",
    "Tally",
    "Watch",
    "curve",
    "distribution",
    "percentile",
    "sharpen_sleep",
    "sleep_until",
    "summary",
    "wait_readable",
]

PERCENTILES: Final = (50.0, 90.0, 99.0, 99.9, 99.99)
_TICKS_PER_HALF: Final = 5  # as HdrHistogram's own plotter expects
_BUCKETS, _SUB_BUCKETS = 27, 2048  # ext/loadgen/histogram.h: the layout of HdrHistogram(1, 100 s, 3 digits)


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


class Point(NamedTuple):
    """One step of a percentile curve."""

    percentile: float  # 0 to below 100
    value: int  # ns at it
    upto: int  # how many values lie there or below


def curve(histogram: Histogram) -> Iterator[Point]:
    """The percentile curve in HdrHistogram's steps, up to the last but the maximum itself; nothing when empty."""
    total = histogram.total
    ranks, seen = [], 0
    for _, count in histogram.recorded():
        seen += count
        ranks.append(seen)
    at = 0
    for level in _levels():
        rank = max(1, int(level * total / 100 + 0.5))
        if total == 0 or rank >= total or level >= 100.0:
            return
        while at < len(ranks) and ranks[at] < rank:
            at += 1
        upto = ranks[at] if at < len(ranks) else total
        yield Point(level, percentile(histogram, level), upto)


def _deviation(histogram: Histogram) -> float:
    """Standard deviation in ns, each value as its slot's middle; what lies above 100 s as the maximum."""
    if histogram.total == 0:
        return 0.0
    mean = histogram.mean
    squares = histogram.over * (histogram.max - mean) ** 2
    for lowest, count in histogram.recorded():
        width = 1 << max(0, lowest.bit_length() - _SUB_BUCKETS.bit_length() + 1)
        squares += count * (lowest + width // 2 - mean) ** 2
    return math.sqrt(squares / histogram.total)


def distribution(histogram: Histogram) -> str:
    """The percentile distribution as HdrHistogram's plotter reads it (`.hgrm`), values in µs.

    A reader takes the lines of four numbers: value, percentile, count, 1 / (1 - percentile). The last line, the
    maximum, has no fourth, and a `#` begins what is not for it.
    """
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    for level, value, upto in curve(histogram):
        lines.append(f"{value / 1e3:12.3f} {level / 100:2.12f} {upto:10d} {1 / (1 - level / 100):14.2f}")
    most, mean = histogram.max / 1e3, histogram.mean / 1e3
    lines.append(f"{most:12.3f} {1.0:2.12f} {histogram.total:10d}")
    lines.append(f"#[Mean    = {mean:12.3f}, StdDeviation   = {_deviation(histogram) / 1e3:12.3f}]")
    lines.append(f"#[Max     = {most:12.3f}, Total count    = {histogram.total:12d}]")
    lines.append(f"#[Buckets = {_BUCKETS:12d}, SubBuckets     = {_SUB_BUCKETS:12d}]")
    return "\n".join(lines) + "\n"
