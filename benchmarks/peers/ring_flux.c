/* The ring's own loops in C, on rings that Python made (their addresses): what a call costs without Python around it. */
#include "../../ext/ring.h"

#include <time.h>

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Places one row in order in each of the rings, so many rounds; ns for all of it, -1 when a row was not placed. */
int64_t place_in_order(flux_ring *const *rings, uint32_t count, const void *row, uint32_t rounds) {
    uint64_t placed = 0;
    int64_t start = now_ns();
    for (uint32_t round = 0; round < rounds; round++)
        for (uint32_t i = 0; i < count; i++) {
            flux_placed out;
            flux_ring_place(rings[i], rings[i]->contiguous + 1, row, 1, &out);
            placed += out.placed;
        }
    int64_t taken = now_ns() - start;
    return placed == (uint64_t)count * rounds ? taken : -1;
}

/* What memory itself takes: `touches` lines of 64 bytes a row, written at random places of `lines` (a power of two) in
 * all. ns for all rows. */
int64_t random_lines(uint8_t *memory, uint64_t lines, uint32_t touches, uint32_t rows) {
    uint64_t at = 88172645463325252u;
    int64_t start = now_ns();
    for (uint64_t i = 0; i < (uint64_t)rows * touches; i++) {
        at = at * 6364136223846793005u + 1442695040888963407u;
        memset(memory + (at >> 33 & (lines - 1)) * 64, (int)i, 64);
    }
    return now_ns() - start;
}
