/* Rings whose memory ends where it must: each in blocks of its very size, or mapped twice as long rings are. */
#ifndef FUZZ_RINGS_H
#define FUZZ_RINGS_H

#include "arena.h"
#include "fuzz.h"

static uint32_t fuzz_mapped;
static flux_arena fuzz_arena;

/* Mapped where `mapped` is set and the rows are whole pages. */
static inline void fuzz_ring_open(flux_ring *ring, uint64_t capacity, uint32_t row_size, int mapped) {
    void *rows;
    if (mapped && capacity * row_size % 4096 == 0) {
        if (!fuzz_arena.mapped) flux_arena_init(&fuzz_arena, 1, 64, &fuzz_mapped);
        FUZZ_HOLDS(!flux_arena_ring(&fuzz_arena, ring, capacity, row_size));
        FUZZ_HOLDS(ring->reach == 2 * capacity);
        return;
    }
    FUZZ_HOLDS(!posix_memalign(&rows, 64, capacity * row_size));
    flux_ring_adopt(ring, rows, calloc(1, flux_ring_bitmap_size(capacity)), capacity, capacity, row_size, 1);
}

static inline void fuzz_ring_close(flux_ring *ring) {
    if (ring->reach > ring->capacity) {
        flux_arena_release(&fuzz_arena, ring);
        return;
    }
    free(ring->rows);
    free(ring->present);
}

#endif
