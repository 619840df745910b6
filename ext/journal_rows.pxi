# The journal's batches as rows: included by journal.pyx. Drawn in ext/gather.h and ext/past.h.

cdef extern from "string.h" nogil:
    void *memset(void *to, int value, size_t size)

cdef extern from "past.h" nogil:
    enum:
        FLUX_PLACE_SPAN
        FLUX_PLACE_SLACK

    ctypedef struct flux_gathered:
        pass

    ctypedef struct flux_rows_out:
        uint8_t *data
        uint64_t used
        uint64_t limit

    ctypedef struct flux_spot:
        pass

    ctypedef struct flux_past:
        uint64_t first
        uint64_t next
        uint64_t last
        uint8_t *out
        uint64_t room
        uint64_t read
        uint32_t stream_id
        uint32_t kind
        int broken

    uint64_t FLUX_GATHER_BROKEN
    uint64_t flux_gather(const uint8_t *data, uint64_t at, uint64_t end, flux_gathered *out, uint32_t limit,
                         uint32_t *count, flux_rows_out *rows) noexcept
    uint64_t flux_places(const uint8_t *data, uint64_t have, uint64_t end, uint64_t base, uint32_t *latest,
                         uint32_t streams, flux_spot *out, uint32_t limit, uint32_t *count) noexcept
    void flux_past_read(flux_past *p, int fd, uint64_t end, const uint32_t *places, uint64_t count, uint8_t *scratch,
                        uint64_t budget) noexcept


PLACE_SPAN = int(FLUX_PLACE_SPAN)
SCRATCH_SIZE = int(FLUX_PLACE_SPAN + FLUX_PLACE_SLACK)


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


def gather(object data, uint64_t at, object out, object candles, object trades, object quotes):
    """Rows out of journal records: (where it stopped, records, candles, trades, quotes laid down).

    `out` takes GATHERED records, the others rows of their kind; all are writable buffers. Raises ValueError with the
    place of a batch that does not verify.
    """
    cdef _Borrowed source = _Borrowed(data, False), records = _Borrowed(out, True)
    cdef _Borrowed c = _Borrowed(candles, True), t = _Borrowed(trades, True), q = _Borrowed(quotes, True)
    cdef flux_rows_out rows[4]
    cdef uint32_t count = 0
    cdef uint64_t stopped
    memset(rows, 0, sizeof(rows))
    rows[1].data, rows[1].limit = <uint8_t *>c.view.buf, c.view.len
    rows[2].data, rows[2].limit = <uint8_t *>t.view.buf, t.view.len
    rows[3].data, rows[3].limit = <uint8_t *>q.view.buf, q.view.len
    with nogil:
        stopped = flux_gather(<const uint8_t *>source.view.buf, at, source.view.len,
                              <flux_gathered *>records.view.buf, <uint32_t>(records.view.len // 24), &count, rows)
    if stopped == FLUX_GATHER_BROKEN:
        raise ValueError(f"record {count} behind byte {at} is not a batch of rows")
    return stopped, count, rows[1].used // 64, rows[2].used // 40, rows[3].used // 40


def places(object data, uint64_t have, uint64_t end, uint64_t base, object latest, object out):
    """Notes where rows of streams lie, of the `have` bytes of `data` that stand at byte `base` of a file and of which
    those before `end` are committed: (how many places were written, where to go on, counted from `base`).

    `latest` has u4 per stream, `out` takes PLACE records; it ends when those are full.
    """
    cdef _Borrowed source = _Borrowed(data, False), known = _Borrowed(latest, True), made = _Borrowed(out, True)
    cdef uint32_t count = 0
    cdef uint64_t stopped
    assert have <= <uint64_t>source.view.len
    with nogil:
        stopped = flux_places(<const uint8_t *>source.view.buf, have, end, base, <uint32_t *>known.view.buf,
                              <uint32_t>(known.view.len // 4), <flux_spot *>made.view.buf,
                              <uint32_t>(made.view.len // 16), &count)
    return count, stopped


def past_read(int fd, uint64_t end, object places, uint64_t stream_id, uint32_t kind, uint64_t first, uint64_t last,
              object out, uint32_t row_size, object scratch, uint64_t budget):
    """The first run of rows of a stream within `first` to `last`, from its places (u4, ascending) in the file `fd` on:
    (its first sequence, rows laid into `out`, bytes read, errno of a file that cannot be read, -1 for a record that does
    not verify, 0)."""
    cdef _Borrowed at = _Borrowed(places, False), rows = _Borrowed(out, True), room = _Borrowed(scratch, True)
    cdef flux_past past
    memset(&past, 0, sizeof(past))
    past.first, past.next, past.last = first, first, last
    past.stream_id, past.kind = <uint32_t>stream_id, kind
    past.out, past.room = <uint8_t *>rows.view.buf, <uint64_t>rows.view.len // row_size
    assert room.view.len >= FLUX_PLACE_SPAN + FLUX_PLACE_SLACK and past.room > 0 and first <= last
    with nogil:
        flux_past_read(&past, fd, end, <const uint32_t *>at.view.buf, <uint64_t>at.view.len // 4,
                       <uint8_t *>room.view.buf, budget)
    return past.first, past.next - past.first, past.read, past.broken
