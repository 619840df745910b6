/* The window's trades that came again with other values: flagged CORRECTION, they replace every row of their id that
 * came before, as if only the last version had been there.
 *
 *   kept, by time    . . a | . a . . | . . . a . .      a: rows of the id, in whatever bucket
 *                        |     |           |
 *                        |     |           +-- of the same time as the correction: it takes that place
 *                        +-----+-------------- taken out, a bucket a call; a closed bucket is written again
 *
 * A correction is `late` and changes nothing where that cannot be done: its place, or the bucket of a row that it
 * replaces, is gone; the row itself is (ids ascend with time: an id no higher than that of a dropped row was among
 * those); or a bucket would lose its only trade, because there is no candle that says "no longer". */
#ifndef FLUX_REVISE_H
#define FLUX_REVISE_H

#include "window.h"

/* The first kept row in [at, end) that is (`with`) or is not of an id; `end` if there is none. */
static inline uint64_t flux_window_seek_id(const flux_window *window, uint64_t at, uint64_t end, uint64_t id, int with) {
    for (; at < end; at++) {
        uint64_t here;
        memcpy(&here, window->kept + at * sizeof(flux_trade) + offsetof(flux_trade, trade_id), sizeof here);
        if ((here == id) == with) break;
    }
    return at;
}

/* The kept rows of a bucket. */
static inline flux_rows_of flux_window_rows_of(const flux_window *window, const flux_bucket *bucket) {
    uint64_t from = flux_window_seek(window, bucket->first, 1), end = flux_window_seek(window, bucket->last, 0);
    return (flux_rows_of){from, end - from};
}

static inline int flux_window_has_open(const flux_window *window, const flux_bucket *bucket) {
    return window->carry.rows && window->carry.open_ms == bucket->open_ms;
}

/* Whether the rows of an id, the first of them at `at`, cannot be exchanged for one in `target`. */
static inline int flux_window_irreplaceable(const flux_window *window, uint64_t at, uint64_t id,
                                            const flux_bucket *target) {
    while (at < window->kept_count) {
        flux_bucket bucket;
        flux_rows_of rows;
        flux_bucket_begin(window, &bucket, flux_row_time(window->kept + at * window->row_size));
        rows = flux_window_rows_of(window, &bucket);
        if (bucket.open_ms != target->open_ms) {
            int open = flux_window_has_open(window, &bucket);
            if (!open && window->any_dropped && window->dropped >= bucket.first) return 1;
            if (!(open && window->floor.rows) &&
                flux_window_seek_id(window, rows.from, rows.from + rows.count, id, 0) == rows.from + rows.count)
                return 1;
        }
        at = flux_window_seek_id(window, rows.from + rows.count, window->kept_count, id, 1);
    }
    return 0;
}

/* Takes the rows of an id out of [from, end), but for the one at `spare`; how many. */
static inline uint64_t flux_window_take_out(flux_window *window, uint64_t from, uint64_t end, uint64_t id,
                                            uint64_t spare) {
    uint64_t size = window->row_size, to = from, at;
    for (at = from; at < end; at++) {
        if (at != spare && flux_window_seek_id(window, at, at + 1, id, 1) == at) continue;
        if (to != at) memcpy(window->kept + to * size, window->kept + at * size, size);
        to++;
    }
    memmove(window->kept + to * size, window->kept + end * size, (window->kept_count - end) * size);
    window->kept_count -= end - to;
    return end - to;
}

/* Takes the rows of an id that are not in `target` out of the next of their buckets. 1: that was closed, and is written
 * again; 0: it is the open one; -1: there are none. */
static inline int flux_window_leave(flux_window *window, uint64_t id, const flux_bucket *target, flux_candle *out,
                                    flux_rows_of *span) {
    flux_rows_of rows = flux_window_rows_of(window, target);
    flux_bucket bucket;
    uint64_t at = flux_window_seek_id(window, 0, rows.from, id, 1), out_of;
    int64_t ts;
    if (at == rows.from) at = flux_window_seek_id(window, rows.from + rows.count, window->kept_count, id, 1);
    if (at == window->kept_count) return -1;
    ts = flux_row_time(window->kept + at * window->row_size);
    flux_bucket_begin(window, &bucket, ts);
    rows = flux_window_rows_of(window, &bucket);
    out_of = flux_window_take_out(window, at, rows.from + rows.count, id, UINT64_MAX);
    if (flux_window_has_open(window, &bucket)) {
        flux_window_refold(window, at, -(int64_t)out_of);
        return 0;
    }
    flux_window_again(window, ts, FLUX_CORRECTION, out, span);
    return 1;
}

/* The correction into its own bucket, which is the open one or kept: 1: written, 0: nothing to write, -1: no memory. */
static inline int flux_window_enter(flux_window *window, const uint8_t *row, uint64_t id, const flux_bucket *target,
                                    flux_candle *out, flux_rows_of *span) {
    flux_rows_of rows = flux_window_rows_of(window, target);
    uint64_t size = window->row_size, end = rows.from + rows.count, first, spare, at, out_of;
    int64_t ts = flux_row_time(row);
    if (flux_window_reserve(window, 1) != 0) return -1;
    first = flux_window_seek_id(window, rows.from, end, id, 1);
    spare = flux_window_seek_id(window, flux_window_seek(window, ts, 1), flux_window_seek(window, ts, 0), id, 1);
    if (spare == flux_window_seek(window, ts, 0)) spare = UINT64_MAX;
    out_of = flux_window_take_out(window, first, end, id, spare);
    if (spare != UINT64_MAX) {
        at = flux_window_seek_id(window, first, end - out_of, id, 1);
    } else {
        at = flux_window_seek(window, ts, 0);
        memmove(window->kept + (at + 1) * size, window->kept + at * size, (window->kept_count - at) * size);
        window->kept_count++;
    }
    memcpy(window->kept + at * size, row, size);
    if (window->newest < ts) window->newest = ts;
    if (flux_window_has_open(window, target)) {
        flux_window_refold(window, first < at ? first : at, (int64_t)(spare == UINT64_MAX) - (int64_t)out_of);
        return 0;
    }
    flux_window_again(window, ts, out_of || spare != UINT64_MAX ? FLUX_CORRECTION : FLUX_LATE, out, span);
    return 1;
}

/* Whether a correction that is not under way yet can be made, and of what: 1: begun; 0: there is nothing to replace, it
 * is a row like others; -1: it is done with (late, or a repeat). */
static inline int flux_window_begin_revision(flux_window *window, const uint8_t *row, uint64_t id,
                                             const flux_bucket *target) {
    uint64_t at;
    int64_t ts = flux_row_time(row);
    window->revised = 1;
    if (!window->by_hand && window->kept_count >= 2 * flux_window_stay(window)) flux_window_cut(window);
    at = flux_window_seek_id(window, 0, window->kept_count, id, 1);
    if (at == window->kept_count && !(window->any_dropped && id <= window->dropped_id)) return 0;
    if (at == window->kept_count ||
        (!flux_window_in_order(window, ts) && flux_window_is_late(window, target, ts)) ||
        flux_window_irreplaceable(window, at, id, target)) {
        window->late++;
        return -1;
    }
    if (memcmp(window->kept + at * window->row_size, row, window->row_size) == 0 &&
        flux_window_seek_id(window, at + 1, window->kept_count, id, 1) == window->kept_count)
        return -1;
    window->corrected++;
    window->replacing = id;
    return 1;
}

/* A trade that replaces others; there is room for a bucket. 1: done; 0: call again, with room; -1: no memory. */
static inline int flux_window_revise(flux_window *window, const uint8_t *row, flux_candle *out, flux_rows_of *spans,
                                     uint64_t room, uint64_t *written) {
    flux_rows_of *span = spans ? spans + *written : NULL;
    flux_bucket target;
    flux_trade trade;
    int wrote;
    memcpy(&trade, row, sizeof trade);
    flux_bucket_begin(window, &target, trade.ts_ns);
    if (!window->replacing) {
        int begun = flux_window_begin_revision(window, row, trade.trade_id, &target);
        if (begun < 0) return 1;
        if (begun == 0 && !flux_window_in_order(window, trade.ts_ns)) {
            wrote = flux_window_amend(window, row, out + *written, span);
            *written += wrote > 0;
            return wrote < 0 ? -1 : 1;
        }
    }
    if (window->replacing) {
        while ((wrote = flux_window_leave(window, trade.trade_id, &target, out + *written, span)) == 0) continue;
        if (wrote > 0) {
            ++*written;
            return 0;
        }
        if (!window->carry.rows || trade.ts_ns <= window->carry.last) {
            wrote = flux_window_enter(window, row, trade.trade_id, &target, out + *written, span);
            *written += wrote > 0;
            window->replacing = 0;
            return wrote < 0 ? -1 : 1;
        }
    }
    if (!flux_window_go_on(window, row, 1, out, spans, room, written, 0)) return 0;
    window->replacing = 0;
    return *written == UINT64_MAX ? -1 : 1;
}

/* The row at which flux_window_push() stopped, with room for a bucket. 1: done; 0: call again, with room; -1: no
 * memory. */
static inline int flux_window_put(flux_window *window, const uint8_t *row, flux_candle *out, flux_rows_of *spans,
                                  uint64_t room, uint64_t *written) {
    int wrote;
    if (flux_window_revises(window, row)) return flux_window_revise(window, row, out, spans, room, written);
    wrote = flux_window_amend(window, row, out + *written, spans ? spans + *written : NULL);
    *written += wrote > 0;
    return wrote < 0 ? -1 : 1;
}

#endif
