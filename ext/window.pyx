# cython: auto_pickle=False, autotestdict=False
"""The window for Python: one object owns one `flux_window` (ext/window.h) and the rows it keeps.

What becomes of a row of time t:

    t above the newest (trades, quotes: or equal)   folded into the carry; a bucket it leaves behind is written
    t below, in the open bucket or in a closed one
      that is still wholly among the kept           put in its place, its bucket folded anew: `corrected`
    t below, its bucket closed and gone             `late`, not applied
    a candle with the bytes of the kept one         a repeat: nothing
    a trade with CORRECTION and an id               replaces those of its id, in whatever buckets: `corrected`, or,
                                                      where one of them is gone, `late`

`push` works until its rows are used up, its room is full, or (not `amending`) a row is out of order or a correction. Doors check
types; here a length that does not fit is an assertion of what the door has promised.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from row cimport flux_candle, flux_row_size


cdef extern from "revise.h" nogil:
    ctypedef struct flux_grid:
        int64_t length
        int64_t origin
        const int64_t *edges
        uint64_t edge_count

    ctypedef struct flux_bucket:
        uint64_t rows

    ctypedef struct flux_rows_of:
        pass

    ctypedef struct flux_window:
        flux_grid grid
        int kind
        uint32_t row_size
        int64_t row_ms
        flux_bucket carry
        uint8_t *kept
        uint64_t kept_count
        uint64_t keep
        uint64_t limit
        int whole_buckets
        int by_hand
        uint64_t late
        uint64_t corrected

    void flux_bucket_candle(const flux_bucket *bucket, uint32_t flags, flux_candle *out) noexcept
    void flux_window_cut(flux_window *window) noexcept
    uint64_t flux_window_push(flux_window *window, const uint8_t *rows, uint64_t n, flux_candle *out,
                              flux_rows_of *spans, uint64_t room, uint64_t *written) noexcept
    int flux_window_put(flux_window *window, const uint8_t *row, flux_candle *out, flux_rows_of *spans, uint64_t room,
                        uint64_t *written) noexcept


# How many rows were taken. Where rows are wanted (`spans`), an amendment has a call of its own: it moves the kept
# rows that the spans before it point at.
cdef uint64_t take(flux_window *window, const uint8_t *rows, uint64_t n, flux_candle *out, flux_rows_of *spans,
                   uint64_t room, uint64_t *written, bint amending) noexcept nogil:
    cdef uint64_t at = 0
    cdef int done
    while True:
        at += flux_window_push(window, rows + at * window.row_size, n - at, out, spans, room, written)
        if at == n or written[0] >= room or not amending or (spans != NULL and written[0]):
            return at
        done = flux_window_put(window, rows + at * window.row_size, out, spans, room, written)
        if done < 0:
            written[0] = <uint64_t>-1
            return at
        at += <uint64_t>done
        if spans != NULL:
            return at


cdef class Window:
    cdef flux_window window
    cdef Py_buffer edges
    cdef bint busy  # a thread is in here, maybe without the GIL

    def __cinit__(self, kind, length, origin, row_ms, keep, limit, by_hand):
        self.window.kind = kind
        self.window.row_size = flux_row_size(kind)
        self.window.grid.length = length
        self.window.grid.origin = origin
        self.window.row_ms = row_ms
        self.window.keep = keep
        self.window.limit = limit
        self.window.whole_buckets = limit > 0
        self.window.by_hand = by_hand

    def __dealloc__(self):
        PyBuffer_Release(&self.edges)
        free(self.window.kept)

    cdef int alone(self) except -1:
        if self.busy:
            raise RuntimeError("another thread is in this window: one thread at a time")
        return 0

    def set_edges(self, edges):
        self.alone()
        PyBuffer_Release(&self.edges)
        self.window.grid.edge_count = 0
        PyObject_GetBuffer(edges, &self.edges, PyBUF_SIMPLE)
        assert self.edges.len >= 8 and self.edges.len % 8 == 0
        self.window.grid.edges = <const int64_t *>self.edges.buf
        self.window.grid.edge_count = <uint64_t>(self.edges.len // 8)

    def set_origin(self, origin):
        self.alone()
        self.window.grid.edge_count = 0
        self.window.grid.origin = origin

    def push(self, rows, at, out, spans, amending):
        cdef Py_buffer source, target, where
        cdef uint64_t first = at, n, written = 0, room, taken
        cdef flux_rows_of *ranges = NULL
        cdef bint amend = amending
        memset(&where, 0, sizeof(where))
        PyObject_GetBuffer(rows, &source, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
            try:
                room = <uint64_t>target.len // sizeof(flux_candle)
                n = <uint64_t>source.len // self.window.row_size
                assert <uint64_t>source.len % self.window.row_size == 0 and first <= n
                if spans is not None:
                    PyObject_GetBuffer(spans, &where, PyBUF_WRITABLE)
                    assert <uint64_t>where.len // 16 >= room
                    ranges = <flux_rows_of *>where.buf
                self.alone()
                self.busy = True
                with nogil:
                    taken = take(&self.window, <const uint8_t *>source.buf + first * self.window.row_size, n - first,
                                 <flux_candle *>target.buf, ranges, room, &written, amend)
                self.busy = False
            finally:
                PyBuffer_Release(&where)
                PyBuffer_Release(&target)
        finally:
            PyBuffer_Release(&source)
        if written > room:
            raise MemoryError("no room for the rows that a window keeps")
        return first + taken, written

    def partial(self, out):
        cdef Py_buffer view
        cdef flux_candle candle
        self.alone()
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            assert view.len >= <Py_ssize_t>sizeof(flux_candle)
            if self.window.carry.rows:
                flux_bucket_candle(&self.window.carry, 0, &candle)
                memcpy(view.buf, &candle, sizeof(candle))
        finally:
            PyBuffer_Release(&view)
        return 1 if self.window.carry.rows else 0

    def cut(self):
        self.alone()
        flux_window_cut(&self.window)

    def kept(self, start, out):
        cdef Py_buffer view
        cdef uint64_t first = start
        self.alone()
        PyObject_GetBuffer(out, &view, PyBUF_WRITABLE)
        try:
            assert first + <uint64_t>view.len // self.window.row_size <= self.window.kept_count
            memcpy(view.buf, self.window.kept + first * self.window.row_size, <size_t>view.len)
        finally:
            PyBuffer_Release(&view)

    def kept_times(self):
        """(oldest, newest) of the kept rows, in their unit; None: there are none."""
        cdef int64_t oldest, newest
        self.alone()
        if self.window.kept_count == 0:
            return None
        memcpy(&oldest, self.window.kept, sizeof(oldest))
        memcpy(&newest, self.window.kept + (self.window.kept_count - 1) * self.window.row_size, sizeof(newest))
        return oldest, newest

    @property
    def kept_count(self):
        return self.window.kept_count

    @property
    def open_rows(self):
        return self.window.carry.rows

    @property
    def late(self):
        return self.window.late

    @property
    def corrected(self):
        return self.window.corrected
