# cython: auto_pickle=False, autotestdict=False
"""Receive, record and publish in batches: the one place where stations meet in C (drawn in ext/pump.h).

    Streams    the table of slots         shared by a receiver, the recorder and the publisher of one process
    Receiver   socket -> rings | inbox    one thread
    record     inbox -> rings -> group    the same thread
    publish    group -> socket -> marks   the committer's thread
    refill     journal bytes -> rings     at the start, before there is any other thread

Memory that Python hands in (arrays, rings, groups) is only borrowed: the door keeps it alive.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
cimport numpy as cnp
from libc.stdint cimport INT64_MAX, INT64_MIN, UINT32_MAX, UINT64_MAX, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from pump cimport *
from row cimport FLUX_ROWS_CANDLE, FLUX_ROWS_TRADE, flux_candle, flux_row_size

cnp.import_array()


COUNTERS = (
    "messages", "bytes", "short", "size", "checksum", "verify", "frames", "version", "sequence", "rows", "kind", "key",
    "refused_stream", "others_dropped", "owner", "ahead", "resent", "shared", "older_claim", "values",
    "admitted", "repeats", "corrections", "late", "not_finite", "high_low", "open_close", "time", "volume", "grid",
    "future", "forming", "spent", "old",
)
"""What `Receiver.counters` counts: messages as far as `refused_stream`, rows from `owner` on, but for `shared`,
`older_claim` and `values`, which are messages."""

assert len(COUNTERS) == FLUX_COUNTERS

REFUSED_KEPT = int(FLUX_REFUSED_KEPT)
"""Refused rows of a run that can be asked for."""

ZMQ_FUNCTIONS = ("zmq_msg_init", "zmq_msg_recv", "zmq_msg_close", "zmq_msg_data", "zmq_msg_size", "zmq_msg_more",
                 "zmq_send", "zmq_errno")
"""The functions of libzmq whose addresses `bind` takes, in this order."""

cdef flux_zmq bound
memset(&bound, 0, sizeof(bound))


def bind(addresses):
    """Takes the addresses of ZMQ_FUNCTIONS in the libzmq whose sockets will be handed in."""
    cdef uintptr_t a[8]
    for i, address in enumerate(addresses):
        a[i] = address
    memcpy(&bound, a, sizeof(a))


include "pump_python.pxi"


cdef class _Borrowed:
    """A buffer held for as long as this object lives."""

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, object owner, bint writable):
        PyObject_GetBuffer(owner, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


include "pump_streams.pxi"
include "pump_push.pxi"


cdef class Receiver:
    """Drains one socket into rings (client) or into an inbox (server). One thread; see ext/receive.h.

    `socket` is libzmq's pointer or, unless `native`, the address of the Python socket (0 = none: a server whose rows
    come by `offer` alone). The arrays are borrowed for the receiver's life and rewritten by each call of `receive`.
    """

    cdef flux_receiver r
    cdef Streams streams
    cdef _Borrowed arrivals, inbox, others, scratch

    def __cinit__(self, Streams streams, uintptr_t socket, *, bint server, int topic_frames, uint64_t max_frame,
                  bint native, uint64_t max_rows, uint32_t run_limit, int64_t ahead_ms, object arrivals, object inbox,
                  object others, object scratch):
        memset(&self.r, 0, sizeof(self.r))
        self.streams = streams
        self.arrivals, self.inbox = _Borrowed(arrivals, True), _Borrowed(inbox, True)
        self.others, self.scratch = _Borrowed(others, True), _Borrowed(scratch, True)
        self.r.zmq = bound if native else by_python
        self.r.socket = <void *>socket
        self.r.streams = &streams.table
        self.r.server, self.r.topic_frames = server, topic_frames
        self.r.max_frame, self.r.max_rows = max_frame, max_rows
        self.r.arrivals = <flux_arrival *>self.arrivals.view.buf
        self.r.arrival_limit = <uint32_t>(self.arrivals.view.len // sizeof(flux_arrival))
        self.r.inbox, self.r.inbox_limit = <uint8_t *>self.inbox.view.buf, self.inbox.view.len
        self.r.others, self.r.others_limit = <uint8_t *>self.others.view.buf, self.others.view.len
        self.r.scratch = <flux_candle *>self.scratch.view.buf
        if not server and <uint64_t>self.scratch.view.len < max_rows * sizeof(flux_candle):
            raise ValueError("scratch holds fewer rows than a message may")
        self.r.run_limit = run_limit
        self.r.ahead_ms = ahead_ms
        self.r.turn = 1
        self.r.runs = <flux_feed_run *>calloc(run_limit + 1, sizeof(flux_feed_run))
        if self.r.runs == NULL:
            raise MemoryError("no memory for the positions of feeds")

    def __dealloc__(self):
        flux_let_go(&self.r)
        flux_receiver_free(&self.r)

    def receive(self):
        """Drains what waits: (arrivals, status). The status numbers are enum flux_drained.

        A signal is seen to here when nothing has arrived yet; what has arrived is told first. So an exception of its
        handler costs no message.
        """
        cdef int status
        if self.r.zmq.msg_recv == NULL:
            raise RuntimeError("bind() libzmq first")
        raise_kept()
        while True:
            with nogil:
                status = flux_receive(&self.r)
            if self.r.arrival_count or self.r.others_used:
                return self.r.arrival_count, FLUX_FULL if status == FLUX_INTERRUPTED else status
            if status == FLUX_SOCKET_ERROR:
                raise_kept()
            if status != FLUX_INTERRUPTED:
                return 0, status
            PyErr_CheckSignals()

    def begin(self):
        """Empties arrivals and inbox without touching the socket, for a turn that only offers."""
        flux_turn_begin(&self.r)

    @property
    def socket_errno(self):
        return self.r.socket_errno

    @property
    def arrival_count(self):
        return self.r.arrival_count

    def counters(self):
        """Counts since the beginning, by the names of COUNTERS."""
        return {name: self.r.counters[i] for i, name in enumerate(COUNTERS)}

    def unknown(self):
        """Of the held message: (source, symbol, interval, kind, store_id, epoch, stream_id, start, count, slot)."""
        cdef const flux_view *v = &self.r.held
        if not self.r.holding:
            return None
        cdef const char *p = <const char *>self.r.zmq.msg_data(&self.r.message)
        return (PyBytes_FromStringAndSize(p + v.source_at, v.source_size),
                PyBytes_FromStringAndSize(p + v.symbol_at, v.symbol_size),
                PyBytes_FromStringAndSize(p + v.interval_at, v.interval_size),
                v.row_kind, v.store_id, v.epoch, v.stream_id, v.start_sequence, v.row_count,
                None if self.r.held_slot == FLUX_NO_SLOT else self.r.held_slot)

    def discard(self):
        """Drops the held message, counted as `refused_stream`; nothing is said of a run."""
        self.r.counters[FLUX_COUNT_REFUSED_STREAM] += 1
        flux_let_go(&self.r)

    def refuse(self, uint32_t index):
        """Drops the held message, counted as `refused_stream`, and lets its run (server) go on behind it."""
        if index >= self.r.run_count:
            raise IndexError(f"run {index} of {self.r.run_count}")
        flux_refuse(&self.r, index)

    def other_payloads(self):
        """The payloads without rows that the last `receive` met, as bytes."""
        cdef uint64_t at = 0
        cdef uint32_t size
        found = []
        while at < self.r.others_used:
            memcpy(&size, self.r.others + at, 4)
            found.append(PyBytes_FromStringAndSize(<const char *>self.r.others + at + 4, size))
            at += 4 + size
        return found

    def add_run(self, bytes source, uint64_t run_id, uint64_t taken, uint32_t owner, bytes name=b"",
                uint32_t incarnation=0, int place=-1):
        """Remembers a feed's run, of which `taken` rows are known, and gives its index.

        When the table is full the run at `place` goes (-1: the oldest) and this one has its index. `name`: how a SOURCE
        record of it begins.
        """
        cdef uint32_t index = self.r.run_serial % self.r.run_limit
        if place >= 0 and self.r.run_count == self.r.run_limit:
            if <uint32_t>place >= self.r.run_limit:
                raise IndexError(f"run {place} of {self.r.run_limit}")
            index = <uint32_t>place
        cdef flux_feed_run *run = &self.r.runs[index]
        if len(name) > FLUX_RUN_NAME_MAX:
            raise ValueError(f"a name of {len(name)} bytes")
        if self.r.run_count == self.r.run_limit:
            flux_streams_forget_routes(&self.streams.table)
        else:
            self.r.run_count += 1
        run.run_id, run.taken, run.owner, run.recorded, run.committed = run_id, taken, owner, taken, 0
        run.incarnation, run.committed_incarnation, run.refused_total = incarnation, incarnation, 0
        run.source_hash = flux_crc32c(0, <const char *>source, len(source))
        run.name_size = <uint32_t>len(name)
        memcpy(run.name, <const char *>name, len(name))
        self.r.run_serial += 1
        run.serial = self.r.run_serial
        return index

    def find_run(self, bytes source, uint64_t run_id):
        """The index of a feed's run, or None."""
        cdef uint32_t index = flux_find_run(&self.r, run_id, flux_crc32c(0, <const char *>source, len(source)))
        return None if index == FLUX_NO_RUN else index

    def run_taken(self, uint32_t index):
        """Rows of that run taken so far: admitted, refused or dropped as repeats."""
        if index >= self.r.run_count:
            raise IndexError(f"run {index} of {self.r.run_count}")
        return self.r.runs[index].taken

    def run_committed(self, uint32_t index):
        """(rows of that run that are committed, the incarnation that sent them), as far as this table has seen. From
        any thread."""
        if index >= self.r.run_count:
            raise IndexError(f"run {index} of {self.r.run_count}")
        return self.r.runs[index].committed, self.r.runs[index].committed_incarnation

    def run_incarnation(self, uint32_t index):
        """The process that has that run."""
        if index >= self.r.run_count:
            raise IndexError(f"run {index} of {self.r.run_count}")
        return self.r.runs[index].incarnation

    def claim_run(self, uint32_t index):
        """Gives that run to another process: its incarnation from now on. Messages of earlier ones are dropped."""
        if index >= self.r.run_count:
            raise IndexError(f"run {index} of {self.r.run_count}")
        self.r.runs[index].incarnation += 1
        return self.r.runs[index].incarnation

    def run_refused(self, uint32_t index, uint64_t after, uint64_t upto, object out):
        """(rows of that run refused since this server began, how many of them, with a number above `after` and at most
        `upto`, were copied to `out`, REFUSED records for REFUSED_KEPT of them). From any thread."""
        cdef _Borrowed buffer = _Borrowed(out, True)
        if index >= self.r.run_count:
            raise IndexError(f"run {index} of {self.r.run_count}")
        if buffer.view.len < 16 * FLUX_REFUSED_KEPT:
            raise ValueError(f"room for {FLUX_REFUSED_KEPT} refused rows is needed")
        return (self.r.runs[index].refused_total,
                flux_copy_refused(&self.r.runs[index], after, upto, <flux_refused *>buffer.view.buf))

    def last_refused(self):
        """The slot of the last row that was refused, by reason; from any thread."""
        return {COUNTERS[FLUX_COUNTERS - FLUX_ADMIT_OUTCOMES + i]: self.r.last_refused[i] - 1
                for i in range(FLUX_ADMIT_OUTCOMES) if self.r.last_refused[i]}

    def last_unsound(self):
        """Of the last message whose rows no server numbers: (slot, the row's sequence, its fault); None: there was none."""
        cdef flux_unsound found = self.r.last_unsound
        return (found.slot, found.sequence, found.fault) if found.fault else None

    def last_shared(self):
        """The slot of a stream that two live runs write, the last that was found; None when there is none."""
        return self.r.last_shared - 1 if self.r.last_shared else None

    def address(self):
        """Where the C struct is, for the bridge, which keeps this object alive."""
        return <uintptr_t>&self.r

    def room(self, uint32_t slot):
        """Rows of this stream that can be offered now."""
        return flux_room(&self.r, self.streams.at(slot))

    def offer(self, uint32_t slot, object rows, uint32_t owner=0):
        """Admits rows of a source in this process into the inbox, as one arrival; there must be `room` for all.

        `rows` is a contiguous buffer of the stream's rows. `owner`: the input they come from (0 = whoever owns the
        stream); rows of another than the stream's are counted `owner`. Returns how many were admitted.
        """
        cdef _Borrowed buffer = _Borrowed(rows, False)
        cdef flux_stream *s = self.streams.at(slot)
        cdef uint64_t n = buffer.view.len // s.ring.row_size
        cdef flux_view v
        cdef flux_arrival *a
        if n > flux_room(&self.r, s) or self.r.arrival_count >= self.r.arrival_limit:
            raise ValueError(f"no room for {n} rows")
        if owner and owner != s.owner:
            self.r.counters[FLUX_COUNT_OWNER] += n
            return 0
        memset(&v, 0, sizeof(v))
        v.row_count = <uint32_t>n
        v.row_kind = s.kind
        with nogil:
            a = flux_arrive(&self.r, slot, &v)
            flux_admit_rows(&self.r, slot, a, <const uint8_t *>buffer.view.buf, n, NULL, 0)
        return a.rows


def record(Streams streams, uintptr_t group, object inbox, object runs, uint32_t count, uint64_t store_id,
           uint32_t epoch, uint32_t max_rows):
    """Lays `count` runs (RUN records, sorted by stream, in order of sequence) into the rings and the group.

    `group` is the address of a journal group with room for them. False when the group or a ring was full: a fault of
    the caller, who must not go on.
    """
    cdef _Borrowed rows = _Borrowed(inbox, False), which = _Borrowed(runs, False)
    cdef int status
    if count > <uint64_t>which.view.len // 32:
        raise ValueError("more runs than given")
    with nogil:
        status = flux_pump_record(&streams.table, <flux_group *>group, <const uint8_t *>rows.view.buf,
                             <const flux_run_rows *>which.view.buf, count, store_id, epoch, max_rows)
    return status == 0


def publish(Streams streams, uintptr_t socket, uintptr_t group, object scratch, object order=None, object spoilt=None,
            *, bint native=True):
    """Sends the batches of a group and never waits: (sent, sent in version 1, bytes, errno that ended it or 0).

    `socket` as a Receiver's.
    `order` (u4): the entries to send, instead of all in turn; `spoilt` (u1, as long): where a bit is to be flipped.
    `scratch`: a writable buffer for version 1 frames.
    """
    cdef _Borrowed space = _Borrowed(scratch, True)
    cdef _Borrowed which = None, flips = None
    cdef flux_group *g = <flux_group *>group
    cdef const uint32_t *entries = NULL
    cdef const uint8_t *marks = NULL
    cdef uint32_t count = g.count, i
    cdef flux_sent sent
    memset(&sent, 0, sizeof(sent))
    if order is not None:
        which = _Borrowed(order, False)
        entries = <const uint32_t *>which.view.buf
        count = <uint32_t>(which.view.len // 4)
        for i in range(count):
            if entries[i] >= g.count:
                raise IndexError(f"entry {entries[i]} of {g.count}")
    if spoilt is not None:
        flips = _Borrowed(spoilt, False)
        if <uint64_t>flips.view.len < count:
            raise ValueError("spoilt is shorter than order")
        marks = <const uint8_t *>flips.view.buf
    with nogil:
        flux_publish(&bound if native else &by_python, <void *>socket, &streams.table, g, entries, marks, count,
                     <uint8_t *>space.view.buf, space.view.len, &sent)
    raise_kept()
    return sent.sent, sent.sent_v1, sent.bytes, sent.error


def mark_committed(Streams streams, uintptr_t group):
    """Moves the committed marks to what the group holds: requests, marks and status may read it from now on."""
    with nogil:
        flux_mark_committed(&streams.table, <flux_group *>group, flux_clock(CLOCK_MONOTONIC))


def refill(Streams streams, object data, uint64_t have, uint64_t end, object slots):
    """Lays journal records back into the rings of their streams (`slots`: u4 by stream_id, 2^32-1 = none), as far as a
    ring does not begin behind them: (where to go on, whether a batch of theirs did not verify and ended it)."""
    cdef _Borrowed source = _Borrowed(data, False), known = _Borrowed(slots, False)
    cdef int broken = 0
    cdef uint64_t stopped
    assert have <= <uint64_t>source.view.len
    with nogil:
        stopped = flux_refill(&streams.table, <const uint8_t *>source.view.buf, have, end,
                              <const uint32_t *>known.view.buf, <uint32_t>(known.view.len // 4), &broken)
    return stopped, broken != 0
