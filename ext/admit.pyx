# cython: auto_pickle=False, autotestdict=False
"""Which rows are admitted, one stream at a time: the kernel of ext/admit.h with the memory of a plain array.

The server runs the same C over its rings and inbox (ext/receive.h); this module is for tests and for other people's code.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport INT64_MAX, UINT32_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from row cimport flux_row_size


cdef extern from "admit.h" nogil:
    ctypedef struct flux_span:
        const uint8_t *rows
        uint64_t count

    enum:
        FLUX_ADMIT_OUTCOMES

    int flux_row_fault(int kind, const void *row)
    int flux_look_back(int kind, const uint8_t *row, const flux_span *spans, int span_count)
    uint32_t flux_admitted_flags(int kind, uint32_t flags, int outcome)
    int flux_admit_fault(int kind, const void *row, int64_t grid_ms, int64_t latest_ms)
    uint32_t flux_first_fault(int kind, const uint8_t *rows, uint32_t n, int *fault)
    int64_t flux_grid_of(int kind, const char *interval, size_t size)


OUTCOMES = ("new", "repeat", "correction", "late", "not_finite", "high_low", "open_close", "time", "volume",
            "grid", "future", "forming", "spent", "old")
"""What may become of a row, by number; the first, third and fourth are numbered."""

assert len(OUTCOMES) == FLUX_ADMIT_OUTCOMES


def grid(int kind, bytes interval):
    """What the times of that interval's candles are multiples of, ms; 0 for trades and quotes."""
    return flux_grid_of(kind, interval, len(interval))


def faults(int kind, object rows, object out, int64_t grid_ms=0, int64_t latest_ms=INT64_MAX):
    """Judges rows end to end: `out` (u1, one per row) gets a number of OUTCOMES for each, 0 where it is sound.

    `grid_ms`: what a candle's time must be a multiple of (0 = anything); `latest_ms`: no row may be later. Returns how
    many are not sound.
    """
    cdef uint8_t copy[64]
    cdef Py_buffer given, found
    cdef uint32_t size = flux_row_size(kind)
    cdef uint64_t i, n, unsound = 0
    cdef uint8_t *marks
    PyObject_GetBuffer(rows, &given, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(out, &found, PyBUF_WRITABLE)
        try:
            n = given.len // size
            if given.len % size or <uint64_t>found.len < n:
                raise ValueError(f"{given.len} bytes are no rows of {size}, or there is no room for their faults")
            marks = <uint8_t *>found.buf
            with nogil:
                for i in range(n):
                    memcpy(copy, <const uint8_t *>given.buf + i * size, size)
                    marks[i] = flux_admit_fault(kind, copy, grid_ms, latest_ms)
                    unsound += marks[i] != 0
        finally:
            PyBuffer_Release(&found)
    finally:
        PyBuffer_Release(&given)
    return unsound


def first_fault(int kind, object rows):
    """The first of rows end to end that is not sound, as (its place, a number of OUTCOMES); None when all are."""
    cdef Py_buffer given
    cdef uint32_t size = flux_row_size(kind), n, at
    cdef int fault
    PyObject_GetBuffer(rows, &given, PyBUF_SIMPLE)
    try:
        if given.len % size or given.len // size >= UINT32_MAX:
            raise ValueError(f"{given.len} bytes are no rows of {size}")
        n = <uint32_t>(given.len // size)
        with nogil:
            at = flux_first_fault(kind, <const uint8_t *>given.buf, n, &fault)
    finally:
        PyBuffer_Release(&given)
    return None if at == n else (at, fault)


def fault(int kind, object row):
    """Why a row (the bytes of one) cannot be admitted at all, as a number of OUTCOMES; 0 when it is sound."""
    cdef uint8_t copy[64]
    cdef Py_buffer view
    PyObject_GetBuffer(row, &view, PyBUF_SIMPLE)
    try:
        if view.len != flux_row_size(kind):
            raise ValueError(f"a row has {flux_row_size(kind)} bytes, not {view.len}")
        memcpy(copy, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return flux_row_fault(kind, copy)


def look_back(int kind, object row, object earlier):
    """What a sound row is that is not newer than the newest of `earlier` (rows end to end, oldest first)."""
    cdef Py_buffer one, others
    cdef flux_span span
    cdef int outcome
    PyObject_GetBuffer(row, &one, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(earlier, &others, PyBUF_SIMPLE)
        try:
            span.rows = <const uint8_t *>others.buf
            span.count = others.len // flux_row_size(kind)
            if one.len != flux_row_size(kind):
                raise ValueError(f"a row has {flux_row_size(kind)} bytes, not {one.len}")
            with nogil:
                outcome = flux_look_back(kind, <const uint8_t *>one.buf, &span, 1)
        finally:
            PyBuffer_Release(&others)
    finally:
        PyBuffer_Release(&one)
    return outcome


def flags(int kind, uint32_t given, int outcome):
    """The flags that a candle or trade with `given` flags is stored with."""
    return flux_admitted_flags(kind, given, outcome)
