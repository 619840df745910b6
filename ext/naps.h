/* A thread that lets others have its core, often, without knowing when.
 *
 *     the work    ████        ████        ████        ████
 *     its timer      └ signal    └ signal    └ signal
 *     the handler     nap····     nap····     nap····
 *
 * A low priority alone is not enough. A scheduler that shares fairly owes even the lowest its part, pays it in one piece,
 * and looks again at its next tick: Linux at 250 Hz lets a nice 19 thread keep a core for 4 ms with others waiting
 * (EEVDF; seen by tracing sched_switch). Work that is somebody else's code, a database's, cannot be asked to yield in
 * between; a signal can make it.
 *
 * One thread begins, works and ends; the signal is blocked in it but between those two, so no nap is taken elsewhere.
 * Of an interval that is no longer than taking the signal itself, nothing is left for the work; and a full machine may
 * take much of a longer one. So somebody else is to `wake` a thread that does not get on.
 * `wake` may be called by any thread. The handler touches nothing but this struct and makes two system calls. */
#ifndef FLUX_NAPS_H
#define FLUX_NAPS_H

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FLUX_NAP_SIGNAL (SIGRTMIN + 5)
#define FLUX_NS 1000000000L

typedef struct {
    struct itimerspec work; /* one-shot: the handler winds it up again */
    struct timespec nap;
    int timer;       /* the kernel's own number */
    int made;
    int napping;     /* 0: the work goes on without naps */
    uint64_t taken;  /* naps since it was made */
} flux_naps;

static void flux_nap(int number, siginfo_t *info, void *context) {
    (void)number, (void)context;
    flux_naps *naps = info->si_value.sival_ptr;
    if (info->si_code != SI_TIMER || !__atomic_load_n(&naps->napping, __ATOMIC_RELAXED)) return;
    int kept = errno;
    naps->taken++;
    clock_nanosleep(CLOCK_MONOTONIC, 0, &naps->nap, NULL);
    syscall(SYS_timer_settime, naps->timer, 0, &naps->work, NULL);
    errno = kept;
}

static inline void flux_nap_signal(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, FLUX_NAP_SIGNAL);
}

/* Of the calling thread, which alone may begin and end. Returns 0 or an errno; EBUSY: the signal is somebody else's. */
static inline int flux_naps_make(flux_naps *naps, int64_t work_ns, int64_t nap_ns) {
    struct sigaction before, action;
    struct sigevent event;
    sigset_t set;
    memset(naps, 0, sizeof *naps);
    naps->work.it_value = (struct timespec){work_ns / FLUX_NS, work_ns % FLUX_NS};
    naps->nap = (struct timespec){nap_ns / FLUX_NS, nap_ns % FLUX_NS};
    memset(&action, 0, sizeof action);
    action.sa_sigaction = flux_nap;
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    if (sigaction(FLUX_NAP_SIGNAL, NULL, &before)) return errno;
    int ours = (before.sa_flags & SA_SIGINFO) && before.sa_sigaction == flux_nap;
    if (!ours && ((before.sa_flags & SA_SIGINFO) || before.sa_handler != SIG_DFL)) return EBUSY;
    flux_nap_signal(&set);
    int failed = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (failed) return failed;
    if (!ours && sigaction(FLUX_NAP_SIGNAL, &action, NULL)) return errno;
    memset(&event, 0, sizeof event);
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = FLUX_NAP_SIGNAL;
    event.sigev_value.sival_ptr = naps;
    event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &naps->timer)) return errno;
    naps->made = 1;
    return 0;
}

static inline void flux_naps_begin(flux_naps *naps) {
    sigset_t set;
    flux_nap_signal(&set);
    __atomic_store_n(&naps->napping, 1, __ATOMIC_RELAXED);
    syscall(SYS_timer_settime, naps->timer, 0, &naps->work, NULL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* Also takes a signal that is under way, which would otherwise be taken when next it begins. */
static inline void flux_naps_end(flux_naps *naps) {
    static const struct itimerspec never;
    static const struct timespec at_once;
    sigset_t set;
    flux_nap_signal(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    syscall(SYS_timer_settime, naps->timer, 0, &never, NULL);
    while (sigtimedwait(&set, NULL, &at_once) > 0) continue;
    __atomic_store_n(&naps->napping, 0, __ATOMIC_RELAXED);
}

/* No further nap until it begins again. */
static inline void flux_naps_wake(flux_naps *naps) { __atomic_store_n(&naps->napping, 0, __ATOMIC_RELAXED); }

static inline void flux_naps_free(flux_naps *naps) {
    if (naps->made) syscall(SYS_timer_delete, naps->timer);
    naps->made = 0;
}

#endif
