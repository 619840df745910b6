# cython: auto_pickle=False, autotestdict=False
"""The loops of the load generator's processes, without the GIL from one told second to the next; drawn in drive.h.

Everything that is handed in by address (loads, histograms, tallies, streams, groups, a receiver, a table of calls) is
only borrowed: the door keeps it alive.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memset


cdef extern from "drive.h" nogil:
    ctypedef struct flux_load:
        uint32_t streams, rows, part, parts

    ctypedef struct flux_hdr:
        pass

    ctypedef struct flux_candle:
        pass

    ctypedef struct flux_run_rows:
        pass

    ctypedef struct flux_ring:
        pass

    ctypedef struct flux_streams:
        uint32_t count

    ctypedef struct flux_group:
        pass

    ctypedef struct flux_zmq:
        pass

    ctypedef struct flux_receiver:
        flux_streams *streams
        uint32_t arrival_limit
        uint64_t *counters

    ctypedef struct flux_tally:
        pass

    ctypedef struct flux_tally_times:
        flux_hdr *schedule
        flux_hdr *send
        flux_hdr *interval

    ctypedef struct flux_sent:
        int error

    ctypedef struct flux_pace:
        const flux_load *load
        flux_hdr *slip
        int64_t start_ns, end_ns, tick_ns, all, warmup, messages, due
        uint32_t piece
        flux_candle *rows

    ctypedef struct flux_flight:
        int64_t *numbered
        const int64_t *received
        uint32_t subscribers
        int64_t most

    ctypedef struct flux_publisher:
        flux_pace pace
        flux_streams *streams
        flux_group *group
        const flux_zmq *zmq
        void *socket
        uint64_t store_id
        uint32_t epoch
        flux_run_rows *runs
        int64_t *numbers
        flux_flight *flight
        flux_sent sent

    ctypedef struct flux_feeder:
        flux_pace pace
        const flux_streams *streams
        const flux_zmq *zmq
        void *socket
        uint64_t run, blocked
        uint32_t *slots
        uint8_t *scratch
        int error

    ctypedef struct flux_subscriber:
        flux_receiver *receiver
        const flux_load *load
        flux_tally *tally
        flux_ring **rings
        flux_tally_times times
        int socket_fd, wake_fd, more
        uint32_t bite
        int64_t start_ns
        int64_t *measure_ns
        int64_t *received

    enum:
        FLUX_DRIVE_TIME
        FLUX_DRIVE_DONE
        FLUX_DRIVE_LAID
        FLUX_DRIVE_TAKEN
        FLUX_DRIVE_WOKEN
        FLUX_DRIVE_HELD
        FLUX_DRIVE_SOCKET
        FLUX_DRIVE_NO_ROOM
        FLUX_COUNT_MESSAGES
        FLUX_FLIGHT_LINE

    int flux_drive_publisher(flux_publisher *p, int64_t until_ns)
    int flux_drive_feeder(flux_feeder *f, int64_t until_ns)
    int flux_drive_subscriber(flux_subscriber *s, int64_t until_ns, uint64_t goal, int once)
    int flux_flight_take(const flux_flight *f, uint32_t count)


TIME = int(FLUX_DRIVE_TIME)
DONE = int(FLUX_DRIVE_DONE)
LAID = int(FLUX_DRIVE_LAID)
TAKEN = int(FLUX_DRIVE_TAKEN)
WOKEN = int(FLUX_DRIVE_WOKEN)
HELD = int(FLUX_DRIVE_HELD)
SOCKET = int(FLUX_DRIVE_SOCKET)
COUNT_BYTES = 8 * int(FLUX_FLIGHT_LINE)


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


cdef class Flight:
    cdef flux_flight flight
    cdef _Borrowed counts

    def __cinit__(self, object counts, uint32_t subscribers, int64_t most):
        if subscribers == 0:
            raise ValueError("somebody receives")
        self.counts = _Borrowed(counts, True, <size_t>(subscribers + 1) * 8 * FLUX_FLIGHT_LINE)
        self.flight.numbered = <int64_t *>self.counts.view.buf
        self.flight.received = self.flight.numbered + FLUX_FLIGHT_LINE
        self.flight.subscribers = subscribers
        self.flight.most = most

    cdef int64_t *received(self, uint32_t subscriber) except NULL:
        if subscriber >= self.flight.subscribers:
            raise IndexError(f"subscriber {subscriber} of {self.flight.subscribers}")
        return self.flight.numbered + <size_t>(subscriber + 1) * FLUX_FLIGHT_LINE

    def take(self, uint32_t count):
        return bool(flux_flight_take(&self.flight, count))


cdef int check_pace(flux_pace *p) except -1:
    if p.piece == 0 or p.tick_ns <= 0 or p.all < 0:
        raise ValueError("a piece is 1 message and more, a tick 1 ns and more")
    return 0


cdef class Publisher:
    cdef flux_publisher p
    cdef _Borrowed rows, runs, numbers
    cdef Flight flight

    def __cinit__(self, uintptr_t load, uintptr_t slip, uintptr_t streams, uintptr_t group, uintptr_t calls,
                  uintptr_t socket, *, uint64_t store_id, uint32_t epoch, int64_t messages, int64_t warmup,
                  int64_t start_ns, int64_t end_ns, int64_t tick_ns, uint32_t piece, object rows, object runs,
                  object numbers, Flight flight):
        memset(&self.p, 0, sizeof(self.p))
        cdef flux_pace *pace = &self.p.pace
        pace.load, pace.slip = <const flux_load *>load, <flux_hdr *>slip
        pace.start_ns, pace.end_ns, pace.tick_ns = start_ns, end_ns, tick_ns
        pace.all, pace.warmup, pace.piece = messages, warmup, piece
        check_pace(pace)
        self.rows = _Borrowed(rows, True, <size_t>piece * pace.load.rows * 64)
        self.runs = _Borrowed(runs, True, <size_t>piece * 32)
        pace.rows = <flux_candle *>self.rows.view.buf
        self.p.runs = <flux_run_rows *>self.runs.view.buf
        if numbers is not None:
            self.numbers = _Borrowed(numbers, True, <size_t>piece * 8)
            self.p.numbers = <int64_t *>self.numbers.view.buf
        if flight is not None:
            self.flight = flight
            self.p.flight = &flight.flight
        self.p.streams, self.p.group = <flux_streams *>streams, <flux_group *>group
        self.p.zmq, self.p.socket = <const flux_zmq *>calls, <void *>socket
        self.p.store_id, self.p.epoch = store_id, epoch
        if self.p.streams.count != pace.load.streams // pace.load.parts:
            raise ValueError(f"{self.p.streams.count} streams for a share of {pace.load.streams}")

    def run(self, int64_t until_ns):
        cdef int status
        with nogil:
            status = flux_drive_publisher(&self.p, until_ns)
        if status == FLUX_DRIVE_NO_ROOM:
            raise AssertionError("a piece without room: rings and group are sized for it")
        return status

    @property
    def messages(self):
        return self.p.pace.messages

    @property
    def due(self):
        return self.p.pace.due

    @property
    def error(self):
        return self.p.sent.error


cdef class Feeder:
    cdef flux_feeder f
    cdef _Borrowed rows, slots, scratch

    def __cinit__(self, uintptr_t load, uintptr_t slip, uintptr_t streams, uintptr_t calls, uintptr_t socket, *,
                  uint64_t run, int64_t messages, int64_t warmup, int64_t start_ns, int64_t end_ns, int64_t tick_ns,
                  uint32_t piece, object rows, object slots, object scratch):
        memset(&self.f, 0, sizeof(self.f))
        cdef flux_pace *pace = &self.f.pace
        pace.load, pace.slip = <const flux_load *>load, <flux_hdr *>slip
        pace.start_ns, pace.end_ns, pace.tick_ns = start_ns, end_ns, tick_ns
        pace.all, pace.warmup, pace.piece = messages, warmup, piece
        check_pace(pace)
        self.rows = _Borrowed(rows, True, <size_t>piece * pace.load.rows * 64)
        self.slots = _Borrowed(slots, True, <size_t>piece * 4)
        self.scratch = _Borrowed(scratch, True, <size_t>pace.load.rows * 64 + 512)
        pace.rows = <flux_candle *>self.rows.view.buf
        self.f.slots, self.f.scratch = <uint32_t *>self.slots.view.buf, <uint8_t *>self.scratch.view.buf
        self.f.streams, self.f.run = <const flux_streams *>streams, run
        self.f.zmq, self.f.socket = <const flux_zmq *>calls, <void *>socket
        if self.f.streams.count != pace.load.streams or pace.load.parts != 1:
            raise ValueError(f"{self.f.streams.count} streams for a load of {pace.load.streams}")

    def run(self, int64_t until_ns):
        cdef int status
        with nogil:
            status = flux_drive_feeder(&self.f, until_ns)
        return status

    @property
    def messages(self):
        return self.f.pace.messages

    @property
    def due(self):
        return self.f.pace.due

    @property
    def blocked(self):
        return self.f.blocked

    @property
    def error(self):
        return self.f.error


cdef class Subscriber:
    cdef flux_subscriber s
    cdef Flight flight

    def __cinit__(self, uintptr_t receiver, uintptr_t load, uintptr_t tally, uintptr_t rings, uintptr_t schedule,
                  uintptr_t send, uintptr_t interval, *, int socket_fd, int wake_fd, uint32_t bite, int64_t start_ns,
                  object measure_ns, Flight flight, uint32_t number):
        memset(&self.s, 0, sizeof(self.s))
        self.s.receiver, self.s.load = <flux_receiver *>receiver, <const flux_load *>load
        self.s.tally, self.s.rings = <flux_tally *>tally, <flux_ring **>rings
        self.s.times.schedule, self.s.times.send = <flux_hdr *>schedule, <flux_hdr *>send
        self.s.times.interval = <flux_hdr *>interval
        self.s.socket_fd, self.s.wake_fd, self.s.more = socket_fd, wake_fd, 1
        self.s.bite, self.s.start_ns, self.s.measure_ns[0] = bite, start_ns, -1
        if not 1 <= bite <= self.s.receiver.arrival_limit:
            raise ValueError(f"a bite is 1 to {self.s.receiver.arrival_limit} messages, not {bite}")
        if self.s.receiver.streams.count != self.s.load.streams:
            raise ValueError(f"{self.s.receiver.streams.count} streams for a load of {self.s.load.streams}")
        if measure_ns is not None:
            self.s.measure_ns[0], self.s.measure_ns[1] = measure_ns
        if flight is not None:
            self.flight = flight
            self.s.received = flight.received(number)

    def run(self, int64_t until_ns, uint64_t goal, bint once):
        cdef int status
        with nogil:
            status = flux_drive_subscriber(&self.s, until_ns, goal, once)
        return status

    @property
    def messages(self):
        return self.s.receiver.counters[FLUX_COUNT_MESSAGES]
