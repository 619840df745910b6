/* ring: place, copy, skip, reset and let evict, in any order; admit: rows against rows.
 *
 *   input   | capacity: 1 << 0..9 u8 | size of a row: 8, 40 or 64, + 4: mapped twice u8 | (what u8 | sequence u32 | rows u16) ... |
 *
 * A row says which sequence it was placed as, so that whatever comes out of the ring can be judged. Sequences are near
 * the lowest, or count down from the highest there are. */
#ifndef TARGET_RING_H
#define TARGET_RING_H

#include "admit.h"
#include "fuzz.h"
#include "rings.h"

enum { FUZZ_RING_ROWS = 2048 };

static inline uint64_t fuzz_sequence(uint64_t value) {
    return value < 0xFFFF0000 ? value % 5000 : FLUX_MAX_SEQUENCE + 2 - (value & 0xFFFF) % 3000;
}

/* What a door lets through as a ring's first sequence. */
static inline uint64_t fuzz_possible(uint64_t sequence) {
    return sequence == 0 ? 1 : sequence > FLUX_MAX_SEQUENCE ? FLUX_MAX_SEQUENCE : sequence;
}

static void fuzz_check_ring(const flux_ring *ring) {
    uint64_t pairs[64], before = ring->contiguous;
    uint8_t *out = malloc(ring->capacity * ring->row_size);
    FUZZ_HOLDS(ring->first <= ring->contiguous + 1 && ring->contiguous <= ring->top);
    FUZZ_HOLDS(ring->top + 1 - ring->first <= ring->capacity && ring->top <= FLUX_MAX_SEQUENCE);
    uint64_t n = flux_ring_copy(ring, ring->first, ring->capacity, out);
    FUZZ_HOLDS(n == ring->contiguous + 1 - ring->first);
    for (uint64_t i = 0; i < n; i++) {
        uint64_t said;
        memcpy(&said, out + i * ring->row_size, 8);
        FUZZ_HOLDS(said >> 1 == ring->first + i);
    }
    uint32_t gaps = flux_ring_gaps(ring, pairs, 32);
    for (uint32_t i = 0; i < gaps; i++) {
        FUZZ_HOLDS(pairs[2 * i] > before && pairs[2 * i] <= pairs[2 * i + 1] && pairs[2 * i + 1] < ring->top);
        FUZZ_HOLDS(i ? pairs[2 * i] > before + 1 : pairs[0] == before + 1);
        before = pairs[2 * i + 1];
    }
    FUZZ_HOLDS(gaps > 0 || ring->top == ring->contiguous);
    free(out);
}

static void fuzz_ring_place(flux_ring *ring, uint64_t start, uint32_t n, uint64_t variant) {
    uint8_t *rows = malloc((size_t)n * ring->row_size + 1);
    uint64_t sum = ring->duplicates + ring->conflicts + ring->beyond + ring->stale;
    flux_placed placed;
    memset(rows, 0, (size_t)n * ring->row_size);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t said = (start + i) << 1 | variant;
        memcpy(rows + (size_t)i * ring->row_size, &said, 8);
    }
    flux_ring_place(ring, start, rows, n, &placed);
    FUZZ_HOLDS(placed.placed + placed.duplicates + placed.conflicts + placed.beyond + placed.stale == n);
    sum += placed.duplicates + placed.conflicts + placed.beyond + placed.stale;
    FUZZ_HOLDS(sum == ring->duplicates + ring->conflicts + ring->beyond + ring->stale);
    free(rows);
}

static void fuzz_ring_run(const uint8_t *input, size_t size) {
    static const uint32_t sizes[] = {8, 40, 64, 64};
    fuzz_reader r = {input, input + size};
    flux_ring ring;
    uint64_t capacity = UINT64_C(1) << fuzz_take(&r, 1) % 10;
    uint8_t how = (uint8_t)fuzz_take(&r, 1);
    fuzz_ring_open(&ring, capacity, sizes[how & 3], how & 4);
    for (unsigned ops = 0; r.at < r.end && ops < 200; ops++) {
        uint8_t what = (uint8_t)fuzz_take(&r, 1);
        uint64_t sequence = fuzz_sequence(fuzz_take(&r, 4)), n = fuzz_take(&r, 2) % FUZZ_RING_ROWS;
        uint64_t next = what & 128 ? ring.contiguous + 1 : sequence; /* half of the time in order */
        uint8_t *out;
        switch (what & 7) {
        case 0: flux_ring_reset(&ring, fuzz_possible(sequence)); break;
        case 1: flux_ring_skip(&ring, fuzz_possible(next + n % 64)); break;
        case 2: flux_ring_store(&ring.keep, what & 64 ? FLUX_RING_FREE : sequence); break;
        case 3:
            out = malloc(n * ring.row_size + 1);
            FUZZ_HOLDS(flux_ring_copy(&ring, next, n, out) <= n);
            free(out);
            break;
        default: fuzz_ring_place(&ring, next, (uint32_t)n, what >> 3 & 1);
        }
        fuzz_check_ring(&ring);
    }
    fuzz_ring_close(&ring);
}

/* Small steps: most rows land near each other. */
static size_t fuzz_ring_make(uint8_t *out) {
    size_t size = 2;
    out[0] = (uint8_t)fuzz_below(10);
    out[1] = (uint8_t)fuzz_below(8);
    for (size_t ops = 1 + fuzz_below(40); ops; ops--, size += 7) {
        uint32_t sequence = (uint32_t)(fuzz_one_in(12) ? 0xFFFF0000 + fuzz_below(65536) : fuzz_below(700));
        uint16_t n = (uint16_t)(fuzz_one_in(6) ? fuzz_below(FUZZ_RING_ROWS) : 1 + fuzz_below(40));
        out[size] = (uint8_t)(fuzz_one_in(5) ? fuzz_next() : fuzz_next() | 4);
        memcpy(out + size + 1, &sequence, 4);
        memcpy(out + size + 5, &n, 2);
    }
    return size;
}

/* ---- admit: | kind u8 | where the run of rows looked back over is cut in two u8 | rows; the last is judged ---- */

static void fuzz_admit_run(const uint8_t *input, size_t size) {
    if (size < 2) return;
    int kind = 1 + input[0] % 3;
    uint32_t row = flux_row_size(kind), flags = 0;
    uint64_t n = (size - 2) / row;
    if (n == 0) return;
    uint8_t *rows = fuzz_exact(input + 2, n * row, 7), one[64]; /* a row of its own is aligned in the callers too */
    memcpy(one, rows + (n - 1) * row, row);
    uint64_t cut = input[1] % n;
    flux_span spans[2] = {{rows + cut * row, n - 1 - cut}, {rows, cut}};
    int fault = flux_row_fault(kind, one), found = flux_look_back(kind, one, spans, 2);
    FUZZ_HOLDS(fault == 0 || (fault >= FLUX_ADMIT_NOT_FINITE && fault < FLUX_ADMIT_OUTCOMES));
    FUZZ_HOLDS(found >= FLUX_ADMIT_NEW && found <= FLUX_ADMIT_LATE);
    FUZZ_HOLDS(kind == FLUX_ROWS_QUOTE ? found <= FLUX_ADMIT_REPEAT : found != FLUX_ADMIT_NEW);
    memcpy(&flags, one + row - 4, 4);
    flags = flux_admitted_flags(kind, flags, found);
    FUZZ_HOLDS(kind != FLUX_ROWS_CANDLE || !(flags & ~FLUX_CANDLE_FLAGS));
    flux_flag_row(kind, one, found);
    FUZZ_HOLDS(flux_row_same(kind, one, rows + (n - 1) * row));
    fuzz_release(rows);
}

static size_t fuzz_admit_make(uint8_t *out) {
    size_t kind = fuzz_below(3), n = 1 + fuzz_below(20), row = kind ? 40 : 64;
    out[0] = (uint8_t)kind;
    out[1] = (uint8_t)fuzz_next();
    for (size_t i = 0; i < n; i++) {
        int64_t when = FLUX_TIME_FIRST_MS + (int64_t)fuzz_below(8);
        flux_candle c = {kind ? when * 1000000 : when, 2, 3, 1, 2, 4, 5, 6, FLUX_CLOSED};
        memcpy(out + 2 + i * row, &c, row);
    }
    return 2 + n * row;
}

#endif
