/* Which ground a run covered: edges between basic blocks, by a hash. */
#ifndef FUZZ_COVERAGE_H
#define FUZZ_COVERAGE_H

#include <stdint.h>

enum { FUZZ_EDGES = 1 << 14 };

typedef struct { /* of all runs of a target */
    uint8_t seen[FUZZ_EDGES];
    unsigned long edges;
} fuzz_ground;

void fuzz_cover_begin(void);

/* Adds what was covered since fuzz_cover_begin(); 1 when something of it is new. */
int fuzz_cover_end(fuzz_ground *ground);

#endif
