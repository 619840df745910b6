"""The ring's door: types, copies, ranges, and a reader in another thread."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading

import numpy as np
import pytest

from flux.kernels import ring as _kernel
from flux.limits import MAPPED_RING_ROWS, MAX_MAPPED_RINGS, MAX_STREAMS
from flux.model import CANDLE, MAX_SEQUENCE, TRADE
from flux.ring import FREE, Arena, Placed, Ring


def candles(start: int, count: int) -> np.ndarray:
    rows = np.zeros(count, CANDLE)
    rows["ts_ms"] = np.arange(start, start + count)
    return rows


def test_in_order_overlap_and_conflict() -> None:
    ring = Ring(16)
    assert ring.place(1, candles(1, 5)) == Placed(5, 0, 0, 0, 0)
    assert ring.place(4, candles(4, 4)) == Placed(2, 2, 0, 0, 0)
    assert ring.place(7, candles(99, 1)) == Placed(0, 0, 1, 0, 0)
    np.testing.assert_array_equal(ring.window(1, 7), candles(1, 7))
    assert (ring.first, ring.contiguous, ring.top, ring.keep, ring.capacity) == (1, 7, 7, FREE, 16)
    assert (ring.duplicates, ring.conflicts, ring.beyond, ring.stale) == (2, 1, 0, 0)


def test_gap_is_listed_and_filled() -> None:
    ring = Ring(64, first=500)
    ring.place(500, candles(500, 2))
    ring.place(505, candles(505, 2))
    ring.place(510, candles(510, 1))
    assert ring.gaps().tolist() == [[502, 504], [507, 509]]
    assert ring.gaps(limit=1).tolist() == [[502, 504]]
    assert ring.gaps().dtype == np.uint64
    ring.place(502, candles(502, 8))
    assert (ring.contiguous, ring.gaps().tolist()) == (510, [])
    np.testing.assert_array_equal(ring.window(500, 510), candles(500, 11))


def test_window_is_cut_at_the_mark_and_empty_where_nothing_is() -> None:
    ring = Ring(16)
    ring.place(1, candles(1, 40))
    assert ring.first == 25
    assert len(ring.window(24, 40)) == 0
    assert len(ring.window(41, 50)) == 0
    assert len(ring.window(30, 29)) == 0
    np.testing.assert_array_equal(ring.window(30, MAX_SEQUENCE), candles(30, 11))


def test_window_is_the_callers_own() -> None:
    ring = Ring(16)
    ring.place(1, candles(1, 16))
    kept = ring.window(1, 16)
    ring.place(17, candles(17, 16))
    np.testing.assert_array_equal(kept, candles(1, 16))
    assert kept.flags.writeable


def test_skip_gives_up_a_hole_and_keeps_what_came_early() -> None:
    ring = Ring(16)
    ring.place(1, candles(1, 2))
    ring.place(6, candles(6, 3))
    ring.skip(6)
    assert (ring.first, ring.contiguous, ring.top) == (6, 8, 8)
    np.testing.assert_array_equal(ring.window(6, 8), candles(6, 3))
    ring.skip(3)
    assert ring.first == 6


def test_reset_begins_anew_and_keeps_the_counters() -> None:
    ring = Ring(16)
    ring.place(1, candles(1, 3))
    ring.place(1, candles(1, 3))
    ring.place(9, candles(9, 1))
    ring.keep = 2
    ring.reset(1_000)
    assert (ring.first, ring.contiguous, ring.top, ring.keep, ring.duplicates) == (1_000, 999, 999, 999, 3)
    assert ring.gaps().tolist() == []
    ring.place(1_002, candles(0, 1))
    assert ring.gaps().tolist() == [[1_000, 1_001]]


@pytest.mark.parametrize("capacity", [0, 3, -16, 2**40])
def test_capacity_is_checked(capacity: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Ring(capacity)


def test_rows_are_checked() -> None:
    ring = Ring(16)
    for rows in (np.zeros(3, TRADE), candles(1, 8)[::2], candles(1, 4).reshape(2, 2), np.zeros(64, np.uint8)):
        with pytest.raises(ValueError, match="rows are"):
            ring.place(1, rows)
    for start in (-1, 2**64):
        with pytest.raises(ValueError, match="sequence"):
            ring.place(start, candles(1, 1))
    for first in (0, 2**63):
        with pytest.raises(ValueError, match="sequence"):
            ring.reset(first)
        with pytest.raises(ValueError, match="sequence"):
            ring.skip(first)
    with pytest.raises(ValueError, match="keep"):
        ring.keep = -1
    with pytest.raises(ValueError, match="no bytes"):
        Ring(16, dtype=object)


@pytest.mark.parametrize("mapped_rings", [MAX_MAPPED_RINGS, 0], ids=["mapped", "chunk"])
class TestMemory:
    """A ring of either kind of memory gives the same answers."""

    @pytest.mark.parametrize("dtype", [CANDLE, TRADE])
    @pytest.mark.parametrize("capacity", [1, 16, MAPPED_RING_ROWS])
    def test_rows_are_aligned_to_cache_lines(
        self, capacity: int, dtype: np.dtype[np.void], mapped_rings: int
    ) -> None:
        """The first field of the C struct is the address of the rows."""
        arena = Arena(mapped_rings=mapped_rings)
        for ring in [Ring(capacity, dtype, arena=arena) for _ in range(5)]:
            assert ring.mapped is (capacity == MAPPED_RING_ROWS and mapped_rings > 0)
            assert ctypes.c_uint64.from_address(ring._address).value % 64 == 0

    def test_long_rings_merge_alike(self, mapped_rings: int) -> None:
        """Overlapping batches in a random order, four times round: the windows are the rows that were placed."""
        ring = Ring(MAPPED_RING_ROWS, TRADE, arena=Arena(mapped_rings=mapped_rings))
        rows = np.zeros(5 * ring.capacity, TRADE)
        rows["trade_id"] = np.arange(1, len(rows) + 1)
        rng = np.random.default_rng(3)
        for block in range(0, 4 * ring.capacity, 1_000):
            for part in rng.permutation(10):
                at = block + 100 * int(part)
                ring.place(at + 1, rows[at : at + 150])
            window = ring.window(ring.first, MAX_SEQUENCE)
            assert window["trade_id"].tolist() == list(range(ring.first, ring.contiguous + 1))
        assert ring.contiguous == ring.top > 4 * ring.capacity
        assert (ring.conflicts, ring.beyond, ring.stale) == (0, 0, 0)

    def test_a_reader_never_sees_a_torn_or_foreign_row(self, mapped_rings: int) -> None:
        run_round(Ring(8_192, arena=Arena(mapped_rings=mapped_rings)))


def run_round(ring: Ring) -> None:
    """One thread runs the ring round for ever; what another copies is what belongs to the sequence.

    Both copy without the GIL, and the reader begins at the oldest row, so that the writer overtakes many
    copies.
    """
    # A batch that does not divide the capacity: written over the end, and copied over it.
    capacity, batch, cycle, reads = ring.capacity, 3_000, 3_000 * 22, 2_000
    rows = candles(0, cycle)
    enough = threading.Event()

    def write() -> None:
        start = 0
        while not enough.is_set():
            at = start % cycle
            ring.place(start + 1, rows[at : at + batch])
            start += batch

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    writer = threading.Thread(target=write)
    writer.start()
    whole = 0
    try:
        for _ in range(reads):
            first = ring.first
            copy = ring.window(first, first + capacity)
            whole += len(copy) > 0
            expected = (np.arange(first, first + len(copy)) - 1) % cycle
            np.testing.assert_array_equal(copy["ts_ms"], expected)
    finally:
        enough.set()
        writer.join()
        sys.setswitchinterval(interval)
    assert whole > 0


REFUSED = """
import resource, sys
import numpy as np
from flux.limits import MAPPED_RING_ROWS
from flux.model import CANDLE
from flux.ring import Arena, Ring

def limit(name, value):
    resource.setrlimit(name, (value, resource.getrlimit(name)[1]))

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
if sys.argv[1] == "address-space":  # room for the rows once, not twice
    limit(resource.RLIMIT_AS, used + 24 * 2**20)
elif sys.argv[1] == "file-size":
    limit(resource.RLIMIT_FSIZE, 4_096)
else:
    limit(resource.RLIMIT_NOFILE, 3)
ring = Ring(1 << 18)
assert not ring.mapped
rows = np.zeros(1_000, CANDLE)
for start in range(1, 300_000, 1_000):
    rows["ts_ms"] = np.arange(start, start + 1_000)
    assert ring.place(start, rows).placed == 1_000
assert ring.window(ring.contiguous, ring.contiguous)["ts_ms"].tolist() == [ring.contiguous]
try:
    Ring(1 << 24)
except MemoryError:
    assert sys.argv[1] == "address-space"
"""


@pytest.mark.parametrize("what", ["address-space", "file-size", "descriptors"])
def test_what_the_system_will_not_map_is_kept_in_a_chunk(what: str) -> None:
    subprocess.run([sys.executable, "-c", REFUSED, what], check=True, timeout=60)


def test_mapped_rings_are_counted_over_the_whole_process() -> None:
    one, other = Arena(mapped_rings=_kernel.mapped() + 2), Arena(mapped_rings=_kernel.mapped() + 2)
    first = [Ring(MAPPED_RING_ROWS, arena=arena) for arena in (one, other, one)]
    assert [ring.mapped for ring in first] == [True, True, False]
    del first
    assert Ring(MAPPED_RING_ROWS, arena=other).mapped
    assert (one.rings, one.size) == (0, 0)


def resident() -> int:
    """Bytes of memory that are this process's own."""
    with open("/proc/self/smaps_rollup") as told:
        return 1_024 * int(next(line for line in told if line.startswith("Pss:")).split()[1])


def test_a_hundred_thousand_streams_in_98_mib() -> None:
    """In a process of its own: the threads of other tests take and give back memory meanwhile."""
    subprocess.run([sys.executable, "-c", f"import {__name__} as test; test.measure_arena()"], check=True)


def measure_arena() -> None:
    """All rows touched: what the arena says it takes is what the system gives, and takes back."""
    arena, rows = Arena(), candles(1, 16)
    before = resident()
    rings = [Ring(16, arena=arena) for _ in range(MAX_STREAMS)]
    objects = resident() - before
    for ring in rings:
        ring.place(1, rows)
    taken = resident() - before - objects
    assert arena.size <= 100 * 2**20  # whole chunks
    assert 97.5 * 2**20 <= taken <= 99.5 * 2**20
    print(
        f"\n{MAX_STREAMS} rings of 16 rows: {arena.size / 2**20:.1f} MiB of rows ({taken / 2**20:.1f} resident), "
        f"{objects / 2**20:.1f} MiB of objects"
    )
    ring.reset(1)
    del rings, ring
    assert (arena.rings, arena.size) == (0, 0)
    assert resident() - before < 60 * 2**20
