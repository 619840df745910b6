# cython: auto_pickle=False, autotestdict=False
"""The server's two threads on their ordinary way; drawn in bridge.h, exchange.h and commit.h.

    Exchange   two groups between loop and committer
    Turns      PULL -> group            the loop's thread
    Commits    group -> journal, PUB    the committer's thread

Everything that is handed in by address (groups, a journal's end, streams, a table of calls) is only borrowed: the door keeps
it alive. What waits, waits without the GIL.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset


cdef extern from "time.h" nogil:
    int CLOCK_MONOTONIC


cdef extern from "bridge.h" nogil:
    ctypedef struct flux_group:
        uint32_t count

    ctypedef struct flux_streams:
        uint32_t count

    ctypedef struct flux_zmq:
        pass

    ctypedef struct flux_arrival:
        uint32_t stream

    ctypedef struct flux_run_rows:
        pass

    ctypedef struct flux_receiver:
        flux_streams *streams
        uint32_t arrival_limit

    ctypedef struct flux_end:
        pass

    ctypedef struct flux_fence:
        pass

    ctypedef struct flux_filled:
        flux_group *group
        int by_python

    ctypedef struct pthread_mutex_t:
        pass

    ctypedef struct pthread_cond_t:
        pass

    ctypedef struct flux_position:
        pass

    ctypedef struct flux_committer  # below

    ctypedef struct flux_exchange:
        pthread_mutex_t lock
        pthread_cond_t changed
        flux_filled *filled
        int filling, closed, state
        flux_committer *committer
        uint64_t stood_in
        uint8_t *beat
        size_t beat_size, beat_limit
        flux_position position

    ctypedef struct flux_loop:
        flux_receiver *receiver
        flux_exchange *exchange
        uint64_t store_id, room
        uint32_t room_records, epoch, max_rows
        int pull_fd, wake_fd, more
        int64_t turned_ns
        flux_run_rows *runs
        uint32_t *touched

    ctypedef struct flux_order:
        const uint32_t *entries
        const uint8_t *spoilt
        uint32_t count

    ctypedef struct flux_sent:
        uint64_t sent, sent_v1, bytes
        int error

    ctypedef struct flux_committer:
        flux_exchange *exchange
        flux_end *end
        flux_fence *fence
        flux_receiver *receiver
        flux_streams *streams
        const flux_zmq *zmq
        void *socket
        uint64_t store_id
        uint32_t epoch
        int disk, ask_always
        const uint8_t *beat_topic
        size_t beat_topic_size
        uint8_t *scratch
        size_t scratch_size
        uint8_t *heard
        size_t heard_size, heard_limit
        uint64_t groups, beats
        flux_sent sent
        int refused

    enum:
        FLUX_SPARE
        FLUX_WAITING
        FLUX_STAND_IN
        FLUX_RECALLED
        FLUX_TAKEN
        FLUX_KEPT
        FLUX_TOOK_NONE
        FLUX_COMMITTED
        FLUX_COMMIT_HEARD
        FLUX_COMMIT_NO_ROOM
        FLUX_COMMIT_REFUSED
        FLUX_COMMIT_UNMARKED
        FLUX_COMMIT_ASKED
        FLUX_TURN_TIME
        FLUX_TURN_WOKEN
        FLUX_TURN_NO_ROOM

    int64_t flux_clock(int clock)
    int pthread_mutex_lock(pthread_mutex_t *lock)
    int pthread_mutex_unlock(pthread_mutex_t *lock)
    int pthread_cond_broadcast(pthread_cond_t *condition)
    int flux_exchange_init(flux_exchange *x, flux_group *first, flux_group *second)
    void flux_exchange_free(flux_exchange *x)
    int flux_exchange_room(flux_exchange *x, uint64_t need, uint32_t records, int64_t until_ns)
    int flux_exchange_take(flux_exchange *x, int64_t until_ns)
    void flux_exchange_give_back(flux_exchange *x)
    int flux_exchange_leave_beat(flux_exchange *x, const uint8_t *frame, size_t size, int64_t until_ns)
    flux_filled *flux_exchange_other(flux_exchange *x)
    void flux_position_move(flux_position *p, uint32_t file, uint64_t offset)
    void flux_position_wait_past(flux_position *p, uint32_t *file, uint64_t *offset, int64_t until_ns)
    uint32_t flux_number(flux_streams *t, const flux_arrival *arrivals, uint32_t count, flux_run_rows *runs,
                         uint32_t *touched)
    int flux_loop_record(flux_loop *l)
    int flux_loop_turns(flux_loop *l, int64_t until_ns)
    void flux_send_beat(flux_committer *c)
    int flux_commit_until(flux_committer *c, const flux_order *order, int64_t until_ns)


TIME = int(FLUX_TURN_TIME)
WOKEN = int(FLUX_TURN_WOKEN)
NO_ROOM = int(FLUX_TURN_NO_ROOM)

SPARE = int(FLUX_SPARE)
WAITING = int(FLUX_WAITING)
STAND_IN = int(FLUX_STAND_IN)
RECALLED = int(FLUX_RECALLED)
TAKEN = int(FLUX_TAKEN)
KEPT = int(FLUX_KEPT)

COMMITTED = int(FLUX_COMMITTED)
COMMIT_HEARD = int(FLUX_COMMIT_HEARD)
COMMIT_NO_ROOM = int(FLUX_COMMIT_NO_ROOM)
COMMIT_REFUSED = int(FLUX_COMMIT_REFUSED)
COMMIT_UNMARKED = int(FLUX_COMMIT_UNMARKED)
COMMIT_ASKED = int(FLUX_COMMIT_ASKED)


cdef class _Borrowed:
    """A buffer of at least `size` bytes, held for as long as this object lives."""

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


cdef class Exchange:
    cdef flux_exchange x
    cdef bint made
    cdef _Borrowed beat

    def __cinit__(self, uintptr_t first, uintptr_t second, object beat):
        self.beat = _Borrowed(beat, True, 1)
        if flux_exchange_init(&self.x, <flux_group *>first, <flux_group *>second) != 0:
            raise MemoryError("no lock")
        self.x.beat, self.x.beat_limit = <uint8_t *>self.beat.view.buf, self.beat.view.len
        self.made = True

    def __dealloc__(self):
        if self.made:
            flux_exchange_free(&self.x)

    def room(self, uint64_t need, uint32_t records, int64_t timeout_ns):
        cdef int found
        with nogil:
            found = flux_exchange_room(&self.x, need, records, flux_clock(CLOCK_MONOTONIC) + timeout_ns)
        return bool(found)

    def lock(self):
        """Holds the group being filled, and gives its index."""
        with nogil:
            pthread_mutex_lock(&self.x.lock)
        return self.x.filling

    def unlock(self):
        """Lets go of the group being filled; Python has put something into it, and is asked before it is shown."""
        self.x.filled[self.x.filling].by_python = 1
        pthread_cond_broadcast(&self.x.changed)
        pthread_mutex_unlock(&self.x.lock)

    @property
    def taken(self):
        """The index of the group that is not being filled."""
        return 1 - self.x.filling

    @property
    def state(self):
        """Whose that group is (exchange.h)."""
        return self.x.state

    @property
    def stood_in(self):
        """Groups that the loop took to commit them itself."""
        return self.x.stood_in

    @property
    def empty(self):
        cdef bint found
        with nogil:
            pthread_mutex_lock(&self.x.lock)
            found = self.x.filled[self.x.filling].group.count == 0 and self.x.state in (FLUX_SPARE, FLUX_WAITING)
            pthread_mutex_unlock(&self.x.lock)
        return found

    def take(self, int64_t timeout_ns):
        """A committer's part by itself, as `give_back` (for tests): whether there is a group."""
        cdef int took
        with nogil:
            took = flux_exchange_take(&self.x, flux_clock(CLOCK_MONOTONIC) + timeout_ns)
        return took != FLUX_TOOK_NONE

    def give_back(self):
        with nogil:
            flux_exchange_give_back(&self.x)

    def close(self):
        with nogil:
            pthread_mutex_lock(&self.x.lock)
            self.x.closed = 1
            pthread_cond_broadcast(&self.x.changed)
            pthread_mutex_unlock(&self.x.lock)

    def leave_beat(self, object frame, int64_t timeout_ns):
        cdef _Borrowed data = _Borrowed(frame, False, 1)
        cdef int left
        with nogil:
            left = flux_exchange_leave_beat(&self.x, <const uint8_t *>data.view.buf, data.view.len,
                                            flux_clock(CLOCK_MONOTONIC) + timeout_ns)
        return bool(left)

    def committed(self, uint32_t file, uint64_t offset):
        with nogil:
            flux_position_move(&self.x.position, file, offset)

    def wait_past(self, uint32_t file, uint64_t offset, int64_t timeout_ns):
        cdef int64_t until_ns = flux_clock(CLOCK_MONOTONIC) + timeout_ns
        with nogil:
            flux_position_wait_past(&self.x.position, &file, &offset, until_ns)
        return file, offset


def number(uintptr_t streams, object arrivals, object runs):
    cdef _Borrowed which = _Borrowed(arrivals, False, 0)
    cdef uint32_t n = <uint32_t>(which.view.len // 64), i, made
    cdef _Borrowed out = _Borrowed(runs, True, <size_t>n * 32)
    cdef const flux_arrival *arrived = <const flux_arrival *>which.view.buf
    cdef flux_streams *table = <flux_streams *>streams
    cdef uint32_t *touched = <uint32_t *>calloc(n + 1, sizeof(uint32_t))
    if touched == NULL:
        raise MemoryError("no memory to number rows")
    try:
        for i in range(n):
            if arrived[i].stream >= table.count:
                raise IndexError(f"slot {arrived[i].stream} of {table.count}")
        made = flux_number(table, arrived, n, <flux_run_rows *>out.view.buf, touched)
    finally:
        free(touched)
    return made


cdef class Turns:
    cdef flux_loop loop
    cdef Exchange exchange

    def __cinit__(self, Exchange exchange not None, uintptr_t receiver, *, uint64_t store_id, uint32_t epoch,
                  uint32_t max_rows, uint64_t room, uint32_t room_records, int pull_fd, int wake_fd):
        memset(&self.loop, 0, sizeof(self.loop))
        self.exchange = exchange
        self.loop.exchange = &exchange.x
        self.loop.receiver = <flux_receiver *>receiver
        self.loop.store_id, self.loop.epoch = store_id, epoch
        self.loop.max_rows, self.loop.room, self.loop.room_records = max_rows, room, room_records
        self.loop.pull_fd, self.loop.wake_fd = pull_fd, wake_fd
        self.loop.more = pull_fd >= 0
        self.loop.runs = <flux_run_rows *>calloc(self.loop.receiver.arrival_limit, 32)
        self.loop.touched = <uint32_t *>calloc(self.loop.receiver.arrival_limit, sizeof(uint32_t))
        if self.loop.runs == NULL or self.loop.touched == NULL:
            raise MemoryError("no memory to number rows")

    def __dealloc__(self):
        free(self.loop.runs)
        free(self.loop.touched)

    def run(self, int64_t timeout_ns):
        cdef int status
        with nogil:
            status = flux_loop_turns(&self.loop, flux_clock(CLOCK_MONOTONIC) + timeout_ns)
        if status < 0:
            raise AssertionError("recorded without room: rings and groups are sized by limits.py")
        return status

    @property
    def turned_ns(self):
        return self.loop.turned_ns

    def record(self):
        if flux_loop_record(&self.loop) != 0:
            raise AssertionError("recorded without room: rings and groups are sized by limits.py")


cdef class Commits:
    cdef flux_committer committer
    cdef Exchange exchange
    cdef _Borrowed scratch, heard
    cdef bytes beat_topic

    def __cinit__(self, Exchange exchange not None, uintptr_t end, uintptr_t fence, uintptr_t receiver,
                  uintptr_t streams, uintptr_t calls, uintptr_t socket, *, uint64_t store_id, uint32_t epoch, bint disk,
                  bint ask_always, bytes beat_topic, object scratch, object heard):
        cdef flux_committer *c = &self.committer
        memset(c, 0, sizeof(flux_committer))
        self.exchange = exchange
        self.scratch, self.heard, self.beat_topic = _Borrowed(scratch, True, 0), _Borrowed(heard, True, 0), beat_topic
        c.exchange, c.end, c.fence = &exchange.x, <flux_end *>end, <flux_fence *>fence
        c.receiver, c.streams = <flux_receiver *>receiver, <flux_streams *>streams
        c.zmq, c.socket = <const flux_zmq *>calls, <void *>socket
        c.store_id, c.epoch, c.disk, c.ask_always = store_id, epoch, disk, ask_always
        c.beat_topic, c.beat_topic_size = <const uint8_t *>self.beat_topic, len(beat_topic)
        c.scratch, c.scratch_size = <uint8_t *>self.scratch.view.buf, self.scratch.view.len
        c.heard, c.heard_limit = <uint8_t *>self.heard.view.buf, self.heard.view.len
        # Not with a sync for each group: the loop would wait for the disk while rows arrive.
        exchange.x.committer = NULL if disk or ask_always else c

    def __dealloc__(self):
        if self.exchange is not None:
            self.exchange.x.committer = NULL

    def run(self, int64_t timeout_ns, object order=None, object spoilt=None):
        cdef flux_committer *c = &self.committer
        cdef _Borrowed entries, flips
        cdef flux_order chosen
        cdef const flux_order *given = NULL
        cdef int found
        if order is not None:
            entries, flips = _Borrowed(order, False, 0), _Borrowed(spoilt, False, len(order))
            chosen.entries, chosen.spoilt = <const uint32_t *>entries.view.buf, <const uint8_t *>flips.view.buf
            chosen.count = <uint32_t>(entries.view.len // 4)
            for i in range(chosen.count):
                if chosen.entries[i] >= flux_exchange_other(&self.exchange.x).group.count:
                    raise IndexError(f"entry {chosen.entries[i]} of a group that has fewer")
            given = &chosen
        c.groups = c.heard_size = 0
        c.refused = 0
        memset(&c.sent, 0, sizeof(flux_sent))
        with nogil:
            found = flux_commit_until(c, given, flux_clock(CLOCK_MONOTONIC) + timeout_ns)
        return (found, c.groups, (c.sent.sent, c.sent.sent_v1, c.sent.bytes), c.sent.error, c.heard_size, c.refused)

    def send_beat(self):
        with nogil:
            flux_send_beat(&self.committer)

    @property
    def beats(self):
        return self.committer.beats
