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

#define FLUX_SCANNED_ROWS 64 /* a ring of so many rows or fewer is looked through, it gets no table */

/* Lays the rows that this turn has brought of the stream into the turn's table: 0, or -1 without memory. */
static inline int flux_lay_turn(flux_receiver *r, flux_stream *s, const flux_orders_of *of) {
    flux_orders *o = &r->turn_rows;
    uint32_t size = s->ring->row_size;
    if (o->places == NULL) {
        uint64_t rows = r->inbox_limit / 40 + 1;
        flux_orders made = {0};
        made.filled = (uint32_t *)malloc(rows * sizeof *made.filled);
        if (flux_orders_make(&made, rows)) made.mask = 0;
        r->turn_streams = (uint32_t *)calloc((size_t)made.mask + 1, sizeof *r->turn_streams);
        if (made.filled == NULL || made.mask == 0 || r->turn_streams == NULL) {
            flux_orders_free(&made);
            free(r->turn_streams);
            r->turn_streams = NULL;
            return -1;
        }
        *o = made;
    }
    flux_orders_of with = *of;
    with.streams = r->turn_streams;
    for (uint32_t i = s->turn_first; i < r->arrival_count; i++) {
        const flux_arrival *a = &r->arrivals[i];
        if (a->stream != of->stream) continue;
        for (uint32_t row = 0; row < a->rows; row++) {
            uint64_t at = a->at + (uint64_t)row * size;
            flux_order_add(&with, o, r->inbox + at, (uint32_t)at);
        }
    }
    s->turn_laid = r->turn;
    return 0;
}

/* Looks through the turn's arrivals and the ring, where there is no memory for tables. */
static inline int flux_look_through(const flux_receiver *r, const flux_stream *s, uint32_t slot, const uint8_t *row,
                                    int turn, int ring) {
    int seen = 0;
    for (uint32_t i = turn ? s->turn_first : r->arrival_count; i < r->arrival_count; i++) {
        const flux_arrival *a = &r->arrivals[i];
        flux_span span = {r->inbox + a->at, a->rows};
        if (a->stream != slot) continue;
        int found = flux_look_back(s->kind, row, &span, 1);
        if (found == FLUX_ADMIT_REPEAT) return found;
        seen |= found == FLUX_ADMIT_CORRECTION;
    }
    if (ring) {
        uint64_t n = s->ring->contiguous + 1 - s->ring->first, piece = flux_ring_piece(s->ring, s->ring->first, n);
        flux_span spans[2] = {{s->ring->rows, n - piece}, {flux_ring_row(s->ring, s->ring->first), piece}};
        int found = flux_look_back(s->kind, row, spans, 2);
        if (found == FLUX_ADMIT_REPEAT) return found;
        seen |= found == FLUX_ADMIT_CORRECTION;
    }
    return flux_not_newer(s->kind, seen);
}

/* Whether no row of the stream ever had this time or trade id, as far as that can be told without its rows. */
static inline int flux_never_seen(const flux_stream *s, int64_t order) {
    return flux_newer(s->kind, s->lowest, order) ||
           (flux_newer(s->kind, order, s->page) && flux_newer(s->kind, s->floor, order));
}

/* Remembers that the stream has this one, where it was never seen: below the others. */
static inline void flux_saw_below(flux_stream *s, int64_t order) {
    if (flux_newer(s->kind, s->lowest, order)) {
        int first = s->head + s->reserved == 0;
        s->floor = first ? order : s->lowest;
        s->lowest = s->page = order;
    } else if (flux_newer(s->kind, order, s->page) && flux_newer(s->kind, s->floor, order)) {
        s->page = order;
    }
}

/* Of a row that is neither in the turn nor in the ring: LATE where the stream cannot have it, its ring holding all of its
 * rows or none ever having had its time. Else OLD: it may have been numbered long ago, and nothing is numbered twice. */
static inline int flux_not_at_hand(const flux_stream *s, int64_t order, int outcome) {
    return outcome != FLUX_ADMIT_LATE || s->ring->first == 1 || flux_never_seen(s, order) ? outcome : FLUX_ADMIT_OLD;
}

/* What a row is that is not newer than its stream's newest: it is looked for in this turn's inbox, then in the ring. */
static inline int flux_admit_older(flux_receiver *r, flux_stream *s, uint32_t slot, const uint8_t *row) {
    flux_orders_of turn = {NULL, r->inbox, r->turn_streams, slot, s->kind}, ring = {s->ring, NULL, NULL, 0, s->kind};
    int64_t order = flux_row_order(s->kind, row);
    int in_turn = s->turn == r->turn && s->reserved, in_ring = s->ring->contiguous >= s->ring->first, seen = 0;
    uint32_t newest;
    if (in_turn && s->turn_laid != r->turn) {
        in_turn = flux_lay_turn(r, s, &turn) == 0;
        if (!in_turn) return flux_look_through(r, s, slot, row, 1, 1);
        turn.streams = r->turn_streams;
    }
    if (in_turn && (newest = flux_order_newest(&turn, &r->turn_rows, order)) != FLUX_NO_PLACE) {
        if (flux_order_has(&turn, &r->turn_rows, newest, row)) return FLUX_ADMIT_REPEAT;
        seen = 1;
    }
    if (in_ring && (s->ring->capacity <= FLUX_SCANNED_ROWS || flux_orders_follow(&ring, &s->orders))) {
        int found = flux_look_through(r, s, slot, row, 0, 1);
        return seen && found == FLUX_ADMIT_LATE ? FLUX_ADMIT_CORRECTION : found;
    }
    if (in_ring && (newest = flux_order_newest(&ring, &s->orders, order)) != FLUX_NO_PLACE) {
        if (flux_order_has(&ring, &s->orders, newest, row)) return FLUX_ADMIT_REPEAT;
        seen = 1;
    }
    return flux_not_newer(s->kind, seen);
}

/* Admits one sound or unsound row of a stream, no later than `latest_ms`; an admitted row is laid into the inbox, which
 * has room, with its flags. */
static inline int flux_admit_row(flux_receiver *r, flux_stream *s, uint32_t slot, const uint8_t *row,
                                 int64_t latest_ms) {
    uint8_t copy[sizeof(flux_candle)], *out = r->inbox + r->inbox_used;
    uint32_t size = s->ring->row_size;
    memcpy(copy, row, size); /* rows of a frame have no alignment in memory */
    int outcome = flux_admit_fault(s->kind, copy, s->grid_ms, latest_ms);
    if (outcome) return outcome;
    int64_t order = flux_row_order(s->kind, copy);
    if (flux_newer(s->kind, order, s->highest)) {
        s->highest = order;
    } else if (s->kind != FLUX_ROWS_TRADE || order != 0) {
        outcome = flux_not_at_hand(s, order, flux_admit_older(r, s, slot, copy));
        if (outcome == FLUX_ADMIT_REPEAT || outcome == FLUX_ADMIT_OLD) return outcome;
    }
    if (flux_newer(s->kind, s->floor, order) && (s->kind != FLUX_ROWS_TRADE || order != 0)) flux_saw_below(s, order);
    flux_flag_row(s->kind, copy, outcome);
    memcpy(out, copy, size);
    if (s->turn_laid == r->turn) {
        flux_orders_of turn = {NULL, r->inbox, r->turn_streams, slot, s->kind};
        flux_order_add(&turn, &r->turn_rows, out, (uint32_t)r->inbox_used);
    }
    return outcome;
}

static inline int flux_is_admitted(int outcome) {
    return outcome == FLUX_ADMIT_NEW || outcome == FLUX_ADMIT_CORRECTION || outcome == FLUX_ADMIT_LATE;
}

/* How many rows of a stream can be taken now: ring slots that hold nothing uncommitted, and inbox. */
static inline uint64_t flux_room(const flux_receiver *r, const flux_stream *s) {
    uint64_t keep = __atomic_load_n(&s->ring->keep, __ATOMIC_ACQUIRE), held = s->head + s->reserved;
    uint64_t uncommitted = held > keep ? held - keep : 0;
    uint64_t ring = s->ring->capacity > uncommitted ? s->ring->capacity - uncommitted : 0;
    uint64_t inbox = (r->inbox_limit - r->inbox_used) / s->ring->row_size;
    return ring < inbox ? ring : inbox;
}

/* A row of the stream was refused. */
static inline void flux_count_refused(flux_receiver *r, flux_stream *s, uint32_t slot, int outcome) {
    __atomic_store_n(&s->refused, s->refused + 1, __ATOMIC_RELAXED);
    __atomic_store_n(&r->last_refused[outcome], slot + 1, __ATOMIC_RELAXED);
}

/* Admits `n` rows, for which there is room, into the inbox; the arrival says how many went in. Of a feed's run (NULL:
 * a source in this process, whose rows may be as late as they like) they are the rows from `first` on. */
static inline void flux_admit_rows(flux_receiver *r, uint32_t slot, flux_arrival *a, const uint8_t *rows, uint64_t n,
                                   flux_feed_run *feed, uint64_t first) {
    flux_stream *s = r->streams->streams[slot];
    uint32_t size = s->ring->row_size;
    int64_t latest_ms = feed && r->ahead_ms ? r->latest_ms : INT64_MAX;
    a->at = r->inbox_used;
    if (s->turn != r->turn) {
        s->turn = r->turn;
        s->turn_first = (uint32_t)(a - r->arrivals);
    }
    uint64_t left = FLUX_MAX_SEQUENCE - (s->head + s->reserved), spent = n > left ? n - left : 0;
    n -= spent;
    for (uint64_t i = 0; i < n; i++) {
        int outcome = flux_admit_row(r, s, slot, rows + i * size, latest_ms);
        r->counters[FLUX_COUNT_ADMIT + outcome]++;
        if (flux_is_admitted(outcome)) {
            r->inbox_used += size;
            s->reserved++;
            a->rows++;
        } else if (outcome != FLUX_ADMIT_REPEAT) {
            flux_count_refused(r, s, slot, outcome);
            if (feed) flux_note_refused(feed, first + i, (uint32_t)outcome);
        }
    }
    for (uint64_t i = n; i < n + spent; i++) { /* sequences end at 2^63-1, and never begin again */
        r->counters[FLUX_COUNT_ADMIT + FLUX_ADMIT_SPENT]++;
        flux_count_refused(r, s, slot, FLUX_ADMIT_SPENT);
        if (feed) flux_note_refused(feed, first + i, FLUX_ADMIT_SPENT);
    }
}

/* Counts a stream that two live runs write: one that comes again after another did. They may be two feeds that correct
 * each other unawares; a restarted feed does not come again. */
static inline void flux_note_writer(flux_receiver *r, flux_stream *s, uint32_t slot, uint32_t serial) {
    if (s->writer == serial) return;
    if (s->writer_before == serial) {
        r->counters[FLUX_COUNT_SHARED]++;
        __atomic_store_n(&r->last_shared, slot + 1, __ATOMIC_RELAXED);
    }
    s->writer_before = s->writer;
    s->writer = serial;
}

/* A feed's message: rows already taken are skipped, a message ahead of its run is dropped (the feed sends it again).
 * Rows of a stream that another input writes are refused, and the run is that much further: they need not come again. */
static inline int flux_take(flux_receiver *r, uint32_t slot, uint32_t run, const flux_view *v, const uint8_t *rows) {
    flux_stream *s = r->streams->streams[slot];
    flux_feed_run *feed = &r->runs[run];
    uint32_t incarnation = __atomic_load_n(&feed->incarnation, __ATOMIC_ACQUIRE);
    if (v->epoch != incarnation) {
        if (v->epoch < incarnation) { /* another process has the run now */
            r->counters[FLUX_COUNT_OLDER_CLAIM]++;
            return FLUX_DRAINED;
        }
        __atomic_store_n(&feed->incarnation, v->epoch, __ATOMIC_RELEASE);
    }
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
        for (uint64_t i = 0; i < n; i++) flux_note_refused(feed, feed->taken + 1 + i, FLUX_REFUSED_OWNER);
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
    flux_note_writer(r, s, slot, feed->serial);
    flux_admit_rows(r, slot, a, rows + skip * s->ring->row_size, taken, feed, feed->taken + 1);
    feed->taken += taken;
    return taken == n ? FLUX_DRAINED : FLUX_FULL; /* the rest of the message comes with the next call */
}

#endif
