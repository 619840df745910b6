/* callgrind's requests for Python: a library for ctypes. */
#include <valgrind/callgrind.h>

void gate_start(void) { CALLGRIND_START_INSTRUMENTATION; }

void gate_begin(void) {
    CALLGRIND_ZERO_STATS;
    CALLGRIND_TOGGLE_COLLECT;
}

void gate_end(const char *name) {
    CALLGRIND_TOGGLE_COLLECT;
    CALLGRIND_DUMP_STATS_AT(name);
}
