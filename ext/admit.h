/* Which rows of an input become numbered rows, and what kind of news each is.
 *
 *     row ──► sound? ──no──► refused: time | not_finite | volume | high_low | open_close | forming | grid | future
 *               │yes
 *               ▼
 *     newer than the newest of its stream? ──yes──► NEW
 *               │no: looked for among the rows at hand (ext/take.h)
 *               ├── same time or id, same values ──► REPEAT      (dropped, counted)
 *               ├── same time or id, other values ─► CORRECTION  (numbered, flag set)
 *               ├── not seen, and it would be ─────► LATE        (numbered, flag set)
 *               └── older than what is at hand ────► refused: old (it may be numbered already)
 *
 * Candles and quotes are ordered by time, trades by trade_id (0 = the source has none: always NEW). A quote is never
 * a correction or late: the field knows no such thing; only its repeats fall out. */
#ifndef FLUX_ADMIT_H
#define FLUX_ADMIT_H

#include <float.h>
#include <math.h>
#include <string.h>

#include "row.h"

enum flux_admitted {
    FLUX_ADMIT_NEW = 0,
    FLUX_ADMIT_REPEAT,
    FLUX_ADMIT_CORRECTION,
    FLUX_ADMIT_LATE,
    FLUX_ADMIT_NOT_FINITE,
    FLUX_ADMIT_HIGH_LOW,
    FLUX_ADMIT_OPEN_CLOSE,
    FLUX_ADMIT_TIME,
    FLUX_ADMIT_VOLUME,
    FLUX_ADMIT_GRID,
    FLUX_ADMIT_FUTURE,
    FLUX_ADMIT_FORMING,
    FLUX_ADMIT_SPENT, /* the stream has used all its sequences: of the caller, which knows the head */
    FLUX_ADMIT_OLD,   /* older than the rows at hand, which do not say whether it was numbered before */
    FLUX_ADMIT_OUTCOMES
};

#define FLUX_TIME_FIRST_MS INT64_C(-2208988800000) /* 1900-01-01T00:00:00Z */
#define FLUX_TIME_LAST_MS INT64_C(4102444800000)   /* 2100-01-01T00:00:00Z, exclusive */
#define FLUX_CANDLE_FLAGS 255u
#define FLUX_GRID_MS 60000 /* longer intervals begin on a whole minute: sessions and zones shift them */

/* A run of rows to look back over, oldest first. */
typedef struct {
    const uint8_t *rows;
    uint64_t count;
} flux_span;

static inline int flux_time_sound(int64_t ms) { return ms >= FLUX_TIME_FIRST_MS && ms < FLUX_TIME_LAST_MS; }

static inline int flux_candle_fault(const flux_candle *c) {
    if (!flux_time_sound(c->ts_ms)) return FLUX_ADMIT_TIME;
    if (!isfinite(c->open) || !isfinite(c->high) || !isfinite(c->low) || !isfinite(c->close) || !isfinite(c->volume) ||
        !isfinite(c->turnover))
        return FLUX_ADMIT_NOT_FINITE;
    if (c->volume < 0) return FLUX_ADMIT_VOLUME;
    if (c->high < c->low) return FLUX_ADMIT_HIGH_LOW;
    if (c->open > c->high || c->open < c->low || c->close > c->high || c->close < c->low) return FLUX_ADMIT_OPEN_CLOSE;
    return c->flags & FLUX_CLOSED ? 0 : FLUX_ADMIT_FORMING;
}

/* Epoch ms of epoch ns, rounded down. */
static inline int64_t flux_ms_of_ns(int64_t ns) { return ns / 1000000 - (ns % 1000000 < 0); }

static inline int flux_trade_fault(const flux_trade *t) {
    if (!flux_time_sound(flux_ms_of_ns(t->ts_ns))) return FLUX_ADMIT_TIME;
    if (!isfinite(t->price) || !isfinite(t->size)) return FLUX_ADMIT_NOT_FINITE;
    return t->size < 0 ? FLUX_ADMIT_VOLUME : 0;
}

static inline int flux_quote_fault(const flux_quote *q) {
    if (!flux_time_sound(flux_ms_of_ns(q->ts_ns))) return FLUX_ADMIT_TIME;
    return isfinite(q->bid) && isfinite(q->ask) && isfinite(q->bid_size) && isfinite(q->ask_size)
               ? 0
               : FLUX_ADMIT_NOT_FINITE;
}

/* Why a row cannot be admitted to any stream; 0 when it is sound. */
static inline int flux_row_fault(int kind, const void *row) {
    if (kind == FLUX_ROWS_TRADE) return flux_trade_fault((const flux_trade *)row);
    if (kind == FLUX_ROWS_QUOTE) return flux_quote_fault((const flux_quote *)row);
    return flux_candle_fault((const flux_candle *)row);
}

/* Whether a candle is one that may be numbered, in as few steps as can be: open and close between low and high are finite
 * when these are. NaN is in no relation. */
static inline int flux_candle_sound(const flux_candle *c) {
    return (c->low >= -DBL_MAX) & (c->high <= DBL_MAX) & (c->open >= c->low) & (c->open <= c->high) &
           (c->close >= c->low) & (c->close <= c->high) & (c->volume >= 0) & (c->volume <= DBL_MAX) &
           (fabs(c->turnover) <= DBL_MAX) & (int)(c->flags & FLUX_CLOSED) & flux_time_sound(c->ts_ms);
}

/* The first of `n` rows, at any address, that no server would have numbered, or `n`; `fault` is why not. What a row is,
 * not whether its stream or the clock take it. */
static inline uint32_t flux_first_fault(int kind, const uint8_t *rows, uint32_t n, int *fault) {
    uint32_t size = flux_row_size(kind);
    union {
        flux_candle candle;
        flux_trade trade;
        flux_quote quote;
    } row;
    *fault = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (kind == FLUX_ROWS_CANDLE) {
            memcpy(&row.candle, rows + (size_t)i * sizeof row.candle, sizeof row.candle);
            if (flux_candle_sound(&row.candle)) continue;
        } else {
            memcpy(&row, rows + (size_t)i * size, size);
        }
        *fault = flux_row_fault(kind, &row);
        if (*fault) return i;
    }
    return n;
}

/* The step that the times of an interval's candles are multiples of; 0 for trades and quotes. */
static inline int64_t flux_grid_of(int kind, const char *interval, size_t size) {
    int64_t seconds = 0;
    if (kind != FLUX_ROWS_CANDLE || size == 0) return 0;
    if (interval[size - 1] != 's') return FLUX_GRID_MS;
    for (size_t i = 0; i + 1 < size && interval[i] >= '0' && interval[i] <= '9' && seconds < 3600; i++)
        seconds = 10 * seconds + interval[i] - '0';
    return 1000 * seconds;
}

/* Why a row cannot be admitted to its stream: `grid_ms` is the stream's, and no row may be later than `latest_ms`. */
static inline int flux_admit_fault(int kind, const void *row, int64_t grid_ms, int64_t latest_ms) {
    int fault = flux_row_fault(kind, row);
    int64_t ts;
    if (fault) return fault;
    memcpy(&ts, row, sizeof ts);
    if (kind != FLUX_ROWS_CANDLE) return flux_ms_of_ns(ts) > latest_ms ? FLUX_ADMIT_FUTURE : 0;
    if (grid_ms && ts % grid_ms) return FLUX_ADMIT_GRID;
    return ts > latest_ms ? FLUX_ADMIT_FUTURE : 0;
}

/* What a stream is ordered by. */
static inline int64_t flux_row_order(int kind, const uint8_t *row) {
    int64_t order;
    memcpy(&order, row + (kind == FLUX_ROWS_TRADE ? offsetof(flux_trade, trade_id) : 0), sizeof order);
    return order;
}

/* Whether a row ordered by `order` is newer than all before it. Trade ids are unsigned. */
static inline int flux_newer(int kind, int64_t order, int64_t highest) {
    return kind == FLUX_ROWS_TRADE ? (uint64_t)order > (uint64_t)highest : order > highest;
}

#define FLUX_SERVER_TRADE_FLAGS (FLUX_TRADE_LATE | FLUX_TRADE_CORRECTION)

/* The values of a row, for comparing: all of it but the flags that the server sets (of a candle: any). */
static inline uint32_t flux_row_values(int kind, const uint8_t *row, uint8_t values[64]) {
    memcpy(values, row, kind == FLUX_ROWS_CANDLE ? offsetof(flux_candle, flags) : 40);
    if (kind == FLUX_ROWS_TRADE) {
        uint32_t flags;
        memcpy(&flags, row + offsetof(flux_trade, flags), 4);
        flags &= ~(uint32_t)FLUX_SERVER_TRADE_FLAGS;
        memcpy(values + offsetof(flux_trade, flags), &flags, 4);
    }
    return kind == FLUX_ROWS_CANDLE ? (uint32_t)offsetof(flux_candle, flags) : 40u;
}

/* Whether two rows of the same order are the same. */
static inline int flux_row_same(int kind, const uint8_t *one, const uint8_t *other) {
    if (kind == FLUX_ROWS_CANDLE) return memcmp(one, other, offsetof(flux_candle, flags)) == 0;
    if (kind == FLUX_ROWS_QUOTE) return memcmp(one, other, 40) == 0;
    uint32_t flags[2][2];
    memcpy(flags[0], one + offsetof(flux_trade, flags), 8);
    memcpy(flags[1], other + offsetof(flux_trade, flags), 8);
    return memcmp(one, other, offsetof(flux_trade, flags)) == 0 && flags[0][1] == flags[1][1] &&
           ((flags[0][0] ^ flags[1][0]) & ~(uint32_t)FLUX_SERVER_TRADE_FLAGS) == 0;
}

/* What a row is that is not newer than the newest: `seen` says whether a row of its order is there. */
static inline int flux_not_newer(int kind, int seen) {
    if (kind == FLUX_ROWS_QUOTE) return FLUX_ADMIT_NEW;
    return seen ? FLUX_ADMIT_CORRECTION : FLUX_ADMIT_LATE;
}

/* Looks back through `spans` (newest span first) for the same time or id. */
static inline int flux_look_back(int kind, const uint8_t *row, const flux_span *spans, int span_count) {
    uint32_t size = flux_row_size(kind);
    int64_t order = flux_row_order(kind, row);
    int seen = 0;
    for (int s = 0; s < span_count; s++)
        for (uint64_t i = spans[s].count; i-- > 0;) {
            const uint8_t *other = spans[s].rows + i * size;
            if (flux_row_order(kind, other) != order) continue;
            if (flux_row_same(kind, row, other)) return FLUX_ADMIT_REPEAT;
            seen = 1;
        }
    return flux_not_newer(kind, seen);
}

/* The flags a row is stored with: what its source claimed, and what the server found. */
static inline uint32_t flux_admitted_flags(int kind, uint32_t flags, int outcome) {
    uint32_t correction = kind == FLUX_ROWS_TRADE ? FLUX_TRADE_CORRECTION : FLUX_CORRECTION;
    uint32_t known = kind == FLUX_ROWS_TRADE ? UINT32_MAX : FLUX_CANDLE_FLAGS;
    flags &= known & ~(correction | FLUX_LATE);
    if (outcome == FLUX_ADMIT_CORRECTION) flags |= correction;
    if (outcome == FLUX_ADMIT_LATE) flags |= FLUX_LATE;
    return flags;
}

_Static_assert((int)FLUX_TRADE_LATE == (int)FLUX_LATE, "LATE is the same bit of candles and trades");

/* Puts those flags into a row. */
static inline void flux_flag_row(int kind, uint8_t *row, int outcome) {
    size_t at = kind == FLUX_ROWS_TRADE ? offsetof(flux_trade, flags) : offsetof(flux_candle, flags);
    uint32_t flags;
    if (kind == FLUX_ROWS_QUOTE) return;
    memcpy(&flags, row + at, 4);
    flags = flux_admitted_flags(kind, flags, outcome);
    memcpy(row + at, &flags, 4);
}

#endif
