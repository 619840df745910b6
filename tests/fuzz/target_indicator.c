/* indicator: candles of any time and any value, or any doubles, in pieces and at once: the same bits.
 *
 *   input   | kind u8 | n u8 | how u8 | (how the time goes on u8 | bits of the values u16) ... |
 *   how     bits 0-2 grid of an anchored sum, bit 3 doubles where the kind takes them, bits 4-6 rows in a piece,
 *           bit 7 another field than the first */
#include "target_indicator.h"

#include "fuzz.h"
#include "indicator.h"

enum { FUZZ_INDICATOR_ROWS = 300 };

static const int64_t zone_edges[] = {INT64_MIN, -86400000, 0, 82800000, 172800000, 1700000000000, INT64_MAX - 1};

static void begin(flux_indicator *indicator, int kind, uint64_t n, uint8_t how) {
    static const int64_t lengths[] = {1000, 60000, 86400000, 604800000, 0, 1, INT64_MAX, 0};
    int64_t length = lengths[how & 7];
    FUZZ_HOLDS(!flux_indicator_init(indicator, kind, n, length, length == 604800000 ? 345600000 : 0));
    if ((how & 7) == 7) {
        indicator->grid.edges = zone_edges;
        indicator->grid.edge_count = sizeof zone_edges / sizeof *zone_edges;
    }
}

/* Times near each other, now and then the ends of int64; values small, or any double: NaN and infinity too. */
static uint64_t candles(fuzz_reader *r, flux_candle *rows) {
    static const int64_t anywhere[] = {INT64_MIN, INT64_MIN + 1, -1, 0, INT64_MAX - 1, INT64_MAX, 59999, 86399999};
    uint64_t count = 0, ts = 1700000000000;
    while (r->at < r->end && count < FUZZ_INDICATOR_ROWS) {
        uint8_t how = (uint8_t)fuzz_take(r, 1), *row = (uint8_t *)&rows[count++];
        uint64_t bits = fuzz_take(r, 2);
        if (how < 240) ts += (uint64_t)(how & 31) * 7000;
        else ts = (uint64_t)anywhere[how & 7];
        memcpy(row, &ts, 8);
        for (uint32_t at = 8; at < 56; at += 8) {
            double value = (double)(bits >> 4) + at;
            uint64_t any = bits << 48 | at;
            memcpy(row + at, bits & 8 ? (void *)&any : (void *)&value, 8);
        }
        rows[count - 1].trade_count = (uint32_t)bits;
        rows[count - 1].flags = (uint32_t)bits & 63;
    }
    return count;
}

static void push(flux_indicator *indicator, const flux_candle *rows, uint64_t n, uint64_t piece, int doubles,
                 uint64_t field, double *out) {
    for (uint64_t at = 0; at < n; at += piece) {
        uint64_t some = n - at < piece ? n - at : piece;
        size_t width = doubles ? sizeof(double) : sizeof *rows;
        uint8_t *exact = malloc(some * width), *made = malloc(some * sizeof(double));
        for (uint64_t i = 0; i < some; i++)
            memcpy(exact + i * width, (const uint8_t *)&rows[at + i] + (doubles ? field : 0), width);
        if (doubles) flux_indicator_values(indicator, exact, some, made);
        else flux_indicator_candles(indicator, exact, some, field, made);
        memcpy(out + at, made, some * sizeof(double));
        free(exact);
        free(made);
    }
}

void fuzz_indicator_run(const uint8_t *input, size_t size) {
    static flux_candle rows[FUZZ_INDICATOR_ROWS];
    static double at_once[FUZZ_INDICATOR_ROWS], in_pieces[FUZZ_INDICATOR_ROWS];
    fuzz_reader r = {input, input + size};
    int kind = FLUX_SMA + (int)(fuzz_take(&r, 1) % 6);
    uint64_t n = 1 + fuzz_take(&r, 1) % 40;
    uint8_t how = (uint8_t)fuzz_take(&r, 1);
    int doubles = how & 8 && kind < FLUX_ATR;
    uint64_t count = candles(&r, rows), field = how & 128 ? 48 : 8;
    flux_indicator one, other;
    begin(&one, kind, n, how);
    begin(&other, kind, n, how);
    push(&one, rows, count, FUZZ_INDICATOR_ROWS, doubles, field, at_once);
    push(&other, rows, count, 1 + (how >> 4 & 7), doubles, field, in_pieces);
    for (uint64_t i = 0; i < count; i++) /* the sign and the bits of a NaN are the processor's */
        FUZZ_HOLDS(memcmp(&at_once[i], &in_pieces[i], 8) == 0 || (at_once[i] != at_once[i] && in_pieces[i] != in_pieces[i]));
    FUZZ_HOLDS(one.skipped == other.skipped && one.now.seen == other.now.seen);
    flux_indicator_free(&one);
    flux_indicator_free(&other);
}

size_t fuzz_indicator_make(uint8_t *out) {
    size_t rows = fuzz_below(120);
    fuzz_fill(out, 3 + 3 * rows);
    for (size_t i = 0; i < rows; i++) {
        if (!fuzz_one_in(12)) out[3 + 3 * i] &= 31; /* most go on a little */
        if (!fuzz_one_in(12)) out[4 + 3 * i] &= (uint8_t)~8; /* and are numbers */
    }
    return 3 + 3 * rows;
}
