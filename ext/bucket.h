/* A bucket of the window: rows of one kind, in order of time, folded into what becomes one candle.
 *
 * A NaN is no value: it is left out of the fold of its column, as pandas leaves it out, and a bucket that has nothing
 * but NaN in a column has NaN there (volume and turnover: 0). The fold adds without looking; where what came out is no
 * number, the same rows are folded again by the slow way, which looks at each. */
#ifndef FLUX_BUCKET_H
#define FLUX_BUCKET_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "row.h"

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

/* Whether a trade is another version of one that came before. Without an id nobody can say of which. */
static inline int flux_trade_revises(const flux_trade *row, uint32_t flag) {
    return __builtin_expect((row->flags & flag) != 0, 0) && row->trade_id != 0;
}

/* Stops, too, at a trade with `flag` and an id, but for the first one: that is the caller's to look at. */
static inline uint64_t flux_fold_trades(flux_bucket *bucket, const uint8_t *rows, uint64_t n, uint32_t flag) {
    flux_bucket b = *bucket;
    flux_trade row;
    uint64_t i;
    if (n && b.rows == 0) b.at = flux_row_time(rows);
    for (i = 0; i < n; i++) {
        memcpy(&row, rows + i * sizeof row, sizeof row);
        if ((uint64_t)row.ts_ns - (uint64_t)b.at > (uint64_t)b.last - (uint64_t)b.at) break;
        if (flux_trade_revises(&row, flag) && i) break;
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

/* The bucket as a candle: `flags` are CLOSED and the like; SYNTHETIC and INJECTED if any row has it, TRADED, TURNOVER and
 * TRADE_COUNT if all. A count that is too large for 32 bits is the largest they hold. */
static inline void flux_bucket_candle(const flux_bucket *bucket, uint32_t flags, flux_candle *out) {
    uint32_t known = bucket->all_flags & (FLUX_TRADED | FLUX_TURNOVER | FLUX_TRADE_COUNT);
    int turnover = (known & (FLUX_TRADED | FLUX_TURNOVER)) != 0, count = (known & (FLUX_TRADED | FLUX_TRADE_COUNT)) != 0;
    if (known & FLUX_TRADED) known = FLUX_TRADED;
    out->ts_ms = bucket->open_ms;
    out->open = bucket->open, out->close = bucket->close;
    out->high = bucket->high == -INFINITY ? NAN : bucket->high;
    out->low = bucket->low == INFINITY ? NAN : bucket->low;
    out->volume = bucket->volume;
    out->turnover = turnover ? bucket->turnover : 0.0;
    out->trade_count = !count ? 0 : bucket->trade_count > UINT32_MAX ? UINT32_MAX : (uint32_t)bucket->trade_count;
    out->flags = flags | (bucket->any_flags & (FLUX_SYNTHETIC | FLUX_INJECTED)) | known;
}

#endif
