# cython: boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False, autotestdict=False
"""Verify an envelope, point at its rows; build one from rows. The work is in codec.h, this is its Python face.

    decode:  frame ──PyObject_GetBuffer──► flux_verify ──► row message: an instance whose `_frame` is a Frame
                                                      └──► any other:   a tuple of slots, made at once

A Frame holds the buffer and where things stand in it; rows are lent as a read-only array whose base is the Frame, so
the bytes live as long as any view of them. Version 1 candles are tables: they are copied into packed rows at once.

    codec.pyx     checksums, shapes      decode.pxi    frames to messages      encode.pxi    rows to frames
"""

cimport cython
cimport numpy as cnp
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcpy, memset

from row cimport *
from wire cimport *

cnp.import_array()

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef extern from "numpy/arrayobject.h":
    object PyArray_NewFromDescr(PyTypeObject *kind, PyObject *descr, int dimensions, cnp.npy_intp *sizes,
                                cnp.npy_intp *strides, void *data, int flags, PyObject *unused)
    PyTypeObject PyArray_Type

REASONS = ("ok", "short", "size", "checksum", "verify")
assert len(REASONS) == FLUX_REASONS
MAX_FRAME_BYTES = FLUX_FRAME_MAX
MAX_VERIFY_TABLES = FLUX_VERIFY_TABLES

_KINDS = ("bool", "true", "u8", "u32", "i64", "u64", "f64", "string", "table", "tables", "bytes", "candles", "trades",
          "quotes", "marks", "refused")

cdef object _empty_args = ()


def shapes():
    """The shape of every table, by tag and then by table: a tuple of (kind, table) for each slot."""
    return tuple(
        tuple((_KINDS[flux_shapes[t].slot[s].kind], flux_shapes[t].slot[s].of) for s in range(flux_shapes[t].slots))
        for t in range(FLUX_TABLES)
    )


cdef uint32_t _crc(object data, uint32_t value, uint32_t (*way)(uint32_t, const void *, size_t) noexcept nogil) except? 0:
    cdef Py_buffer buffer
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        if buffer.len < 65536:
            return way(value, buffer.buf, <size_t>buffer.len)
        with nogil:
            value = way(value, buffer.buf, <size_t>buffer.len)
        return value
    finally:
        PyBuffer_Release(&buffer)


def crc32c(data, value=0):
    """CRC-32C of bytes-like `data`, going on from `value`."""
    return _crc(data, value, flux_crc32c)


def crc32c_table(data, value=0):
    """The same by table."""
    return _crc(data, value, flux_crc32c_table)


def crc32c_hardware(data, value=0):
    """The same by the crc32 instruction; RuntimeError where there is none."""
    if not flux_crc32c_in_hardware():
        raise RuntimeError("this processor has no crc32 instruction")
    return _crc(data, value, flux_crc32c_hardware)


def crc32c_in_hardware():
    """Whether crc32c() uses the instruction."""
    return bool(flux_crc32c_in_hardware())


include "decode.pxi"
include "encode.pxi"
