# cython: auto_pickle=False, autotestdict=False
"""Indicators for Python: one object owns one `flux_indicator` (ext/indicator.h) and its memory.

SMA, EMA and RSI take doubles, or one double of each candle; ATR and VWAP take candles. Each row in gives one double
out, NaN while there are too few. Doors check types; here a length that does not fit is an assertion of what the door
has promised.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint64_t

from row cimport flux_candle


cdef extern from "indicator.h" nogil:
    enum:
        FLUX_SMA
        FLUX_EMA
        FLUX_RSI
        FLUX_ATR
        FLUX_VWAP
        FLUX_VWAP_ANCHORED

    ctypedef struct flux_grid:
        int64_t origin
        const int64_t *edges
        uint64_t edge_count

    ctypedef struct flux_indicator:
        int kind
        flux_grid grid
        double value
        uint64_t skipped

    int flux_indicator_init(flux_indicator *indicator, int kind, uint64_t n, int64_t length, int64_t origin) noexcept
    void flux_indicator_free(flux_indicator *indicator) noexcept
    void flux_indicator_values(flux_indicator *indicator, const uint8_t *values, uint64_t n, uint8_t *out) noexcept
    void flux_indicator_candles(flux_indicator *indicator, const uint8_t *rows, uint64_t n, uint64_t field,
                                uint8_t *out) noexcept


SMA = int(FLUX_SMA)
EMA = int(FLUX_EMA)
RSI = int(FLUX_RSI)
ATR = int(FLUX_ATR)
VWAP = int(FLUX_VWAP)
VWAP_ANCHORED = int(FLUX_VWAP_ANCHORED)


cdef class Indicator:
    cdef flux_indicator indicator
    cdef Py_buffer edges  # of the anchor's buckets in a named zone
    cdef bint busy  # a thread is in here, maybe without the GIL

    def __cinit__(self, kind, n, length, origin):
        if flux_indicator_init(&self.indicator, kind, n, length, origin) != 0:
            raise MemoryError(f"no room for the last {n} rows")

    def __dealloc__(self):
        PyBuffer_Release(&self.edges)
        flux_indicator_free(&self.indicator)

    cdef int alone(self) except -1:
        if self.busy:
            raise RuntimeError("another thread is in this indicator: one thread at a time")
        return 0

    def set_edges(self, edges):
        self.alone()
        PyBuffer_Release(&self.edges)
        self.indicator.grid.edge_count = 0
        PyObject_GetBuffer(edges, &self.edges, PyBUF_SIMPLE)
        assert self.edges.len >= 8 and self.edges.len % 8 == 0
        self.indicator.grid.edges = <const int64_t *>self.edges.buf
        self.indicator.grid.edge_count = <uint64_t>(self.edges.len // 8)

    def set_origin(self, origin):
        self.alone()
        self.indicator.grid.edge_count = 0
        self.indicator.grid.origin = origin

    def push(self, rows, field, out):
        cdef Py_buffer source, target
        cdef bint candles = field is not None
        cdef uint64_t at = field if candles else 0, n
        PyObject_GetBuffer(rows, &source, PyBUF_SIMPLE)
        try:
            PyObject_GetBuffer(out, &target, PyBUF_WRITABLE)
            try:
                n = <uint64_t>target.len // sizeof(double)
                assert <uint64_t>source.len == n * (sizeof(flux_candle) if candles else sizeof(double))
                assert at + sizeof(double) <= sizeof(flux_candle)
                assert candles or self.indicator.kind < FLUX_ATR
                self.alone()
                self.busy = True
                with nogil:
                    if candles:
                        flux_indicator_candles(&self.indicator, <const uint8_t *>source.buf, n, at,
                                               <uint8_t *>target.buf)
                    else:
                        flux_indicator_values(&self.indicator, <const uint8_t *>source.buf, n,
                                              <uint8_t *>target.buf)
                self.busy = False
            finally:
                PyBuffer_Release(&target)
        finally:
            PyBuffer_Release(&source)

    @property
    def value(self):
        return self.indicator.value

    @property
    def skipped(self):
        return self.indicator.skipped
