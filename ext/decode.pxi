# Frames to messages: the reading half of codec.pyx, which includes this file.
#
#     frame ──PyObject_GetBuffer──► flux_verify_as ──┬─► a row message     ._frame = Frame: buffer + flux_view
#                                                    └─► any other         other(tag, version, hint, id, slots)
#
#     Frame   buffer ████ head ████ rows ████     rows: a read-only array over the buffer, its base the Frame
#                    view.key, epoch, ...  ▲
#                                 view.rows_at

cdef object _text(const uint8_t *frame, uint32_t at, uint32_t size):
    return None if size == FLUX_NULL else PyUnicode_DecodeUTF8(<const char *>frame + at, size, "replace")


cdef object _name(const uint8_t *frame, uint32_t at, uint32_t size):
    return "" if size == FLUX_NULL else PyUnicode_DecodeUTF8(<const char *>frame + at, size, "replace")


@cython.final
@cython.no_gc
@cython.freelist(64)
cdef class Frame:
    """A verified frame of a row message, and where things stand in it. Keeps the buffer it was made from.

    A caller may write into that buffer later. So no offset is read from it again: what was verified is remembered in the
    view, and what is read later are the bytes of names and rows alone, whatever they are by then."""

    cdef Py_buffer buffer
    cdef flux_view view
    cdef bint has_key
    cdef cnp.ndarray tables  # version 1: its candles as rows
    cdef Decoder decoder

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)

    @property
    def schema_version(self):
        return self.view.schema_version

    @property
    def message_type(self):
        return self.view.tag

    @property
    def type_hint(self):
        return self.view.type_hint

    @property
    def correlation_id(self):
        return _text(<const uint8_t *>self.buffer.buf, self.view.correlation_at, self.view.correlation_size)

    @property
    def key(self):
        cdef flux_view *view = &self.view
        cdef const uint8_t *frame = <const uint8_t *>self.buffer.buf
        if not self.has_key:
            return None
        return self.decoder.key(
            _name(frame, view.source_at, view.source_size),
            _name(frame, view.symbol_at, view.symbol_size),
            _name(frame, view.interval_at, view.interval_size),
        )

    @property
    def start_sequence(self):
        return self.view.start_sequence

    @property
    def epoch(self):
        return self.view.epoch

    @property
    def store_id(self):
        return self.view.store_id

    @property
    def stream_id(self):
        return self.view.stream_id

    @property
    def origin_ns(self):
        return self.view.origin_ns

    @property
    def recorded_ns(self):
        return self.view.recorded_ns

    @property
    def row_count(self):
        return self.view.row_count

    @property
    def rows(self):
        if self.tables is not None:
            return self.tables
        cdef cnp.dtype dtype = self.decoder.row_dtypes[self.view.row_kind]
        return _lend(self, dtype, self.view.rows_at, self.view.row_count)


cdef object _lend(Frame owner, cnp.dtype dtype, uint32_t at, uint32_t count):
    """A read-only array over the owner's buffer. The dtypes are packed: any address is aligned."""
    cdef cnp.npy_intp size = count
    Py_INCREF(dtype)  # NewFromDescr takes one
    array = PyArray_NewFromDescr(&PyArray_Type, <PyObject *>dtype, 1, &size, NULL,
                                 <uint8_t *>owner.buffer.buf + at, cnp.NPY_ARRAY_ALIGNED, NULL)
    cnp.set_array_base(<cnp.ndarray>array, owner)
    return array


cdef cnp.ndarray _tables(const uint8_t *frame, const flux_view *view, cnp.dtype dtype, bint fixed):
    cdef cnp.npy_intp size = view.row_count
    Py_INCREF(dtype)
    cdef cnp.ndarray array = PyArray_NewFromDescr(&PyArray_Type, <PyObject *>dtype, 1, &size, NULL, NULL, 0, NULL)
    cdef flux_candle *out = <flux_candle *>cnp.PyArray_DATA(array)
    if size < 1024 or not fixed:
        flux_v1_rows(frame, view, out)
    else:
        with nogil:
            flux_v1_rows(frame, view, out)
    cnp.PyArray_CLEARFLAGS(array, cnp.NPY_ARRAY_WRITEABLE)
    return array


@cython.final
cdef class Decoder:
    """Frames to messages. What it makes is given once: `rows` are the classes of row messages by row kind (candles,
    trades, quotes), `key` makes a key from three names, `other(tag, schema_version, type_hint, correlation_id, slots)`
    makes all other messages, `error(reason, offset)` is raised. `dtypes`: candle, trade, quote, mark, refused."""

    cdef tuple row_classes, row_dtypes
    cdef cnp.dtype candle, mark, refused
    cdef object key, other, error

    def __init__(self, rows, dtypes, key, other, error):
        candles, trades, quotes = rows
        candle, trade, quote, mark, refused = dtypes
        for dtype, size in ((candle, 64), (trade, 40), (quote, 40), (mark, 24), (refused, 16)):
            if dtype.itemsize != size:
                raise ValueError(f"{dtype} is not {size} bytes")
        self.row_classes = (None, candles, trades, quotes, candles)
        self.row_dtypes = (None, candle, trade, quote, candle)
        self.candle = candle
        self.mark, self.refused = mark, refused
        self.key, self.other, self.error = key, other, error

    def decode(self, frame, bint checksum=True):
        """The message in a bytes-like frame; raises `error` where a check fails."""
        cdef Frame held = Frame.__new__(Frame)
        PyObject_GetBuffer(frame, &held.buffer, PyBUF_SIMPLE)
        cdef const uint8_t *data = <const uint8_t *>held.buffer.buf
        cdef size_t size = <size_t>held.buffer.len
        cdef int reason
        cdef bint fixed = PyBytes_CheckExact(frame), tables
        if size < 65536:
            reason = flux_verify_as(data, size, checksum, &held.view)
        else:
            with nogil:
                reason = flux_verify_as(data, size, checksum, &held.view)
            tables = held.view.row_kind == FLUX_ROWS_NONE or held.view.row_kind == FLUX_ROWS_CANDLE_V1
            if tables and not fixed and reason == FLUX_OK:
                # Its tables are read next: another thread may have written into it while the GIL was away.
                reason = flux_verify_as(data, size, checksum, &held.view)
        if reason != FLUX_OK:
            raise self.error(REASONS[reason], held.view.error_at)
        held.has_key = held.view.message_at != 0 and flux_wire_slot(data, held.view.message_at, 0) != 0
        if held.view.row_kind == FLUX_ROWS_NONE:
            return self.message(held)
        held.decoder = self
        if held.view.row_kind == FLUX_ROWS_CANDLE_V1:
            held.tables = _tables(data, &held.view, self.candle, fixed)
        cdef object made = self.row_classes[held.view.row_kind]
        made = (<PyTypeObject *>made).tp_new(made, <PyObject *>_empty_args, NULL)
        made._frame = held
        return made

    cdef object message(self, Frame held):
        cdef flux_view *view = &held.view
        cdef const uint8_t *frame = <const uint8_t *>held.buffer.buf
        slots = self.slots(held, view.message_at, view.tag) if view.message_at else ()
        return self.other(view.tag, view.schema_version, view.type_hint,
                          _text(frame, view.correlation_at, view.correlation_size), slots)

    cdef tuple slots(self, Frame held, uint32_t table, unsigned which):
        cdef const flux_table_shape *shape = &flux_shapes[which]
        cdef const uint8_t *frame = <const uint8_t *>held.buffer.buf
        cdef unsigned i
        cdef tuple values = PyTuple_New(shape.slots)
        for i in range(shape.slots):
            value = self.value(held, shape.slot[i].kind, shape.slot[i].of, flux_wire_slot(frame, table, i))
            Py_INCREF(value)
            PyTuple_SET_ITEM(values, i, value)
        return values

    cdef object value(self, Frame held, unsigned kind, unsigned of, uint32_t at):
        cdef const uint8_t *frame = <const uint8_t *>held.buffer.buf
        if kind == FLUX_W_BOOL or kind == FLUX_W_TRUE:
            return frame[at] != 0 if at else kind == FLUX_W_TRUE
        if kind == FLUX_W_U8:
            return frame[at] if at else 0
        if kind == FLUX_W_U32:
            return flux_wire_u32(frame + at) if at else 0
        if kind == FLUX_W_U64:
            return flux_wire_u64(frame + at) if at else 0
        if kind == FLUX_W_I64:
            return <int64_t>flux_wire_u64(frame + at) if at else 0
        if not at:
            return None
        at = flux_wire_follow(frame, at)
        if kind == FLUX_W_TABLE:
            values = self.slots(held, at, of)
            return self.key(*[name or "" for name in values]) if of == FLUX_TABLE_KEY else values
        return self.items(held, kind, of, at + 4, flux_wire_u32(frame + at))

    cdef object items(self, Frame held, unsigned kind, unsigned of, uint32_t at, uint32_t count):
        cdef const uint8_t *frame = <const uint8_t *>held.buffer.buf
        cdef flux_view view
        cdef uint32_t i
        if kind == FLUX_W_STRING:
            return PyUnicode_DecodeUTF8(<const char *>frame + at, count, NULL)
        if kind == FLUX_W_BYTES:
            return PyBytes_FromStringAndSize(<const char *>frame + at, count)
        if kind == FLUX_W_CANDLES:
            return _lend(held, self.row_dtypes[FLUX_ROWS_CANDLE], at, count)
        if kind == FLUX_W_TRADES:
            return _lend(held, self.row_dtypes[FLUX_ROWS_TRADE], at, count)
        if kind == FLUX_W_QUOTES:
            return _lend(held, self.row_dtypes[FLUX_ROWS_QUOTE], at, count)
        if kind == FLUX_W_MARKS:
            return _lend(held, self.mark, at, count)
        if kind == FLUX_W_REFUSED:
            return _lend(held, self.refused, at, count)
        if of == FLUX_TABLE_CANDLE:
            view.rows_at, view.row_count = at, count
            return _tables(frame, &view, self.candle, False)
        return [self.slots(held, flux_wire_follow(frame, at + 4 * i), of) for i in range(count)]
