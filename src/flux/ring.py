"""The ring's door: the last rows of one stream, addressed by sequence.

Rows arrive in any order, twice or overlapping; what is contiguous from the oldest kept row on can be read,
what is missing below the newest is a gap. The rules are drawn in `ext/ring.pyx`, the marks in `ext/ring.h`, the
memory in `ext/arena.h`.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from flux.kernels import ring as _kernel
from flux.limits import MAPPED_RING_ROWS, MAX_GAPS_LISTED, MAX_MAPPED_RINGS, MAX_RING_BYTES
from flux.model import CANDLE, MAX_SEQUENCE

Rows = npt.NDArray[np.void]

FREE: Final[int] = _kernel.FREE
"""`Ring.keep` of a ring that may evict every row that is contiguous."""


class Placed(NamedTuple):
    """What became of the rows of one `Ring.place`; the five add up to their number."""

    placed: int
    duplicates: int
    conflicts: int
    beyond: int
    stale: int


class Arena:
    """Memory for many rings: 16 rows of a candle take 1,032 bytes, so 100,000 such rings 98 MiB.

    A ring of `limits.MAPPED_RING_ROWS` or more is mapped twice in a row, so that any window of it is one piece;
    the others, those beyond `mapped_rings` in the whole process, and those that the system will not map, share
    chunks and are copied in two pieces where they wrap: as fast (within the noise of bench_ring), and alike in
    all else. Each ring keeps its arena alive; memory goes back to the system with the last ring in it.
    """

    __slots__ = ("_kernel",)

    def __init__(self, *, mapped_rings: int = MAX_MAPPED_RINGS) -> None:
        self._kernel = _kernel.Arena(MAPPED_RING_ROWS, mapped_rings)

    @property
    def rings(self) -> int:
        """How many rings have their rows here."""
        return self._kernel.rings

    @property
    def size(self) -> int:
        """Bytes taken from the system for rows and presence; pages never touched are among them."""
        return self._kernel.size


class Ring:
    """`capacity` rows of `dtype`, the oldest with sequence `first`; empty at the beginning.

    One thread places, resets and skips; any thread may read `window` and the marks, and set `keep`. The ring's
    rows lie in `arena`, or in one of its own; nothing it returns refers to them.
    """

    __slots__ = ("__weakref__", "_kernel", "dtype")

    def __init__(
        self,
        capacity: int,
        dtype: npt.DTypeLike = CANDLE,
        first: int = 1,
        *,
        arena: Arena | None = None,
    ) -> None:
        """Raises `ValueError` unless `capacity` is a power of two of at most `limits.MAX_RING_BYTES`, and
        `MemoryError` when there is none."""
        self.dtype = np.dtype(dtype)
        if self.dtype.hasobject or self.dtype.itemsize == 0:
            raise ValueError(f"rows of {self.dtype} have no bytes of their own")
        if capacity < 1 or capacity & (capacity - 1) or capacity * self.dtype.itemsize > MAX_RING_BYTES:
            raise ValueError(
                f"capacity {capacity} is not a power of two of at most {MAX_RING_BYTES} bytes of rows"
            )
        home = Arena() if arena is None else arena
        self._kernel = _kernel.Ring(capacity, self.dtype.itemsize, home._kernel)
        if first != 1:
            self.reset(first)

    def place(self, start: int, rows: npt.NDArray[Any]) -> Placed:
        """Place `rows` (one dimension, this ring's dtype, contiguous) with sequences `start`, `start + 1` ...

        The first bytes seen for a sequence stay. Copies the rows in; keeps no reference. Raises `ValueError`
        for rows of another dtype or layout, or a `start` that is no uint64 (0 is stale, above 2^63-1 beyond).
        """
        if rows.dtype != self.dtype or rows.ndim != 1 or not rows.flags.c_contiguous:
            raise ValueError(
                f"rows are {rows.dtype} of shape {rows.shape}, the ring's {self.dtype}, contiguous"
            )
        if not 0 <= start < 2**64:
            raise ValueError(f"sequence {start} is not an unsigned 64-bit integer")
        return Placed(*self._kernel.place(start, rows))

    def window(self, first: int, last: int) -> Rows:
        """Rows `first` to `last`, both inclusive, as a copy of their own, cut at the contiguous mark.

        Empty when `first` is not here: not yet, or no longer (`first < ring.first`: a server's journal has it), even if
        it was evicted while it was being copied.
        """
        count = min(last, self._kernel.contiguous) - first + 1
        if first < self._kernel.first or count <= 0:
            return np.empty(0, self.dtype)
        out: Rows = np.empty(min(count, self._kernel.capacity), self.dtype)
        return out[: self._kernel.copy(first, out)]

    def gaps(self, limit: int = MAX_GAPS_LISTED) -> npt.NDArray[np.uint64]:
        """The missing runs between `contiguous` and `top`, oldest first: (first, last), at most `limit`."""
        out = np.empty((limit, 2), np.uint64)
        return out[: self._kernel.gaps(out)].copy()

    def reset(self, first: int = 1) -> None:
        """Forget all rows and begin at `first`.

        The counters stay; a `keep` that is not FREE becomes `first - 1`.
        """
        self._kernel.reset(_checked(first))

    def skip(self, first: int) -> None:
        """Give up every sequence below `first`, holes included; what is here at and above it stays.

        For a hole that will not be filled. A `first` at or below the oldest kept row changes nothing.
        """
        self._kernel.skip(_checked(first))

    @property
    def capacity(self) -> int:
        """Rows."""
        return self._kernel.capacity

    @property
    def mapped(self) -> bool:
        """Whether the rows are mapped twice in a row, so that any window of them is one piece."""
        return self._kernel.mapped

    @property
    def first(self) -> int:
        """The oldest sequence kept."""
        return self._kernel.first

    @property
    def contiguous(self) -> int:
        """Every sequence from `first` to this one is here; `first - 1` when none is."""
        return self._kernel.contiguous

    @property
    def top(self) -> int:
        """The highest sequence here; `contiguous` when none came early."""
        return self._kernel.top

    @property
    def keep(self) -> int:
        """Sequences above this may not be evicted: what is committed on a server, delivered on a client."""
        return self._kernel.keep

    @keep.setter
    def keep(self, value: int) -> None:
        if not 0 <= value <= FREE:
            raise ValueError(f"keep {value} is not an unsigned 64-bit integer")
        self._kernel.keep = value

    @property
    def duplicates(self) -> int:
        """Rows that were here already, with the same bytes, since the ring was made."""
        return self._kernel.duplicates

    @property
    def conflicts(self) -> int:
        """Rows that were here already, with other bytes."""
        return self._kernel.conflicts

    @property
    def beyond(self) -> int:
        """Rows past what could be kept."""
        return self._kernel.beyond

    @property
    def stale(self) -> int:
        """Rows below `first`."""
        return self._kernel.stale

    @property
    def _address(self) -> int:
        """Address of the C `flux_ring`, for the pump, which must keep this object alive."""
        return self._kernel.address()


def _checked(first: int) -> int:
    if not 1 <= first <= MAX_SEQUENCE:
        raise ValueError(f"sequence {first} is not in 1 to 2^63-1")
    return first
