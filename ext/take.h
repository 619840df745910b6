/* Taking a feed's message into the inbox (server): its position in the run, then each row by its value.
 *
 *   run of a feed    1 ........ taken │ taken + 1 ..........
 *   message          resent: skipped ─┤├─ next: admitted │  begins further on: dropped, the feed sends it again
 *   row              flux_row_fault ─► newer than the stream's newest? ──yes──────────────► inbox
 *                                                               └─no─► look back ─► repeat: dropped; else flagged ─► inbox
 *
 * Only as many rows are taken as ring and inbox have room for; the rest of the message waits. */
#ifndef FLUX_TAKE_H
#define FLUX_TAKE_H

#include "receiver.h"

/* Looks for a row that is not newer than its stream's newest: in this turn's inbox, then in the ring. */
static inline int flux_admit_older(const flux_receiver *r, const flux_stream *s, uint32_t slot, const uint8_t *row,
                                   uint64_t late_rows) {
    flux_span spans[3];
    int older = FLUX_ADMIT_NEW;
    for (uint32_t i = s->reserved ? r->arrival_count : 0; i-- > 0;) {
        const flux_arrival *a = &r->arrivals[i];
        if (a->stream != slot || a->rows == 0) continue;
        spans[0] = (flux_span){r->inbox + a->at, a->rows};
        int found = flux_look_back(s->kind, row, spans, 1);
        if (found == FLUX_ADMIT_REPEAT) return found;
        if (found == FLUX_ADMIT_CORRECTION) older = found;
    }
    uint64_t kept = s->ring->contiguous + 1 - s->ring->first, n = kept < late_rows ? kept : late_rows;
    uint64_t from = s->ring->contiguous + 1 - n, piece = flux_ring_piece(s->ring, from, n);
    spans[0] = (flux_span){s->ring->rows, n - piece};
    spans[1] = (flux_span){flux_ring_row(s->ring, from), piece};
    int found = flux_look_back(s->kind, row, spans, 2);
    return found == FLUX_ADMIT_LATE && older == FLUX_ADMIT_CORRECTION ? older : found;
}

#define FLUX_LATE_SEARCH_ROWS 4096

/* Admits one sound or unsound row of a stream; an admitted row is copied to `out` with its flags. */
static inline int flux_admit_row(flux_receiver *r, flux_stream *s, uint32_t slot, const uint8_t *row, uint8_t *out) {
    uint8_t copy[sizeof(flux_candle)];
    uint32_t size = s->ring->row_size;
    memcpy(copy, row, size); /* rows of a frame have no alignment in memory */
    int outcome = flux_row_fault(s->kind, copy);
    if (outcome) return outcome;
    int64_t order = flux_row_order(s->kind, copy);
    if (flux_newer(s->kind, order, s->highest)) {
        s->highest = order;
    } else if (s->kind != FLUX_ROWS_TRADE || order != 0) {
        outcome = flux_admit_older(r, s, slot, copy, FLUX_LATE_SEARCH_ROWS);
        if (outcome == FLUX_ADMIT_REPEAT) return outcome;
    }
    if (s->kind == FLUX_ROWS_CANDLE) {
        flux_candle *candle = (flux_candle *)copy;
        candle->flags = flux_admitted_flags(candle->flags, outcome);
    }
    memcpy(out, copy, size);
    return outcome;
}

static inline int flux_is_admitted(int outcome) {
    return outcome == FLUX_ADMIT_NEW || outcome == FLUX_ADMIT_CORRECTION || outcome == FLUX_ADMIT_LATE;
}

/* How many rows of a stream can be taken now: ring slots that hold nothing unpersisted, and inbox. */
static inline uint64_t flux_room(const flux_receiver *r, const flux_stream *s) {
    uint64_t keep = __atomic_load_n(&s->ring->keep, __ATOMIC_ACQUIRE), held = s->head + s->reserved;
    uint64_t unpersisted = held > keep ? held - keep : 0;
    uint64_t ring = s->ring->capacity > unpersisted ? s->ring->capacity - unpersisted : 0;
    uint64_t inbox = (r->inbox_limit - r->inbox_used) / s->ring->row_size;
    return ring < inbox ? ring : inbox;
}

/* Admits `n` rows, for which there is room, into the inbox; the arrival says how many went in. */
static inline void flux_admit_rows(flux_receiver *r, uint32_t slot, flux_arrival *a, const uint8_t *rows, uint64_t n) {
    flux_stream *s = r->streams->streams[slot];
    uint32_t size = s->ring->row_size;
    a->at = r->inbox_used;
    for (uint64_t i = 0; i < n; i++) {
        int outcome = flux_admit_row(r, s, slot, rows + i * size, r->inbox + r->inbox_used);
        r->counters[FLUX_COUNT_ADMIT + outcome]++;
        if (!flux_is_admitted(outcome)) continue;
        r->inbox_used += size;
        s->reserved++;
        a->rows++;
    }
}

/* A feed's message: rows already taken are skipped, a message ahead of its run is dropped (the feed sends it again).
 * Rows of a stream that another input writes are refused, and the run is that much further: they need not come again. */
static inline int flux_take(flux_receiver *r, uint32_t slot, uint32_t run, const flux_view *v, const uint8_t *rows) {
    flux_stream *s = r->streams->streams[slot];
    flux_feed_run *feed = &r->runs[run];
    if (v->start_sequence > feed->taken + 1) {
        r->counters[FLUX_COUNT_AHEAD] += v->row_count;
        return FLUX_DRAINED;
    }
    uint64_t skip = feed->taken + 1 - v->start_sequence;
    if (skip >= v->row_count) {
        r->counters[FLUX_COUNT_RESENT] += v->row_count;
        return FLUX_DRAINED;
    }
    uint64_t n = v->row_count - skip;
    if (s->owner == 0) s->owner = feed->owner; /* nobody's since the start: the first input that writes it has it */
    if (s->owner != feed->owner) {
        r->counters[FLUX_COUNT_RESENT] += skip;
        r->counters[FLUX_COUNT_OWNER] += n;
        flux_arrive(r, slot, v)->run = run; /* no rows, only the run's new position */
        feed->taken += n;
        return FLUX_DRAINED;
    }
    uint64_t room = flux_room(r, s), taken = n < room ? n : room;
    if (taken == 0) return r->inbox_limit - r->inbox_used < s->ring->row_size ? FLUX_FULL : FLUX_HELD;
    r->counters[FLUX_COUNT_RESENT] += skip - r->partial;
    r->partial = skip + taken;
    flux_arrival *a = flux_arrive(r, slot, v);
    a->run = run;
    a->start += skip;
    a->count = (uint32_t)taken;
    flux_admit_rows(r, slot, a, rows + skip * s->ring->row_size, taken);
    feed->taken += taken;
    return taken == n ? FLUX_DRAINED : FLUX_FULL; /* the rest of the message comes with the next call */
}

#endif
