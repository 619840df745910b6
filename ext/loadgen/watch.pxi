# Included by histogram.pyx: a .pyx cannot cimport another, and a watch records into its histograms.


cdef extern from "watch.h" nogil:
    ctypedef struct flux_watched:
        uint64_t first, next, before, store_id, window
        uint64_t *seen
        uint64_t received, duplicate, reordered, outside, foreign
        uint32_t epoch, restarts

    ctypedef struct flux_watch_times:
        flux_hdr *recorded
        flux_hdr *origin
        flux_hdr *interval
        uint64_t untimed, behind

    uint64_t flux_watch_account(flux_watched *streams, const flux_arrival *arrivals, uint32_t n, int64_t now_ns,
                                int measured, flux_watch_times *times)


cdef class Watch:
    cdef flux_watched *streams
    cdef uint32_t count, limit
    cdef uint64_t taken, untimed_rows, behind_rows

    def __cinit__(self, uint32_t limit):
        self.limit = limit
        self.streams = <flux_watched *>calloc(limit + 1, sizeof(flux_watched))
        if self.streams == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.count):
            free(self.streams[i].seen)
        free(self.streams)

    def __len__(self):
        return self.count

    def add(self, uint64_t window):
        cdef flux_watched *made = &self.streams[self.count]
        if self.count == self.limit:
            raise ValueError(f"{self.limit} streams is the limit")
        if window < 64 or window & (window - 1):
            raise ValueError(f"a window is a power of two, 64 and more, not {window}")
        made.seen = <uint64_t *>calloc(window // 64, 8)
        if made.seen == NULL:
            raise MemoryError
        made.window = window
        self.count += 1
        return self.count - 1

    def account(self, object arrivals, int64_t now_ns, bint measured, Histogram recorded not None,
                Histogram origin not None, Histogram interval not None):
        cdef _Borrowed which = _Borrowed(arrivals, False, 0)
        cdef const flux_arrival *arrived = <const flux_arrival *>which.view.buf
        cdef uint32_t i, n = <uint32_t>(which.view.len // 64)
        cdef flux_watch_times times
        cdef uint64_t fresh
        times.recorded, times.origin, times.interval = recorded.hdr, origin.hdr, interval.hdr
        times.untimed = times.behind = 0
        for i in range(n):
            if arrived[i].stream >= self.count:
                raise IndexError(f"slot {arrived[i].stream} of {self.count}")
        with nogil:
            fresh = flux_watch_account(self.streams, arrived, n, now_ns, measured, &times)
        self.taken += fresh
        self.untimed_rows += times.untimed
        self.behind_rows += times.behind
        return fresh

    def stream(self, uint32_t slot):
        cdef flux_watched *s = &self.streams[slot]
        if slot >= self.count:
            raise IndexError(f"slot {slot} of {self.count}")
        return {
            "first": s.first,
            "last": s.next - 1 if s.next else 0,
            "received": s.received,
            "missing": s.before + s.next - s.first - s.received,
            "duplicate": s.duplicate,
            "reordered": s.reordered,
            "outside": s.outside,
            "foreign": s.foreign,
            "restarts": s.restarts,
        }

    @property
    def received(self):
        return self.taken

    @property
    def missing(self):
        cdef uint32_t i
        cdef uint64_t reached = 0
        for i in range(self.count):
            reached += self.streams[i].before + self.streams[i].next - self.streams[i].first
        return reached - self.taken

    @property
    def untimed(self):
        return self.untimed_rows

    @property
    def behind(self):
        return self.behind_rows
