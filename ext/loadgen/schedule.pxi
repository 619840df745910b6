# Included by histogram.pyx: when message k is intended (drawn in schedule.h), and sleeping until then.

cdef int64_t DAY_NS = 86_400 * 1_000_000_000


cdef class Schedule:
    cdef flux_schedule schedule
    cdef _Borrowed times  # of a replay, kept for as long as this

    def __cinit__(self, int64_t rate, int64_t start_ns):
        if not 1 <= rate <= 1_000_000_000:
            raise ValueError(f"a rate is 1 to 1,000,000,000 messages per second, not {rate}")
        self.schedule.shape = FLUX_CONSTANT
        self.schedule.rate = rate
        self.schedule.start_ns = start_ns

    @staticmethod
    def ramp(int64_t first, int64_t last, int64_t flat_ns, int64_t over_ns, int64_t start_ns):
        if not (1 <= first <= 100_000_000 and 1 <= last <= 100_000_000):
            raise ValueError("the rates of a ramp are 1 to 100,000,000 messages per second")
        if not (0 <= flat_ns <= DAY_NS and 1 <= over_ns <= DAY_NS):
            raise ValueError("the times of a ramp are at most a day")
        cdef Schedule made = Schedule(first, start_ns)
        made.schedule.shape = FLUX_RAMP
        made.schedule.last, made.schedule.flat_ns, made.schedule.over_ns = last, flat_ns, over_ns
        return made

    @staticmethod
    def burst(int64_t messages, int64_t period_ns, int64_t start_ns):
        if not (1 <= messages <= 1_000_000_000 and 1 <= period_ns <= DAY_NS):
            raise ValueError("a burst is 1 to 1,000,000,000 messages each 1 ns to a day")
        cdef Schedule made = Schedule(1, start_ns)
        made.schedule.shape = FLUX_BURST
        made.schedule.burst, made.schedule.period_ns = messages, period_ns
        return made

    @staticmethod
    def replay(object times, int64_t start_ns):
        cdef Schedule made = Schedule(1, start_ns)
        cdef int64_t i, before = 0
        made.times = _Borrowed(times, False, 0)
        made.schedule.shape = FLUX_REPLAY
        made.schedule.times = <const int64_t *>made.times.view.buf
        made.schedule.count = made.times.view.len // 8
        for i in range(made.schedule.count):
            if made.schedule.times[i] < before:
                raise ValueError(f"time {i} is before the one before it, or before 0")
            before = made.schedule.times[i]
        return made

    @staticmethod
    def at_once(int64_t start_ns):
        cdef Schedule made = Schedule(1, start_ns)
        made.schedule.shape = FLUX_AT_ONCE
        return made

    @property
    def start_ns(self):
        return self.schedule.start_ns

    def intended(self, int64_t k):
        return flux_schedule_intended(&self.schedule, k)

    def due(self, int64_t now_ns):
        return flux_schedule_due(&self.schedule, now_ns)


def sleep_until(int64_t ns):
    cdef int status
    while True:
        with nogil:
            status = flux_sleep_until(ns)
        if status == 0:
            return
        if status != EINTR:
            raise OSError(status, "clock_nanosleep")
        PyErr_CheckSignals()


def wait_readable(list descriptors, int64_t ns):
    cdef pollfd waited[FLUX_WAIT_MOST]
    cdef uint32_t count = 0
    cdef int status
    if len(descriptors) > FLUX_WAIT_MOST:
        raise ValueError(f"{len(descriptors)} descriptors, at most {FLUX_WAIT_MOST}")
    for descriptor in descriptors:
        waited[count].fd, waited[count].events = descriptor, POLLIN
        count += 1
    with nogil:
        status = flux_wait_readable(waited, count, ns)
    if status == EINTR:
        PyErr_CheckSignals()
    elif status != 0:
        raise OSError(status, "ppoll")


def sharpen_sleep():
    if flux_sharpen_sleep() != 0:
        raise OSError("prctl(PR_SET_TIMERSLACK)")
