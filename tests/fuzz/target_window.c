/* window: rows of any time and any value into buckets of every grid, in pieces and as a whole.
 *
 *   input   | kind u8 | grid u8 | keep u8 (bits 6-7: rows of the open bucket kept) | mode u8 | (how the time goes on u8 | bits of the values u16) ... |
 *   mode    bit 0 whole buckets, cut by hand, bit 1 row_ms is known, bits 2-4 room for output, bits 5-7 rows in a piece
 *
 * Rows in order, pushed in pieces, must give the same bytes as pushed at once. */
#include "target_window.h"

#include "fuzz.h"
#include "revise.h"

enum { FUZZ_WINDOW_ROWS = 400 };

typedef struct {
    uint8_t *rows;
    uint64_t count;
    int kind;
} fuzz_rows;

static const int64_t edges[] = {INT64_MIN, -86400000, 0, 3600000, 90000000, 946684800000, 4102444800000};

static void fuzz_window_begin(flux_window *w, const uint8_t head[4]) {
    static const int64_t lengths[] = {1000, 60000, 86400000, 604800000, 0, 1000, 1000, 3000};
    memset(w, 0, sizeof *w);
    w->kind = 1 + head[0] % 3;
    w->row_size = flux_row_size(w->kind);
    w->grid.length = lengths[head[1] & 7];
    w->grid.origin = w->grid.length == 604800000 ? 345600000 : 0;
    if ((head[1] & 7) == 5) {
        w->grid.edges = edges;
        w->grid.edge_count = sizeof edges / sizeof *edges;
    }
    w->row_ms = head[3] & 2 && w->kind == FLUX_ROWS_CANDLE ? 1000 : 0;
    w->keep = head[2] & 63;
    w->by_hand = head[3] & 1;
    w->limit = w->by_hand ? UINT64_MAX : (uint64_t[]){0, 3, 20, UINT64_MAX}[head[2] >> 6];
    w->whole_buckets = w->limit > 0;
}

static void fuzz_check_window(const flux_window *w) {
    FUZZ_HOLDS(w->kept_count <= w->kept_room);
    for (uint64_t i = 1; i < w->kept_count; i++) {
        int64_t before = flux_row_time(w->kept + (i - 1) * w->row_size), here = flux_row_time(w->kept + i * w->row_size);
        FUZZ_HOLDS(w->kind == FLUX_ROWS_CANDLE ? before < here : before <= here);
    }
}

/* What window.pyx does with rows: push while they are in order, put where one is not. Buckets written in all. */
static uint64_t fuzz_window_take(flux_window *w, const fuzz_rows *given, uint64_t piece, uint64_t room, flux_candle *out,
                                 uint64_t most) {
    uint64_t total = 0, at = 0;
    for (int last = 0; at < given->count || last < 2; last += at == given->count) { /* twice more, for what had no room */
        uint64_t n = given->count - at < piece ? given->count - at : piece, written = 0;
        flux_candle *made = malloc(room * sizeof *made);
        flux_rows_of *spans = w->by_hand ? malloc(room * sizeof *spans) : NULL;
        uint64_t taken = flux_window_push(w, given->rows + at * w->row_size, n, made, spans, room, &written);
        FUZZ_HOLDS(taken <= n && written <= room);
        for (uint64_t i = 0; spans && i < written; i++)
            FUZZ_HOLDS(spans[i].from + spans[i].count <= w->kept_count && spans[i].count > 0);
        at += taken;
        if (taken < n && written < room) {
            uint64_t before = written;
            int done = flux_window_put(w, given->rows + at * w->row_size, made, spans, room, &written);
            FUZZ_HOLDS((done == 0 || done == 1) && written - before <= 1 && (done || written > before));
            at += (uint64_t)done;
        }
        FUZZ_HOLDS(total + written <= most);
        if (written) memcpy(out + total, made, written * sizeof *made);
        total += written;
        fuzz_check_window(w);
        if (w->by_hand) flux_window_cut(w);
        free(made);
        free(spans);
    }
    return total;
}

/* Times near each other, now and then from anywhere: the ends of int64 among them. */
static fuzz_rows fuzz_window_rows(fuzz_reader *r, int kind) {
    static const int64_t anywhere[] = {INT64_MIN, INT64_MIN + 1, -1, 0, 946684800000, INT64_MAX - 1, INT64_MAX, 59999};
    uint32_t size = flux_row_size(kind);
    fuzz_rows made = {malloc(FUZZ_WINDOW_ROWS * size), 0, kind};
    uint64_t ts = 1700000000000;
    if (kind != FLUX_ROWS_CANDLE) ts *= 1000000;
    while (r->at < r->end && made.count < FUZZ_WINDOW_ROWS) {
        uint8_t how = (uint8_t)fuzz_take(r, 1), *row = made.rows + made.count++ * size;
        uint16_t bits = (uint16_t)fuzz_take(r, 2);
        uint64_t step = (uint64_t)(how & 31) * (kind == FLUX_ROWS_CANDLE ? 500 : 500000000);
        if (how < 192) ts += step;
        else if (how < 224) ts -= step;
        else if (how < 248) ts += step << 12;
        else ts = (uint64_t)anywhere[how & 7];
        memset(row, 0, size);
        memcpy(row, &ts, 8);
        for (uint32_t at = 8; at + 8 <= size; at += 8) { /* small values, or any double: NaN and infinity too */
            double value = (double)(bits >> 4) + at;
            uint64_t any = (uint64_t)bits << 48 | at;
            memcpy(row + at, bits & 8 ? (void *)&any : (void *)&value, 8);
        }
        if (kind == FLUX_ROWS_CANDLE) memcpy(row + 60, &(uint32_t){bits & 63}, 4);
        if (kind == FLUX_ROWS_TRADE) { /* an id each, or one of few; a correction now and then */
            uint64_t id = how & 1 ? made.count : bits & 7;
            memcpy(row + offsetof(flux_trade, trade_id), &id, 8);
            memcpy(row + offsetof(flux_trade, flags), &(uint32_t){bits >> 4 & 3 ? 0 : FLUX_TRADE_CORRECTION}, 4);
        }
    }
    return made;
}

void fuzz_window_run(const uint8_t *input, size_t size) {
    uint8_t head[4];
    fuzz_reader r = {input, input + size};
    for (int i = 0; i < 4; i++) head[i] = (uint8_t)fuzz_take(&r, 1);
    fuzz_rows rows = fuzz_window_rows(&r, 1 + head[0] % 3);
    uint64_t most = 4 * rows.count + 1, room = 1 + (head[3] >> 2 & 7), piece = UINT64_C(1) << (head[3] >> 5);
    flux_candle *whole = calloc(most, sizeof *whole), *pieces = calloc(most, sizeof *pieces);
    flux_window w;
    fuzz_window_begin(&w, head);
    uint64_t made = fuzz_window_take(&w, &rows, piece, room, pieces, most);
    int in_order = w.late + w.corrected == 0;
    free(w.kept);
    fuzz_window_begin(&w, head);
    uint64_t at_once = fuzz_window_take(&w, &rows, FUZZ_WINDOW_ROWS, most, whole, most);
    if (in_order && w.late + w.corrected == 0)
        FUZZ_HOLDS(made == at_once && memcmp(whole, pieces, made * sizeof *whole) == 0);
    free(w.kept);
    free(whole);
    free(pieces);
    free(rows.rows);
}

size_t fuzz_window_make(uint8_t *out) {
    size_t rows = fuzz_below(120);
    fuzz_fill(out, 4 + 3 * rows);
    for (size_t i = 0; i < rows; i++)
        if (!fuzz_one_in(12)) out[4 + 3 * i] &= 31; /* most go on a little */
    return 4 + 3 * rows;
}
