# cython: boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False, autotestdict=False
"""ArrowSchema, ArrowArray and ArrowArrayStream of a batch, in capsules. The work is in arrow.h, this is its Python face.

A capsule owns its struct, and what the struct holds until a consumer has moved it out (and so cleared its `release`).
"""

from cpython.buffer cimport PyBUF_C_CONTIGUOUS, PyBUF_STRIDED_RO, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint64_t

from row cimport FLUX_ROWS_CANDLE, FLUX_ROWS_QUOTE, FLUX_ROWS_TRADE, flux_row_size


cdef extern from "arrow.h" nogil:
    enum:
        FLUX_ARROW_TIME_FORMAT

    cdef struct ArrowSchema:
        void (*release)(ArrowSchema *) noexcept nogil

    cdef struct ArrowArray:
        void (*release)(ArrowArray *) noexcept nogil

    cdef struct ArrowArrayStream:
        void (*release)(ArrowArrayStream *) noexcept nogil

    ctypedef struct flux_arrow_column:
        const char *name

    ctypedef struct flux_arrow_shape:
        int columns
        flux_arrow_column column[10]

    const flux_arrow_shape flux_arrow_shapes[4]
    int64_t flux_arrow_live

    int flux_arrow_wish(int kind, const ArrowSchema *wanted, char *time_format)
    int flux_arrow_schema_make(ArrowSchema *out, int kind, const char *time_format, const char *metadata,
                               size_t metadata_size)
    int flux_arrow_array_make(ArrowArray *out, int kind, const uint8_t *rows, int64_t stride, size_t n, uint64_t start,
                              const uint8_t *sequences)
    int flux_arrow_stream_make(ArrowArrayStream *out, ArrowArray *array, int kind, const char *time_format,
                               const char *metadata, size_t metadata_size)


cdef void _end_schema(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, "arrow_schema")
    if schema.release:
        schema.release(schema)
    PyMem_RawFree(schema)


cdef void _end_array(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release:
        array.release(array)
    PyMem_RawFree(array)


cdef void _end_stream(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, "arrow_array_stream")
    if stream.release:
        stream.release(stream)
    PyMem_RawFree(stream)


cdef int _time_format(int kind, object requested, char *time_format) except -1:
    """The time column's format, which is all that a request can change."""
    cdef ArrowSchema *wanted = NULL
    if kind not in (FLUX_ROWS_CANDLE, FLUX_ROWS_TRADE, FLUX_ROWS_QUOTE):
        raise ValueError(f"no rows of kind {kind}")
    if requested is not None:
        wanted = <ArrowSchema *>PyCapsule_GetPointer(requested, "arrow_schema")
        if wanted.release == NULL:
            raise ValueError("the requested schema is released")
    if flux_arrow_wish(kind, wanted, time_format):
        names = [flux_arrow_shapes[kind].column[i].name.decode() for i in range(flux_arrow_shapes[kind].columns)]
        raise ValueError(f"the requested schema is not of these fields: {' '.join(names)}")
    return 0


cdef object _schema(int kind, const char *time_format, bytes metadata):
    cdef ArrowSchema *schema = <ArrowSchema *>PyMem_RawMalloc(sizeof(ArrowSchema))
    if schema == NULL or flux_arrow_schema_make(schema, kind, time_format, metadata, len(metadata)):
        PyMem_RawFree(schema)
        raise MemoryError
    try:
        return PyCapsule_New(schema, "arrow_schema", _end_schema)
    except MemoryError:
        schema.release(schema)
        PyMem_RawFree(schema)
        raise


cdef object _array(object rows, int kind, object sequences):
    """The one copy: rows (any 1-d buffer of rows of the kind, strided or not) to columns.

    `sequences`: that of the first row, from which they count, or a contiguous buffer of one uint64 for each row.
    """
    cdef Py_buffer view, numbers
    cdef const uint8_t *given = NULL
    cdef uint64_t start = 0
    cdef int failed
    cdef ArrowArray *array
    cdef bint lent = False
    PyObject_GetBuffer(rows, &view, PyBUF_STRIDED_RO)
    try:
        if isinstance(sequences, int):
            start = sequences
        else:
            PyObject_GetBuffer(sequences, &numbers, PyBUF_C_CONTIGUOUS)
            lent = True
            given = <const uint8_t *>numbers.buf
        if view.ndim != 1 or view.itemsize != <Py_ssize_t>flux_row_size(kind):
            raise ValueError(f"rows are 1-d and of {flux_row_size(kind)} bytes, not {view.ndim}-d of {view.itemsize}")
        if lent and (numbers.itemsize != 8 or numbers.len != 8 * view.shape[0]):
            raise ValueError(f"{numbers.len} bytes of sequences for {view.shape[0]} rows: 8 each")
        array = <ArrowArray *>PyMem_RawMalloc(sizeof(ArrowArray))
        if array == NULL:
            raise MemoryError
        with nogil:
            failed = flux_arrow_array_make(array, kind, <const uint8_t *>view.buf, view.strides[0],
                                           <size_t>view.shape[0], start, given)
        if failed:
            PyMem_RawFree(array)
            raise MemoryError
    finally:
        PyBuffer_Release(&view)
        if lent:
            PyBuffer_Release(&numbers)
    try:
        return PyCapsule_New(array, "arrow_array", _end_array)
    except MemoryError:
        array.release(array)
        PyMem_RawFree(array)
        raise


def export_schema(int kind, bytes metadata):
    """A capsule `arrow_schema`: the struct type of the columns of a row kind, with encoded metadata."""
    cdef char time_format[FLUX_ARROW_TIME_FORMAT]
    _time_format(kind, None, time_format)
    return _schema(kind, time_format, metadata)


def export_array(rows, int kind, sequences, bytes metadata, requested=None):
    """Capsules (`arrow_schema`, `arrow_array`) of rows; `sequences`: the first row's, or one for each (uint64)."""
    cdef char time_format[FLUX_ARROW_TIME_FORMAT]
    _time_format(kind, requested, time_format)
    return _schema(kind, time_format, metadata), _array(rows, kind, sequences)


def export_stream(rows, int kind, sequences, bytes metadata, requested=None):
    """A capsule `arrow_array_stream` that gives the rows as one array."""
    cdef char time_format[FLUX_ARROW_TIME_FORMAT]
    _time_format(kind, requested, time_format)
    array = _array(rows, kind, sequences)
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyMem_RawMalloc(sizeof(ArrowArrayStream))
    if stream == NULL or flux_arrow_stream_make(stream, <ArrowArray *>PyCapsule_GetPointer(array, "arrow_array"), kind,
                                                time_format, metadata, len(metadata)):
        PyMem_RawFree(stream)
        raise MemoryError
    try:
        return PyCapsule_New(stream, "arrow_array_stream", _end_stream)
    except MemoryError:
        stream.release(stream)
        PyMem_RawFree(stream)
        raise


def live():
    """Blocks of memory that exports hold: schemas, arrays and streams that nobody has released."""
    return flux_arrow_live
