/* indicator: see target_indicator.c, which is compiled by itself because grid.h and admit.h each have a flux_span. */
#ifndef TARGET_INDICATOR_H
#define TARGET_INDICATOR_H

#include <stddef.h>
#include <stdint.h>

size_t fuzz_indicator_make(uint8_t *out);
void fuzz_indicator_run(const uint8_t *input, size_t size);

#endif
