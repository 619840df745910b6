# cython: auto_pickle=False, autotestdict=False
"""The ring for Python: one object owns one `flux_ring` (ext/ring.h); its rows lie in an arena (ext/arena.h).

Accept, repeat and gap, as flux_ring_place decides them for the row of sequence s:

    s < first                              stale       evicted long ago
    s here, same bytes                     duplicate   dropped
    s here, other bytes                    conflict    the first is kept
    s > min(keep, contiguous) + capacity   beyond      placing it would evict what must stay
    else                                   placed      s = contiguous + 1 moves the mark, over early rows too

Doors check types; here a length that does not fit is an assertion of what the door has promised.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t, uintptr_t


cdef extern from "arena.h" nogil:
    uint64_t FLUX_RING_FREE

    ctypedef struct flux_ring:
        uint64_t capacity
        uint64_t reach
        uint32_t row_size
        uint64_t first
        uint64_t contiguous
        uint64_t top
        uint64_t keep
        uint64_t duplicates
        uint64_t conflicts
        uint64_t beyond
        uint64_t stale

    ctypedef struct flux_placed:
        uint32_t placed
        uint32_t duplicates
        uint32_t conflicts
        uint32_t beyond
        uint32_t stale

    ctypedef struct flux_arena:
        uint64_t rings
        uint64_t size

    void flux_arena_init(flux_arena *arena, uint64_t map_rows, uint32_t map_limit, uint32_t *mapped) noexcept
    void flux_arena_free(flux_arena *arena) noexcept
    int flux_arena_ring(flux_arena *arena, flux_ring *ring, uint64_t capacity, uint32_t row_size) noexcept
    void flux_arena_release(flux_arena *arena, flux_ring *ring) noexcept
    void flux_ring_reset(flux_ring *ring, uint64_t first) noexcept
    void flux_ring_skip(flux_ring *ring, uint64_t first) noexcept
    void flux_ring_place(flux_ring *ring, uint64_t start, const void *rows, uint32_t n, flux_placed *out) noexcept
    uint64_t flux_ring_copy(const flux_ring *ring, uint64_t start, uint64_t n, void *out) noexcept
    uint32_t flux_ring_gaps(const flux_ring *ring, uint64_t *out_pairs, uint32_t max) noexcept
    uint64_t flux_ring_load(const uint64_t *mark) noexcept
    void flux_ring_store(uint64_t *mark, uint64_t value) noexcept


FREE = int(FLUX_RING_FREE)


cdef uint32_t mapped_rings = 0  # of this process


def mapped():
    """Rings of this process that are mapped twice."""
    return mapped_rings


cdef class Arena:
    """Memory for rings, each of which keeps its arena alive."""

    cdef flux_arena arena

    def __cinit__(self, map_rows, map_limit):
        flux_arena_init(&self.arena, map_rows, map_limit, &mapped_rings)

    def __dealloc__(self):
        flux_arena_free(&self.arena)

    @property
    def rings(self):
        return self.arena.rings

    @property
    def size(self):
        return self.arena.size


@cython.no_gc  # it refers to its arena alone, and that to nothing
cdef class Ring:
    cdef flux_ring ring
    cdef Arena arena
    cdef bint busy  # a thread is in here, maybe without the GIL

    def __cinit__(self, capacity, row_size, Arena arena not None):
        self.arena = arena
        if flux_arena_ring(&arena.arena, &self.ring, capacity, row_size) != 0:
            raise MemoryError(f"no ring of {capacity} rows of {row_size} bytes")

    def __dealloc__(self):
        if self.arena is not None:  # None: the arguments were refused
            flux_arena_release(&self.arena.arena, &self.ring)

    def address(self):
        return <uintptr_t>&self.ring

    cdef int alone(self) except -1:
        if self.busy:
            raise RuntimeError("another thread is in this ring: one thread at a time")
        return 0

    def place(self, start, rows):
        cdef Py_buffer view
        cdef flux_placed out
        cdef uint64_t sequence = start
        cdef uint32_t n
        PyObject_GetBuffer(rows, &view, PyBUF_SIMPLE)
        try:
            assert view.len % self.ring.row_size == 0 and view.len // self.ring.row_size <= 0xFFFFFFFF
            n = <uint32_t>(view.len // self.ring.row_size)
            self.alone()
            self.busy = True
            with nogil:
                flux_ring_place(&self.ring, sequence, view.buf, n, &out)
            self.busy = False
        finally:
            PyBuffer_Release(&view)
        return out.placed, out.duplicates, out.conflicts, out.beyond, out.stale

    def copy(self, start, out):
        cdef Py_buffer view
        cdef uint64_t sequence = start, n
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            n = <uint64_t>(view.len // self.ring.row_size)
            with nogil:
                n = flux_ring_copy(&self.ring, sequence, n, view.buf)
        finally:
            PyBuffer_Release(&view)
        return n

    def gaps(self, out):
        cdef Py_buffer view
        cdef uint32_t count
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            count = flux_ring_gaps(&self.ring, <uint64_t *>view.buf, <uint32_t>(view.len // 16))
        finally:
            PyBuffer_Release(&view)
        return count

    def reset(self, first):
        self.alone()
        flux_ring_reset(&self.ring, first)

    def skip(self, first):
        self.alone()
        flux_ring_skip(&self.ring, first)

    @property
    def capacity(self):
        return self.ring.capacity

    @property
    def mapped(self):
        return self.ring.reach > self.ring.capacity

    @property
    def first(self):
        return flux_ring_load(&self.ring.first)

    @property
    def contiguous(self):
        return flux_ring_load(&self.ring.contiguous)

    @property
    def top(self):
        return flux_ring_load(&self.ring.top)

    @property
    def keep(self):
        return flux_ring_load(&self.ring.keep)

    @keep.setter
    def keep(self, value):
        flux_ring_store(&self.ring.keep, value)

    @property
    def duplicates(self):
        return self.ring.duplicates

    @property
    def conflicts(self):
        return self.ring.conflicts

    @property
    def beyond(self):
        return self.ring.beyond

    @property
    def stale(self):
        return self.ring.stale
