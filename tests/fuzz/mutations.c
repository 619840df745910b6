/* The mutations of frames, for Python: tests/fuzz/decoding.py. */
#include "frames.h"

uint64_t fuzz_state = 1;

void fuzz_seed(uint64_t seed) { fuzz_state = seed * 2 + 1; }

/* One frame of `size` bytes in a block of `most`, changed in place; its new size. */
size_t fuzz_mutate(uint8_t *frame, size_t size, size_t most) { return fuzz_mutate_frame(frame, size, most); }
