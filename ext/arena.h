/* Where rings keep their rows: an arena, which gives all memory back when its last ring goes.
 *
 *   long rings: one memfd, mapped twice in a row, so that any window is one piece
 *
 *       rows ──► [ 0  1  2  ...  capacity-1 ][ 0  1  2  ...  capacity-1 ]      the same pages, seen twice
 *
 *   all others, and those that cannot be mapped: a slot of a chunk; all slots of a chunk have one size
 *
 *       chunk ─► [ rows of slot 0 | rows of slot 1 | ... ][ bitmap 0 | bitmap 1 | ... ]      rows 64-byte aligned
 *
 * A mapped ring costs the kernel two of the 65,530 mappings that a process may have, so there is a limit to their
 * number, counted over all arenas of the process; chunks lie side by side and count as few. Pages are zero and cost
 * nothing until they are touched; a page touched through both mappings stands twice in RSS and once in memory.
 *
 * No locks: rings are made and freed one at a time (under the GIL). */
#ifndef FLUX_ARENA_H
#define FLUX_ARENA_H

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring.h"

#define FLUX_CHUNK_SIZE ((size_t)1 << 20) /* bytes of a chunk, unless one ring needs more */

typedef struct flux_chunk {
    struct flux_chunk *next, *before; /* chunks of the same size that have a free slot */
    struct flux_slot_size *size;
    uint8_t *memory;
    size_t memory_size;
    uint32_t slots, used;
    uint32_t fresh;         /* slots from this one on were never used */
    uint32_t returned;      /* entries of `free` */
    uint32_t free[];        /* slots that were used and given back */
} flux_chunk;

typedef struct flux_slot_size { /* a kind of ring, by the bytes it takes */
    struct flux_slot_size *next;
    size_t rows_size, bitmap_size;
    flux_chunk *open; /* chunks with a free slot */
} flux_slot_size;

typedef struct {
    flux_slot_size *sizes;
    uint64_t map_rows;   /* rings of so many rows or more are mapped */
    uint32_t map_limit;  /* so many of them, in all arenas that share `mapped` */
    uint32_t *mapped;
    uint64_t rings;
    uint64_t size;       /* bytes taken from the system for rows and bitmaps; a mapped ring's rows count once */
} flux_arena;

static inline void flux_arena_init(flux_arena *arena, uint64_t map_rows, uint32_t map_limit, uint32_t *mapped) {
    memset(arena, 0, sizeof *arena);
    arena->map_rows = map_rows;
    arena->map_limit = map_limit;
    arena->mapped = mapped;
}

/* After the last ring has gone. */
static inline void flux_arena_free(flux_arena *arena) {
    while (arena->sizes) {
        flux_slot_size *size = arena->sizes;
        arena->sizes = size->next;
        free(size);
    }
}

/* ------------------------------------------------------------------ mapped twice */

/* `size` bytes twice in a row, or NULL: no whole pages, or a limit of the system (descriptors, mappings, address space,
 * file size). */
static inline uint8_t *flux_map_twice(size_t size) {
#ifdef MFD_CLOEXEC
    uint8_t *at;
    int descriptor;
    if (size % (size_t)sysconf(_SC_PAGESIZE)) return NULL;
    descriptor = memfd_create("flux-ring", MFD_CLOEXEC);
    if (descriptor < 0) return NULL;
    /* Room for both first, so that the second cannot meet anything of somebody else's. */
    at = (uint8_t *)mmap(NULL, 2 * size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        at = NULL;
    } else if (ftruncate(descriptor, (off_t)size) != 0 ||
               mmap(at, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, 0) == MAP_FAILED ||
               mmap(at + size, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, 0) == MAP_FAILED) {
        munmap(at, 2 * size);
        at = NULL;
    }
    close(descriptor); /* the mappings keep the memory */
    return at;
#else
    (void)size;
    return NULL;
#endif
}

static inline int flux_arena_map(flux_arena *arena, flux_ring *ring, uint64_t capacity, uint32_t row_size) {
    size_t size = (size_t)capacity * row_size;
    uint64_t *present;
    uint8_t *rows;
    if (capacity < arena->map_rows || *arena->mapped >= arena->map_limit) return -1;
    present = (uint64_t *)calloc(1, flux_ring_bitmap_size(capacity));
    rows = present ? flux_map_twice(size) : NULL;
    if (!rows) {
        free(present);
        return -1;
    }
    flux_ring_adopt(ring, rows, present, capacity, 2 * capacity, row_size, 1);
    arena->size += size + flux_ring_bitmap_size(capacity);
    ++*arena->mapped;
    return 0;
}

static inline void flux_arena_unmap(flux_arena *arena, flux_ring *ring) {
    size_t size = (size_t)ring->capacity * ring->row_size;
    munmap(ring->rows, 2 * size);
    free(ring->present);
    arena->size -= size + flux_ring_bitmap_size(ring->capacity);
    --*arena->mapped;
}

/* ------------------------------------------------------------------ slots of chunks */

static inline flux_slot_size *flux_arena_slot_size(flux_arena *arena, size_t rows_size, size_t bitmap_size) {
    flux_slot_size *size = arena->sizes;
    while (size && (size->rows_size != rows_size || size->bitmap_size != bitmap_size)) size = size->next;
    if (size) return size;
    size = (flux_slot_size *)malloc(sizeof *size);
    if (!size) return NULL;
    *size = (flux_slot_size){arena->sizes, rows_size, bitmap_size, NULL};
    return arena->sizes = size;
}

/* Among the chunks with a free slot; out of them again. */
static inline void flux_chunk_open(flux_chunk *chunk) {
    chunk->before = NULL;
    chunk->next = chunk->size->open;
    if (chunk->next) chunk->next->before = chunk;
    chunk->size->open = chunk;
}

static inline void flux_chunk_shut(flux_chunk *chunk) {
    if (chunk->before)
        chunk->before->next = chunk->next;
    else
        chunk->size->open = chunk->next;
    if (chunk->next) chunk->next->before = chunk->before;
}

static inline flux_chunk *flux_chunk_make(flux_arena *arena, flux_slot_size *size) {
    size_t each = size->rows_size + size->bitmap_size, page = (size_t)sysconf(_SC_PAGESIZE);
    size_t slots = each < FLUX_CHUNK_SIZE ? FLUX_CHUNK_SIZE / each : 1;
    flux_chunk *chunk = (flux_chunk *)malloc(sizeof *chunk + slots * sizeof chunk->free[0]);
    if (!chunk) return NULL;
    memset(chunk, 0, sizeof *chunk);
    chunk->size = size;
    chunk->slots = (uint32_t)slots;
    chunk->memory_size = (slots * each + page - 1) & ~(page - 1);
    chunk->memory =
        (uint8_t *)mmap(NULL, chunk->memory_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chunk->memory == MAP_FAILED) {
        free(chunk);
        return NULL;
    }
    arena->size += chunk->memory_size;
    flux_chunk_open(chunk);
    return chunk;
}

static inline int flux_arena_slot(flux_arena *arena, flux_ring *ring, uint64_t capacity, uint32_t row_size) {
    size_t rows_size = ((size_t)capacity * row_size + 63) & ~(size_t)63, bitmap_size = flux_ring_bitmap_size(capacity);
    flux_slot_size *size = flux_arena_slot_size(arena, rows_size, bitmap_size);
    flux_chunk *chunk = size ? size->open : NULL;
    uint32_t slot;
    uint8_t *present;
    if (size && !chunk) chunk = flux_chunk_make(arena, size);
    if (!chunk) return -1;
    slot = chunk->returned ? chunk->free[--chunk->returned] : chunk->fresh++;
    present = chunk->memory + chunk->slots * rows_size + slot * bitmap_size;
    memset(present, 0, bitmap_size);
    if (++chunk->used == chunk->slots) flux_chunk_shut(chunk);
    flux_ring_adopt(ring, chunk->memory + slot * rows_size, (uint64_t *)(void *)present, capacity, capacity, row_size,
                    1);
    ring->memory = chunk;
    return 0;
}

static inline void flux_arena_unslot(flux_arena *arena, flux_ring *ring) {
    flux_chunk *chunk = (flux_chunk *)ring->memory;
    if (chunk->used-- == chunk->slots) flux_chunk_open(chunk);
    chunk->free[chunk->returned++] = (uint32_t)((size_t)(ring->rows - chunk->memory) / chunk->size->rows_size);
    if (chunk->used) return;
    flux_chunk_shut(chunk);
    munmap(chunk->memory, chunk->memory_size);
    arena->size -= chunk->memory_size;
    free(chunk);
}

/* ------------------------------------------------------------------ rings */

/* Memory for a ring that begins at sequence 1. 0, or -1: a capacity that is no power of two, a row size of 0, or no
 * memory. */
static inline int flux_arena_ring(flux_arena *arena, flux_ring *ring, uint64_t capacity, uint32_t row_size) {
    memset(ring, 0, sizeof *ring);
    if (capacity == 0 || (capacity & (capacity - 1)) || row_size == 0 || capacity > (UINT64_MAX >> 4) / row_size)
        return -1;
    if (flux_arena_map(arena, ring, capacity, row_size) != 0 &&
        flux_arena_slot(arena, ring, capacity, row_size) != 0)
        return -1;
    arena->rings++;
    return 0;
}

/* Give a ring's memory back; for one that never got any, nothing. */
static inline void flux_arena_release(flux_arena *arena, flux_ring *ring) {
    if (!ring->rows) return;
    if (ring->memory)
        flux_arena_unslot(arena, ring);
    else
        flux_arena_unmap(arena, ring);
    arena->rings--;
    memset(ring, 0, sizeof *ring);
}

#endif
