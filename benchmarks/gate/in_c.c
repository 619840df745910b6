/* The kernels as C calls them, counted by callgrind: benchmarks/gate/instructions.py builds and runs this, against the
 * headers of whichever tree is to be judged. Prints `wrong: NAME` and exits 1 where a result is not what it must be. */
#include "arena.h"
#include "journal.h"
#include "pump.h"
#include "histogram.h"
#include "work.h"

enum { ROWS = 1000, STREAMS = 8, GROUP = 8 << 20 };

static flux_candle rows[ROWS];
static uint8_t one[1024], many[ROWS * 64 + 1024], many_v1[ROWS * 64 + 1024], out[ROWS * 64 + 1024];
static size_t one_size, many_size, many_v1_size;
static flux_template of_candles;
static flux_v1_template of_candles_v1;
static volatile uint64_t sink;

static void prepare_frames(void) {
    for (uint32_t i = 0; i < ROWS; i++)
        rows[i] = (flux_candle){FLUX_TIME_FIRST_MS + i * 60000, i + 1, i + 2, i + 0.5, i + 1, i, 7, 1, FLUX_CLOSED};
    flux_template_make(&of_candles, FLUX_ROWS_CANDLE, "SIM", 3, "BTCUSDT", 7, "1m", 2);
    flux_v1_template_make(&of_candles_v1, "SIM", 3, "BTCUSDT", 7, "1m", 2);
    one_size = flux_encode(&of_candles, one, 1, 2, 3, 4, 5, 6, rows, 1);
    many_size = flux_encode(&of_candles, many, 1, 2, 3, 4, 5, 6, rows, ROWS);
    many_v1_size = flux_v1_encode(&of_candles_v1, many_v1, 1, rows, ROWS);
}

/* ---- checksum ---- */

static int right_crc(uint64_t done) {
    for (size_t size = 0; size < 1000; size += 37)
        if (flux_crc32c(7, many + 3, size) != flux_crc32c_table(7, many + 3, size)) return 0;
    return done && flux_crc32c(0, "123456789", 9) == 0xE3069283u &&
           flux_crc32c(0, many, many_size) == flux_crc32c_table(0, many, many_size);
}

static void crc_256(uint32_t n) {
    while (n--) sink += flux_crc32c(n, one, 256);
}

static void crc_64k(uint32_t n) {
    while (n--) sink += flux_crc32c(n, many, 64000);
}

/* ---- codec ---- */

static void encode_1(uint32_t n) {
    while (n--) sink += flux_encode(&of_candles, out, 1, 2, 3, 4, 5, 6, rows, 1);
}

static int right_encode_1(uint64_t done) {
    flux_view v;
    return done && flux_verify(out, one_size, &v) == FLUX_OK && v.start_sequence == 1 && v.store_id == 2 &&
           v.epoch == 5 && v.stream_id == 6 && v.row_count == 1 && !memcmp(out + v.rows_at, rows, 64);
}

static void encode_1000(uint32_t n) {
    while (n--) sink += flux_encode(&of_candles, out, 1, 2, 3, 4, 5, 6, rows, ROWS);
}

static int right_encode_1000(uint64_t done) {
    flux_view v;
    return done && flux_verify(out, many_size, &v) == FLUX_OK && v.row_count == ROWS &&
           !memcmp(out + v.rows_at, rows, sizeof rows);
}

static void encode_v1_1000(uint32_t n) {
    while (n--) sink += flux_v1_encode(&of_candles_v1, out, 1, rows, ROWS);
}

static int right_v1(const uint8_t *frame) {
    static flux_candle back[ROWS];
    flux_view v;
    if (flux_verify(frame, many_v1_size, &v) != FLUX_OK || v.row_count != ROWS) return 0;
    flux_v1_rows(frame, &v, back);
    for (uint32_t i = 0; i < ROWS; i++)
        if (memcmp(&back[i], &rows[i], 48) || back[i].flags != FLUX_CLOSED) return 0;
    return 1;
}

static int right_encode_v1(uint64_t done) { return done && right_v1(out); }

static void verify_1(uint32_t n) {
    flux_view v;
    while (n--) sink += (uint64_t)flux_verify(one, one_size, &v) + v.row_count;
}

static int right_verify(uint64_t done) {
    flux_view v;
    if (!done || flux_verify(one, one_size, &v) != FLUX_OK || v.row_count != 1 || v.symbol_size != 7) return 0;
    for (size_t at = 0; at < one_size; at++) { /* no flipped bit goes through */
        one[at] ^= 1;
        if (flux_verify(one, one_size, &v) == FLUX_OK || flux_match(&of_candles, one, one_size, &v) == 1) return 0;
        one[at] ^= 1;
    }
    return 1;
}

static void match_1(uint32_t n) {
    flux_view v;
    while (n--) sink += (uint64_t)flux_match(&of_candles, one, one_size, &v) + v.row_count;
}

static void verify_v1_1000(uint32_t n) {
    flux_view v;
    while (n--) sink += (uint64_t)flux_verify(many_v1, many_v1_size, &v) + v.row_count;
}

static void rows_v1_1000(uint32_t n) {
    flux_view v;
    flux_verify(many_v1, many_v1_size, &v);
    while (n--) sink += flux_v1_rows(many_v1, &v, (flux_candle *)(void *)out);
}

static int right_read_v1(uint64_t done) { return done && right_v1(many_v1); }

/* ---- ring ---- */

static flux_ring ring;
static flux_arena arena;
static uint32_t mapped;

/* In one place, so that the compiler inlines it in one way, whatever else is counted here. */
static __attribute__((noinline, noclone)) void place(flux_ring *r, uint64_t start, const void *from, uint32_t n,
                                                     flux_placed *placed) {
    flux_ring_place(r, start, from, n, placed);
}

static void ring_in_order(uint32_t n) {
    flux_placed placed;
    while (n--) place(&ring, ring.contiguous + 1, &rows[n % ROWS], 1, &placed);
}

/* Now and after each of some more rows it holds the last 4,096, byte for byte. */
static int right_ring_in_order(uint64_t done) {
    static uint8_t kept[4096 * 64];
    for (uint32_t more = 0; more < 5; more++, ring_in_order(1)) {
        if (ring.contiguous != done + more || ring.top != done + more || ring.duplicates) return 0;
        if (ring.first != ring.contiguous + 1 - 4096) return 0;
        if (flux_ring_copy(&ring, ring.first, 4097, kept) != 4096) return 0;
        if (memcmp(kept + 4095 * 64, &rows[0], 64)) return 0; /* the last of each count was row 0 */
    }
    return 1;
}

/* 64 rows of which the first 32 are here already. */
static void ring_overlap(uint32_t n) {
    flux_placed placed;
    while (n--) {
        place(&ring, ring.contiguous + 1, rows, 32, &placed);
        place(&ring, ring.contiguous - 31, rows, 64, &placed);
        sink += placed.duplicates;
    }
}

static int right_ring_overlap(uint64_t done) {
    static uint64_t before;
    if (!before) before = ring.contiguous - 64 * done;
    return ring.contiguous == before + 64 * done && ring.duplicates == 32 * done && !ring.conflicts && !ring.beyond;
}

/* A hole of one row, eight rows beyond it, then the row of the hole. */
static void ring_hole(uint32_t n) {
    flux_placed placed;
    uint64_t pairs[4];
    while (n--) {
        uint64_t next = ring.contiguous + 1;
        place(&ring, next + 1, rows + 1, 8, &placed);
        sink += flux_ring_gaps(&ring, pairs, 2);
        place(&ring, next, rows, 1, &placed);
    }
}

static int right_ring_hole(uint64_t done) {
    uint64_t next = ring.contiguous + 1, pairs[4];
    flux_placed placed;
    place(&ring, next + 2, rows, 1, &placed);
    return done && flux_ring_gaps(&ring, pairs, 2) == 1 && pairs[0] == next && pairs[1] == next + 1 &&
           ring.top == next + 2 && !ring.beyond && !ring.conflicts;
}

/* ---- journal ---- */

static flux_group group;
static uint64_t appended;

static void journal_append(uint32_t n) {
    for (; n--; appended++) {
        if (group.count == group.entry_capacity) flux_group_clear(&group);
        sink += (uint64_t)flux_group_append(&group, FLUX_SOURCE, one, 200, n, n);
    }
}

static int right_append(uint64_t done) {
    const flux_entry *last = &group.entries[group.count - 1];
    return appended == done && last->size == 200 && !memcmp(group.data + last->at, one, 200);
}

static uint8_t *file;
static uint64_t file_size, scanned;
static uint32_t file_records;

static void prepare_file(void) {
    flux_group_clear(&group);
    for (file_records = 0; file_records < 1000; file_records++) {
        uint8_t *body = flux_group_reserve(&group, FLUX_BATCH, (uint32_t)(4 + one_size), 0, 0);
        memcpy(body, "\2\0tt", 4);
        memcpy(body + 4, one, one_size);
    }
    file_size = FLUX_FILE_HEADER_SIZE + flux_group_seal(&group, FLUX_FILE_HEADER_SIZE, 0);
    file = aligned_alloc(64, (file_size + 63) & ~UINT64_C(63));
    flux_file_header(file, 1);
    memcpy(file + FLUX_FILE_HEADER_SIZE, group.data, file_size - FLUX_FILE_HEADER_SIZE);
}

static void journal_scan(uint32_t n) { /* 1,001 records a time */
    static flux_record records[1024];
    while (n--) {
        flux_scan scan;
        flux_scan_begin(&scan, file, file_size, 0);
        while (scan.stop < 0) scanned += flux_scan_next(&scan, file, file_size, records, 1024);
    }
}

static int right_scan(uint64_t done) {
    flux_scan scan;
    flux_record records[1];
    flux_scan_begin(&scan, file, file_size - 1, 0); /* torn: nothing is committed */
    while (scan.stop < 0) flux_scan_next(&scan, file, file_size - 1, records, 1);
    return scanned == done * (file_records + 1) && scan.committed == FLUX_FILE_HEADER_SIZE &&
           scan.records == file_records;
}

static uint64_t gathered_rows;

static void gather(uint32_t n) { /* the same 1,001 records */
    static flux_gathered records[1024];
    while (n--) {
        flux_rows_out to[4] = {{0}, {out, 0, sizeof out}, {0}, {0}};
        uint32_t count;
        flux_gather(file, FLUX_FILE_HEADER_SIZE, file_size, records, 1024, &count, to);
        gathered_rows += to[FLUX_ROWS_CANDLE].used / 64;
    }
}

static int right_gather(uint64_t done) {
    return gathered_rows == done * file_records && !memcmp(out, rows, 64) && !memcmp(out + 999 * 64, rows, 64);
}

/* ---- admit ---- */

static uint64_t admitted[FLUX_ADMIT_OUTCOMES];

static void admit(uint32_t n) { /* one row judged, then sought among 64 earlier ones: a repeat of the first */
    flux_span earlier = {(const uint8_t *)rows, 64};
    while (n--) {
        sink += (uint64_t)flux_row_fault(FLUX_ROWS_CANDLE, &rows[n % ROWS]);
        admitted[flux_look_back(FLUX_ROWS_CANDLE, (const uint8_t *)rows, &earlier, 1)]++;
    }
}

static int right_admit(uint64_t done) {
    flux_candle bad = rows[0], other = rows[5], late = rows[5];
    flux_span earlier = {(const uint8_t *)rows, 64};
    bad.low = bad.high + 1;
    other.volume++;
    late.ts_ms++;
    return admitted[FLUX_ADMIT_REPEAT] == done && flux_row_fault(1, &bad) == FLUX_ADMIT_HIGH_LOW &&
           flux_look_back(1, (const uint8_t *)&other, &earlier, 1) == FLUX_ADMIT_CORRECTION &&
           flux_look_back(1, (const uint8_t *)&late, &earlier, 1) == FLUX_ADMIT_LATE;
}

/* ---- histogram ---- */

static flux_hdr times;

static void histogram(uint32_t n) {
    while (n--) flux_hdr_record(&times, (int64_t)n * 977);
}

static int right_histogram(uint64_t done) {
    return times.total == done && times.slots[flux_hdr_slot(977)] >= 1 && times.min == 0 && !times.refused;
}

#include "in_c_pump.h"

static const gate_work works[] = {
    {"crc 256 bytes", 200, crc_256, right_crc},
    {"crc 64 KB", 20, crc_64k, right_crc},
    {"encode 1 row", 200, encode_1, right_encode_1},
    {"encode 1000 rows", 20, encode_1000, right_encode_1000},
    {"encode v1 1000 rows", 20, encode_v1_1000, right_encode_v1},
    {"verify 1 row", 200, verify_1, right_verify},
    {"verify v1 1000 rows", 20, verify_v1_1000, right_read_v1},
    {"rows of v1 1000 rows", 20, rows_v1_1000, right_read_v1},
    {"match 1 row", 200, match_1, right_verify},
    {"ring 1 row in order", 1000, ring_in_order, right_ring_in_order},
    {"ring 64 rows half repeats", 200, ring_overlap, right_ring_overlap},
    {"ring a hole and its filling", 200, ring_hole, right_ring_hole},
    {"journal append", 200, journal_append, right_append},
    {"journal scan 1001 records", 10, journal_scan, right_scan},
    {"gather 1001 records", 10, gather, right_gather},
    {"admit a repeat among 64", 200, admit, right_admit},
    {"pump receive, client", 200, pump_client, right_client},
    {"pump receive, server", 200, pump_server, right_server},
    {"pump record 1 row", 200, pump_record, right_record},
    {"pump publish 1 record", 200, pump_publish, right_publish},
    {"histogram record", 1000, histogram, right_histogram},
};

extern const gate_work window_works[]; /* in_c_window.c */
extern const unsigned window_work_count;

int main(void) {
    int wrong = 0;
    prepare_frames();
    flux_arena_init(&arena, 4096, 64, &mapped); /* mapped twice, as rings of this length are */
    flux_arena_ring(&arena, &ring, 4096, 64);
    flux_group_init(&group, GROUP, 4096);
    prepare_file();
    prepare_pump();
    CALLGRIND_START_INSTRUMENTATION;
    for (size_t i = 0; i < sizeof works / sizeof *works; i++) wrong |= gate_count(&works[i]);
    for (unsigned i = 0; i < window_work_count; i++) wrong |= gate_count(&window_works[i]);
    return wrong;
}
