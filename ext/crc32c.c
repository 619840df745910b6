/* CRC-32C in hardware, three lanes at a time, and by table.
 *
 * The crc32 instruction has a latency of three cycles and starts one each cycle, so three independent lanes keep it
 * busy. A block of 3 n words is read as
 *
 *      |-- lane a: n words --|-- lane b: n words --|-- lane c: n words --|
 *
 * and joined by  crc = a x^(128 n) + b x^(64 n) + c  (mod P): two carry-less multiplications. In reflected bits the
 * product of two 32-bit values, read as a 64-bit message, is x a b, and crc32 of a message multiplies by x^32; hence the
 * factor for m words is x^(64 m - 33).
 *
 * Other people's extensions include this file as it is (src/flux/kernels/codec.pxd), so every name in it has a prefix. */
#include "crc32c.h"

#include <string.h>

#define FLUX_LANE_WORDS 128 /* the longest lane: 3 KiB a block */
#define FLUX_LANES_FROM 144 /* bytes; below this one lane is as fast */

static uint32_t flux_crc_table[8][256];
static uint64_t flux_crc_factors[2 * FLUX_LANE_WORDS + 1]; /* flux_crc_factors[m] = x^(64 m - 33) mod P */
static int flux_crc_in_hardware;

static uint32_t flux_crc_step(uint32_t state, uint8_t byte) { return flux_crc_table[0][(state ^ byte) & 0xFF] ^ (state >> 8); }

static void flux_crc_fill(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t state = i;
        for (int bit = 0; bit < 8; bit++)
            state = (state >> 1) ^ (state & 1 ? 0x82F63B78u : 0);
        flux_crc_table[0][i] = state;
    }
    for (int k = 1; k < 8; k++)
        for (uint32_t i = 0; i < 256; i++)
            flux_crc_table[k][i] = flux_crc_step(flux_crc_table[k - 1][i], 0);
    flux_crc_factors[1] = 1; /* x^31: the lowest bit, reflected */
    for (int m = 2; m <= 2 * FLUX_LANE_WORDS; m++) {
        uint32_t state = (uint32_t)flux_crc_factors[m - 1];
        for (int byte = 0; byte < 8; byte++)
            state = flux_crc_step(state, 0);
        flux_crc_factors[m] = state;
    }
}

uint32_t flux_crc32c_table(uint32_t crc, const void *data, size_t size) {
    const uint8_t *at = data;
    uint32_t state = ~crc;
    for (; size >= 8; size -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word ^= state;
        state = 0;
        for (int k = 0; k < 8; k++)
            state ^= flux_crc_table[7 - k][(word >> (8 * k)) & 0xFF];
    }
    while (size--)
        state = flux_crc_step(state, *at++);
    return ~state;
}

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define FLUX_HARDWARE __attribute__((target("sse4.2,pclmul")))

FLUX_HARDWARE static inline uint64_t flux_crc_times(uint64_t state, uint64_t factor) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((int64_t)state), _mm_cvtsi64_si128((int64_t)factor), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

FLUX_HARDWARE static inline uint64_t flux_crc_word(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return word;
}

FLUX_HARDWARE uint32_t flux_crc32c_hardware(uint32_t crc, const void *data, size_t size) {
    const uint8_t *at = data;
    uint64_t state = (uint32_t)~crc;
    while (size >= FLUX_LANES_FROM) {
        size_t words = size / 24 < FLUX_LANE_WORDS ? size / 24 : FLUX_LANE_WORDS;
        const uint8_t *b = at + 8 * words, *c = b + 8 * words;
        uint64_t state_b = 0, state_c = 0;
        for (size_t i = 0; i < words; i++) {
            state = _mm_crc32_u64(state, flux_crc_word(at + 8 * i));
            state_b = _mm_crc32_u64(state_b, flux_crc_word(b + 8 * i));
            state_c = _mm_crc32_u64(state_c, flux_crc_word(c + 8 * i));
        }
        state = flux_crc_times(state, flux_crc_factors[2 * words]) ^ flux_crc_times(state_b, flux_crc_factors[words]) ^ state_c;
        at = c + 8 * words;
        size -= 24 * words;
    }
    for (; size >= 8; size -= 8, at += 8)
        state = _mm_crc32_u64(state, flux_crc_word(at));
    if (size >= 4) {
        uint32_t half;
        memcpy(&half, at, 4);
        state = _mm_crc32_u32((uint32_t)state, half);
        at += 4;
        size -= 4;
    }
    while (size--)
        state = _mm_crc32_u8((uint32_t)state, *at++);
    return ~(uint32_t)state;
}

FLUX_HARDWARE uint32_t flux_crc32c_jump(uint32_t crc, const flux_crc32c_run *run) {
    return ~((uint32_t)flux_crc_times((uint32_t)~crc, run->factor) ^ run->offset);
}

static int flux_crc_has_hardware(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul");
}
#else
uint32_t flux_crc32c_hardware(uint32_t crc, const void *data, size_t size) { return flux_crc32c_table(crc, data, size); }
uint32_t flux_crc32c_jump(uint32_t crc, const flux_crc32c_run *run) { return crc ^ run->offset; /* never: not usable */ }
static int flux_crc_has_hardware(void) { return 0; }
#endif

__attribute__((constructor)) static void flux_crc_choose(void) {
    flux_crc_fill();
    flux_crc_in_hardware = flux_crc_has_hardware();
}

uint32_t flux_crc32c(uint32_t crc, const void *data, size_t size) {
    return flux_crc_in_hardware ? flux_crc32c_hardware(crc, data, size) : flux_crc32c_table(crc, data, size);
}

int flux_crc32c_in_hardware(void) { return flux_crc_in_hardware; }

void flux_crc32c_jump_to(flux_crc32c_run *run, const void *data, size_t size) {
    uint32_t state = 0x01000000u; /* x^7 = x^(8 * 5 - 33) */
    run->usable = flux_crc_in_hardware && size >= 5;
    for (size_t i = 5; i < size; i++)
        state = flux_crc_step(state, 0);
    run->factor = state;
    run->offset = ~flux_crc32c(~0u, data, size);
}
