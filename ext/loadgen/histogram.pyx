# cython: auto_pickle=False, autotestdict=False
"""HDR buckets, the pacing clock, and the rows of the load generator; drawn in histogram.h, schedule.h and load.h."""

from cpython.buffer cimport (
    PyBUF_FORMAT, PyBUF_SIMPLE, PyBUF_STRIDES, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy


cdef extern from *:
    ctypedef unsigned long long uint128_t "unsigned __int128"


cdef extern from "histogram.h" nogil:
    enum:
        FLUX_HDR_SLOTS
    int64_t FLUX_HDR_HIGHEST

    ctypedef struct flux_hdr:
        uint64_t total, over, refused
        int64_t min, max
        uint128_t sum
        uint64_t *slots

    void flux_hdr_reset(flux_hdr *h)
    int64_t flux_hdr_lowest_of(uint32_t slot)
    void flux_hdr_record(flux_hdr *h, int64_t value)
    void flux_hdr_record_ints(
        flux_hdr *h, const uint8_t *at, Py_ssize_t stride, size_t n, int since, int64_t now)
    void flux_hdr_record_doubles(
        flux_hdr *h, const uint8_t *at, Py_ssize_t stride, size_t n, int since, int64_t now)
    void flux_hdr_merge(flux_hdr *into, const flux_hdr *source)
    int64_t flux_hdr_percentile(const flux_hdr *h, double percentile)
    double flux_hdr_mean(const flux_hdr *h)


cdef extern from "<poll.h>" nogil:
    int POLLIN

    ctypedef struct pollfd "struct pollfd":
        int fd
        short events


cdef extern from "schedule.h" nogil:
    enum:
        FLUX_WAIT_MOST
    int FLUX_CONSTANT, FLUX_RAMP, FLUX_BURST, FLUX_REPLAY, FLUX_AT_ONCE

    ctypedef struct flux_schedule:
        int shape
        int64_t start_ns, rate, last, flat_ns, over_ns, burst, period_ns, count
        const int64_t *times

    int64_t flux_schedule_intended(const flux_schedule *s, int64_t k)
    int64_t flux_schedule_due(const flux_schedule *s, int64_t now_ns)
    int flux_sleep_until(int64_t ns)
    int flux_wait_readable(pollfd *descriptors, uint32_t count, int64_t ns)
    int flux_sharpen_sleep()


cdef extern from "load.h" nogil:
    ctypedef struct flux_candle
    ctypedef struct flux_run_rows

    ctypedef struct flux_arrival:
        uint32_t stream

    ctypedef struct flux_ring:
        uint32_t row_size

    ctypedef struct flux_load:
        flux_schedule schedule
        uint64_t seed
        uint32_t streams, rows, part, parts

    ctypedef struct flux_tally_stream:
        uint64_t next

    ctypedef struct flux_tally:
        uint64_t received, reached, duplicate, reordered, corrupt, measured, unread
        int64_t last_ns, warmup_messages
        flux_tally_stream *streams

    ctypedef struct flux_tally_times:
        flux_hdr *schedule, *send, *interval

    uint32_t flux_load_fill(const flux_load *l, int64_t j, uint32_t n, int64_t sent_ns, flux_candle *rows,
                            flux_run_rows *runs, int64_t *messages)
    void flux_tally_account(const flux_load *l, flux_tally *t, flux_ring **rings, const flux_arrival *arrivals,
                            uint32_t n, int64_t now_ns, const flux_tally_times *times)


HIGHEST_NS = FLUX_HDR_HIGHEST

cdef enum:
    INTS = 1
    DOUBLES = 2


cdef int kind_of(const char *format) noexcept:
    """INTS, DOUBLES, or 0 for anything else."""
    if format == NULL:
        return 0
    if format[0] == c"<" or format[0] == c"=" or format[0] == c"@":
        format += 1
    if format[0] != 0 and format[1] == 0:
        if format[0] == c"l" or format[0] == c"q":
            return INTS
        if format[0] == c"d":
            return DOUBLES
    return 0


cdef class Histogram:
    cdef flux_hdr *hdr

    def __cinit__(self):
        self.hdr = <flux_hdr *>malloc(sizeof(flux_hdr))
        if self.hdr == NULL:
            raise MemoryError
        flux_hdr_reset(self.hdr)

    def __dealloc__(self):
        free(self.hdr)

    def address(self):
        return <uintptr_t>self.hdr

    def record(self, int64_t value):
        flux_hdr_record(self.hdr, value)

    def record_column(self, object values):
        self._column(values, 0, 0)

    def record_since(self, object times, int64_t now):
        self._column(times, 1, now)

    cdef int _column(self, object values, int since, int64_t now) except -1:
        cdef Py_buffer view
        cdef int kind
        PyObject_GetBuffer(values, &view, PyBUF_STRIDES | PyBUF_FORMAT)
        try:
            kind = kind_of(view.format)
            if view.ndim != 1 or view.itemsize != 8 or kind == 0:
                raise TypeError("a column is one-dimensional int64 or float64")
            with nogil:
                if kind == INTS:
                    flux_hdr_record_ints(self.hdr, <const uint8_t *>view.buf, view.strides[0], view.shape[0], since, now)
                else:
                    flux_hdr_record_doubles(self.hdr, <const uint8_t *>view.buf, view.strides[0], view.shape[0], since, now)
        finally:
            PyBuffer_Release(&view)
        return 0

    def merge(self, Histogram other not None):
        flux_hdr_merge(self.hdr, other.hdr)

    def reset(self):
        flux_hdr_reset(self.hdr)

    def percentile(self, double percentile):
        if not 0.0 <= percentile <= 100.0:
            raise ValueError(f"a percentile is 0 to 100, not {percentile}")
        return flux_hdr_percentile(self.hdr, percentile)

    def recorded(self):
        cdef uint32_t slot
        return [
            (flux_hdr_lowest_of(slot), self.hdr.slots[slot])
            for slot in range(FLUX_HDR_SLOTS)
            if self.hdr.slots[slot]
        ]

    def dump(self):
        return PyBytes_FromStringAndSize(<const char *>self.hdr, sizeof(flux_hdr))

    @staticmethod
    def load(object dumped):
        cdef Histogram made = Histogram()
        cdef bytes state = bytes(dumped)
        cdef uint64_t counted = 0
        cdef uint32_t slot
        if len(state) != sizeof(flux_hdr):
            raise ValueError(f"a dumped histogram has {sizeof(flux_hdr)} bytes, not {len(state)}")
        memcpy(made.hdr, PyBytes_AS_STRING(state), sizeof(flux_hdr))
        for slot in range(FLUX_HDR_SLOTS):
            counted += made.hdr.slots[slot]
        if counted + made.hdr.over != made.hdr.total:
            raise ValueError("a dumped histogram whose counts do not add up to its total")
        return made

    def __eq__(self, object other):
        if not isinstance(other, Histogram):
            return NotImplemented
        return memcmp(self.hdr, (<Histogram>other).hdr, sizeof(flux_hdr)) == 0

    __hash__ = None

    @property
    def total(self):
        return self.hdr.total

    @property
    def over(self):
        return self.hdr.over

    @property
    def refused(self):
        return self.hdr.refused

    @property
    def min(self):
        return self.hdr.min if self.hdr.total else 0

    @property
    def max(self):
        return self.hdr.max

    @property
    def mean(self):
        return flux_hdr_mean(self.hdr)


cdef class _Borrowed:
    """A contiguous buffer of at least `size` bytes, held for as long as this object lives."""

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, object owner, bint writable, size_t size):
        PyObject_GetBuffer(owner, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.held = True
        if <size_t>self.view.len < size:
            raise ValueError(f"a buffer of {self.view.len} bytes where {size} are needed")

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


include "schedule.pxi"


cdef class Load:
    cdef flux_load load
    cdef Schedule schedule  # keeps a replay's times

    def __cinit__(self, Schedule schedule not None, uint32_t streams, uint32_t rows, uint64_t seed, *,
                  uint32_t part=0, uint32_t parts=1):
        if streams == 0 or rows == 0:
            raise ValueError("streams and rows are 1 and more")
        if part >= parts or streams % parts:
            raise ValueError(f"part {part} of {parts} has no even share of {streams} streams")
        self.schedule = schedule
        self.load.schedule = schedule.schedule
        self.load.schedule.start_ns = 0
        self.load.seed = seed
        self.load.streams = streams
        self.load.rows = rows
        self.load.part = part
        self.load.parts = parts

    def address(self):
        return <uintptr_t>&self.load

    def fill(self, int64_t first, uint32_t count, int64_t sent_ns, object rows, object runs, object messages=None):
        cdef _Borrowed out = _Borrowed(rows, True, <size_t>count * self.load.rows * 64)
        cdef _Borrowed which = _Borrowed(runs, True, <size_t>min(count, self.load.streams // self.load.parts) * 32)
        cdef _Borrowed numbers = None
        cdef int64_t *number = NULL
        cdef uint32_t made
        if first < 0:
            raise ValueError("messages count from 0")
        if messages is not None:
            numbers = _Borrowed(messages, True, <size_t>count * 8)
            number = <int64_t *>numbers.view.buf
        with nogil:
            made = flux_load_fill(&self.load, first, count, sent_ns, <flux_candle *>out.view.buf,
                                  <flux_run_rows *>which.view.buf, number)
        return made


cdef class Tally:
    cdef flux_tally tally
    cdef Load load
    cdef flux_ring **rings

    def __cinit__(self, Load load not None, object rings, int64_t warmup_messages):
        cdef uint32_t i
        self.load = load
        if load.load.parts != 1:
            raise ValueError("a tally is of all streams")
        if len(rings) != load.load.streams:
            raise ValueError(f"{len(rings)} rings for {load.load.streams} streams")
        self.rings = <flux_ring **>calloc(load.load.streams, sizeof(flux_ring *))
        self.tally.streams = <flux_tally_stream *>calloc(load.load.streams, sizeof(flux_tally_stream))
        if self.rings == NULL or self.tally.streams == NULL:
            raise MemoryError
        for i in range(load.load.streams):
            self.rings[i] = <flux_ring *><uintptr_t>rings[i]
            self.tally.streams[i].next = 1
            if self.rings[i].row_size != 64:
                raise ValueError("the rings hold candles")
        self.tally.warmup_messages = warmup_messages

    def __dealloc__(self):
        free(self.rings)
        free(self.tally.streams)

    def addresses(self):
        return <uintptr_t>&self.tally, <uintptr_t>self.rings

    def account(self, object arrivals, int64_t now_ns, Histogram schedule not None, Histogram send not None,
                Histogram interval not None):
        cdef _Borrowed which = _Borrowed(arrivals, False, 0)
        cdef const flux_arrival *arrived = <const flux_arrival *>which.view.buf
        cdef uint32_t i, n = <uint32_t>(which.view.len // 64)
        cdef flux_tally_times times
        times.schedule, times.send, times.interval = schedule.hdr, send.hdr, interval.hdr
        for i in range(n):
            if arrived[i].stream >= self.load.load.streams:
                raise IndexError(f"slot {arrived[i].stream} of {self.load.load.streams}")
        with nogil:
            flux_tally_account(&self.load.load, &self.tally, self.rings, arrived, n, now_ns, &times)

    def streams(self):
        return PyBytes_FromStringAndSize(<const char *>self.tally.streams,
                                         self.load.load.streams * sizeof(flux_tally_stream))

    @property
    def received(self):
        return self.tally.received

    @property
    def reached(self):
        return self.tally.reached

    @property
    def duplicate(self):
        return self.tally.duplicate

    @property
    def reordered(self):
        return self.tally.reordered

    @property
    def corrupt(self):
        return self.tally.corrupt

    @property
    def measured(self):
        return self.tally.measured

    @property
    def unread(self):
        return self.tally.unread

    @property
    def last_ns(self):
        return self.tally.last_ns
include "watch.pxi"
