# cython: auto_pickle=False, autotestdict=False
"""Naps for Python: what ext/naps.h draws, of the thread that makes them."""

import os

from libc.stdint cimport int64_t, uint64_t


cdef extern from "naps.h" nogil:
    ctypedef struct flux_naps:
        uint64_t taken

    int flux_naps_make(flux_naps *naps, int64_t work_ns, int64_t nap_ns) noexcept
    void flux_naps_begin(flux_naps *naps) noexcept
    void flux_naps_end(flux_naps *naps) noexcept
    void flux_naps_wake(flux_naps *naps) noexcept
    void flux_naps_free(flux_naps *naps) noexcept


cdef class Naps:
    cdef flux_naps naps

    def __cinit__(self, int64_t work_ns, int64_t nap_ns):
        cdef int failed = flux_naps_make(&self.naps, work_ns, nap_ns)
        if failed:
            raise OSError(failed, os.strerror(failed))

    def __dealloc__(self):
        flux_naps_free(&self.naps)

    def begin(self):
        flux_naps_begin(&self.naps)

    def end(self):
        flux_naps_end(&self.naps)

    def wake(self):
        flux_naps_wake(&self.naps)

    @property
    def taken(self):
        return self.naps.taken
