/* The window's share of in_c.c, compiled by itself: grid.h and admit.h each have a flux_span. Nothing, for a tree that
 * has no window yet. */
#include "work.h"

#if __has_include("window.h")
#include "window.h"

enum { ROWS = 60000, BUCKETS = ROWS / 60 };

static flux_candle seconds[ROWS], minutes[BUCKETS + 1];
static flux_window window;
static uint64_t made;

static flux_candle row_of(uint32_t i) {
    return (flux_candle){INT64_C(1700000040000) + i * 1000, i, i + 1, i - 1.0, i, 1, 2, 3, FLUX_CLOSED};
}

static void begin(void) {
    for (uint32_t i = 0; i < ROWS && seconds[0].trade_count == 0; i++) /* in the first call, which is not counted */
        seconds[ROWS - 1 - i] = row_of(ROWS - 1 - i);
    memset(&window, 0, sizeof window);
    window.kind = FLUX_ROWS_CANDLE;
    window.row_size = sizeof(flux_candle);
    window.grid.length = 60000;
}

/* 60,000 rows of a second in one piece. */
static void in_bulk(uint32_t n) {
    while (n--) {
        made = 0;
        begin();
        flux_window_push(&window, (const uint8_t *)seconds, ROWS, minutes, NULL, BUCKETS + 1, &made);
    }
}

static int right_minutes(void) {
    for (uint32_t i = 0; i + 1 < BUCKETS; i++) {
        const flux_candle *m = &minutes[i];
        if (m->ts_ms != INT64_C(1700000040000) + i * INT64_C(60000) || m->open != 60.0 * i || m->volume != 60 ||
            m->close != 60.0 * i + 59 || m->high != 60.0 * i + 60 || m->low != 60.0 * i - 1 || m->trade_count != 0)
            return 0;
    }
    return 1;
}

static int right_in_bulk(uint64_t done) { return done && made == BUCKETS - 1 && right_minutes(); }

/* The same rows one at a time; a count is of rows. */
static uint64_t at;

static void one_at_a_time(uint32_t n) {
    if (at == 0) begin(), made = 0;
    for (; n--; at++) {
        uint64_t written = 0;
        flux_window_push(&window, (const uint8_t *)&seconds[at], 1, minutes + made, NULL, 1, &written);
        made += written;
    }
}

static int right_one_at_a_time(uint64_t done) {
    one_at_a_time((uint32_t)(ROWS - done));
    return made == BUCKETS - 1 && right_minutes();
}

const gate_work window_works[] = {
    {"window 60000 rows to minutes", 2, in_bulk, right_in_bulk},
    {"window 1 row at a time", 600, one_at_a_time, right_one_at_a_time},
};
const unsigned window_work_count = 2;

#else
const gate_work window_works[1];
const unsigned window_work_count = 0;
#endif
