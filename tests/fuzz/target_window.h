/* window: see target_window.c, which is compiled by itself because grid.h and admit.h each have a flux_span. */
#ifndef TARGET_WINDOW_H
#define TARGET_WINDOW_H

#include <stddef.h>
#include <stdint.h>

size_t fuzz_window_make(uint8_t *out);
void fuzz_window_run(const uint8_t *input, size_t size);

#endif
