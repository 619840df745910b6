/* HDR buckets of the load generator.
 *
 * Three significant digits, so 2048 sub-buckets. A value below 2048 has a slot of its own; from there each
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
 * value, or a double that is no number, is not a time: it is counted in `refused` and nowhere else. */
#ifndef FLUX_HISTOGRAM_H
#define FLUX_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    FLUX_HDR_HALF_BITS = 10, /* 1024: half of the sub-buckets */
    FLUX_HDR_BUCKETS = 27,   /* 2048 << 26 is the first power of two above 100 s */
    FLUX_HDR_SLOTS = (FLUX_HDR_BUCKETS + 1) << FLUX_HDR_HALF_BITS,
};

#define FLUX_HDR_HIGHEST INT64_C(100000000000) /* ns: 100 s */

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

#endif
