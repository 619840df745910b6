# cython: auto_pickle=False, autotestdict=False
"""Groups, scans, and what a group is written to, for Python: what ext/journal.h and ext/append.h draw.

A `Group` owns the memory in which records are gathered; its buffer is the records and, once sealed, the COMMIT behind
them. A scan walks the bytes of one file and hands back (at, size, kind) of every committed record.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_Resize
from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t


cdef extern from "journal.h" nogil:
    enum:
        FLUX_JOURNAL_FORMAT
        FLUX_JOURNAL_OLDEST
        FLUX_FILE_HEADER_SIZE
        FLUX_RECORD_HEADER_SIZE
        FLUX_COMMIT_SIZE
        FLUX_BATCH
        FLUX_STREAM
        FLUX_SOURCE
        FLUX_HEADS
        FLUX_EPOCH
        FLUX_COMMIT
        FLUX_CLOSE
        FLUX_HOLE
        FLUX_SCAN_STOPS

    ctypedef struct flux_entry:
        uint64_t at
        uint32_t size
        uint32_t kind
        uint64_t label
        uint64_t label2

    ctypedef struct flux_group:
        uint8_t *data
        uint64_t used
        uint64_t capacity
        flux_entry *entries
        uint32_t count
        uint32_t entry_capacity

    ctypedef struct flux_record:
        uint64_t at
        uint32_t size
        uint32_t kind

    ctypedef struct flux_scan:
        uint64_t end
        uint64_t committed
        uint64_t tail
        uint64_t committed_records
        uint32_t format
        uint32_t number
        uint32_t before
        int stop
        int resumes

    int flux_group_init(flux_group *group, uint64_t capacity, uint32_t entry_capacity) noexcept
    void flux_group_free(flux_group *group) noexcept
    void flux_group_clear(flux_group *group) noexcept
    uint8_t *flux_group_reserve(flux_group *group, uint32_t kind, uint32_t body_size, uint64_t label,
                                uint64_t label2) noexcept
    int flux_group_append(flux_group *group, uint32_t kind, const void *content, uint32_t size, uint64_t label,
                          uint64_t label2) noexcept
    int flux_group_append_source(flux_group *group, const uint8_t *begins, uint32_t size, uint64_t rows,
                                 uint32_t incarnation, uint64_t label) noexcept
    uint64_t flux_group_seal(flux_group *group, uint64_t start, uint64_t synced) noexcept
    void flux_file_header_of(uint8_t *out, uint32_t format, uint32_t number, uint32_t before) noexcept
    void flux_scan_begin(flux_scan *scan, const uint8_t *data, uint64_t size, uint64_t start) noexcept
    uint64_t flux_scan_next(flux_scan *scan, const uint8_t *data, uint64_t size, flux_record *out,
                            uint64_t max) noexcept
    void flux_scan_tail(flux_scan *scan, const uint8_t *data, uint64_t size) noexcept
    uint64_t flux_last_byte(const uint8_t *data, uint64_t size, uint64_t start) noexcept
    uint32_t flux_crc32c(uint32_t crc, const void *data, size_t size) noexcept


cdef extern from "append.h" nogil:
    ctypedef struct flux_end:
        int fd
        uint32_t file
        uint64_t offset
        uint64_t synced
        uint64_t spoiled
        uint64_t limit

    ctypedef struct flux_fence:
        int fd
        int slot
        uint64_t store_id
        uint64_t offset
        uint32_t epoch
        uint32_t file
        uint32_t serial

    bint flux_end_fits(const flux_end *end, const flux_group *g) noexcept
    void flux_end_take_back(flux_end *end, uint64_t offset) noexcept
    int flux_end_write(flux_end *end, flux_group *g, int sync) noexcept
    int flux_fence_store(flux_fence *f, uint64_t store_id, uint32_t epoch, uint32_t file, uint64_t offset) noexcept


cdef extern from "string.h" nogil:
    char *strerror(int number)
    void *memcpy(void *to, const void *source, size_t size)


FORMAT = int(FLUX_JOURNAL_FORMAT)
OLDEST_FORMAT = int(FLUX_JOURNAL_OLDEST)
FILE_HEADER_SIZE = int(FLUX_FILE_HEADER_SIZE)
RECORD_HEADER_SIZE = int(FLUX_RECORD_HEADER_SIZE)
COMMIT_SIZE = int(FLUX_COMMIT_SIZE)
BATCH = int(FLUX_BATCH)
STREAM = int(FLUX_STREAM)
SOURCE = int(FLUX_SOURCE)
HEADS = int(FLUX_HEADS)
EPOCH = int(FLUX_EPOCH)
COMMIT = int(FLUX_COMMIT)
CLOSE = int(FLUX_CLOSE)
HOLE = int(FLUX_HOLE)
STOPS = ("end", "short", "header", "body", "group", "file", "format")
assert len(STOPS) == FLUX_SCAN_STOPS


cdef class Group:
    cdef flux_group group
    cdef uint64_t sealed  # bytes of the buffer: records, and the COMMIT once there is one

    def __cinit__(self, capacity, entries):
        if flux_group_init(&self.group, capacity, entries) != 0:
            raise MemoryError(f"no group of {capacity} bytes and {entries} records")

    def __dealloc__(self):
        flux_group_free(&self.group)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.group.data, <Py_ssize_t>max(self.sealed, self.group.used), 1, flags)

    def address(self):
        return <uintptr_t>&self.group

    def append(self, kind, content, label, label2):
        """False when the group is full. A BATCH is taken as it is, any other kind gets its CRC here."""
        cdef Py_buffer view
        cdef uint8_t *body
        cdef uint32_t record_kind = kind
        cdef uint64_t one = label, two = label2
        cdef int taken
        PyObject_GetBuffer(content, &view, PyBUF_SIMPLE)
        try:
            if <uint64_t>view.len > self.group.capacity or view.len > 0xFFFFFF00:
                return False
            if record_kind == FLUX_BATCH:
                body = flux_group_reserve(&self.group, record_kind, <uint32_t>view.len, one, two)
                taken = body != NULL
                if taken:
                    memcpy(body, view.buf, view.len)
            else:
                taken = flux_group_append(&self.group, record_kind, view.buf, <uint32_t>view.len, one, two) == 0
        finally:
            PyBuffer_Release(&view)
        return bool(taken)

    def append_source(self, bytes begins not None, uint64_t rows, uint32_t incarnation):
        return flux_group_append_source(&self.group, begins, <uint32_t>len(begins), rows, incarnation, 0) == 0

    def seal(self, start, synced):
        cdef uint64_t at = start, disk = synced
        with nogil:
            self.sealed = flux_group_seal(&self.group, at, disk)
        return self.sealed

    def clear(self):
        flux_group_clear(&self.group)
        self.sealed = 0

    def entries(self):
        return (<const char *>self.group.entries)[: self.group.count * sizeof(flux_entry)]

    @property
    def used(self):
        return self.group.used

    @property
    def count(self):
        return self.group.count

    @property
    def capacity(self):
        return self.group.capacity


cdef class End:
    """Where a journal's file goes on. The bridge moves it too (by address), while its owner waits in a call to that."""
    cdef flux_end end

    def __cinit__(self, fd, file, offset, limit):
        self.go_on(fd, file, offset, limit)

    def go_on(self, int fd, uint32_t file, uint64_t offset, uint64_t limit):
        """In another file, of which all before `offset` is on the disk."""
        self.end.fd, self.end.file, self.end.limit = fd, file, limit
        self.end.offset = self.end.synced = self.end.spoiled = offset

    def address(self):
        return <uintptr_t>&self.end

    def fits(self, Group group not None):
        return flux_end_fits(&self.end, &group.group)

    def take_back(self, uint64_t offset):
        flux_end_take_back(&self.end, offset)

    def write(self, Group group not None):
        cdef int error = 0
        with nogil:
            if flux_end_write(&self.end, &group.group, 0) != 0:
                error = errno
        if error:
            raise OSError(error, strerror(error).decode())

    @property
    def fd(self):
        return self.end.fd

    @fd.setter
    def fd(self, int fd):
        self.end.fd = fd

    @property
    def file(self):
        return self.end.file

    @property
    def offset(self):
        return self.end.offset

    @property
    def synced(self):
        return self.end.synced

    @synced.setter
    def synced(self, uint64_t synced):
        self.end.synced = synced

    @property
    def spoiled(self):
        return self.end.spoiled

    @spoiled.setter
    def spoiled(self, uint64_t spoiled):
        self.end.spoiled = spoiled


cdef class Fence:
    cdef flux_fence fence

    def __cinit__(self, int fd, int slot, uint32_t serial, mark):
        self.fence.fd, self.fence.slot, self.fence.serial = fd, slot, serial
        self.fence.store_id, self.fence.epoch, self.fence.file, self.fence.offset = mark

    def address(self):
        return <uintptr_t>&self.fence

    def store(self, uint64_t store_id, uint32_t epoch, uint32_t file, uint64_t offset):
        cdef int error = 0
        with nogil:
            if flux_fence_store(&self.fence, store_id, epoch, file, offset) != 0:
                error = errno
        if error:
            raise OSError(error, strerror(error).decode())

    @property
    def mark(self):
        """(store_id, epoch, file, offset) of the newer slot; epoch 0: there is none."""
        return self.fence.store_id, self.fence.epoch, self.fence.file, self.fence.offset


def file_header(number, before, version):
    cdef uint8_t out[FLUX_FILE_HEADER_SIZE]
    flux_file_header_of(out, version, number, before)
    return (<const char *>out)[:FLUX_FILE_HEADER_SIZE]


def scan(data, start, version):
    """(records, committed, end, tail, stop, resumes, format, number, before); the records are flux_record, back to
    back."""
    cdef Py_buffer view
    cdef flux_scan state
    cdef uint64_t at = start, room = 1024, used = 0
    cdef uint32_t known = version
    records = bytearray(room * sizeof(flux_record))
    cdef flux_record *out = <flux_record *>PyByteArray_AS_STRING(records)
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            flux_scan_begin(&state, <const uint8_t *>view.buf, view.len, at)
            if at:
                state.format = known
        while state.stop < 0:
            if used == room:
                room *= 2
                PyByteArray_Resize(records, room * sizeof(flux_record))
                out = <flux_record *>PyByteArray_AS_STRING(records)
            with nogil:
                used += flux_scan_next(&state, <const uint8_t *>view.buf, view.len, out + used, room - used)
        with nogil:
            flux_scan_tail(&state, <const uint8_t *>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    PyByteArray_Resize(records, state.committed_records * sizeof(flux_record))
    return (records, state.committed, state.end, state.tail, state.stop, state.resumes != 0, state.format,
            state.number, state.before)


def last_byte(data, start):
    """Behind the last byte from `start` on that is not zero; `start` when there is none."""
    cdef Py_buffer view
    cdef uint64_t at = start
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        assert at <= <uint64_t>view.len
        with nogil:
            at = flux_last_byte(<const uint8_t *>view.buf, view.len, at)
    finally:
        PyBuffer_Release(&view)
    return at


def crc32c(data):
    cdef Py_buffer view
    cdef uint32_t crc
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            crc = flux_crc32c(0, view.buf, view.len)
    finally:
        PyBuffer_Release(&view)
    return crc


include "journal_rows.pxi"
