/* The window: rows in order of time -> candles of a longer interval, one at a time or ten million at once.
 *
 *   rows      . . . . . | . . . . . . | . . .            time ->
 *                bucket      bucket     carry: the open bucket, folded as far as its rows have come
 *                   |           |
 *                  out         out      a bucket is out once a row behind it (or, with `row_ms`, its last row) came
 *
 *   kept      [ . . . . | . . . . . . . . ]   the newest `keep` rows and, with `whole_buckets`, all of the open bucket,
 *             ^         |- base -|- tail -|   ascending: a row out of order finds its place here, and its bucket is
 *          dropped      |---- carry ------|   folded anew; the open one from `base` on where the row is behind that
 *
 *   dropped   time of the newest row that is no longer kept; a closed bucket that reaches down to it cannot be amended.
 *             Of the open bucket at most `limit` rows are kept: `floor` is the fold of those that had to go, and only a
 *             row before these is too late for it
 *
 * There is one order of folding, that of time, and one result: the buckets of all rows sorted by time, of candles with
 * the same time the latest. Rows in order come to it by the carry alone, rows out of order through the kept ones, and
 * a sum is always the same additions in the same order, so that live and in bulk are equal to the bit.
 *
 * Candles ascend strictly (a second one of the same time revises the first), trades and quotes may share a time. A trade
 * with CORRECTION replaces those of its id (ext/revise.h). Times are compared in the unit of the rows, buckets are found
 * in ms (floor). */
#ifndef FLUX_WINDOW_H
#define FLUX_WINDOW_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bucket.h"
#include "grid.h"
#include "row.h"

#define FLUX_NS_PER_MS INT64_C(1000000)

enum { FLUX_WINDOW_TAIL = 512 }; /* rows of the open bucket that are folded anew for a row out of order near its end */

typedef struct {
    flux_grid grid;
    int kind;          /* enum flux_row_kind */
    uint32_t row_size; /* bytes */
    int64_t row_ms;    /* what a candle covers; 0 = not known */
    flux_bucket carry;
    flux_bucket base;  /* the open bucket up to some row of it; rows = 0: none */
    flux_bucket floor; /* the rows of the open bucket that are no longer kept; rows = 0: all are */
    int64_t newest;    /* rows up to here (candles) or below (others) are out of order, once there were any */
    int any;
    uint8_t *kept;
    uint64_t kept_count, kept_room; /* rows */
    uint64_t keep;                  /* rows that stay when the kept ones are cut */
    uint64_t limit;                 /* rows of the open bucket that stay at most, with `whole_buckets` */
    int whole_buckets;              /* the rows of the open bucket stay, too */
    int by_hand;                    /* only flux_window_cut() cuts: somebody has indices into the kept rows */
    int any_dropped;
    int64_t dropped;
    uint64_t dropped_id;      /* the highest id of the trades that are no longer kept */
    int revised;              /* a trade with CORRECTION came: from then on ids need not ascend with time */
    uint64_t replacing;       /* id of a trade whose earlier rows are being taken out; 0: none */
    uint64_t late, corrected; /* rows out of order and corrections: not applied, applied */
} flux_window;

typedef struct {
    uint64_t from, count; /* rows of a bucket, as indices into the kept ones */
} flux_rows_of;

static inline int64_t flux_window_ms(const flux_window *window, int64_t ts) {
    return window->kind == FLUX_ROWS_CANDLE ? ts : flux_floor_div(ts, FLUX_NS_PER_MS);
}

static inline void flux_bucket_empty(flux_bucket *bucket) {
    memset(bucket, 0, sizeof *bucket);
    bucket->all_flags = UINT32_MAX;
    bucket->high = -INFINITY;
    bucket->low = INFINITY;
}

/* An empty bucket, where a row of time ts belongs: one of those that are pushed now, for the grid has only their years. */
static inline void flux_bucket_begin(const flux_window *window, flux_bucket *bucket, int64_t ts) {
    flux_span span = flux_grid_find(&window->grid, flux_window_ms(window, ts));
    flux_bucket_empty(bucket);
    bucket->open_ms = bucket->first = span.open;
    bucket->last = span.last;
    if (window->kind != FLUX_ROWS_CANDLE) {
        bucket->first = flux_cut((flux_wide)span.open * FLUX_NS_PER_MS);
        bucket->last = flux_cut((flux_wide)span.last * FLUX_NS_PER_MS + (FLUX_NS_PER_MS - 1));
    }
}

/* The open bucket, empty: it stays where it began, whatever years the grid has now. */
static inline void flux_bucket_begin_open(const flux_window *window, flux_bucket *bucket) {
    int64_t open_ms = window->carry.open_ms, first = window->carry.first, last = window->carry.last;
    flux_bucket_empty(bucket);
    bucket->open_ms = open_ms;
    bucket->first = first;
    bucket->last = last;
}

/* Up to the first row that is out of order, of another bucket or (a trade, not the first) has `flag` and an id. */
static inline uint64_t flux_window_fold_to(const flux_window *window, flux_bucket *bucket, const uint8_t *rows,
                                           uint64_t n, uint32_t flag) {
    if (window->kind == FLUX_ROWS_CANDLE) return flux_fold_candles(bucket, rows, n);
    if (window->kind == FLUX_ROWS_TRADE) return flux_fold_trades(bucket, rows, n, flag);
    return flux_fold_quotes(bucket, rows, n);
}

static inline uint64_t flux_window_fold(const flux_window *window, flux_bucket *bucket, const uint8_t *rows,
                                        uint64_t n) {
    return flux_window_fold_to(window, bucket, rows, n, 0);
}

/* How many of the newest rows have to stay. */
static inline uint64_t flux_window_stay(const flux_window *window) {
    uint64_t open = window->whole_buckets ? window->carry.rows : 0;
    if (open > window->limit) open = window->limit;
    return open > window->keep ? open : window->keep;
}

/* Fold rows of the open bucket that are about to go into its floor. */
static inline void flux_window_floor(flux_window *window, const uint8_t *rows, uint64_t n) {
    if (n == 0) return;
    if (window->floor.rows == 0) flux_bucket_begin_open(window, &window->floor);
    flux_window_fold(window, &window->floor, rows, n);
    if (window->base.rows < window->floor.rows) window->base = window->floor;
}

/* The ids of n trades, oldest first, that go. They ascend with time, as venues number them, until a correction came. */
static inline void flux_window_drop_ids(flux_window *window, const uint8_t *rows, uint64_t n) {
    uint64_t at = window->revised ? 0 : n - 1, id;
    for (; n && at < n; at++) {
        memcpy(&id, rows + at * sizeof(flux_trade) + offsetof(flux_trade, trade_id), sizeof id);
        if (id > window->dropped_id) window->dropped_id = id;
    }
}

/* Let the oldest `gone` go of the kept rows and `n` more that follow them; how many of the n went. */
static inline uint64_t flux_window_forget(flux_window *window, const uint8_t *rows, uint64_t n, uint64_t gone) {
    uint64_t size = window->row_size, kept = window->kept_count, old = gone < kept ? gone : kept;
    uint64_t open = window->carry.rows ? window->carry.rows - window->floor.rows : 0;
    uint64_t closed = kept + n > open ? kept + n - open : 0; /* of them, before those of the open bucket */
    if (gone == 0) return 0;
    if (gone > kept) window->dropped = flux_row_time(rows + (gone - kept - 1) * size);
    else window->dropped = flux_row_time(window->kept + (gone - 1) * size);
    window->any_dropped = 1;
    if (window->kind == FLUX_ROWS_TRADE) {
        flux_window_drop_ids(window, window->kept, old);
        if (gone > old) flux_window_drop_ids(window, rows, gone - old);
    }
    if (closed < old) flux_window_floor(window, window->kept + closed * size, old - closed);
    if (gone > kept && closed < gone) {
        uint64_t from = closed > kept ? closed - kept : 0;
        flux_window_floor(window, rows + from * size, gone - kept - from);
    }
    if (old) memmove(window->kept, window->kept + old * size, (kept - old) * size);
    window->kept_count = kept - old;
    return gone - old;
}

/* No more rows than have to stay. */
static inline void flux_window_cut(flux_window *window) {
    uint64_t stay = flux_window_stay(window);
    if (window->kept_count > stay) flux_window_forget(window, NULL, 0, window->kept_count - stay);
}

/* Room for n more kept rows. 0, or -1: no memory. */
static inline int flux_window_reserve(flux_window *window, uint64_t n) {
    uint64_t room = window->kept_room ? window->kept_room : 64;
    uint8_t *kept;
    if (window->kept_count + n <= window->kept_room) return 0;
    while (room < window->kept_count + n) room *= 2;
    kept = (uint8_t *)realloc(window->kept, room * window->row_size);
    if (!kept) return -1;
    window->kept = kept;
    window->kept_room = room;
    return 0;
}

/* Keep the newest of n rows that were in order. The room is used twice over before rows move, so that keeping costs one
 * copy a row. */
static inline int flux_window_remember(flux_window *window, const uint8_t *rows, uint64_t n) {
    if (!window->by_hand) {
        uint64_t stay = flux_window_stay(window);
        if (n >= stay || window->kept_count + n > 2 * stay) {
            uint64_t went = flux_window_forget(window, rows, n, window->kept_count + n - stay);
            rows += went * window->row_size;
            n -= went;
        }
    }
    if (n == 0) return 0;
    if (flux_window_reserve(window, n) != 0) return -1;
    memcpy(window->kept + window->kept_count * window->row_size, rows, n * window->row_size);
    window->kept_count += n;
    return 0;
}

/* Whether a row of time ts goes on where the rows before it ended. */
static inline int flux_window_in_order(const flux_window *window, int64_t ts) {
    if (!window->any || ts > window->newest) return 1;
    return window->kind != FLUX_ROWS_CANDLE && ts == window->newest;
}

static inline void flux_window_emit(flux_window *window, flux_candle *out, flux_rows_of *spans, uint64_t *written,
                                    uint64_t kept_end) {
    flux_bucket_candle(&window->carry, FLUX_CLOSED, out + *written);
    if (spans) {
        spans[*written].from = kept_end - window->carry.rows;
        spans[*written].count = window->carry.rows;
    }
    window->carry.rows = 0;
    ++*written;
}

/* With `row_ms`: the open bucket is complete when its last row is closed and ends where the bucket ends. What comes
 * for it later is out of order. */
static inline int flux_window_complete(const flux_window *window) {
    const flux_bucket *carry = &window->carry;
    return window->row_ms && carry->rows && (carry->last_flags & FLUX_CLOSED) &&
           (uint64_t)carry->last - (uint64_t)carry->at < (uint64_t)window->row_ms;
}

/* Whether a row says of itself that it replaces others. */
static inline int flux_window_revises(const flux_window *window, const uint8_t *row) {
    flux_trade trade;
    if (window->kind != FLUX_ROWS_TRADE) return 0;
    memcpy(&trade, row, sizeof trade);
    return flux_trade_revises(&trade, FLUX_TRADE_CORRECTION);
}

/* flux_window_push() of rows of which the first is in order whatever it says of itself, where `flag` is 0. */
static inline uint64_t flux_window_go_on(flux_window *window, const uint8_t *rows, uint64_t n, flux_candle *out,
                                         flux_rows_of *spans, uint64_t room, uint64_t *written, uint32_t flag) {
    uint64_t at = 0, size = window->row_size, kept_before = window->kept_count;
    flux_bucket *carry = &window->carry;
    while (at < n) {
        const uint8_t *row = rows + at * size;
        int64_t ts = flux_row_time(row);
        if (!flux_window_in_order(window, ts) || (flag && flux_window_revises(window, row))) break;
        if (carry->rows && ts > carry->last) {
            if (*written == room) break;
            flux_window_emit(window, out, spans, written, kept_before + at);
        }
        if (carry->rows == 0) {
            flux_bucket_begin(window, carry, ts);
            window->base.rows = window->floor.rows = 0;
        }
        at += flux_window_fold_to(window, carry, row, n - at, flag);
        window->newest = carry->at;
        window->any = 1;
    }
    if ((window->keep || window->whole_buckets) && at) {
        if (flux_window_remember(window, rows, at) != 0) *written = UINT64_MAX;
    }
    if (flux_window_complete(window) && *written < room) {
        window->newest = carry->last;
        flux_window_emit(window, out, spans, written, window->kept_count);
    }
    return at;
}

/* Take rows until one is out of order, or a trade that replaces another, or `room` buckets are written (`spans`, one for
 * each, may be NULL); how many rows were taken. With all rows taken and no room left, call again with n = 0. -1 in
 * *written: no memory. */
static inline uint64_t flux_window_push(flux_window *window, const uint8_t *rows, uint64_t n, flux_candle *out,
                                        flux_rows_of *spans, uint64_t room, uint64_t *written) {
    return flux_window_go_on(window, rows, n, out, spans, room, written, FLUX_TRADE_CORRECTION);
}

/* The first kept row whose time is above ts (or, `at_or_above`, not below it). */
static inline uint64_t flux_window_seek(const flux_window *window, int64_t ts, int at_or_above) {
    uint64_t low = 0, high = window->kept_count;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int64_t here = flux_row_time(window->kept + middle * window->row_size);
        if (here < ts || (here == ts && !at_or_above))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The open bucket, changed from `at` of the kept ones on, with `added` rows more (or fewer) than before: folded anew
 * from its base where that place is behind it, so that a forming candle, again and again, costs FLUX_WINDOW_TAIL rows
 * however many the bucket has. */
static inline void flux_window_refold(flux_window *window, uint64_t at, int64_t added) {
    uint64_t size = window->row_size, tail;
    uint64_t from = window->kept_count - (uint64_t)added - (window->carry.rows - window->floor.rows);
    flux_bucket *bucket = &window->carry;
    if (window->base.rows > window->floor.rows && at >= from + (window->base.rows - window->floor.rows)) {
        from += window->base.rows - window->floor.rows;
        *bucket = window->base;
    } else if (window->floor.rows) {
        *bucket = window->floor;
    } else {
        flux_bucket_begin_open(window, bucket);
    }
    window->base = *bucket;
    tail = window->kept_count - from;
    if (tail > 2 * FLUX_WINDOW_TAIL) {
        flux_window_fold(window, bucket, window->kept + from * size, tail - FLUX_WINDOW_TAIL);
        from += tail - FLUX_WINDOW_TAIL;
        tail = FLUX_WINDOW_TAIL;
        window->base = *bucket;
    }
    flux_window_fold(window, bucket, window->kept + from * size, tail);
}

/* Whether the bucket of a row out of order can no longer be folded with it: a closed one that is not wholly kept, or a
 * place in the open one among rows that had to go. */
static inline int flux_window_is_late(const flux_window *window, const flux_bucket *bucket, int64_t ts) {
    if (!window->keep && !window->whole_buckets) return 1;
    if (!window->any_dropped || window->dropped < bucket->first) return 0;
    if (!window->carry.rows || window->carry.open_ms != bucket->open_ms) return 1;
    return ts < window->dropped || (window->kind == FLUX_ROWS_CANDLE && ts == window->dropped);
}

/* The closed bucket of time ts, folded from the kept rows and written. */
static inline void flux_window_again(flux_window *window, int64_t ts, uint32_t flags, flux_candle *out,
                                     flux_rows_of *span) {
    flux_bucket bucket;
    uint64_t from, end;
    flux_bucket_begin(window, &bucket, ts);
    from = flux_window_seek(window, bucket.first, 1);
    end = flux_window_seek(window, bucket.last, 0);
    flux_window_fold(window, &bucket, window->kept + from * window->row_size, end - from);
    if (bucket.rows > 1) flags = FLUX_CORRECTION;
    flux_bucket_candle(&bucket, FLUX_CLOSED | flags, out);
    if (span) {
        span->from = from;
        span->count = end - from;
    }
}

/* A row out of order: put it where it belongs among the kept rows and fold its bucket anew. A closed bucket is written
 * again, with CORRECTION if it had been out, with LATE if this row made it. 1: written; 0: nothing to write (the open
 * bucket, a repeat, or `late`); -1: no memory. */
static inline int flux_window_amend(flux_window *window, const uint8_t *row, flux_candle *out, flux_rows_of *span) {
    uint64_t size = window->row_size, at;
    int64_t ts = flux_row_time(row);
    int added = 1;
    flux_bucket bucket;
    if (!window->by_hand && window->kept_count >= 2 * flux_window_stay(window)) flux_window_cut(window);
    flux_bucket_begin(window, &bucket, ts);
    if (flux_window_is_late(window, &bucket, ts)) {
        window->late++;
        return 0;
    }
    at = flux_window_seek(window, ts, window->kind == FLUX_ROWS_CANDLE);
    if (window->kind == FLUX_ROWS_CANDLE && at < window->kept_count &&
        flux_row_time(window->kept + at * size) == ts) {
        if (memcmp(window->kept + at * size, row, size) == 0) return 0;
        added = 0;
    } else {
        if (flux_window_reserve(window, 1) != 0) return -1;
        memmove(window->kept + (at + 1) * size, window->kept + at * size, (window->kept_count - at) * size);
        window->kept_count++;
    }
    memcpy(window->kept + at * size, row, size);
    window->corrected++;
    if (window->carry.rows && window->carry.open_ms == bucket.open_ms) {
        flux_window_refold(window, at, added);
        return 0;
    }
    flux_window_again(window, ts, added ? FLUX_LATE : FLUX_CORRECTION, out, span);
    return 1;
}

#endif
