/* The pacing clock of the load generator: when message k is intended, and how many are due by now.
 *
 *   constant   floor(k * 1e9 / rate) ns from the start
 *   ramp       rate        last ________      A(t) = twice the area under this line up to t, times over_ns;
 *                        ____/                message k is intended in the first ns at whose end more than
 *              first ___/                     k messages fit under the line: A(t + 1) > k * 2 * over_ns * 1e9
 *                    flat  over
 *   burst      k / burst * period_ns
 *   replay     times[k]
 *   at once    the start: there is no schedule, who sends is held back by something else
 *
 * All in whole numbers and computed from k each time, so nothing adds up, and every process has the same answer. For
 * every shape due(now) is the smallest k whose intended time lies behind now. */
#ifndef FLUX_SCHEDULE_H
#define FLUX_SCHEDULE_H

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>

#define FLUX_NS_PER_S INT64_C(1000000000)
#define FLUX_SCHEDULE_END (INT64_C(1) << 48) /* ns, three days: where a ramp ends, so that A fits 128 bits */
#define FLUX_WAIT_MOST 64 /* descriptors waited for at once */
#define FLUX_SCHEDULE_MOST (INT64_C(1) << 45) /* messages of a ramp */

enum flux_shape { FLUX_CONSTANT, FLUX_RAMP, FLUX_BURST, FLUX_REPLAY, FLUX_AT_ONCE };

typedef struct {
    int32_t shape;
    int64_t start_ns;         /* CLOCK_MONOTONIC */
    int64_t rate;             /* constant: 1 .. 1e9 messages per second, so no product exceeds 1e18; ramp: the first */
    int64_t last;             /* ramp: messages per second at its end, and behind it; both at most 1e8 */
    int64_t flat_ns, over_ns; /* ramp: each at most a day */
    int64_t burst, period_ns;
    const int64_t *times;     /* replay: ascending, from 0 on; not ours */
    int64_t count;
} flux_schedule;

static inline __int128 flux_ramp_area(const flux_schedule *s, int64_t t) {
    int64_t flat = t < s->flat_ns ? t : s->flat_ns;
    int64_t rising = t - flat < s->over_ns ? t - flat : s->over_ns;
    int64_t behind = t - flat - rising;
    __int128 area = (__int128)s->rate * (flat + rising) + (__int128)s->last * behind;
    return 2 * area * s->over_ns + (__int128)rising * rising * (s->last - s->rate);
}

/* About when A reaches message k, in ns: right but for rounding. */
static inline long double flux_ramp_guess(const flux_schedule *s, int64_t k) {
    long double first = (long double)s->rate / 1e9L, last = (long double)s->last / 1e9L; /* messages per ns */
    long double over = (long double)s->over_ns, left = (long double)k - first * (long double)s->flat_ns;
    if (left < 0) return (long double)k / first;
    long double risen = (first + last) / 2 * over;
    if (left > risen) return (long double)s->flat_ns + over + (left - risen) / last;
    long double square = first * first + 2 * left * (last - first) / over;
    return (long double)s->flat_ns + 2 * left / (first + sqrtl(square > 0 ? square : 0));
}

static inline int64_t flux_ramp_intended(const flux_schedule *s, int64_t k) {
    if (k >= FLUX_SCHEDULE_MOST) return FLUX_SCHEDULE_END;
    __int128 reached = (__int128)k * 2 * s->over_ns * FLUX_NS_PER_S;
    long double guess = flux_ramp_guess(s, k);
    int64_t t = guess < (long double)FLUX_SCHEDULE_END ? (int64_t)guess : FLUX_SCHEDULE_END;
    while (t > 0 && flux_ramp_area(s, t) > reached) t--;
    while (t < FLUX_SCHEDULE_END && flux_ramp_area(s, t + 1) <= reached) t++;
    return t;
}

static inline int64_t flux_schedule_intended(const flux_schedule *s, int64_t k) {
    if (__builtin_expect(s->shape == FLUX_CONSTANT, 1))
        return s->start_ns + k / s->rate * FLUX_NS_PER_S + k % s->rate * FLUX_NS_PER_S / s->rate;
    if (s->shape == FLUX_RAMP) return s->start_ns + flux_ramp_intended(s, k);
    if (s->shape == FLUX_BURST) return s->start_ns + k / s->burst * s->period_ns;
    if (s->shape == FLUX_AT_ONCE) return s->start_ns;
    return k < s->count ? s->start_ns + s->times[k] : INT64_MAX;
}

/* How many of the times are at or before `elapsed`. */
static inline int64_t flux_replay_due(const flux_schedule *s, int64_t elapsed) {
    int64_t low = 0, high = s->count;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (s->times[middle] <= elapsed)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* How many messages are intended at or before now. */
static inline int64_t flux_schedule_due(const flux_schedule *s, int64_t now_ns) {
    if (now_ns < s->start_ns) return 0;
    int64_t after = now_ns - s->start_ns + 1;
    if (s->shape == FLUX_CONSTANT) {
        int64_t part = after % FLUX_NS_PER_S * s->rate;
        return after / FLUX_NS_PER_S * s->rate + (part + FLUX_NS_PER_S - 1) / FLUX_NS_PER_S;
    }
    if (s->shape == FLUX_RAMP) {
        __int128 whole = (__int128)2 * s->over_ns * FLUX_NS_PER_S;
        int64_t t = after < FLUX_SCHEDULE_END ? after : FLUX_SCHEDULE_END;
        return (int64_t)((flux_ramp_area(s, t) + whole - 1) / whole);
    }
    if (s->shape == FLUX_BURST) {  // large bursts a nanosecond apart are more than there are numbers, some day
        int64_t due;
        return __builtin_mul_overflow((after - 1) / s->period_ns + 1, s->burst, &due) ? INT64_MAX : due;
    }
    if (s->shape == FLUX_AT_ONCE) return INT64_MAX;
    return flux_replay_due(s, after - 1);
}

static inline int64_t flux_clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * FLUX_NS_PER_S + t.tv_nsec;
}

/* The calling thread's sleeps end within 1 us of their time, not within the usual 50. */
static inline int flux_sharpen_sleep(void) { return prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL); }

/* 0 when the time has come, EINTR when a signal came first. */
static inline int flux_sleep_until(int64_t ns) {
    if (ns <= 0) return 0;
    struct timespec t = {.tv_sec = (time_t)(ns / FLUX_NS_PER_S), .tv_nsec = (long)(ns % FLUX_NS_PER_S)};
    return clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* Waits until one of the descriptors can be read, at most `ns`; not select, which ends at descriptor 1,023. 0, or the
 * errno of what ended it (EINTR: a signal came first). */
static inline int flux_wait_readable(struct pollfd *descriptors, uint32_t count, int64_t ns) {
    struct timespec t = {0, 0};
    if (ns > 0) t = (struct timespec){.tv_sec = (time_t)(ns / FLUX_NS_PER_S), .tv_nsec = (long)(ns % FLUX_NS_PER_S)};
    return ppoll(descriptors, count, &t, NULL) < 0 ? errno : 0;
}

#endif
