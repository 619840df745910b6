/* The rows in C: what a candle, a trade and a quote are on the wire, in the ring, in the journal and in numpy.
 *
 *   CandleRow 64   ts_ms | open | high | low | close | volume | turnover | trade_count flags
 *   TradeRow  40   ts_ns | price | size | trade_id | flags reserved
 *   QuoteRow  40   ts_ns | bid | ask | bid_size | ask_size
 *
 * Little endian, packed by their own field order (no padding exists), declared once: the sizes and offsets are
 * asserted here, in flux/model.py and in tests/unit/test_model.py. */
#ifndef FLUX_ROW_H
#define FLUX_ROW_H

#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "flux rows are little endian in memory"
#endif

#ifdef __cplusplus /* static_assert there is _Static_assert here */
#define FLUX_ASSERT static_assert
#else
#define FLUX_ASSERT _Static_assert
#endif

typedef struct {
    int64_t ts_ms;        /* open of the interval, epoch ms UTC */
    double open, high, low, close;
    double volume;        /* units of the instrument */
    double turnover;      /* sum of price x size; 0 when not known */
    uint32_t trade_count; /* 0 when not known */
    uint32_t flags;       /* FLUX_CLOSED ... */
} flux_candle;

typedef struct {
    int64_t ts_ns; /* epoch ns UTC */
    double price, size;
    uint64_t trade_id; /* 0 when the source has none */
    uint32_t flags;    /* FLUX_TRADE_BUY ... */
    uint32_t reserved;
} flux_trade;

typedef struct {
    int64_t ts_ns; /* epoch ns UTC */
    double bid, ask, bid_size, ask_size;
} flux_quote;

typedef struct { /* flux.model.RUN: rows, from byte `at` of a buffer, that become `first` and the sequences after it */
    uint32_t stream, rows;
    uint64_t at, first;
    int64_t origin_ns;
} flux_run_rows;

FLUX_ASSERT(sizeof(flux_candle) == 64, "a candle is one cache line");
FLUX_ASSERT(offsetof(flux_candle, flags) == 60, "flags end the candle");
FLUX_ASSERT(sizeof(flux_trade) == 40, "a trade is 40 bytes");
FLUX_ASSERT(sizeof(flux_quote) == 40, "a quote is 40 bytes");
FLUX_ASSERT(sizeof(flux_run_rows) == 32, "a run is 32 bytes");

enum flux_candle_flag {
    FLUX_CLOSED = 1,
    FLUX_CORRECTION = 2,
    FLUX_SYNTHETIC = 4,
    FLUX_INJECTED = 8,
    FLUX_LATE = 16,
    FLUX_TRADED = 32,      /* turnover and trade_count are known */
    FLUX_TURNOVER = 64,    /* turnover alone */
    FLUX_TRADE_COUNT = 128 /* trade_count alone */
};

enum flux_trade_flag {
    FLUX_TRADE_BUY = 1,  /* the aggressor bought */
    FLUX_TRADE_SELL = 2,
    FLUX_TRADE_LATE = 16,
    FLUX_TRADE_CORRECTION = 64,
};

/* What kind of row a stream or a message carries. V1 are Candle tables, not packed rows. */
enum flux_row_kind {
    FLUX_ROWS_NONE = 0,
    FLUX_ROWS_CANDLE = 1,
    FLUX_ROWS_TRADE = 2,
    FLUX_ROWS_QUOTE = 3,
    FLUX_ROWS_CANDLE_V1 = 4,
};

static inline uint32_t flux_row_size(int kind) {
    return kind == FLUX_ROWS_TRADE || kind == FLUX_ROWS_QUOTE ? 40u : 64u;
}

#endif
