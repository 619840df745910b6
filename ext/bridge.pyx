# cython: auto_pickle=False, autotestdict=False
"""The server's two threads on their ordinary way; drawn in bridge.h and exchange.h.

    Exchange   two groups between loop and committer
    Turns      PULL -> group            the loop's thread
    Commits    group -> journal, PUB    the committer's thread

Everything that is handed in by address (groups, streams, a receiver, a table of calls) is only borrowed: the door keeps
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

    ctypedef struct flux_filled:
        flux_group *group
        int noted

    ctypedef struct pthread_mutex_t:
        pass

    ctypedef struct pthread_cond_t:
        pass

    ctypedef struct flux_exchange:
        pthread_mutex_t lock
        pthread_cond_t changed
        flux_filled *filled
        int filling, taken, closed
        uint64_t borrowed
        uint32_t file
        uint64_t offset
        uint8_t *beat
        size_t beat_size, beat_limit

    ctypedef struct flux_loop:
        flux_receiver *receiver
        flux_exchange *exchange
        uint64_t store_id, room
        uint32_t room_records, epoch, max_rows
        int pull_fd, wake_fd, more
        int64_t turned_ns
        flux_run_rows *runs
        uint32_t *touched

    ctypedef struct flux_journal_end:
        int fd, fence, slot
        uint32_t file, serial
        uint64_t offset, synced, spoiled, limit

    ctypedef struct flux_sent:
        uint64_t sent, sent_v1, bytes
        int error

    ctypedef struct flux_committer:
        flux_exchange *exchange
        flux_receiver *receiver
        flux_streams *streams
        const flux_zmq *zmq
        void *socket
        uint64_t store_id
        uint32_t epoch
        int disk, by_python
        const uint8_t *beat_topic
        size_t beat_topic_size
        uint8_t *scratch
        size_t scratch_size
        uint64_t groups, beats
        int refused
        flux_sent sent
        uint8_t *heard
        size_t heard_size, heard_limit

    enum:
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
    void flux_exchange_committed(flux_exchange *x, uint32_t file, uint64_t offset)
    void flux_exchange_wait_past(flux_exchange *x, uint32_t *file, uint64_t *offset, int64_t until_ns)
    uint32_t flux_number(flux_streams *t, const flux_arrival *arrivals, uint32_t count, flux_run_rows *runs,
                         uint32_t *touched)
    int flux_loop_record(flux_loop *l)
    int flux_loop_turns(flux_loop *l, int64_t until_ns)
    void flux_send_beat(flux_committer *c)
    void flux_mark_runs(flux_receiver *r, const flux_group *g)
    int flux_commit_groups(flux_committer *c, flux_journal_end *j, int64_t until_ns)


TIME = int(FLUX_TURN_TIME)
WOKEN = int(FLUX_TURN_WOKEN)
NO_ROOM = int(FLUX_TURN_NO_ROOM)


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
        """Lets go of the group being filled; Python has put something into it, and will have to see to it."""
        self.x.filled[self.x.filling].noted = 1
        pthread_cond_broadcast(&self.x.changed)
        pthread_mutex_unlock(&self.x.lock)

    def take(self, int64_t timeout_ns):
        cdef int taken
        with nogil:
            taken = flux_exchange_take(&self.x, flux_clock(CLOCK_MONOTONIC) + timeout_ns)
        if taken == -2:
            raise AssertionError("a group was taken and not given back")
        return taken

    @property
    def taken(self):
        return self.x.taken

    @property
    def borrowed(self):
        """Groups that the loop took to commit them itself."""
        return self.x.borrowed

    @property
    def empty(self):
        cdef bint found
        with nogil:
            pthread_mutex_lock(&self.x.lock)
            found = self.x.filled[self.x.filling].group.count == 0 and self.x.taken < 0
            pthread_mutex_unlock(&self.x.lock)
        return found

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
            flux_exchange_committed(&self.x, file, offset)

    def wait_past(self, uint32_t file, uint64_t offset, int64_t timeout_ns):
        cdef int64_t until_ns = flux_clock(CLOCK_MONOTONIC) + timeout_ns
        with nogil:
            flux_exchange_wait_past(&self.x, &file, &offset, until_ns)
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

    def __cinit__(self, Exchange exchange not None, uintptr_t receiver, uintptr_t streams, uintptr_t calls,
                  uintptr_t socket, *, uint64_t store_id, uint32_t epoch, bint disk, bint by_python, bytes beat_topic,
                  object scratch, object heard):
        memset(&self.committer, 0, sizeof(self.committer))
        self.exchange = exchange
        self.scratch, self.heard = _Borrowed(scratch, True, 0), _Borrowed(heard, True, 0)
        self.committer.heard, self.committer.heard_limit = <uint8_t *>self.heard.view.buf, self.heard.view.len
        self.committer.exchange = &exchange.x
        self.committer.receiver = <flux_receiver *>receiver
        self.committer.streams = <flux_streams *>streams
        self.committer.zmq = <const flux_zmq *>calls
        self.committer.socket = <void *>socket
        self.committer.store_id, self.committer.epoch = store_id, epoch
        self.committer.disk, self.committer.by_python = disk, by_python
        self.beat_topic = beat_topic
        self.committer.beat_topic, self.committer.beat_topic_size = <const uint8_t *>self.beat_topic, len(beat_topic)
        self.committer.scratch = <uint8_t *>self.scratch.view.buf
        self.committer.scratch_size = self.scratch.view.len

    def run(self, int64_t timeout_ns, *, int fd, uint32_t file, uint64_t offset, uint64_t synced, uint64_t spoiled,
            uint64_t limit, int fence, int slot, uint32_t serial):
        cdef flux_journal_end end
        cdef flux_sent sent
        cdef int noted
        end.fd, end.file, end.fence, end.slot, end.serial = fd, file, fence, slot, serial
        end.offset, end.synced, end.spoiled, end.limit = offset, synced, spoiled, limit
        self.committer.groups = self.committer.heard_size = 0
        self.committer.refused = 0
        memset(&self.committer.sent, 0, sizeof(flux_sent))
        with nogil:
            noted = flux_commit_groups(&self.committer, &end, flux_clock(CLOCK_MONOTONIC) + timeout_ns)
        sent = self.committer.sent
        return ((end.offset, end.synced, end.spoiled), (end.slot, end.serial), bool(noted), self.committer.groups,
                (sent.sent, sent.sent_v1, sent.bytes), sent.error, self.committer.heard_size, self.committer.refused)

    def send_beat(self):
        with nogil:
            flux_send_beat(&self.committer)

    @property
    def beats(self):
        return self.committer.beats

    def mark_runs(self, uintptr_t group):
        """Moves the committed positions of the runs that a group names, which Python has committed."""
        with nogil:
            flux_mark_runs(self.committer.receiver, <flux_group *>group)
