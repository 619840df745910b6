/* What is counted: an operation done n times, and a look at what came of it, which is not counted.
 *
 *   START ── warm(n) ──│ n times ├── dump "NAME 1" ──│ 3 n times ├── dump "NAME 3" ── right?
 *                      └ counted ┘                   └  counted  ┘
 *
 * One operation costs (second - first) / 2 n: what is around it cancels out. */
#ifndef GATE_WORK_H
#define GATE_WORK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <valgrind/callgrind.h>

typedef struct {
    const char *name;
    uint32_t n;            /* operations in the first count */
    void (*work)(uint32_t n);
    int (*right)(uint64_t done); /* after all counts: is the result what `done` operations must give */
} gate_work;

static inline int gate_count(const gate_work *w) {
    char first[64], second[64];
    uint32_t n = w->n;
    snprintf(first, sizeof first, "%s %u", w->name, n);
    snprintf(second, sizeof second, "%s %u", w->name, 3 * n);
    w->work(n);
    CALLGRIND_ZERO_STATS;
    CALLGRIND_TOGGLE_COLLECT;
    w->work(n);
    CALLGRIND_TOGGLE_COLLECT;
    CALLGRIND_DUMP_STATS_AT(first);
    CALLGRIND_TOGGLE_COLLECT;
    w->work(3 * n);
    CALLGRIND_TOGGLE_COLLECT;
    CALLGRIND_DUMP_STATS_AT(second);
    if (w->right(5 * (uint64_t)n)) return 0;
    printf("wrong: %s\n", w->name);
    return 1;
}

#endif
