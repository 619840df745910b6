"""The ring: merging against copying the same rows and against those who merge tables; the price of one call.

`pytest -s benchmarks/bench_ring.py` shows the figures. The peers get what they like best: their own columns, with the
sequence as one of them, built before the clock starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import ratios
from benchmarks.peers.build import build_ring_loop
from flux.limits import MAX_MAPPED_RINGS
from flux.model import CANDLE
from flux.ring import Arena, Ring

ROWS = 500_000


def best_ns(work: Callable[[], object], rounds: int = 7) -> int:
    """The shortest of some rounds: what the work costs when nobody else has the machine."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        work()
        taken.append(time.perf_counter_ns() - start)
    return min(taken)


def candles(start: int, count: int) -> np.ndarray:
    rows = np.zeros(count, CANDLE)
    rows["ts_ms"] = np.arange(start, start + count)
    return rows


@pytest.mark.gate
def test_merging_two_halves_that_overlap_against_copying_them() -> None:
    """Table: at most 1.5 times the copy; the gate allows twice the table's figure."""
    one, two = candles(1, ROWS), candles(1 + ROWS // 2, ROWS)
    copies = np.ones((2 * ROWS, 64), np.uint8)  # numpy copies records field by field, bytes by memcpy
    ring = Ring(1 << 20)

    def copy() -> None:
        copies[:ROWS] = one.view(np.uint8).reshape(ROWS, 64)
        copies[ROWS:] = two.view(np.uint8).reshape(ROWS, 64)

    def merge() -> None:
        ring.reset(1)
        ring.place(1, one)
        ring.place(1 + ROWS // 2, two)

    merge()
    pairs = [(best_ns(merge, 1), best_ns(copy, 1)) for _ in range(7)]
    ratio = min(merged for merged, _ in pairs) / min(copied for _, copied in pairs)
    assert ring.contiguous == ROWS + ROWS // 2
    ratios.at_most(f"ring: merging {2 * ROWS:,} rows, half of them repeats / memcpy", ratio, 1.5)


def columns(start: int, count: int) -> dict[str, np.ndarray]:
    """The same rows as a table that knows its sequences."""
    rows = candles(start, count)
    named = {name: np.ascontiguousarray(rows[name]) for name in CANDLE.names or ()}
    return {"sequence": np.arange(start, start + count, dtype=np.uint64)} | named


def by_polars(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> Callable[[], Any]:
    """Merged in order of sequence, then the first of each."""
    polars = pytest.importorskip("polars")
    first, second = polars.DataFrame(one), polars.DataFrame(two)
    new = polars.col("sequence") != polars.col("sequence").shift(1, fill_value=0)
    return lambda: first.merge_sorted(second, key="sequence").filter(new)


def by_pandas(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> Callable[[], Any]:
    pandas = pytest.importorskip("pandas")
    first, second = pandas.DataFrame(one), pandas.DataFrame(two)
    return lambda: pandas.concat([first, second], ignore_index=True).drop_duplicates("sequence")


@pytest.mark.gate
@pytest.mark.parametrize("peer", [by_polars, by_pandas])
def test_merging_against_those_who_merge_tables(peer: Callable[..., Callable[[], Any]]) -> None:
    """Table: at least 3 times polars merge_sorted + filter and pandas drop_duplicates; the gate asks for half."""
    one, two = candles(1, ROWS), candles(1 + ROWS // 2, ROWS)
    theirs = peer(columns(1, ROWS), columns(1 + ROWS // 2, ROWS))
    ring = Ring(1 << 20)

    def ours() -> None:
        ring.reset(1)
        ring.place(1, one)
        ring.place(1 + ROWS // 2, two)

    placed = len(theirs())
    assert placed == ROWS + ROWS // 2
    ours()
    pairs = [(best_ns(theirs, 1), best_ns(ours, 1)) for _ in range(5)]
    ratio = min(their for their, _ in pairs) / min(our for _, our in pairs)
    ratios.at_least(f"ring: merging {2 * ROWS:,} rows, {peer.__name__.removeprefix('by_')} / ours", ratio, 3)


@pytest.mark.gate
@pytest.mark.parametrize("mapped_rings", [MAX_MAPPED_RINGS, 0], ids=["mapped", "chunk"])
def test_one_row_in_order_inside_c(mapped_rings: int, tmp_path: Path) -> None:
    """Table: at most 60 ns; the gate allows twice that."""
    loop = build_ring_loop(tmp_path)
    if loop is None:
        pytest.skip("no C compiler")
    # Both kinds of memory: neither may cost more for being chosen.
    ring, row, calls = Ring(4_096, arena=Arena(mapped_rings=mapped_rings)), candles(1, 1), 100_000
    rings = np.array([ring._address], np.uint64)
    taken = min(loop.place_in_order(rings.ctypes.data, 1, row.ctypes.data, calls) for _ in range(7))
    assert taken > 0, "a row was not placed"
    ratios.at_most(
        f"ring: one row in order inside C ({'mapped' if ring.mapped else 'chunk'})", taken / calls, 60, "ns"
    )


@pytest.mark.informational
def test_one_row_in_order_from_python() -> None:
    ring, row, calls = Ring(4096), candles(1, 1), 20_000

    def place() -> None:
        for sequence in range(ring.top + 1, ring.top + 1 + calls):
            ring._kernel.place(sequence, row)

    print(f"\nring place, one row in order, kernel call from Python: {best_ns(place) / calls:.0f} ns")


@pytest.mark.informational
def test_every_second_row_missing_then_filled() -> None:
    """The worst order: as many gaps as a ring can have."""
    rows, capacity = candles(1, 8192), 8192
    ring = Ring(capacity)

    def odd_then_even() -> None:
        ring.reset(1)
        for parity in (1, 0):
            for at in range(parity, capacity, 2):
                ring._kernel.place(at + 1, rows[at])

    print(f"\nring place, every second row first: {best_ns(odd_then_even, 3) / capacity:.0f} ns a row")
    assert ring.contiguous == capacity
