# A feed's outbox, as Python sees it: included by pump.pyx.
#
#     send(symbol, interval, rows) ─► sound? ─► frames in a ring of bytes ─► PUSH socket
#                                                 │ until committed, and again when asked

QUEUED, WOKEN, NO_ROOM, UNSOUND, OTHER = range(5)
"""What `Outbox.send` answers: queued; queued as the first that waits; nothing was, for want of room; nothing was, rows
are not sound; nothing was, for it is no array of a known stream's rows."""


cdef struct outbox_stream:
    flux_template head
    int kind
    int64_t grid_ms
    uint32_t stream_id


cdef class Outbox:
    """Rows of a feed's run until they are committed; see ext/push.h. Any thread may send."""

    cdef flux_outbox o
    cdef outbox_stream **streams
    cdef uint32_t count, limit, most
    cdef dict slots
    cdef list dtypes
    cdef bint made

    def __cinit__(self, *, bint native, uint64_t capacity, uint32_t most_rows, uint32_t stream_limit, list dtypes):
        """`dtypes`: those of the kinds of rows, by number from 1. `capacity` in bytes, made as they are used."""
        memset(&self.o, 0, sizeof(self.o))
        self.slots, self.dtypes, self.most, self.limit = {}, dtypes, most_rows, stream_limit
        self.o.zmq = bound if native else by_python
        self.o.capacity = capacity & ~<uint64_t>31
        self.o.data = <uint8_t *>malloc(self.o.capacity)
        self.streams = <outbox_stream **>calloc(stream_limit, sizeof(outbox_stream *))
        if self.o.data == NULL or self.streams == NULL or pthread_mutex_init(&self.o.lock, NULL) != 0:
            raise MemoryError(f"no memory for {capacity} bytes that wait")
        self.made = True

    def __dealloc__(self):
        cdef uint32_t i
        if self.made:
            pthread_mutex_destroy(&self.o.lock)
        if self.streams != NULL:
            for i in range(self.count):
                free(self.streams[i])
        free(self.streams)
        free(self.o.data)

    def begin(self, uint64_t run, uint32_t incarnation, uint64_t committed):
        """The run, and how many of its rows an earlier process sent and had committed."""
        self.o.run, self.o.incarnation = run, incarnation
        self.o.queued = self.o.sent = self.o.committed = committed

    def connect(self, uintptr_t socket):
        """The PUSH socket, as a Receiver's; 0: none any more. It is used under the outbox's lock alone from now on."""
        with nogil:
            pthread_mutex_lock(&self.o.lock)
            self.o.socket = <void *>socket
            pthread_mutex_unlock(&self.o.lock)

    def close(self):
        """Nothing more is put in: `queued` is final. What is there can still be sent and committed."""
        with nogil:
            pthread_mutex_lock(&self.o.lock)
            self.o.closed = 1
            pthread_mutex_unlock(&self.o.lock)

    def add(self, bytes source, str symbol, str interval, int kind):
        """A stream that rows may be sent of."""
        cdef outbox_stream *s
        cdef bytes name = symbol.encode(), kept = interval.encode()
        if (symbol, interval) in self.slots:
            return
        if self.count == self.limit:
            raise ValueError(f"{self.limit} streams is the limit")
        s = <outbox_stream *>calloc(1, sizeof(outbox_stream))
        if s == NULL:
            raise MemoryError("no memory for a stream")
        if flux_template_make(&s.head, kind, source, len(source), name, len(name), kept, len(kept)) != 0:
            free(s)
            raise ValueError("names too long for a stream")
        s.kind, s.grid_ms, s.stream_id = kind, flux_grid_of(kind, kept, len(kept)), self.count + 1
        self.streams[self.count] = s
        self.slots[symbol, interval] = self.count
        self.count += 1

    def send(self, symbol, interval, rows):
        """Puts rows (a one-dimensional contiguous array) in and sends them, all or none: see QUEUED and the others."""
        cdef object slot = self.slots.get((symbol, interval))
        cdef outbox_stream *s
        cdef const uint8_t *data
        cdef uint64_t n, i, need
        cdef uint8_t copy[64]
        cdef uint32_t size
        cdef int status = 0
        cdef bint first = False
        if slot is None or not isinstance(rows, cnp.ndarray):
            return OTHER
        s = self.streams[<uint32_t>slot]
        if cnp.PyArray_NDIM(rows) != 1 or not cnp.PyArray_IS_C_CONTIGUOUS(rows):
            return OTHER
        if (<cnp.ndarray>rows).descr is not self.dtypes[s.kind] and (<cnp.ndarray>rows).descr != self.dtypes[s.kind]:
            return OTHER
        data, n, size = <const uint8_t *>cnp.PyArray_DATA(rows), cnp.PyArray_DIM(rows, 0), s.head.row_size
        with nogil:
            for i in range(n):
                memcpy(copy, data + i * size, size)
                if flux_admit_fault(s.kind, copy, s.grid_ms, INT64_MAX) != 0:
                    status = 3
                    break
            if status == 0 and (n != 0 or self.o.closed):
                need = flux_outbox_need(&s.head, n, self.most)
                pthread_mutex_lock(&self.o.lock)
                if self.o.closed or not flux_outbox_fits(&self.o, need, flux_outbox_space(flux_encoded_size(&s.head, self.most))):
                    status = 2
                else:
                    first = self.o.queued == self.o.committed
                    flux_outbox_put(&self.o, &s.head, s.stream_id, data, n, self.most)
                pthread_mutex_unlock(&self.o.lock)
        return status if status else first

    def most_at_once(self, symbol, interval):
        """Rows of a stream that fit when nothing waits."""
        cdef outbox_stream *s = self.streams[<uint32_t>self.slots[symbol, interval]]
        cdef uint64_t message = flux_outbox_space(flux_encoded_size(&s.head, self.most))
        return max(1, self.o.capacity // message - 1) * self.most

    def resend(self, bint everything):
        """Sends what waits, or (`everything`) also what was sent and is not committed. Raises OSError when the socket
        failed; whether something still waits."""
        cdef int error
        cdef bint waits
        with nogil:
            pthread_mutex_lock(&self.o.lock)
            if everything:
                self.o.next = self.o.head
            flux_outbox_send(&self.o)
            error, waits = self.o.error, self.o.next < self.o.tail
            pthread_mutex_unlock(&self.o.lock)
        raise_kept()
        if error:
            raise OSError(error, "the feed's socket failed")
        return bool(waits)

    def begin_anew(self, uint64_t run, uint32_t incarnation=0):
        """Goes on as another run: what is not committed is numbered from 1 again. It is the caller's to know that
        nothing of it was sent."""
        cdef uint8_t *scratch = <uint8_t *>malloc(<size_t>self.most * 64)
        if scratch == NULL:
            raise MemoryError("no memory to number rows again")
        with nogil:
            pthread_mutex_lock(&self.o.lock)
            flux_outbox_begin_anew(&self.o, run, incarnation, <const flux_template *const *>self.streams, scratch)
            pthread_mutex_unlock(&self.o.lock)
        free(scratch)

    def commit(self, uint64_t committed):
        """Lets go of the run's rows up to there."""
        with nogil:
            pthread_mutex_lock(&self.o.lock)
            flux_outbox_commit(&self.o, committed)
            pthread_mutex_unlock(&self.o.lock)

    def find(self, object refused):
        """For each REFUSED record (a buffer of them, by ascending numbers) the row that waits here under that number:
        (its symbol, its interval, its bytes), or None."""
        cdef _Borrowed buffer = _Borrowed(refused, False)
        cdef uint32_t n = <uint32_t>min(buffer.view.len // 16, FLUX_REFUSED_KEPT), i
        cdef flux_outbox_row rows[256]
        cdef list found = [], names = list(self.slots)
        with nogil:
            pthread_mutex_lock(&self.o.lock)
            flux_outbox_find(&self.o, <const flux_refused *>buffer.view.buf, n, rows)
            pthread_mutex_unlock(&self.o.lock)
        for i in range(n):  # nothing goes while the feed's own thread, which commits, is here
            if rows[i].stream_id == 0:
                found.append(None)
            else:
                symbol, interval = names[rows[i].stream_id - 1]
                size = self.streams[rows[i].stream_id - 1].head.row_size
                found.append((symbol, interval, PyBytes_FromStringAndSize(<const char *>rows[i].row, size)))
        return found

    @property
    def queued(self):
        """Rows of the run so far."""
        return self.o.queued

    @property
    def sent(self):
        """The number of the last row that the socket took."""
        return self.o.sent

    @property
    def committed(self):
        """Rows of the run that are committed."""
        return self.o.committed
