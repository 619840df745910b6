/* gcc calls the first of these at every basic block of what -fsanitize-coverage=trace-pc built; this file is built
 * without it, and without sanitizers. */
#include "coverage.h"

#include <string.h>

static uint8_t edges[FUZZ_EDGES];

void __sanitizer_cov_trace_pc(void) {
    static uintptr_t before;
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    here = (here ^ here >> 16) * 2654435761u;
    edges[(before ^ here) & (FUZZ_EDGES - 1)] = 1;
    before = here >> 1;
}

void fuzz_cover_begin(void) { memset(edges, 0, sizeof edges); }

int fuzz_cover_end(fuzz_ground *ground) {
    unsigned long before = ground->edges;
    for (unsigned i = 0; i < FUZZ_EDGES; i += 8) {
        uint64_t word;
        memcpy(&word, edges + i, 8);
        for (unsigned k = i; word && k < i + 8; k++)
            if (edges[k] && !ground->seen[k]) ground->seen[k] = 1, ground->edges++;
    }
    return ground->edges > before;
}
