/* Indicators over a stream: each value from the state and one row, so that live and in bulk are the same additions in
 * the same order.
 *
 * A rolling sum never subtracts: what was added and taken away again leaves its rounding errors behind (or a NaN, for
 * ever). Instead, two halves that only grow:
 *
 *     block before (n values)          block now
 *     [ . . . . . . . . . . . . ]      [ . . . . k            ]
 *               |- after[k] ----|      |- so far |
 *               |<------------- n values ------->|     sum = after[k] + so far
 *
 * When a block is full, `after` is summed anew from its end: n additions for n rows.
 *
 * A NaN is no value: its row gives NaN and leaves the state alone, so that an indicator begins after the leading NaN of
 * another one, and goes on after a hole. A candle with the time of the newest one revises it: the state goes back to
 * what it was before that one (`before`), so that live, with every revision, ends where bulk does. */
#ifndef FLUX_INDICATOR_H
#define FLUX_INDICATOR_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "grid.h"
#include "row.h"

enum flux_indicator_kind { FLUX_SMA = 1, FLUX_EMA, FLUX_RSI, FLUX_ATR, FLUX_VWAP, FLUX_VWAP_ANCHORED };

typedef struct {
    double *values; /* n: the block now */
    double *after;  /* n + 1: sums from here to the end of the block before */
    uint64_t n, k;
    int full; /* there is a block before */
    double so_far;
} flux_rolling;

typedef struct {
    uint64_t seen;   /* values so far; RSI: changes; anchored VWAP: not used */
    double up, down; /* EMA, ATR: only up. Sums while seen < n, averages from then on; VWAP: turnover and volume */
    double last;     /* the value (RSI) or close (ATR) before */
    flux_rolling one, two;
    int64_t anchored_until; /* anchored VWAP: last ms of the bucket, once there was any */
    int any_value;          /* there is a last, or a bucket */
} flux_indicator_state;

typedef struct {
    int kind;
    uint64_t n; /* rows looked back */
    flux_indicator_state now, before; /* after the newest candle, and before it */
    flux_grid grid; /* anchored VWAP: where sums begin anew */
    int64_t newest; /* time of the last candle, once there was any */
    int any;
    double value;     /* what the last row gave */
    uint64_t skipped; /* candles older than the newest */
} flux_indicator;

static inline int flux_rolling_init(flux_rolling *rolling, uint64_t n) {
    rolling->n = n;
    rolling->values = (double *)malloc((2 * n + 1) * sizeof(double));
    if (!rolling->values) return -1;
    rolling->after = rolling->values + n;
    return 0;
}

/* The sum of the last n values, or of all while there are fewer. */
static inline double flux_rolling_add(flux_rolling *rolling, double value) {
    double sum;
    rolling->values[rolling->k++] = value;
    rolling->so_far += value;
    sum = rolling->full ? rolling->after[rolling->k] + rolling->so_far : rolling->so_far;
    if (rolling->k == rolling->n) {
        uint64_t i = rolling->n;
        rolling->after[i] = 0.0;
        for (; i > 0; i--) rolling->after[i - 1] = rolling->after[i] + rolling->values[i - 1];
        rolling->k = 0;
        rolling->so_far = 0.0;
        rolling->full = 1;
    }
    return sum;
}

/* 0, or -1: no memory. */
static inline int flux_indicator_init(flux_indicator *indicator, int kind, uint64_t n, int64_t length,
                                      int64_t origin) {
    memset(indicator, 0, sizeof *indicator);
    indicator->kind = kind;
    indicator->n = n;
    indicator->grid.length = length;
    indicator->grid.origin = origin;
    indicator->value = NAN;
    if ((kind == FLUX_SMA || kind == FLUX_VWAP) && flux_rolling_init(&indicator->now.one, n) != 0) return -1;
    if (kind == FLUX_VWAP && flux_rolling_init(&indicator->now.two, n) != 0) return -1;
    return 0;
}

static inline void flux_indicator_free(flux_indicator *indicator) {
    free(indicator->now.one.values);
    free(indicator->now.two.values);
    memset(indicator, 0, sizeof *indicator);
}

/* Wilder's average: the mean of the first n, from then on (average * (n - 1) + value) / n. */
static inline double flux_wilder(double average, double value, uint64_t n, uint64_t seen) {
    if (seen < n) return average + value;
    if (seen == n) return (average + value) / (double)n;
    return (average * (double)(n - 1) + value) / (double)n;
}

static inline double flux_sma_next(flux_indicator_state *now, double value, uint64_t n) {
    double sum;
    if (value != value) return NAN;
    sum = flux_rolling_add(&now->one, value);
    return ++now->seen < n ? NAN : sum / (double)n;
}

static inline double flux_ema_next(flux_indicator_state *now, double value, uint64_t n) {
    uint64_t seen;
    if (value != value) return NAN;
    seen = ++now->seen;
    if (seen <= n) {
        now->up = flux_wilder(now->up, value, n, seen);
    } else {
        now->up += (value - now->up) * (2.0 / ((double)n + 1.0));
    }
    return seen < n ? NAN : now->up;
}

static inline double flux_rsi_next(flux_indicator_state *now, double value, uint64_t n) {
    double change = value - now->last;
    int first = !now->any_value;
    if (value != value) return NAN;
    now->last = value;
    now->any_value = 1;
    if (first) return NAN;
    ++now->seen;
    now->up = flux_wilder(now->up, change > 0 ? change : 0.0, n, now->seen);
    now->down = flux_wilder(now->down, change < 0 ? -change : 0.0, n, now->seen);
    if (now->seen < n) return NAN;
    if (now->down == 0.0) return now->up == 0.0 ? 50.0 : 100.0;
    return 100.0 - 100.0 / (1.0 + now->up / now->down);
}

static inline double flux_atr_next(flux_indicator_state *now, const flux_candle *row, uint64_t n) {
    double range = row->high - row->low;
    if (range + row->close != range + row->close) return NAN;
    if (now->any_value) {
        double up = fabs(row->high - now->last), down = fabs(row->low - now->last);
        range = up > range ? up : range;
        range = down > range ? down : range;
    }
    now->last = row->close;
    now->any_value = 1;
    ++now->seen;
    now->up = flux_wilder(now->up, range, n, now->seen);
    return now->seen < n ? NAN : now->up;
}

/* What a candle turned over: known, or its typical price times its volume. */
static inline double flux_turnover(const flux_candle *row) {
    return row->flags & (FLUX_TRADED | FLUX_TURNOVER) ? row->turnover : (row->high + row->low + row->close) / 3.0 * row->volume;
}

static inline double flux_vwap_next(flux_indicator *indicator, const flux_candle *row) {
    flux_indicator_state *now = &indicator->now;
    double money = flux_turnover(row);
    if (money + row->volume != money + row->volume) return NAN;
    if (indicator->kind == FLUX_VWAP) {
        now->up = flux_rolling_add(&now->one, money);
        now->down = flux_rolling_add(&now->two, row->volume);
        if (++now->seen < indicator->n) return NAN;
    } else {
        if (!now->any_value || row->ts_ms > now->anchored_until) {
            now->anchored_until = flux_grid_find(&indicator->grid, row->ts_ms).last;
            now->up = now->down = 0.0;
            now->any_value = 1;
        }
        now->up += money;
        now->down += row->volume;
    }
    return now->down == 0.0 ? NAN : now->up / now->down;
}

static inline double flux_indicator_next(flux_indicator *indicator, double value) {
    if (indicator->kind == FLUX_SMA) return flux_sma_next(&indicator->now, value, indicator->n);
    if (indicator->kind == FLUX_EMA) return flux_ema_next(&indicator->now, value, indicator->n);
    return flux_rsi_next(&indicator->now, value, indicator->n);
}

static inline double flux_indicator_candle(flux_indicator *indicator, const uint8_t *row_at, uint64_t field) {
    flux_candle row;
    double value;
    if (indicator->kind < FLUX_ATR) {
        memcpy(&value, row_at + field, sizeof value);
        return flux_indicator_next(indicator, value);
    }
    memcpy(&row, row_at, sizeof row);
    if (indicator->kind == FLUX_ATR) return flux_atr_next(&indicator->now, &row, indicator->n);
    return flux_vwap_next(indicator, &row);
}

/* One value out for each value in. */
static inline void flux_indicator_values(flux_indicator *indicator, const uint8_t *values, uint64_t n,
                                         uint8_t *out) {
    uint64_t i;
    double value;
    for (i = 0; i < n; i++) {
        memcpy(&value, values + i * sizeof value, sizeof value);
        indicator->value = flux_indicator_next(indicator, value);
        memcpy(out + i * sizeof value, &indicator->value, sizeof value);
    }
}

/* Rows from i on that ascend, each above the one before it; where they end. */
static inline uint64_t flux_indicator_ascend(const uint8_t *rows, uint64_t i, uint64_t n) {
    int64_t at, next;
    memcpy(&at, rows + i * sizeof(flux_candle), sizeof at);
    for (i++; i < n; i++, at = next) {
        memcpy(&next, rows + i * sizeof(flux_candle), sizeof next);
        if (next <= at) break;
    }
    return i;
}

/* One value out for each candle in, taken from its double at byte `field` where one is asked for. A candle of the
 * newest one's time takes its place; an older one is skipped and gives the value before again. Only the last of a run
 * can be revised by what comes next, so `before` is written once a run. */
static inline void flux_indicator_candles(flux_indicator *indicator, const uint8_t *rows, uint64_t n, uint64_t field,
                                          uint8_t *out) {
    const uint64_t size = sizeof(flux_candle);
    uint64_t i = 0, end;
    int64_t ts;
    while (i < n) {
        memcpy(&ts, rows + i * size, sizeof ts);
        if (indicator->any && ts < indicator->newest) {
            indicator->skipped++;
            memcpy(out + i++ * sizeof(double), &indicator->value, sizeof(double));
            continue;
        }
        end = i + 1;
        if (indicator->any && ts == indicator->newest) {
            indicator->now = indicator->before;
        } else {
            end = flux_indicator_ascend(rows, i, n);
        }
        for (; i + 1 < end; i++) {
            double value = flux_indicator_candle(indicator, rows + i * size, field);
            memcpy(out + i * sizeof value, &value, sizeof value);
        }
        indicator->before = indicator->now;
        indicator->value = flux_indicator_candle(indicator, rows + i * size, field);
        memcpy(&indicator->newest, rows + i * size, sizeof indicator->newest);
        indicator->any = 1;
        memcpy(out + i++ * sizeof(double), &indicator->value, sizeof(double));
    }
}

#endif
