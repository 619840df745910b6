/* Somebody else's publisher, accounted for by sequence: of what it sends nothing is known beforehand.
 *
 *        first                     next - window               next
 *          |                            |                        |
 *   outside [ here or missing for good  | one bit each: here, or missing so far ] not seen yet
 *
 *   at `next` or above    received; the sequences stepped over are missing until they come
 *   a bit that is set     duplicate
 *   a bit that is clear   received after all: `reordered`
 *   elsewhere below       `outside`: before the first that was seen, or too long ago to be told apart; no verdict
 *
 * The first sequence that is seen is the start. (store_id, epoch) say whose sequences they are: when they change, the
 * stream begins anew at the first sequence of the new one, and what was missing before stays so; what still comes of an
 * older epoch, or in version 1 beside version 2, is `foreign` and otherwise left out. Rows are neither kept nor read:
 * what a frame holds was verified when it was received. */
#ifndef FLUX_WATCH_H
#define FLUX_WATCH_H

#include "histogram.h"
#include "pump.h"

typedef struct { /* rows */
    uint64_t first, next; /* of the present epoch; next = 0: nothing was seen yet */
    uint64_t before;      /* next - first of all earlier epochs */
    uint64_t store_id;
    uint64_t window, *seen; /* a power of two, 64 and more; bit s & (window - 1) */
    uint64_t received, duplicate, reordered, outside, foreign;
    uint32_t epoch, restarts;
} flux_watched;

typedef struct {
    flux_hdr *recorded, *origin; /* measured rows: from the frame's recorded_ns, from its origin_ns */
    flux_hdr *interval;          /* every row, from recorded_ns */
    uint64_t untimed;            /* measured rows without a recorded_ns */
    uint64_t behind;             /* measured rows here before they were recorded: the clocks disagree */
} flux_watch_times;

/* Counts `n` equal values. */
static inline void flux_hdr_record_many(flux_hdr *h, int64_t value, uint64_t n) {
    if (value < 0) {
        h->refused += n;
        return;
    }
    if (n == 0) return;
    if (value <= FLUX_HDR_HIGHEST)
        h->slots[flux_hdr_slot(value)] += n;
    else
        h->over += n;
    h->total += n;
    h->sum += (unsigned __int128)(uint64_t)value * n;
    if (value < h->min) h->min = value;
    if (value > h->max) h->max = value;
}

static inline uint64_t *flux_watched_word(flux_watched *w, uint64_t sequence) {
    return &w->seen[(sequence & (w->window - 1)) >> 6];
}

static inline uint64_t flux_watched_bit(uint64_t sequence) { return UINT64_C(1) << (sequence & 63); }

/* Moves `next` to `end`, which is above it: what lies between is missing, but for what is here from `start` on. */
static inline void flux_watched_advance(flux_watched *w, uint64_t start, uint64_t end) {
    uint64_t s = w->next;
    if (end - s > w->window) {
        memset(w->seen, 0, w->window / 8);
        s = end - w->window;
    }
    for (; s < end; s++) {
        if (s < start)
            *flux_watched_word(w, s) &= ~flux_watched_bit(s);
        else
            *flux_watched_word(w, s) |= flux_watched_bit(s);
    }
    w->next = end;
}

/* Whose sequences these are: 0 when the message is to be left out. */
static inline int flux_watched_follows(flux_watched *w, const flux_arrival *a) {
    if (w->next && a->store_id == w->store_id && a->epoch == w->epoch) return 1;
    if (w->next && a->store_id == w->store_id && a->epoch < w->epoch) return 0;
    if (w->next && a->store_id == 0 && a->epoch == 0) return 0; /* version 1 names neither */
    if (w->next) {
        w->before += w->next - w->first;
        w->restarts++;
    }
    w->first = w->next = a->start;
    w->store_id = a->store_id;
    w->epoch = a->epoch;
    memset(w->seen, 0, w->window / 8);
    return 1;
}

/* Accounts for one message of rows; how many of them are new. */
static inline uint64_t flux_watched_take(flux_watched *w, const flux_arrival *a) {
    uint64_t fresh = 0, end = a->start + a->count;
    if (a->count == 0) return 0;
    if (!flux_watched_follows(w, a)) {
        w->foreign += a->count;
        return 0;
    }
    uint64_t oldest = w->next - w->first > w->window ? w->next - w->window : w->first;
    for (uint64_t s = a->start; s < end && s < w->next; s++) {
        if (s < oldest) {
            w->outside++;
        } else if (*flux_watched_word(w, s) & flux_watched_bit(s)) {
            w->duplicate++;
        } else {
            *flux_watched_word(w, s) |= flux_watched_bit(s);
            w->reordered++;
            fresh++;
        }
    }
    if (end > w->next) {
        fresh += end - (a->start > w->next ? a->start : w->next);
        flux_watched_advance(w, a->start, end);
    }
    w->received += fresh;
    return fresh;
}

/* Accounts for `n` arrivals, all here at `now_ns` of the epoch clock; streams by slot. Returns their new rows. */
static inline uint64_t flux_watch_account(flux_watched *streams, const flux_arrival *arrivals, uint32_t n,
                                          int64_t now_ns, int measured, flux_watch_times *times) {
    uint64_t taken = 0;
    for (uint32_t i = 0; i < n; i++) {
        const flux_arrival *a = &arrivals[i];
        uint64_t fresh = flux_watched_take(&streams[a->stream], a);
        taken += fresh;
        if (a->recorded_ns > 0) flux_hdr_record_many(times->interval, now_ns - a->recorded_ns, fresh);
        if (!measured) continue;
        if (a->recorded_ns <= 0)
            times->untimed += fresh;
        else if (a->recorded_ns > now_ns)
            times->behind += fresh;
        if (a->recorded_ns > 0) flux_hdr_record_many(times->recorded, now_ns - a->recorded_ns, fresh);
        if (a->origin_ns > 0) flux_hdr_record_many(times->origin, now_ns - a->origin_ns, fresh);
    }
    return taken;
}

#endif
