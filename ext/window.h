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
 * A NaN is no value: it is left out of the fold of its column, as pandas leaves it out, and a bucket that has nothing
 * but NaN in a column has NaN there (volume and turnover: 0). The fold adds without looking; where what came out is no
 * number, the same rows are folded again by the slow way, which looks at each.
 *
 * There is one order of folding, that of time, and one result: the buckets of all rows sorted by time, of candles with
 * the same time the latest. Rows in order come to it by the carry alone, rows out of order through the kept ones, and
 * a sum is always the same additions in the same order, so that live and in bulk are equal to the bit.
 *
 * Candles ascend strictly (a second one of the same time revises the first), trades and quotes may share a time. Times
 * are compared in the unit of the rows, buckets are found in ms (floor). */
#ifndef FLUX_WINDOW_H
#define FLUX_WINDOW_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "grid.h"
#include "row.h"

#define FLUX_NS_PER_MS INT64_C(1000000)

typedef struct {
    int64_t open_ms;
    int64_t first, last; /* unit of the rows, inclusive: what belongs into the bucket */
    int64_t at;          /* time of the last row folded */
    double open, close, volume, turnover;
    double high, low; /* -inf and +inf while there was no number; a comparison leaves a NaN out by itself */
    uint64_t trade_count;
    uint32_t all_flags, any_flags, last_flags; /* of the rows: and, or, the last row's own */
    uint64_t rows;                             /* folded; 0 = no bucket is open */
} flux_bucket;

enum { FLUX_WINDOW_TAIL = 512 }; /* rows of the open bucket that are folded anew for a row out of order near its end */

typedef struct {
    flux_grid grid;
    int kind;          /* enum flux_row_kind */
    uint32_t row_size; /* bytes */
    int64_t row_ms;    /* what a candle covers; 0 = not known */
    flux_bucket carry;
    flux_bucket base;  /* the open bucket up to some row of it; rows = 0: none */
    flux_bucket floor; /* the rows of the open bucket that are no longer kept; rows = 0: all are */
    int64_t newest; /* rows up to here (candles) or below (others) are out of order, once there were any */
    int any;
    uint8_t *kept;
    uint64_t kept_count, kept_room; /* rows */
    uint64_t keep;                  /* rows that stay when the kept ones are cut */
    uint64_t limit;                 /* rows of the open bucket that stay at most, with `whole_buckets` */
    int whole_buckets;              /* the rows of the open bucket stay, too */
    int by_hand;                    /* only flux_window_cut() cuts: somebody has indices into the kept rows */
    int any_dropped;
    int64_t dropped;
    uint64_t late, corrected; /* rows out of order: not applied, applied */
} flux_window;

typedef struct {
    uint64_t from, count; /* rows of a bucket, as indices into the kept ones */
} flux_rows_of;

static inline int64_t flux_row_time(const uint8_t *row) { /* ts_ms and ts_ns both come first */
    int64_t ts;
    memcpy(&ts, row, sizeof ts);
    return ts;
}

static inline double flux_double_at(const uint8_t *at) {
    double value;
    memcpy(&value, at, sizeof value);
    return value;
}

static inline int64_t flux_window_ms(const flux_window *window, int64_t ts) {
    return window->kind == FLUX_ROWS_CANDLE ? ts : flux_floor_div(ts, FLUX_NS_PER_MS);
}

/* An empty bucket, where a row of time ts belongs. */
static inline void flux_bucket_begin(const flux_window *window, flux_bucket *bucket, int64_t ts) {
    flux_span span = flux_grid_find(&window->grid, flux_window_ms(window, ts));
    memset(bucket, 0, sizeof *bucket);
    bucket->open_ms = bucket->first = span.open;
    bucket->last = span.last;
    if (window->kind != FLUX_ROWS_CANDLE) {
        bucket->first = flux_cut((flux_wide)span.open * FLUX_NS_PER_MS);
        bucket->last = flux_cut((flux_wide)span.last * FLUX_NS_PER_MS + (FLUX_NS_PER_MS - 1));
    }
    bucket->all_flags = UINT32_MAX;
    bucket->high = -INFINITY;
    bucket->low = INFINITY;
}

/* Whether a first, a last or a sum is no number: then a NaN came (or two infinities). */
static inline int flux_bucket_odd(const flux_bucket *b) {
    double sum = b->open + b->close + b->volume + b->turnover;
    return __builtin_expect(sum != sum, 0);
}

static inline int flux_is_nan(double value) { return value != value; }

/* `n` candles that belong into the bucket, of which any value may be NaN. */
static __attribute__((noinline, cold, unused)) void flux_fold_candles_slow(flux_bucket *b, const uint8_t *rows, uint64_t n) {
    uint64_t i;
    flux_candle row;
    for (i = 0; i < n; i++) {
        memcpy(&row, rows + i * sizeof row, sizeof row);
        if (b->rows == 0) {
            b->open = row.open, b->close = row.close;
            b->volume = flux_is_nan(row.volume) ? 0.0 : row.volume;
            b->turnover = flux_is_nan(row.turnover) ? 0.0 : row.turnover;
        } else {
            if (flux_is_nan(b->open)) b->open = row.open;
            if (!flux_is_nan(row.close)) b->close = row.close;
            if (!flux_is_nan(row.volume)) b->volume += row.volume;
            if (!flux_is_nan(row.turnover)) b->turnover += row.turnover;
        }
        if (row.high > b->high) b->high = row.high;
        if (row.low < b->low) b->low = row.low;
        b->trade_count += row.trade_count;
        b->all_flags &= row.flags;
        b->any_flags |= row.flags;
        b->last_flags = row.flags;
        b->at = row.ts_ms;
        b->rows++;
    }
}

/* Fold rows into the bucket while they belong to it and are in order; how many. The first row of a bucket is taken
 * unseen. One unsigned comparison asks both: at < ts <= last is ts - at - 1 < last - at. */
static inline uint64_t flux_fold_candles(flux_bucket *bucket, const uint8_t *rows, uint64_t n) {
    flux_bucket b = *bucket;
    flux_candle row;
    const uint8_t *from = rows, *end = rows + n * sizeof row;
    uint64_t count = 0;
    if (n == 0) return 0;
    if (b.rows == 0) {
        memcpy(&row, rows, sizeof row);
        b.open = row.open, b.close = row.close;
        b.high = row.high > -INFINITY ? row.high : -INFINITY; /* not a NaN */
        b.low = row.low < INFINITY ? row.low : INFINITY;
        b.volume = row.volume, b.turnover = row.turnover;
        b.trade_count = row.trade_count;
        b.all_flags = b.any_flags = row.flags;
        b.at = row.ts_ms;
        from += sizeof row;
    }
    for (; from != end; from += sizeof row) {
        int64_t ts = flux_row_time(from);
        double high = flux_double_at(from + offsetof(flux_candle, high));
        double low = flux_double_at(from + offsetof(flux_candle, low));
        uint32_t ends[2]; /* trade_count, flags */
        if ((uint64_t)ts - (uint64_t)b.at - 1 >= (uint64_t)b.last - (uint64_t)b.at) break;
        memcpy(ends, from + offsetof(flux_candle, trade_count), sizeof ends);
        b.high = high > b.high ? high : b.high;
        b.low = low < b.low ? low : b.low;
        b.volume += flux_double_at(from + offsetof(flux_candle, volume));
        b.turnover += flux_double_at(from + offsetof(flux_candle, turnover));
        count += ends[0];
        b.all_flags &= ends[1];
        b.any_flags |= ends[1];
        b.at = ts;
    }
    if (from == rows) return 0;
    memcpy(&row, from - sizeof row, sizeof row);
    b.close = row.close;
    b.last_flags = row.flags;
    n = (uint64_t)(from - rows) / sizeof row;
    if (flux_bucket_odd(&b)) {
        flux_fold_candles_slow(bucket, rows, n);
        return n;
    }
    b.trade_count += count;
    b.rows += n;
    *bucket = b;
    return n;
}

/* A price that traded, or (size 0) stood: what trades and quotes come down to. */
static inline void flux_fold_price(flux_bucket *b, double price, double size) {
    if (b->rows == 0) b->open = price;
    b->high = price > b->high ? price : b->high;
    b->low = price < b->low ? price : b->low;
    b->close = price;
    b->volume += size;
    b->turnover += price * size;
    b->rows++;
}

/* The same where price or size may be NaN. */
static inline void flux_fold_price_slow(flux_bucket *b, double price, double size) {
    double money = price * size;
    if (b->rows == 0) b->open = b->close = price;
    if (flux_is_nan(b->open)) b->open = price;
    if (price > b->high) b->high = price;
    if (price < b->low) b->low = price;
    if (!flux_is_nan(price)) b->close = price;
    if (!flux_is_nan(size)) b->volume += size;
    if (!flux_is_nan(money)) b->turnover += money;
    b->rows++;
}

static inline int flux_fold_stops(const flux_bucket *b, int64_t ts) {
    return b->rows && (uint64_t)ts - (uint64_t)b->at > (uint64_t)b->last - (uint64_t)b->at;
}

static inline uint64_t flux_fold_trades(flux_bucket *bucket, const uint8_t *rows, uint64_t n) {
    flux_bucket b = *bucket;
    flux_trade row;
    uint64_t i;
    for (i = 0; i < n; i++) {
        memcpy(&row, rows + i * sizeof row, sizeof row);
        if (flux_fold_stops(&b, row.ts_ns)) break;
        flux_fold_price(&b, row.price, row.size);
        b.at = row.ts_ns;
    }
    if (i && flux_bucket_odd(&b)) {
        uint64_t k;
        b = *bucket;
        for (k = 0; k < i; k++) {
            memcpy(&row, rows + k * sizeof row, sizeof row);
            flux_fold_price_slow(&b, row.price, row.size);
            b.at = row.ts_ns;
        }
    }
    b.trade_count += i;
    b.all_flags = FLUX_TRADED;
    *bucket = b;
    return i;
}

/* Halves before the sum: two large prices have a middle, too. */
static inline uint64_t flux_fold_quotes(flux_bucket *bucket, const uint8_t *rows, uint64_t n) {
    flux_bucket b = *bucket;
    flux_quote row;
    uint64_t i;
    for (i = 0; i < n; i++) {
        memcpy(&row, rows + i * sizeof row, sizeof row);
        if (flux_fold_stops(&b, row.ts_ns)) break;
        flux_fold_price(&b, row.bid * 0.5 + row.ask * 0.5, 0.0);
        b.at = row.ts_ns;
    }
    if (i && flux_bucket_odd(&b)) {
        uint64_t k;
        b = *bucket;
        for (k = 0; k < i; k++) {
            memcpy(&row, rows + k * sizeof row, sizeof row);
            flux_fold_price_slow(&b, row.bid * 0.5 + row.ask * 0.5, 0.0);
            b.at = row.ts_ns;
        }
    }
    b.all_flags = 0;
    *bucket = b;
    return i;
}

static inline uint64_t flux_window_fold(const flux_window *window, flux_bucket *bucket, const uint8_t *rows,
                                        uint64_t n) {
    if (window->kind == FLUX_ROWS_CANDLE) return flux_fold_candles(bucket, rows, n);
    if (window->kind == FLUX_ROWS_TRADE) return flux_fold_trades(bucket, rows, n);
    return flux_fold_quotes(bucket, rows, n);
}

/* The bucket as a candle: `flags` are CLOSED and the like; SYNTHETIC and INJECTED if any row has it, TRADED if all. */
static inline void flux_bucket_candle(const flux_bucket *bucket, uint32_t flags, flux_candle *out) {
    int traded = (bucket->all_flags & FLUX_TRADED) != 0;
    out->ts_ms = bucket->open_ms;
    out->open = bucket->open, out->close = bucket->close;
    out->high = bucket->high == -INFINITY ? NAN : bucket->high;
    out->low = bucket->low == INFINITY ? NAN : bucket->low;
    out->volume = bucket->volume;
    out->turnover = traded ? bucket->turnover : 0.0;
    out->trade_count = !traded ? 0 : bucket->trade_count > UINT32_MAX ? UINT32_MAX : (uint32_t)bucket->trade_count;
    out->flags = flags | (bucket->any_flags & (FLUX_SYNTHETIC | FLUX_INJECTED)) | (traded ? FLUX_TRADED : 0);
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
    if (window->floor.rows == 0) flux_bucket_begin(window, &window->floor, flux_row_time(rows));
    flux_window_fold(window, &window->floor, rows, n);
    if (window->base.rows < window->floor.rows) window->base = window->floor;
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

/* Take rows until one is out of order or `room` buckets are written (`spans`, one for each, may be NULL); how many
 * rows were taken. With all rows taken and no room left, call again with n = 0. -1 in *written: no memory. */
static inline uint64_t flux_window_push(flux_window *window, const uint8_t *rows, uint64_t n, flux_candle *out,
                                        flux_rows_of *spans, uint64_t room, uint64_t *written) {
    uint64_t at = 0, size = window->row_size, kept_before = window->kept_count;
    flux_bucket *carry = &window->carry;
    while (at < n) {
        const uint8_t *row = rows + at * size;
        int64_t ts = flux_row_time(row);
        if (!flux_window_in_order(window, ts)) break;
        if (carry->rows && ts > carry->last) {
            if (*written == room) break;
            flux_window_emit(window, out, spans, written, kept_before + at);
        }
        if (carry->rows == 0) {
            flux_bucket_begin(window, carry, ts);
            window->base.rows = window->floor.rows = 0;
        }
        at += flux_window_fold(window, carry, row, n - at);
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

/* The open bucket with a row that now stands at `at` among the kept ones (`added`: which was not there before): folded
 * anew from its base where the row is behind that, so that a forming candle, again and again, costs FLUX_WINDOW_TAIL
 * rows however many the bucket has. */
static inline void flux_window_refold(flux_window *window, uint64_t at, int added) {
    uint64_t size = window->row_size, tail;
    uint64_t from = window->kept_count - (uint64_t)added - (window->carry.rows - window->floor.rows);
    flux_bucket *bucket = &window->carry;
    if (window->base.rows > window->floor.rows && at >= from + (window->base.rows - window->floor.rows)) {
        from += window->base.rows - window->floor.rows;
        *bucket = window->base;
    } else if (window->floor.rows) {
        *bucket = window->floor;
    } else {
        flux_bucket_begin(window, bucket, flux_row_time(window->kept + at * size));
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

/* A row out of order: put it where it belongs among the kept rows and fold its bucket anew. A closed bucket is written
 * again, with CORRECTION if it had been out, with LATE if this row made it. 1: written; 0: nothing to write (the open
 * bucket, a repeat, or `late`); -1: no memory. */
static inline int flux_window_amend(flux_window *window, const uint8_t *row, flux_candle *out, flux_rows_of *span) {
    uint64_t size = window->row_size, at, from, end;
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
    from = flux_window_seek(window, bucket.first, 1);
    end = flux_window_seek(window, bucket.last, 0);
    flux_window_fold(window, &bucket, window->kept + from * size, end - from);
    flux_bucket_candle(&bucket, FLUX_CLOSED | (bucket.rows > 1 ? FLUX_CORRECTION : FLUX_LATE), out);
    if (span) {
        span->from = from;
        span->count = end - from;
    }
    return 1;
}

#endif
