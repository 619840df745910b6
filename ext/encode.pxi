# Rows to frames: the building half of codec.pyx, which includes this file.
#
#     Encoder    one stream     template: the head as bytes ─ copy, put the integers, rows behind it, checksum
#     Encoders   many streams   runs (stream, where its rows are, how many) ─► frames behind one another + offsets
#
#     frame   ┌ head of the template ┬ integers ┬ names ┬ rows ┬ CRC-32C ┐

cdef uint8_t *_room(object out, size_t size, Py_buffer *buffer, object error) except NULL:
    PyObject_GetBuffer(out, buffer, PyBUF_WRITABLE)
    if <size_t>buffer.len < size:
        room = buffer.len
        PyBuffer_Release(buffer)
        raise error(f"out has {room} bytes, the message {size}")
    return <uint8_t *>buffer.buf


cdef cnp.ndarray _rows(object rows, cnp.dtype dtype, object error):
    """The rows as a contiguous array of the stream's dtype, copied only where they are not contiguous."""
    if not cnp.PyArray_Check(rows):
        raise error(f"rows are a numpy array of {dtype.itemsize}-byte rows, not {type(rows).__name__}")
    cdef cnp.ndarray array = <cnp.ndarray>rows
    cdef object given = <object><PyObject *>cnp.PyArray_DESCR(array)
    if given is not dtype and not cnp.PyArray_EquivTypes(given, dtype):
        raise error(f"rows have dtype {array.dtype}, this stream's are {dtype}")
    if cnp.PyArray_NDIM(array) != 1:
        raise error(f"rows have {cnp.PyArray_NDIM(array)} dimensions, not 1")
    if not cnp.PyArray_IS_C_CONTIGUOUS(array):
        array = array.copy()
    return array


cdef int _names(object key, flux_wire_text *names) except -1:
    cdef Py_ssize_t size
    cdef int i
    for i in range(3):
        names[i].text = PyUnicode_AsUTF8AndSize(key[i], &size)
        names[i].size = <size_t>size
    return 0


cdef class Encoder:
    """Rows of one stream to frames. `key` is (source, symbol, interval), `kind` the row kind, `dtype` its dtype,
    `version` 1 (candles as tables) or 2; `error(text)` is raised for rows that cannot be sent."""

    cdef flux_template template
    cdef flux_v1_template template_v1
    cdef cnp.dtype dtype
    cdef object error
    cdef int version

    def __init__(self, key, int kind, dtype, int version, error):
        cdef flux_wire_text n[3]
        cdef int failed
        self.dtype, self.version, self.error = dtype, version, error
        if dtype.itemsize != flux_row_size(kind):
            raise ValueError(f"{dtype} is not {flux_row_size(kind)} bytes")
        _names(key, n)
        failed = flux_template_make(&self.template, kind, n[0].text, n[0].size, n[1].text, n[1].size, n[2].text,
                                    n[2].size)
        if not failed and version == 1:
            failed = flux_v1_template_make(&self.template_v1, n[0].text, n[0].size, n[1].text, n[1].size, n[2].text,
                                           n[2].size)
        if failed:
            raise error("the names of the key are too long for a message's head")

    def encode(self, rows, uint64_t start_sequence=1, *, out=None, uint32_t epoch=0, uint64_t store_id=0,
               int64_t origin_ns=0, int64_t recorded_ns=0, uint32_t stream_id=0):
        """The message as bytes; with `out`, a writable buffer, written there and its size returned."""
        if self.error is None:
            raise RuntimeError("Encoder.__init__ was not called")
        cdef cnp.ndarray array = _rows(rows, self.dtype, self.error)
        cdef size_t n = <size_t>cnp.PyArray_SIZE(array), size
        if n > FLUX_FRAME_MAX // 40:
            raise self.error(f"{n} rows are more than a frame of {FLUX_FRAME_MAX} bytes holds")
        size = (flux_v1_encoded_size(&self.template_v1, <uint32_t>n) if self.version == 1
                else flux_encoded_size(&self.template, <uint32_t>n))
        if size > FLUX_FRAME_MAX:
            raise self.error(f"{n} rows are more than a frame of {FLUX_FRAME_MAX} bytes holds")
        cdef Py_buffer buffer
        cdef uint8_t *at
        if out is None:
            made = PyBytes_FromStringAndSize(NULL, size)
            at = <uint8_t *>PyBytes_AS_STRING(made)
        else:
            made = size
            at = _room(out, size, &buffer, self.error)
        if self.version == 1:
            flux_v1_encode(&self.template_v1, at, start_sequence, <const flux_candle *>cnp.PyArray_DATA(array),
                           <uint32_t>n)
        else:
            flux_encode(&self.template, at, start_sequence, store_id, origin_ns, recorded_ns, epoch, stream_id,
                        cnp.PyArray_DATA(array), <uint32_t>n)
        if out is not None:
            PyBuffer_Release(&buffer)
        return made


@cython.final
cdef class Encoders:
    """Rows of many streams to frames, version 2. `encoders` are one Encoder for each stream, `stream_ids` what each is
    called on the wire; `run` is the dtype of runs."""

    cdef tuple encoders  # own the templates
    cdef cnp.ndarray stream_ids, templates  # u4, addresses
    cdef cnp.dtype run
    cdef object error

    def __init__(self, encoders, stream_ids, run, error):
        cdef Encoder encoder
        cdef Py_ssize_t i, n = len(encoders)
        cdef cnp.npy_intp size = n
        if stream_ids.shape != (n,) or stream_ids.dtype.itemsize != 4 or run.itemsize != sizeof(flux_run_rows):
            raise ValueError(f"{n} streams, {stream_ids.shape} ids of {stream_ids.dtype}, runs of {run.itemsize} bytes")
        self.encoders, self.stream_ids, self.run, self.error = tuple(encoders), stream_ids.copy(), run, error
        self.templates = cnp.PyArray_EMPTY(1, &size, cnp.NPY_UINTP, 0)
        for i in range(n):
            encoder = <Encoder?>self.encoders[i]
            if encoder.error is None or encoder.version != 2:
                raise ValueError("many streams are encoded in version 2 alone")
            (<const flux_template **>cnp.PyArray_DATA(self.templates))[i] = &encoder.template

    def encode(self, rows, runs, *, out=None, uint32_t epoch=0, uint64_t store_id=0, int64_t recorded_ns=0):
        """(frames, offsets): all messages behind one another, in bytes of their own or in `out`."""
        if self.error is None:
            raise RuntimeError("Encoders.__init__ was not called")
        cdef cnp.ndarray which = _rows(runs, self.run, self.error).copy()  # nobody else changes what is checked here
        cdef cnp.npy_intp many = cnp.PyArray_SIZE(which) + 1
        cdef cnp.ndarray offsets = cnp.PyArray_EMPTY(1, &many, cnp.NPY_UINT64, 0)
        cdef const flux_template **templates = <const flux_template **>cnp.PyArray_DATA(self.templates)
        cdef const uint32_t *ids = <const uint32_t *>cnp.PyArray_DATA(self.stream_ids)
        cdef const flux_run_rows *run = <const flux_run_rows *>cnp.PyArray_DATA(which)
        cdef uint64_t *places = <uint64_t *>cnp.PyArray_DATA(offsets)
        cdef size_t count = <size_t>many - 1, done
        cdef Py_buffer given, buffer
        cdef uint8_t *at
        PyObject_GetBuffer(rows, &given, PyBUF_SIMPLE)
        try:
            done = flux_runs_place(templates, <size_t>len(self.encoders), run, count, <uint64_t>given.len, places)
            if done < count:
                raise self.error(f"run {done} names stream {run[done].stream} of {len(self.encoders)} and {run[done].rows} "
                                 f"rows from byte {run[done].at} of {given.len}, or is over {FLUX_FRAME_MAX} bytes")
            if out is None:
                made = PyBytes_FromStringAndSize(NULL, places[count])
                at = <uint8_t *>PyBytes_AS_STRING(made)
            else:
                made = out
                at = _room(out, places[count], &buffer, self.error)
            with nogil:
                flux_runs_encode(templates, ids, run, count, <const uint8_t *>given.buf, places, at, store_id, epoch,
                                 recorded_ns)
            if out is not None:
                PyBuffer_Release(&buffer)
            return made, offsets
        finally:
            PyBuffer_Release(&given)


def matches(learned, frame):
    """Whether `frame` continues the stream of `learned`: 1 yes, 0 another head, -1 this head but wrong length or
    checksum, -2 nothing can be learned from `learned`. What the pump does for every message, for the tests."""
    cdef Py_buffer first, second
    cdef flux_view view
    cdef flux_template template
    PyObject_GetBuffer(learned, &first, PyBUF_SIMPLE)
    try:
        if (flux_verify(<const uint8_t *>first.buf, <size_t>first.len, &view) != FLUX_OK or
                flux_template_from(&template, <const uint8_t *>first.buf, <size_t>first.len, &view)):
            return -2
        PyObject_GetBuffer(frame, &second, PyBUF_SIMPLE)
        try:
            return flux_match(&template, <const uint8_t *>second.buf, <size_t>second.len, &view)
        finally:
            PyBuffer_Release(&second)
    finally:
        PyBuffer_Release(&first)


cdef object _reply(const flux_head_shape *shape, uint32_t version, object key, object correlation_id, size_t tail,
                   uint32_t *head_size, uint32_t *integers_at, object error):
    """Fresh bytes with the head laid out and `tail` bytes of room behind it."""
    cdef flux_wire_text n[4]
    cdef Py_ssize_t size = 0
    cdef int i
    _names(key, n)
    n[3].text, n[3].size = NULL, 0
    if correlation_id is not None:
        n[3].text = PyUnicode_AsUTF8AndSize(correlation_id, &size)
        n[3].size = <size_t>size
    for i in range(4):
        if n[i].size > 65536:
            raise error("a name or the correlation id is longer than 64 KiB")
    cdef size_t most = flux_wire_head_size(n[0], n[1], n[2], n[3])
    head = bytearray(most)
    head_size[0] = flux_wire_head(<uint8_t *>(<char *>head), shape, version, n[0], n[1], n[2], n[3], integers_at)
    if head_size[0] + tail > FLUX_FRAME_MAX:
        raise error(f"a reply of {head_size[0] + tail} bytes: the limit is {FLUX_FRAME_MAX}")
    made = PyBytes_FromStringAndSize(NULL, head_size[0] + tail)
    memcpy(PyBytes_AS_STRING(made), <char *>head, head_size[0])
    return made


def encode_backfill_v1(key, rows, dtype, uint64_t start_sequence, bint has_more, uint64_t next_sequence,
                       correlation_id, error):
    """A BackfillCandlesResponse of version 1."""
    cdef flux_head_shape shape
    cdef uint32_t head_size, at
    cdef cnp.ndarray array = _rows(rows, dtype, error)
    cdef uint32_t n = <uint32_t>min(<size_t>cnp.PyArray_SIZE(array), <size_t>FLUX_FRAME_MAX)
    shape.tag, shape.slots, shape.table_size = FLUX_TAG_BACKFILL_CANDLES_RESPONSE, 5, 29
    shape.vtable[0], shape.vtable[1], shape.vtable[2], shape.vtable[3], shape.vtable[4] = 4, 12, 8, 28, 20
    made = _reply(&shape, 1, key, correlation_id, flux_v1_tail_size(n), &head_size, &at, error)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(made)
    flux_wire_put64(out + at, start_sequence)
    flux_wire_put64(out + at + 8, next_sequence)
    out[at + 16] = has_more
    flux_v1_tail(out, head_size, <const flux_candle *>cnp.PyArray_DATA(array), n)
    return made


def encode_backfill_v2(key, items, unsigned slot, uint32_t count, uint32_t row_count, uint64_t start_sequence,
                       uint32_t epoch, uint64_t store_id, bint has_more, uint64_t first_available_sequence,
                       uint64_t watermark_sequence, uint8_t status, uint64_t epoch_end_sequence, uint32_t rows_epoch,
                       correlation_id, error):
    """A BackfillRowsResponse. `items` are the bytes of the vector in `slot` (2, 11, 12 or 13), `count` its length."""
    cdef flux_head_shape shape
    cdef uint32_t head_size, at
    cdef Py_buffer buffer
    cdef size_t size
    if slot not in (2, 11, 12, 13):
        raise ValueError(f"slot {slot} holds no rows")
    memset(&shape, 0, sizeof(shape))
    shape.tag, shape.slots, shape.table_size = FLUX_TAG_BACKFILL_ROWS_RESPONSE, 14, 62
    shape.vtable[0], shape.vtable[slot] = 4, 8
    shape.vtable[1], shape.vtable[4], shape.vtable[6], shape.vtable[7], shape.vtable[9] = 12, 20, 28, 36, 44
    shape.vtable[3], shape.vtable[10], shape.vtable[5], shape.vtable[8] = 52, 56, 60, 61
    if rows_epoch:  # appended later: without it the bytes are those of the first release
        shape.slots, shape.table_size, shape.vtable[14] = 15, 68, 64
    PyObject_GetBuffer(items, &buffer, PyBUF_SIMPLE)
    try:
        size = <size_t>buffer.len
        made = _reply(&shape, 2, key, correlation_id, size + FLUX_CHECKSUM_SIZE, &head_size, &at, error)
        memcpy(PyBytes_AS_STRING(made) + head_size, buffer.buf, size)
    finally:
        PyBuffer_Release(&buffer)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(made)
    flux_wire_put64(out + at, start_sequence)
    flux_wire_put64(out + at + 8, store_id)
    flux_wire_put64(out + at + 16, first_available_sequence)
    flux_wire_put64(out + at + 24, watermark_sequence)
    flux_wire_put64(out + at + 32, epoch_end_sequence)
    flux_wire_put32(out + at + 40, epoch)
    flux_wire_put32(out + at + 44, row_count)
    out[at + 48], out[at + 49] = has_more, status
    if rows_epoch:
        flux_wire_put32(out + at + 52, rows_epoch)
    flux_wire_put32(out + head_size - 4, count)
    flux_wire_put32(out + head_size + size, flux_crc32c(0, out, head_size + size))
    return made
