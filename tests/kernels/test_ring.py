"""The ring kernel against its oracle: any order, overlaps, repeats, conflicts, wraps, full, reset, skip.

The same for both kinds of memory: rows mapped twice in a row, and rows in a chunk.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.kernels import ring as kernel
from tests.oracle import ring as oracle

MAX_SEQUENCE = oracle.MAX_SEQUENCE
FIRSTS = st.one_of(st.just(1), st.integers(1, 300), st.integers(MAX_SEQUENCE - 200, MAX_SEQUENCE))
MAPPABLE = [(64, 64), (128, 64), (256, 64), (256, 48), (512, 40), (4096, 1)]
"""Capacities and row sizes of few rows that are whole pages of 4 KiB all the same."""

pytestmark = pytest.mark.skipif(
    mmap.PAGESIZE != 4096, reason="the small mapped rings here are pages of 4 KiB"
)


def ring_of(capacity: int, size: int, *, mapped: bool) -> kernel.Ring:
    made = kernel.Ring(capacity, size, kernel.Arena(1, 2**32 - 1 if mapped else 0))
    assert made.mapped is mapped
    return made


def row_bytes(sequence: int, size: int, version: int) -> bytes:
    """Bytes that differ for neighbours, and in the last byte alone for versions."""
    body = (sequence * 2654435761 % 2**64).to_bytes(8, "little") * 9
    return body[: size - 1] + bytes([version])


class Pair:
    """The same operations on kernel and oracle; every answer and every mark is compared."""

    def __init__(self, capacity: int, size: int, first: int, *, mapped: bool = False) -> None:
        self.size = size
        self.kernel = ring_of(capacity, size, mapped=mapped)
        self.oracle = oracle.Ring(capacity)
        self.reset(first)

    def place(self, start: int, rows: list[bytes]) -> None:
        assert self.kernel.place(start, b"".join(rows)) == self.oracle.place(start, rows)
        self.compare()

    def reset(self, first: int) -> None:
        self.kernel.reset(first)
        self.oracle.reset(first)
        self.compare()

    def skip(self, first: int) -> None:
        self.kernel.skip(first)
        self.oracle.skip(first)
        self.compare()

    def keep(self, keep: int) -> None:
        self.kernel.keep = self.oracle.keep = keep

    def copy(self, first: int, count: int) -> list[bytes]:
        out = bytearray(count * self.size)
        n = self.kernel.copy(first, out)
        return [bytes(out[i * self.size : (i + 1) * self.size]) for i in range(n)]

    def compare(self) -> None:
        for mark in ("first", "contiguous", "top", "keep", "duplicates", "conflicts", "beyond", "stale"):
            assert getattr(self.kernel, mark) == getattr(self.oracle, mark), mark
        first, capacity = self.oracle.first, self.oracle.capacity
        assert self.copy(first, capacity) == self.oracle.window(
            first, MAX_SEQUENCE if self.oracle.rows else 0
        )
        pairs = np.zeros((capacity + 1, 2), np.uint64)
        count = self.kernel.gaps(pairs)
        assert [tuple(map(int, pair)) for pair in pairs[:count]] == self.oracle.gaps()


Program = tuple[int, int, int, list[tuple[str, int, int, list[int]]]]


@st.composite
def programs(draw: st.DrawFn, *, mapped: bool) -> Program:
    """(capacity, row size, first, operations); positions count from the contiguous mark of the moment."""
    capacity, size = draw(
        st.sampled_from(MAPPABLE)
        if mapped
        else st.tuples(st.integers(0, 8).map(lambda power: 2**power), st.sampled_from([1, 7, 40, 64]))
    )
    step = st.one_of(st.just(1), st.integers(-capacity - 3, 2 * capacity + 3))
    versions = st.one_of(st.just([0]), st.lists(st.sampled_from([0, 0, 0, 1]), min_size=1, max_size=5))
    count = st.one_of(st.integers(0, 3), st.integers(0, 3 * min(capacity, 256) + 2))
    names = st.sampled_from(["place"] * 12 + ["keep", "free", "reset", "skip"])
    return capacity, size, draw(FIRSTS), draw(st.lists(st.tuples(names, step, count, versions), max_size=30))


def run(program: Program, *, mapped: bool) -> None:
    capacity, size, first, operations = program
    pair = Pair(capacity, size, first, mapped=mapped)
    for name, step, count, versions in operations:
        at = max(0, pair.oracle.contiguous + step)
        if name == "place":
            rows = [row_bytes(at + i, size, versions[i % len(versions)]) for i in range(count)]
            pair.place(at, rows)
        elif name == "keep":
            pair.keep(at)
        elif name == "free":
            pair.keep(oracle.FREE)
        elif name == "reset":
            pair.reset(min(max(1, at), MAX_SEQUENCE))
        else:
            pair.skip(min(max(1, at), MAX_SEQUENCE))


@settings(max_examples=600, deadline=None)
@given(programs(mapped=False))
def test_same_as_oracle_in_a_chunk(program: Program) -> None:
    run(program, mapped=False)


@settings(max_examples=200, deadline=None)
@given(programs(mapped=True))
def test_same_as_oracle_mapped_twice(program: Program) -> None:
    run(program, mapped=True)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.integers(0, 2**31), st.floats(0, 0.5), st.booleans())
def test_shuffled_and_repeated_batches_end_as_the_whole(
    total: int, seed: int, repeat: float, mapped: bool
) -> None:
    """Whatever the order of batches, once all have come the ring holds all, in order, and no gap."""
    rng = np.random.default_rng(seed)
    cuts = np.unique(rng.integers(0, total, size=rng.integers(0, 20)))
    batches = np.split(np.arange(1, total + 1), cuts)
    batches += [batch for batch in batches if rng.random() < repeat]
    rng.shuffle(batches := [batch for batch in batches if len(batch)])
    pair = Pair(512, 40, 1, mapped=mapped)
    for batch in batches:
        pair.place(int(batch[0]), [row_bytes(int(s), 40, 0) for s in batch])
    assert (pair.kernel.contiguous, pair.kernel.top) == (total, total)
    assert pair.kernel.duplicates == sum(map(len, batches)) - total


def test_end_of_sequences() -> None:
    pair = Pair(16, 8, MAX_SEQUENCE - 3)
    pair.place(MAX_SEQUENCE - 3, [row_bytes(i, 8, 0) for i in range(10)])
    assert (pair.kernel.contiguous, pair.kernel.beyond) == (MAX_SEQUENCE, 6)
    pair.place(MAX_SEQUENCE + 1, [row_bytes(1, 8, 0)])
    assert pair.kernel.place(2**64 - 1, bytes(24)) == (0, 0, 0, 3, 0)


def test_rows_that_nobody_kept_are_not_evicted() -> None:
    pair = Pair(16, 8, 1)
    pair.keep(0)
    pair.place(1, [row_bytes(i, 8, 0) for i in range(20)])
    assert (pair.kernel.contiguous, pair.kernel.beyond) == (16, 4)
    pair.keep(10)
    pair.place(17, [row_bytes(i, 8, 0) for i in range(20)])
    assert (pair.kernel.first, pair.kernel.contiguous, pair.kernel.beyond) == (11, 26, 14)


@pytest.mark.parametrize("mapped", [True, False], ids=["mapped", "chunk"])
def test_a_window_over_the_end(mapped: bool) -> None:
    """Every place of the wrap, every length: what was placed is what is copied, and a repeat is known as one."""
    capacity = 64
    pair = Pair(capacity, 64, 1, mapped=mapped)
    for first in range(1, capacity + 2):
        rows = [row_bytes(first + i, 64, 0) for i in range(capacity)]
        pair.reset(first)
        pair.place(first, rows)
        pair.place(first, rows[:-1] + rows[:1])
        for count in (1, 2, capacity // 2, capacity):
            assert pair.copy(first, count) == rows[:count]
    assert (pair.kernel.duplicates, pair.kernel.conflicts) == (65 * 63, 65)


def clean_ring(arena: kernel.Arena, capacity: int, size: int) -> kernel.Ring:
    """A new ring, whose memory says nothing of who had it before; it is left with all of its bits set but one."""
    made = kernel.Ring(capacity, size, arena)
    assert made.gaps(np.zeros((4, 2), np.uint64)) == 0
    made.place(2, bytes(size) * (min(capacity, 256) - 1))
    assert (made.contiguous, made.top) == (0, min(capacity, 256))
    return made


class TestArena:
    """Chunks and mappings: nothing is shared by two rings, and all goes back."""

    @pytest.mark.parametrize("make", [lambda n: (16, 64), lambda n: MAPPABLE[n % 6]], ids=["one", "many"])
    @pytest.mark.parametrize("limit", [0, 5, 1_000_000])
    def test_rings_of_one_arena_do_not_meet(self, make: Callable[[int], tuple[int, int]], limit: int) -> None:
        before = kernel.mapped()
        arena = kernel.Arena(64, before + limit)
        rings = [kernel.Ring(*make(n), arena) for n in range(200)]
        assert arena.rings == 200
        for n, ring in enumerate(rings):
            ring.place(2, bytes([n]) * (ring.capacity - 1) * make(n)[1])
        for n, ring in enumerate(rings):
            assert ring.gaps(np.zeros((4, 2), np.uint64)) == 1
            ring.place(1, bytes([n]) * make(n)[1])
        for n, ring in enumerate(rings):
            out = bytearray(ring.capacity * make(n)[1])
            assert ring.copy(1, out) == ring.contiguous == ring.capacity
            assert out == bytes([n]) * len(out)
        assert kernel.mapped() - before == sum(ring.mapped for ring in rings) <= limit
        rings.clear()
        del ring
        assert (arena.rings, arena.size, kernel.mapped()) == (0, 0, before)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=300), st.integers(0, 40))
    def test_made_and_freed_in_any_order(self, steps: list[tuple[bool, int]], limit: int) -> None:
        """A slot that comes back is clean, whoever had it; the arena's size is that of what is left."""
        arena = kernel.Arena(64, kernel.mapped() + limit)
        rings: list[kernel.Ring] = []
        for free, number in steps:
            if free and rings:
                rings.pop(number % len(rings))
                continue
            rings.append(clean_ring(arena, *[(64, 64), (4_096, 64), (2, 8), (32_768, 64)][number % 4]))
        assert arena.rings == len(rings)
        assert arena.size >= sum(ring.capacity for ring in rings) * 8
        rings.clear()
        assert arena.size == 0

    def test_a_ring_keeps_its_arena(self) -> None:
        ring = kernel.Ring(16, 64, kernel.Arena(4096, 0))
        assert ring.place(1, bytes(64 * 16)) == (16, 0, 0, 0, 0)

    def test_short_rings_take_what_is_said(self) -> None:
        """98 MiB for 100,000 rings of 16 candles, had a thousand of them their share of it."""
        arena = kernel.Arena(4096, 0)
        rings = [kernel.Ring(16, 64, arena) for _ in range(1_016 * 3)]
        assert arena.size / len(rings) <= 1_033


def test_memory_is_refused_not_crashed() -> None:
    arena = kernel.Arena(4096, 8192)
    for capacity, size in ((3, 64), (0, 64), (16, 0), (2**62, 64), (2**50, 64)):
        with pytest.raises(MemoryError):
            kernel.Ring(capacity, size, arena)
    assert (arena.rings, arena.size) == (0, 0)
