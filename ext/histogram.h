/* HDR buckets and the pacing clock of the load generator.
 *
 * Buckets: three significant digits, so 2048 sub-buckets. A value below 2048 has a slot of its own; from there each
 * doubling of the value is one bucket of 1024 slots, every slot twice as wide as in the bucket before:
 *
 *   slot      0 ........ 1023 | 1024 ....... 2047 | 2048 ....... 3071 | 3072 ....... 4095 | ...
 *   value ns  0 ........ 1023 | 1024 ....... 2047 | 2048 ....... 4095 | 4096 ....... 8191 | ...   100 s
 *   width           1                   1                   2                   4
 *
 *   slot = (bucket << 10) + (value >> bucket),  bucket = number of bits of value above 11 (0 when it has fewer)
 *
 * It is the layout of HdrHistogram(1, 100 s, 3): slots, percentiles and distributions agree with it. Beside the
 * slots min, max and the sum are exact. A value above 100 s is never thrown away (that would flatter): it is counted
 * in `over`, takes part in total, sum and max, and stands behind every slot when percentiles are walked. A negative
 * value, or a double that is no number, is not a time: it is counted in `refused` and nowhere else.
 *
 * Pacing: message k is intended at start + floor(k * 1e9 / rate) ns, computed from k each time, so nothing adds up. */
#ifndef FLUX_HISTOGRAM_H
#define FLUX_HISTOGRAM_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

enum {
    FLUX_HDR_HALF_BITS = 10, /* 1024: half of the sub-buckets */
    FLUX_HDR_BUCKETS = 27,   /* 2048 << 26 is the first power of two above 100 s */
    FLUX_HDR_SLOTS = (FLUX_HDR_BUCKETS + 1) << FLUX_HDR_HALF_BITS,
};

#define FLUX_HDR_HIGHEST INT64_C(100000000000) /* ns: 100 s */
#define FLUX_NS_PER_S INT64_C(1000000000)

typedef struct {
    uint64_t total;   /* values counted, `over` included */
    uint64_t over;    /* of these above FLUX_HDR_HIGHEST */
    uint64_t refused; /* not times, in none of the other numbers */
    int64_t min, max; /* exact; INT64_MAX and 0 while total is 0 */
    unsigned __int128 sum;
    uint64_t slots[FLUX_HDR_SLOTS];
} flux_hdr;

static inline void flux_hdr_reset(flux_hdr *h) {
    memset(h, 0, sizeof *h);
    h->min = INT64_MAX;
}

static inline uint32_t flux_hdr_slot(int64_t value) {
    uint32_t bucket = 63u - FLUX_HDR_HALF_BITS - (uint32_t)__builtin_clzll((uint64_t)value | 2047u);
    return (bucket << FLUX_HDR_HALF_BITS) + (uint32_t)(value >> bucket);
}

/* The largest value that falls into `slot`. */
static inline int64_t flux_hdr_highest_of(uint32_t slot) {
    if (slot < 2048u) return slot;
    uint32_t bucket = (slot >> FLUX_HDR_HALF_BITS) - 1u;
    int64_t sub = (int64_t)(slot & 1023u) + 1024;
    return ((sub + 1) << bucket) - 1;
}

static inline int64_t flux_hdr_lowest_of(uint32_t slot) {
    return slot ? flux_hdr_highest_of(slot - 1u) + 1 : 0;
}

static inline void flux_hdr_record(flux_hdr *h, int64_t value) {
    if (value < 0) {
        h->refused++;
        return;
    }
    if (value <= FLUX_HDR_HIGHEST)
        h->slots[flux_hdr_slot(value)]++;
    else
        h->over++;
    h->total++;
    h->sum += (uint64_t)value;
    if (value < h->min) h->min = value;
    if (value > h->max) h->max = value;
}

/* A double is cut to whole ns; what no int64 holds (not a number, infinite, 2^63 and more) is refused. */
static inline void flux_hdr_record_double(flux_hdr *h, double value) {
    flux_hdr_record(h, value >= 0.0 && value < 0x1p63 ? (int64_t)value : -1);
}

/* Each of n int64 at `at`, `stride` bytes apart: the value itself, or with `since` the time from it to `now`. */
static inline void flux_hdr_record_ints(flux_hdr *h, const uint8_t *at, ptrdiff_t stride, size_t n, int since,
                                        int64_t now) {
    for (size_t i = 0; i < n; i++, at += stride) {
        int64_t value;
        memcpy(&value, at, sizeof value);
        if (since && __builtin_sub_overflow(now, value, &value)) value = -1;
        flux_hdr_record(h, value);
    }
}

static inline void flux_hdr_record_doubles(flux_hdr *h, const uint8_t *at, ptrdiff_t stride, size_t n, int since,
                                           int64_t now) {
    for (size_t i = 0; i < n; i++, at += stride) {
        double value;
        memcpy(&value, at, sizeof value);
        flux_hdr_record_double(h, since ? (double)now - value : value);
    }
}

static inline void flux_hdr_merge(flux_hdr *into, const flux_hdr *from) {
    for (uint32_t i = 0; i < FLUX_HDR_SLOTS; i++) into->slots[i] += from->slots[i];
    into->total += from->total;
    into->over += from->over;
    into->refused += from->refused;
    into->sum += from->sum;
    if (from->min < into->min) into->min = from->min;
    if (from->max > into->max) into->max = from->max;
}

/* HDR's own definition: the highest value equivalent to the one at rank percentile x total / 100 (rounded, at least
 * 1), and at percentile 0 the lowest equivalent. 0 while nothing is recorded; max where the rank is among `over`. */
static inline int64_t flux_hdr_percentile(const flux_hdr *h, double percentile) {
    if (h->total == 0) return 0;
    if (percentile > 100.0) percentile = 100.0;
    uint64_t rank = (uint64_t)(percentile * (double)h->total / 100.0 + 0.5), seen = 0;
    if (rank < 1) rank = 1;
    for (uint32_t i = 0; i < FLUX_HDR_SLOTS; i++) {
        seen += h->slots[i];
        if (seen >= rank) return percentile > 0.0 ? flux_hdr_highest_of(i) : flux_hdr_lowest_of(i);
    }
    return h->max;
}

static inline double flux_hdr_mean(const flux_hdr *h) {
    return h->total ? (double)((long double)h->sum / (long double)h->total) : 0.0;
}

/* The pacing clock. rate is 1 .. 1e9 messages per second, so no product below exceeds 1e18. */
typedef struct {
    int64_t rate;
    int64_t start_ns; /* CLOCK_MONOTONIC */
} flux_schedule;

static inline int64_t flux_schedule_intended(const flux_schedule *s, int64_t k) {
    return s->start_ns + k / s->rate * FLUX_NS_PER_S + k % s->rate * FLUX_NS_PER_S / s->rate;
}

/* How many messages are intended at or before now: the smallest k whose intended time lies behind now. */
static inline int64_t flux_schedule_due(const flux_schedule *s, int64_t now_ns) {
    if (now_ns < s->start_ns) return 0;
    int64_t after = now_ns - s->start_ns + 1;
    int64_t part = after % FLUX_NS_PER_S * s->rate;
    return after / FLUX_NS_PER_S * s->rate + (part + FLUX_NS_PER_S - 1) / FLUX_NS_PER_S;
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

#endif
