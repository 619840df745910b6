/* The ring: the last rows of one stream, addressed by sequence.
 *
 *            first                contiguous              top            floor + capacity
 *              |                      |                    |                    |
 *   ..evicted [#######################] . . [###] . . [####] . . . . . . . . . .|..beyond
 *   stale      every row is here       \_ gaps between runs that came early
 *
 * Row of sequence s lies in slot s & (capacity - 1), so no row ever moves. Where the rows are mapped twice in a row
 * (ext/arena.h), slot `capacity` is slot 0 again: then `reach` is twice the capacity and any window is one piece;
 * elsewhere `reach` is the capacity, and a window that wraps is two. Nothing else differs. Up to `contiguous` presence needs no
 * record; a bit in `present` stands only for a row *beyond* it, and is cleared when the mark passes over it. A batch
 * in order therefore costs one memcpy and two marks.
 *
 * What is evicted: the oldest, when a row past first + capacity - 1 is placed, and never above
 * floor = min(keep, contiguous): a row nobody has kept and a hole not yet filled stay. What does not fit is `beyond`.
 *
 * One thread places. Others may copy at the same time: the writer moves `first` *before* it overwrites, the reader
 * looks at `first` *after* it has copied; `resets` (odd while a reset runs) tells of a ring that began anew. */
#ifndef FLUX_RING_H
#define FLUX_RING_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FLUX_MAX_SEQUENCE ((uint64_t)INT64_MAX)
#define FLUX_RING_FREE UINT64_MAX /* keep: everything contiguous may be evicted */

typedef struct {
    uint8_t *rows;       /* capacity rows of row_size bytes, 64-byte aligned */
    uint64_t *present;   /* one bit per slot, set for rows beyond the contiguous mark only */
    uint64_t capacity;   /* rows, a power of two */
    uint64_t reach;      /* slots that can be addressed in a row: 2 * capacity when mapped twice, else capacity */
    uint32_t row_size;   /* bytes */
    uint64_t first;      /* oldest sequence kept */
    uint64_t contiguous; /* every sequence first..contiguous is here; first - 1 when none */
    uint64_t top;        /* highest sequence here; contiguous when none beyond */
    uint64_t keep;       /* sequences > keep may not be evicted; may be stored by another thread */
    uint64_t resets;     /* twice the number of resets, odd while one runs */
    uint64_t duplicates, conflicts, beyond, stale; /* rows, since the ring was made */
    void *memory;        /* the arena's chunk, or what flux_ring_init allocated; NULL when mapped, or somebody else's */
} flux_ring;

typedef struct {
    uint32_t placed, duplicates, conflicts, beyond, stale; /* rows of one call; their sum is n */
} flux_placed;

static inline uint64_t flux_ring_load(const uint64_t *mark) { return __atomic_load_n(mark, __ATOMIC_ACQUIRE); }
static inline void flux_ring_store(uint64_t *mark, uint64_t value) {
    __atomic_store_n(mark, value, __ATOMIC_RELEASE);
}

/* Bytes of the bitmap. */
static inline size_t flux_ring_bitmap_size(uint64_t capacity) { return (size_t)((capacity + 63) / 64 * 8); }

/* Give the ring its memory (rows 64-byte aligned, bitmap zeroed by its owner) and begin at sequence `first`. */
static inline void flux_ring_adopt(flux_ring *ring, uint8_t *rows, uint64_t *present, uint64_t capacity,
                                   uint64_t reach, uint32_t row_size, uint64_t first) {
    memset(ring, 0, sizeof *ring);
    ring->rows = rows;
    ring->present = present;
    ring->capacity = capacity;
    ring->reach = reach;
    ring->row_size = row_size;
    ring->first = first;
    ring->contiguous = ring->top = first - 1;
    ring->keep = FLUX_RING_FREE;
}

static inline uint8_t *flux_ring_row(const flux_ring *ring, uint64_t sequence) {
    return ring->rows + (sequence & (ring->capacity - 1)) * ring->row_size;
}

/* How many of the n rows from `sequence` on lie in one piece. n <= capacity. */
static inline uint64_t flux_ring_piece(const flux_ring *ring, uint64_t sequence, uint64_t n) {
    uint64_t piece = ring->reach - (sequence & (ring->capacity - 1));
    return piece < n ? piece : n;
}

/* A ring of its own, one allocation, for C that has no arena: a sanitizer sees where it ends. It begins at sequence 1.
 * 0, or -1: a capacity that is no power of two, a row size of 0, or no memory. */
static inline int flux_ring_init(flux_ring *ring, uint64_t capacity, uint32_t row_size) {
    size_t rows_size, bitmap_size;
    uint8_t *memory;
    memset(ring, 0, sizeof *ring);
    if (capacity == 0 || (capacity & (capacity - 1)) || row_size == 0 || capacity > (UINT64_MAX >> 4) / row_size)
        return -1;
    rows_size = ((size_t)capacity * row_size + 63) & ~(size_t)63;
    bitmap_size = (flux_ring_bitmap_size(capacity) + 63) & ~(size_t)63;
    memory = (uint8_t *)aligned_alloc(64, rows_size + bitmap_size);
    if (!memory) return -1;
    memset(memory + rows_size, 0, bitmap_size);
    flux_ring_adopt(ring, memory, (uint64_t *)(void *)(memory + rows_size), capacity, capacity, row_size, 1);
    ring->memory = memory;
    return 0;
}

/* Of a ring that flux_ring_init made. */
static inline void flux_ring_free(flux_ring *ring) {
    free(ring->memory);
    memset(ring, 0, sizeof *ring);
}

/* Forget all rows and begin at `first` (>= 1). The counters stay; a keep that is not FREE becomes first - 1. */
static inline void flux_ring_reset(flux_ring *ring, uint64_t first) {
    flux_ring_store(&ring->resets, ring->resets + 1);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memset(ring->present, 0, flux_ring_bitmap_size(ring->capacity));
    if (ring->keep != FLUX_RING_FREE) flux_ring_store(&ring->keep, first - 1);
    flux_ring_store(&ring->first, first);
    flux_ring_store(&ring->contiguous, first - 1);
    ring->top = first - 1;
    flux_ring_store(&ring->resets, ring->resets + 1);
}

/* How many bits from `sequence` on, at most n (>= 1), are as its own; *here says which. n <= capacity. */
static inline uint64_t flux_ring_bits_run(const flux_ring *ring, uint64_t sequence, uint64_t n, int *here) {
    uint64_t done = 0, slot = sequence & (ring->capacity - 1);
    *here = (int)(ring->present[slot >> 6] >> (slot & 63) & 1);
    while (done < n) {
        uint64_t offset = slot & 63, span = 64 - offset, word = ring->present[slot >> 6] >> offset, run;
        if (span > ring->capacity - slot) span = ring->capacity - slot;
        if (span > n - done) span = n - done;
        if (*here) word = ~word;
        run = word ? (uint64_t)__builtin_ctzll(word) : 64;
        if (run < span) return done + run;
        done += span;
        slot = (slot + span) & (ring->capacity - 1);
    }
    return n;
}

/* Set (or clear) the bits of n sequences, a word at a time. n <= capacity. */
static inline void flux_ring_bits_fill(flux_ring *ring, uint64_t sequence, uint64_t n, int value) {
    uint64_t slot = sequence & (ring->capacity - 1);
    while (n) {
        uint64_t offset = slot & 63, span = 64 - offset, mask;
        if (span > ring->capacity - slot) span = ring->capacity - slot;
        if (span > n) span = n;
        mask = (span == 64 ? UINT64_MAX : ((uint64_t)1 << span) - 1) << offset;
        if (value)
            ring->present[slot >> 6] |= mask;
        else
            ring->present[slot >> 6] &= ~mask;
        n -= span;
        slot = (slot + span) & (ring->capacity - 1);
    }
}

/* The copy into the ring: the only one a row sees between a frame and its reader's own. n <= capacity. */
static inline void flux_ring_write(flux_ring *ring, uint64_t sequence, const uint8_t *rows, uint64_t n) {
    uint64_t head = flux_ring_piece(ring, sequence, n);
    memcpy(flux_ring_row(ring, sequence), rows, head * ring->row_size);
    if (n > head) memcpy(ring->rows, rows + head * ring->row_size, (n - head) * ring->row_size);
}

/* How many of n rows that are already here have the same bytes. n <= capacity. */
static inline uint64_t flux_ring_same(const flux_ring *ring, uint64_t sequence, const uint8_t *rows, uint64_t n) {
    uint64_t head = flux_ring_piece(ring, sequence, n), same = 0, i;
    size_t size = ring->row_size;
    if (memcmp(flux_ring_row(ring, sequence), rows, head * size) == 0 &&
        (n == head || memcmp(ring->rows, rows + head * size, (n - head) * size) == 0))
        return n;
    for (i = 0; i < n; i++) same += memcmp(flux_ring_row(ring, sequence + i), rows + i * size, size) == 0;
    return same;
}

static inline void flux_ring_compare(flux_ring *ring, uint64_t sequence, const uint8_t *rows, uint64_t n,
                                     flux_placed *out) {
    uint64_t same = flux_ring_same(ring, sequence, rows, n);
    out->duplicates += (uint32_t)same;
    out->conflicts += (uint32_t)(n - same);
}

/* Move the contiguous mark to `last`, and over the rows that came early and now join it. */
static inline void flux_ring_advance(flux_ring *ring, uint64_t last) {
    if (ring->top > last) {
        int here;
        uint64_t run = flux_ring_bits_run(ring, last + 1, ring->top - last, &here);
        if (here) {
            flux_ring_bits_fill(ring, last + 1, run, 0);
            last += run;
        }
    } else {
        ring->top = last;
    }
    flux_ring_store(&ring->contiguous, last);
}

/* The highest sequence that a row arriving at `sequence` (above the contiguous mark) and those behind it may have. */
static inline uint64_t flux_ring_limit(const flux_ring *ring, uint64_t sequence) {
    uint64_t floor = flux_ring_load(&ring->keep);
    if (floor < ring->first - 1) floor = ring->first - 1;
    /* Rows that follow the mark directly take it along, so that only `keep` holds them back. */
    if (sequence != ring->contiguous + 1 && floor > ring->contiguous) floor = ring->contiguous;
    return floor > FLUX_MAX_SEQUENCE - ring->capacity ? FLUX_MAX_SEQUENCE : floor + ring->capacity;
}

/* The next run of rows above the contiguous mark, all here or all missing; how many rows it dealt with. */
static inline uint64_t flux_ring_place_above(flux_ring *ring, uint64_t sequence, const uint8_t *rows, uint64_t n,
                                             flux_placed *out) {
    uint64_t limit, fit, last, skip;
    if (sequence <= ring->top) {
        int here;
        if (n > ring->top - sequence + 1) n = ring->top - sequence + 1;
        n = flux_ring_bits_run(ring, sequence, n, &here);
        if (here) {
            flux_ring_compare(ring, sequence, rows, n, out);
            return n;
        }
    }
    limit = flux_ring_limit(ring, sequence);
    fit = sequence > limit ? 0 : limit - sequence + 1;
    if (fit > n) fit = n;
    out->beyond += (uint32_t)(n - fit);
    if (fit == 0) return n;
    out->placed += (uint32_t)fit;
    last = sequence + fit - 1;
    if (last - ring->first >= ring->capacity) {
        flux_ring_store(&ring->first, last - ring->capacity + 1);
        __atomic_thread_fence(__ATOMIC_RELEASE); /* the new `first` is seen before any byte of what replaces it */
    }
    skip = fit > ring->capacity ? fit - ring->capacity : 0; /* rows that this same batch would evict again */
    flux_ring_write(ring, sequence + skip, rows + skip * ring->row_size, fit - skip);
    if (sequence == ring->contiguous + 1) {
        flux_ring_advance(ring, last);
    } else {
        flux_ring_bits_fill(ring, sequence, fit, 1);
        if (last > ring->top) ring->top = last;
    }
    return n;
}

/* Place n rows with the sequences start, start + 1 ...: in any order between calls, repeats and overlaps welcome. The
 * first bytes seen for a sequence stay. A sequence of 0 is stale, one above 2^63-1 beyond. */
static inline void flux_ring_place(flux_ring *ring, uint64_t start, const void *rows, uint32_t n, flux_placed *out) {
    const uint8_t *from = (const uint8_t *)rows;
    uint64_t at = start, left = n, run;
    memset(out, 0, sizeof *out);
    if (start > FLUX_MAX_SEQUENCE) {
        out->beyond = n;
        left = 0;
    }
    while (left) {
        run = left;
        if (at > ring->contiguous) {
            run = flux_ring_place_above(ring, at, from, left, out);
        } else if (at >= ring->first) {
            if (run > ring->contiguous - at + 1) run = ring->contiguous - at + 1;
            flux_ring_compare(ring, at, from, run, out);
        } else {
            if (run > ring->first - at) run = ring->first - at;
            out->stale += (uint32_t)run;
        }
        at += run;
        left -= run;
        from += run * ring->row_size;
    }
    ring->duplicates += out->duplicates;
    ring->conflicts += out->conflicts;
    ring->beyond += out->beyond;
    ring->stale += out->stale;
}

/* Give up everything below `first`, holes included; rows at and above it stay and join the contiguous mark. */
static inline void flux_ring_skip(flux_ring *ring, uint64_t first) {
    if (first <= ring->first) return;
    if (first - 1 > ring->contiguous) {
        uint64_t last = first - 1 < ring->top ? first - 1 : ring->top;
        if (last > ring->contiguous) flux_ring_bits_fill(ring, ring->contiguous + 1, last - ring->contiguous, 0);
        flux_ring_store(&ring->first, first);
        flux_ring_advance(ring, first - 1);
    } else {
        flux_ring_store(&ring->first, first);
    }
}

/* Copy at most n contiguous rows from sequence `from` on into `out`, from any thread. How many: 0 when `from` is no
 * longer, or not yet, here, and when the writer came by meanwhile (then the store has them). */
static inline uint64_t flux_ring_copy(const flux_ring *ring, uint64_t from, uint64_t n, void *out) {
    uint64_t resets = flux_ring_load(&ring->resets), last = flux_ring_load(&ring->contiguous), head;
    size_t size = ring->row_size;
    if ((resets & 1) || from < flux_ring_load(&ring->first) || from > last) return 0;
    if (n > last - from + 1) n = last - from + 1;
    if (n > ring->capacity) n = ring->capacity; /* marks read across a reset need not fit each other */
    head = flux_ring_piece(ring, from, n);
    memcpy(out, flux_ring_row(ring, from), head * size);
    if (n > head) memcpy((uint8_t *)out + head * size, ring->rows, (n - head) * size);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return flux_ring_load(&ring->first) > from || flux_ring_load(&ring->resets) != resets ? 0 : n;
}

/* The missing runs between the contiguous mark and the top, as (first, last) pairs, both inclusive; how many. */
static inline uint32_t flux_ring_gaps(const flux_ring *ring, uint64_t *out_pairs, uint32_t max) {
    uint64_t at = ring->contiguous + 1, run;
    uint32_t count = 0;
    int here;
    for (; at <= ring->top && count < max; at += run) {
        run = flux_ring_bits_run(ring, at, ring->top - at + 1, &here);
        if (here) continue;
        out_pairs[2 * count] = at;
        out_pairs[2 * count + 1] = at + run - 1;
        count++;
    }
    return count;
}

#endif
