/* What every target of the fuzzer shares: chance, the frames of the corpus, and blocks that end where they say.
 *
 *   seed ──► make() ──► pool ──► mutate() ──► run() ──► new ground covered? ──► pool
 *                                             └► a sanitizer's report, or FUZZ_HOLDS that does not hold: abort
 *
 * An input is a string of bytes and says all: run() asks no chance of its own, so that what made it fail once does so
 * again. It is copied to a block of its very size, so that one byte read behind it is caught. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FUZZ_INPUT_MAX = 1 << 16 };

#define FUZZ_HOLDS(claim)                                                           \
    do {                                                                            \
        if (!(claim)) {                                                             \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #claim); \
            abort();                                                                \
        }                                                                           \
    } while (0)

typedef struct {
    const char *name;
    size_t (*make)(uint8_t *out);                   /* a first input; its size */
    size_t (*mutate)(uint8_t *input, size_t size);  /* in place, within FUZZ_INPUT_MAX; the new size */
    void (*run)(const uint8_t *input, size_t size); /* whatever the input: no report */
} fuzz_target;

extern uint64_t fuzz_state;

static inline uint64_t fuzz_next(void) { /* xorshift64 */
    fuzz_state ^= fuzz_state << 13;
    fuzz_state ^= fuzz_state >> 7;
    return fuzz_state ^= fuzz_state << 17;
}

static inline size_t fuzz_below(size_t n) { return n ? (size_t)(fuzz_next() % n) : 0; }
static inline int fuzz_one_in(unsigned n) { return fuzz_below(n) == 0; }

/* Integers at which code likes to go wrong; now and then any. */
static inline uint64_t fuzz_number(void) {
    static const uint64_t edges[] = {0, 1, 2, 3, 4, 7, 8, 63, 64, 127, 255, 256, 65535, 65536, 0x7FFFFFFF, 0x80000000,
                                     0xFFFFFFFC, 0xFFFFFFFF, INT64_MAX - 1, INT64_MAX, UINT64_MAX - 1, UINT64_MAX};
    uint64_t value = edges[fuzz_below(sizeof edges / sizeof *edges)];
    return fuzz_one_in(8) ? fuzz_next() : fuzz_one_in(8) ? value - fuzz_below(4) : value;
}

static inline void fuzz_fill(uint8_t *out, size_t size) {
    while (size--) *out++ = (uint8_t)(fuzz_next() >> 32);
}

/* ---- frames of the corpus ---- */

typedef struct {
    uint8_t *data;
    size_t size;
} fuzz_frame;

enum { FUZZ_FRAMES_MAX = 4096 };

extern fuzz_frame fuzz_frames[FUZZ_FRAMES_MAX];
extern unsigned fuzz_frame_count;

/* ---- blocks ---- */

/* A copy in a block of `size` bytes, `shift` (0..7) behind an address at 0 mod 8; given back by fuzz_release(). */
static inline uint8_t *fuzz_exact(const uint8_t *data, size_t size, unsigned shift) {
    uint8_t *block = malloc(size + shift + 1);
    block[shift] = (uint8_t)shift; /* the byte before says how far the block's start is */
    if (size) memcpy(block + shift + 1, data, size);
    return block + shift + 1;
}

static inline void fuzz_release(uint8_t *exact) { free(exact - 1 - exact[-1]); }

/* ---- inputs that are read as a program ---- */

typedef struct {
    const uint8_t *at, *end;
} fuzz_reader;

/* The next `size` bytes as an integer; 0 behind the end. */
static inline uint64_t fuzz_take(fuzz_reader *r, unsigned size) {
    uint64_t value = 0;
    if ((size_t)(r->end - r->at) < size) {
        r->at = r->end;
        return 0;
    }
    memcpy(&value, r->at, size);
    r->at += size;
    return value;
}

/* The plain mutations: for programs, and for what the structured ones leave out. */
static inline size_t fuzz_scramble(uint8_t *input, size_t size) {
    for (size_t times = 1 + fuzz_below(4); times; times--) {
        size_t at = fuzz_below(size), n = 1 + fuzz_below(16);
        uint64_t value = fuzz_number();
        switch (size < 2 ? 4 : fuzz_below(6)) {
        case 0: input[at] ^= (uint8_t)(1 << fuzz_below(8)); break;
        case 1: input[at] = (uint8_t)fuzz_next(); break;
        case 2: /* an integer of some width, most of them aligned */
            n = (size_t)1 << fuzz_below(4);
            if (!fuzz_one_in(4)) at -= at % n;
            if (at + n <= size) memcpy(input + at, &value, n);
            break;
        case 3: /* a piece goes */
            if (n > size - at) n = size - at;
            memmove(input + at, input + at + n, size - at - n);
            size -= n;
            break;
        case 4: /* a piece comes */
            if (size + n > FUZZ_INPUT_MAX) break;
            memmove(input + at + n, input + at, size - at);
            fuzz_fill(input + at, n);
            size += n;
            break;
        default: /* a piece comes from elsewhere in the input */
            if (n > size - at) n = size - at;
            memmove(input + at, input + fuzz_below(size - n + 1), n);
        }
    }
    return size;
}

#endif
