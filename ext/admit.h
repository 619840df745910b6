/* Which rows of an input become numbered rows, and what kind of news each is.
 *
 *     row ──► sound? ──no──► refused: not_finite | high_low | open_close | time
 *               │yes
 *               ▼
 *     newer than the newest of its stream? ──yes──► NEW
 *               │no: look back over the rows still at hand (ring, then this turn's inbox)
 *               ├── same time, same values ──► REPEAT      (dropped, counted)
 *               ├── same time, other values ─► CORRECTION  (numbered, flag set)
 *               └── time not seen ───────────► LATE        (numbered, flag set)
 *
 * Candles and quotes are ordered by time, trades by trade_id (0 = the source has none: always NEW). A quote is never
 * a correction or late: the field knows no such thing; only its repeats fall out. */
#ifndef FLUX_ADMIT_H
#define FLUX_ADMIT_H

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
    FLUX_ADMIT_OUTCOMES
};

#define FLUX_TIME_FIRST_MS INT64_C(946684800000)  /* 2000-01-01T00:00:00Z */
#define FLUX_TIME_LAST_MS INT64_C(4102444800000)  /* 2100-01-01T00:00:00Z, exclusive */
#define FLUX_KNOWN_FLAGS 63u

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
    if (c->high < c->low) return FLUX_ADMIT_HIGH_LOW;
    if (c->open > c->high || c->open < c->low || c->close > c->high || c->close < c->low) return FLUX_ADMIT_OPEN_CLOSE;
    return 0;
}

static inline int flux_trade_fault(const flux_trade *t) {
    if (t->ts_ns < 0 || !flux_time_sound(t->ts_ns / 1000000)) return FLUX_ADMIT_TIME;
    return isfinite(t->price) && isfinite(t->size) ? 0 : FLUX_ADMIT_NOT_FINITE;
}

static inline int flux_quote_fault(const flux_quote *q) {
    if (q->ts_ns < 0 || !flux_time_sound(q->ts_ns / 1000000)) return FLUX_ADMIT_TIME;
    return isfinite(q->bid) && isfinite(q->ask) && isfinite(q->bid_size) && isfinite(q->ask_size)
               ? 0
               : FLUX_ADMIT_NOT_FINITE;
}

/* Why a row cannot be admitted at all; 0 when it is sound. */
static inline int flux_row_fault(int kind, const void *row) {
    if (kind == FLUX_ROWS_TRADE) return flux_trade_fault((const flux_trade *)row);
    if (kind == FLUX_ROWS_QUOTE) return flux_quote_fault((const flux_quote *)row);
    return flux_candle_fault((const flux_candle *)row);
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

/* The bytes that make two rows the same: all of them, but for a candle's flags (the server sets some of them). */
static inline uint32_t flux_row_values(int kind) {
    return kind == FLUX_ROWS_CANDLE ? (uint32_t)offsetof(flux_candle, flags) : 40u;
}

/* Looks back through `spans` (newest span first) for the same time or id. */
static inline int flux_look_back(int kind, const uint8_t *row, const flux_span *spans, int span_count) {
    uint32_t size = flux_row_size(kind), values = flux_row_values(kind);
    int64_t order = flux_row_order(kind, row);
    int seen = 0;
    for (int s = 0; s < span_count; s++)
        for (uint64_t i = spans[s].count; i-- > 0;) {
            const uint8_t *other = spans[s].rows + i * size;
            if (flux_row_order(kind, other) != order) continue;
            if (memcmp(other, row, values) == 0) return FLUX_ADMIT_REPEAT;
            seen = 1;
        }
    if (kind != FLUX_ROWS_CANDLE) return FLUX_ADMIT_NEW;
    return seen ? FLUX_ADMIT_CORRECTION : FLUX_ADMIT_LATE;
}

/* The flags a candle is stored with. */
static inline uint32_t flux_admitted_flags(uint32_t flags, int outcome) {
    flags = (flags & FLUX_KNOWN_FLAGS & ~(uint32_t)(FLUX_CORRECTION | FLUX_LATE)) | FLUX_CLOSED;
    if (outcome == FLUX_ADMIT_CORRECTION) flags |= FLUX_CORRECTION;
    if (outcome == FLUX_ADMIT_LATE) flags |= FLUX_LATE;
    return flags;
}

#endif
