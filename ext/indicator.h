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
 * When a block is full, `after` is summed anew from its end: n additions for n rows. */
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
    int kind;
    uint64_t n;    /* rows looked back */
    uint64_t seen; /* values so far; RSI: changes; anchored VWAP: not used */
    double up, down; /* EMA, ATR: only up. Sums while seen < n, averages from then on; VWAP: turnover and volume */
    double last;     /* the value (RSI) or close (ATR) before */
    flux_rolling one, two;
    flux_grid grid;         /* anchored VWAP: where sums begin anew */
    int64_t anchored_until; /* last ms of the bucket */
    int64_t newest;         /* time of the last candle, once there was any */
    int any, any_value;
    double value;     /* what the last row gave */
    uint64_t skipped; /* candles not above the newest */
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
    if ((kind == FLUX_SMA || kind == FLUX_VWAP) && flux_rolling_init(&indicator->one, n) != 0) return -1;
    if (kind == FLUX_VWAP && flux_rolling_init(&indicator->two, n) != 0) return -1;
    return 0;
}

static inline void flux_indicator_free(flux_indicator *indicator) {
    free(indicator->one.values);
    free(indicator->two.values);
    memset(indicator, 0, sizeof *indicator);
}

/* Wilder's average: the mean of the first n, from then on (average * (n - 1) + value) / n. */
static inline double flux_wilder(double average, double value, uint64_t n, uint64_t seen) {
    if (seen < n) return average + value;
    if (seen == n) return (average + value) / (double)n;
    return (average * (double)(n - 1) + value) / (double)n;
}

static inline double flux_sma_next(flux_indicator *indicator, double value) {
    double sum = flux_rolling_add(&indicator->one, value);
    return ++indicator->seen < indicator->n ? NAN : sum / (double)indicator->n;
}

static inline double flux_ema_next(flux_indicator *indicator, double value) {
    uint64_t seen = ++indicator->seen;
    if (seen <= indicator->n) {
        indicator->up = flux_wilder(indicator->up, value, indicator->n, seen);
    } else {
        indicator->up += (value - indicator->up) * (2.0 / ((double)indicator->n + 1.0));
    }
    return seen < indicator->n ? NAN : indicator->up;
}

static inline double flux_rsi_next(flux_indicator *indicator, double value) {
    double change = value - indicator->last;
    int first = !indicator->any_value;
    indicator->last = value;
    indicator->any_value = 1;
    if (first) return NAN;
    ++indicator->seen;
    indicator->up = flux_wilder(indicator->up, change > 0 ? change : 0.0, indicator->n, indicator->seen);
    indicator->down = flux_wilder(indicator->down, change < 0 ? -change : 0.0, indicator->n, indicator->seen);
    if (indicator->seen < indicator->n) return NAN;
    if (indicator->down == 0.0) return indicator->up == 0.0 ? 50.0 : 100.0;
    return 100.0 - 100.0 / (1.0 + indicator->up / indicator->down);
}

static inline double flux_atr_next(flux_indicator *indicator, const flux_candle *row) {
    double range = row->high - row->low;
    if (indicator->any_value) {
        double up = fabs(row->high - indicator->last), down = fabs(row->low - indicator->last);
        range = up > range ? up : range;
        range = down > range ? down : range;
    }
    indicator->last = row->close;
    indicator->any_value = 1;
    ++indicator->seen;
    indicator->up = flux_wilder(indicator->up, range, indicator->n, indicator->seen);
    return indicator->seen < indicator->n ? NAN : indicator->up;
}

/* What a candle turned over: known, or its typical price times its volume. */
static inline double flux_turnover(const flux_candle *row) {
    return row->flags & FLUX_TRADED ? row->turnover : (row->high + row->low + row->close) / 3.0 * row->volume;
}

static inline double flux_vwap_next(flux_indicator *indicator, const flux_candle *row) {
    if (indicator->kind == FLUX_VWAP) {
        indicator->up = flux_rolling_add(&indicator->one, flux_turnover(row));
        indicator->down = flux_rolling_add(&indicator->two, row->volume);
        if (++indicator->seen < indicator->n) return NAN;
    } else {
        if (!indicator->any || row->ts_ms > indicator->anchored_until) {
            indicator->anchored_until = flux_grid_find(&indicator->grid, row->ts_ms).last;
            indicator->up = indicator->down = 0.0;
        }
        indicator->up += flux_turnover(row);
        indicator->down += row->volume;
    }
    return indicator->down == 0.0 ? NAN : indicator->up / indicator->down;
}

static inline double flux_indicator_next(flux_indicator *indicator, double value) {
    if (indicator->kind == FLUX_SMA) return flux_sma_next(indicator, value);
    if (indicator->kind == FLUX_EMA) return flux_ema_next(indicator, value);
    return flux_rsi_next(indicator, value);
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

/* One value out for each candle in, taken from its double at byte `field` where one is asked for. A candle that is not
 * above the newest is skipped and gives the value before again. */
static inline void flux_indicator_candles(flux_indicator *indicator, const uint8_t *rows, uint64_t n, uint64_t field,
                                          uint8_t *out) {
    uint64_t i;
    flux_candle row;
    double value;
    for (i = 0; i < n; i++) {
        memcpy(&row, rows + i * sizeof row, sizeof row);
        if (indicator->any && row.ts_ms <= indicator->newest) {
            indicator->skipped++;
        } else if (indicator->kind == FLUX_ATR) {
            indicator->value = flux_atr_next(indicator, &row);
        } else if (indicator->kind >= FLUX_VWAP) {
            indicator->value = flux_vwap_next(indicator, &row);
        } else {
            memcpy(&value, rows + i * sizeof row + field, sizeof value);
            indicator->value = flux_indicator_next(indicator, value);
        }
        if (!indicator->any || row.ts_ms > indicator->newest) indicator->newest = row.ts_ms;
        indicator->any = 1;
        memcpy(out + i * sizeof value, &indicator->value, sizeof value);
    }
}

#endif
