"""The ring: merging against copying the same rows and against those who merge tables; the price of one call.

The peers get what they like best: their own columns, with the sequence as one of them, built before the clock starts.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.peers.build import build_ring_loop
from benchmarks.sizes import of
from flux.limits import MAX_MAPPED_RINGS
from flux.model import CANDLE
from flux.ring import Arena, Ring

ROWS = of(5_000, 500_000)
CALLS = of(1_000, 100_000)
MERGED = ROWS + ROWS // 2


def candles(start: int, count: int) -> np.ndarray:
    rows = np.zeros(count, CANDLE)
    rows["ts_ms"] = np.arange(start, start + count)
    return rows


def columns(start: int, count: int) -> dict[str, np.ndarray]:
    """The same rows as a table that knows its sequences."""
    rows = candles(start, count)
    named = {name: np.ascontiguousarray(rows[name]) for name in CANDLE.names or ()}
    return {"sequence": np.arange(start, start + count, dtype=np.uint64)} | named


HALVES = ((1, ROWS), (1 + ROWS // 2, ROWS))
"""First sequence and rows of what is merged: two halves that overlap."""


def by_flux() -> Callable[[], int]:
    halves, ring = [(start, candles(start, count)) for start, count in HALVES], Ring(1 << 20)

    def merge() -> int:
        ring.reset(1)
        for start, rows in halves:
            ring.place(start, rows)
        return ring.contiguous

    return merge


def by_memcpy() -> Callable[[], int]:
    """Copied, and nothing merged. numpy copies records field by field, bytes by memcpy."""
    halves = [candles(start, count).view(np.uint8).reshape(count, 64) for start, count in HALVES]
    copies = np.ones((2 * ROWS, 64), np.uint8)

    def copy() -> int:
        copies[:ROWS], copies[ROWS:] = halves
        return MERGED

    return copy


def by_polars() -> Callable[[], int]:
    """Merged in order of sequence, then the first of each."""
    polars = pytest.importorskip("polars")
    first, second = (polars.DataFrame(columns(*half)) for half in HALVES)
    new = polars.col("sequence") != polars.col("sequence").shift(1, fill_value=0)
    return lambda: len(first.merge_sorted(second, key="sequence").filter(new))


def by_pandas() -> Callable[[], int]:
    pandas = pytest.importorskip("pandas")
    both = [pandas.DataFrame(columns(*half)) for half in HALVES]
    return lambda: len(pandas.concat(both, ignore_index=True).drop_duplicates("sequence"))


WAYS = {"flux": by_flux, "memcpy": by_memcpy, "polars": by_polars, "pandas": by_pandas}


@pytest.mark.gate
@pytest.mark.benchmark(group="ring: merging")
@pytest.mark.parametrize("way", WAYS)
def test_merging(benchmark: Any, way: str) -> None:
    """Two halves that overlap by a half, into one."""
    benchmark.extra_info["items"] = 2 * ROWS
    merged = benchmark(WAYS[way]())
    assert merged == MERGED


@pytest.mark.gate
@pytest.mark.benchmark(group="ring: one row in order inside C")
@pytest.mark.parametrize("way", ["mapped", "chunk"])
def test_one_row_in_order_inside_c(benchmark: Any, way: str, tmp_path: Path) -> None:
    """Both kinds of memory: neither may cost more for being chosen."""
    loop = build_ring_loop(tmp_path)
    if loop is None:
        pytest.skip("no C compiler")
    arena = Arena(mapped_rings=MAX_MAPPED_RINGS if way == "mapped" else 0)
    ring, row = Ring(4_096, arena=arena), candles(1, 1)
    assert ring.mapped == (way == "mapped")
    rings = np.array([ring._address], np.uint64)
    benchmark.extra_info["items"] = CALLS
    taken = benchmark(loop.place_in_order, rings.ctypes.data, 1, row.ctypes.data, CALLS)
    assert taken > 0, "a row was not placed"


@pytest.mark.informational
@pytest.mark.benchmark(group="ring: one row in order, a kernel call from Python")
def test_one_row_in_order_from_python(benchmark: Any) -> None:
    ring, row = Ring(4096), candles(1, 1)
    benchmark.extra_info["items"] = CALLS

    def place() -> None:
        for sequence in range(ring.top + 1, ring.top + 1 + CALLS):
            ring._kernel.place(sequence, row)

    benchmark(place)


@pytest.mark.informational
@pytest.mark.benchmark(group="ring: every second row missing, then filled")
def test_every_second_row_missing_then_filled(benchmark: Any) -> None:
    """The worst order: as many gaps as a ring can have."""
    rows, capacity = candles(1, 8192), 8192
    ring = Ring(capacity)
    benchmark.extra_info["items"] = capacity

    def odd_then_even() -> None:
        ring.reset(1)
        for parity in (1, 0):
            for at in range(parity, capacity, 2):
                ring._kernel.place(at + 1, rows[at])

    benchmark(odd_then_even)
    assert ring.contiguous == capacity
