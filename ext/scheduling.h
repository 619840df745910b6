/* What a thread tells Linux about itself: see flux_short_slice. */
#ifndef FLUX_SCHEDULING_H
#define FLUX_SCHEDULING_H

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Asks that this thread, and those it starts from now on, get the processor in turns of `ns` (0: the system's own
 * choice). A thread that wakes with a short turn need not wait for the end of a long one: since Linux 6.12, nothing
 * happens before; the share of the processor stays what it is. 0, or an errno. */
static inline int flux_short_slice(uint64_t ns) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {48, 0, 0x10, 0, 0, ns, 0, 0}; /* flag: SCHED_FLAG_KEEP_PARAMS is set where nice is to stay */
    attributes.flags = 0;
    return syscall(SYS_sched_setattr, 0, &attributes, 0) ? errno : 0;
}

#endif
