/* Rows as Arrow: the structs of the C data interface, made by hand, so that nothing of Arrow is needed to give a batch away.
 *
 *   rows, packed                        one block of memory, its columns 64-byte aligned
 *   | ts open high .. flags |           | refs, the structs, their pointers |
 *   | ts open high .. flags |   ─────►  | ts ts ts ..   | open open open .. | ... | flags .. | sequence .. |
 *   | ts open high .. flags |              child[0]          child[1]              child[n-1]
 *
 * A consumer may move the parent, or a child out of it, to a struct of its own, and release each when and on whatever
 * thread it likes, the interpreter's lock not held. So the block counts the parts that are not released, and the last one
 * frees it: no Python object is involved. */
#ifndef FLUX_ARROW_H
#define FLUX_ARROW_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "row.h"

/* ---- the ABI, as the specification has it ------------------------------------------------------------------------ */

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE
#define ARROW_FLAG_NULLABLE 2

struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};
#endif

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE
struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};
#endif

/* ---- what the columns are ---------------------------------------------------------------------------------------- */

enum {
    FLUX_ARROW_COLUMNS = 10, /* at most */
    FLUX_ARROW_ALIGN = 64,
    FLUX_ARROW_TILE = 256,        /* rows copied column by column while they stay in the nearest cache */
    FLUX_ARROW_TIME_FORMAT = 80,  /* "tsm:" and the name of a zone */
    FLUX_ARROW_COUNTED = UINT8_MAX, /* not a field of the row: start, start + 1, ... */
};

typedef struct {
    const char *name, *format; /* g float64, I uint32, L uint64, tsm:UTC and tsn:UTC timestamps */
    uint8_t at, width;         /* byte of the row, bytes */
} flux_arrow_column;

typedef struct {
    int columns;
    flux_arrow_column column[FLUX_ARROW_COLUMNS]; /* the first is the time */
} flux_arrow_shape;

/* By row kind; a trade's reserved word says nothing and is left out. */
static const flux_arrow_shape flux_arrow_shapes[] = {
    [FLUX_ROWS_CANDLE] = {10,
                          {{"ts_ms", "tsm:UTC", 0, 8},
                           {"open", "g", 8, 8},
                           {"high", "g", 16, 8},
                           {"low", "g", 24, 8},
                           {"close", "g", 32, 8},
                           {"volume", "g", 40, 8},
                           {"turnover", "g", 48, 8},
                           {"trade_count", "I", 56, 4},
                           {"flags", "I", 60, 4},
                           {"sequence", "L", FLUX_ARROW_COUNTED, 8}}},
    [FLUX_ROWS_TRADE] = {6,
                         {{"ts_ns", "tsn:UTC", 0, 8},
                          {"price", "g", 8, 8},
                          {"size", "g", 16, 8},
                          {"trade_id", "L", 24, 8},
                          {"flags", "I", 32, 4},
                          {"sequence", "L", FLUX_ARROW_COUNTED, 8}}},
    [FLUX_ROWS_QUOTE] = {6,
                         {{"ts_ns", "tsn:UTC", 0, 8},
                          {"bid", "g", 8, 8},
                          {"ask", "g", 16, 8},
                          {"bid_size", "g", 24, 8},
                          {"ask_size", "g", 32, 8},
                          {"sequence", "L", FLUX_ARROW_COUNTED, 8}}},
};

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static int64_t flux_arrow_live; /* blocks that somebody still holds */

typedef struct {
    int32_t refs; /* the parent and its children */
} flux_arrow_block;

static inline void *flux_arrow_block_new(size_t size, int children) {
    size_t whole = (size + FLUX_ARROW_ALIGN - 1) & ~(size_t)(FLUX_ARROW_ALIGN - 1);
    flux_arrow_block *block = whole < size ? NULL : aligned_alloc(FLUX_ARROW_ALIGN, whole);
    if (!block) return NULL;
    block->refs = children + 1;
    __atomic_add_fetch(&flux_arrow_live, 1, __ATOMIC_RELAXED);
    return block;
}

static inline void flux_arrow_block_drop(void *of) {
    flux_arrow_block *block = of;
    if (__atomic_sub_fetch(&block->refs, 1, __ATOMIC_ACQ_REL)) return;
    __atomic_sub_fetch(&flux_arrow_live, 1, __ATOMIC_RELAXED);
    free(block);
}

/* ---- schema ------------------------------------------------------------------------------------------------------ */

typedef struct {
    flux_arrow_block block;
    struct ArrowSchema child[FLUX_ARROW_COLUMNS], *children[FLUX_ARROW_COLUMNS];
    char time_format[FLUX_ARROW_TIME_FORMAT];
    char metadata[];
} flux_arrow_schema_block;

/* For parent and child alike: a child that was moved has no release here any more. The struct may lie in the block, so it
 * is marked before the block goes. */
static void flux_arrow_schema_release(struct ArrowSchema *schema) {
    for (int64_t i = 0; i < schema->n_children; i++)
        if (schema->children[i]->release) schema->children[i]->release(schema->children[i]);
    schema->release = NULL;
    flux_arrow_block_drop(schema->private_data);
}

/* 0, or ENOMEM. `metadata` is encoded as Arrow has it; size 0 for none. */
static inline int flux_arrow_schema_make(struct ArrowSchema *out, int kind, const char *time_format,
                                         const char *metadata, size_t metadata_size) {
    const flux_arrow_shape *shape = &flux_arrow_shapes[kind];
    flux_arrow_schema_block *block = flux_arrow_block_new(sizeof *block + metadata_size, shape->columns);
    if (!block) return ENOMEM;
    strcpy(block->time_format, time_format);
    if (metadata_size) memcpy(block->metadata, metadata, metadata_size);
    for (int i = 0; i < shape->columns; i++) {
        const flux_arrow_column *column = &shape->column[i];
        block->children[i] = &block->child[i];
        /* nullable, as all others declare a column: one that differs in this alone is another schema to pyarrow */
        block->child[i] = (struct ArrowSchema){.format = i ? column->format : block->time_format,
                                               .name = column->name,
                                               .flags = ARROW_FLAG_NULLABLE,
                                               .release = flux_arrow_schema_release,
                                               .private_data = block};
    }
    *out = (struct ArrowSchema){.format = "+s",
                                .name = "",
                                .metadata = metadata_size ? block->metadata : NULL,
                                .n_children = shape->columns,
                                .children = block->children,
                                .release = flux_arrow_schema_release,
                                .private_data = block};
    return 0;
}

/* What a consumer would like, as far as it can be had for nothing: the time in the same unit under another zone's name or
 * as a plain int64. Other wishes are passed over, as the specification allows: the consumer looks at what it gets.
 * -1 where the fields are not these fields. Writes FLUX_ARROW_TIME_FORMAT bytes at most. */
static inline int flux_arrow_wish(int kind, const struct ArrowSchema *wanted, char *time_format) {
    const flux_arrow_shape *shape = &flux_arrow_shapes[kind];
    strcpy(time_format, shape->column[0].format);
    if (!wanted) return 0;
    if (strcmp(wanted->format, "+s") || wanted->n_children != shape->columns) return -1;
    for (int i = 0; i < shape->columns; i++)
        if (!wanted->children[i]->name || strcmp(wanted->children[i]->name, shape->column[i].name)) return -1;
    const char *format = wanted->children[0]->format;
    if (!strcmp(format, "l") || (!strncmp(format, time_format, 4) && strlen(format) < FLUX_ARROW_TIME_FORMAT))
        strcpy(time_format, format);
    return 0;
}

/* ---- array ------------------------------------------------------------------------------------------------------- */

typedef struct {
    flux_arrow_block block;
    struct ArrowArray child[FLUX_ARROW_COLUMNS], *children[FLUX_ARROW_COLUMNS];
    const void *buffers[FLUX_ARROW_COLUMNS][2]; /* of a child: no validity bitmap, values */
    const void *none[1];                        /* of the parent: no validity bitmap */
} flux_arrow_array_block;

static void flux_arrow_array_release(struct ArrowArray *array) {
    for (int64_t i = 0; i < array->n_children; i++)
        if (array->children[i]->release) array->children[i]->release(array->children[i]);
    array->release = NULL;
    flux_arrow_block_drop(array->private_data);
}

static inline void flux_arrow_column_copy(uint8_t *out, const uint8_t *at, int64_t stride, size_t n, int width) {
    if (width == 8)
        for (size_t i = 0; i < n; i++, at += stride) memcpy(out + 8 * i, at, 8);
    else
        for (size_t i = 0; i < n; i++, at += stride) memcpy(out + 4 * i, at, 4);
}

/* n rows, `stride` bytes from one to the next (any, at any address), whose sequences are `sequences` (n of them, uint64 at
 * any address) or, where that is NULL, count from `start`. 0, or ENOMEM. This is the one copy between a batch and whoever takes it. */
static inline int flux_arrow_array_make(struct ArrowArray *out, int kind, const uint8_t *rows, int64_t stride, size_t n,
                                        uint64_t start, const uint8_t *sequences) {
    const flux_arrow_shape *shape = &flux_arrow_shapes[kind];
    size_t at[FLUX_ARROW_COLUMNS], size = sizeof(flux_arrow_array_block);
    if (n > SIZE_MAX / 128) return ENOMEM;
    for (int i = 0; i < shape->columns; i++) {
        at[i] = (size + FLUX_ARROW_ALIGN - 1) & ~(size_t)(FLUX_ARROW_ALIGN - 1);
        size = at[i] + n * shape->column[i].width;
    }
    flux_arrow_array_block *block = flux_arrow_block_new(size + FLUX_ARROW_ALIGN, shape->columns);
    if (!block) return ENOMEM;
    for (int i = 0; i < shape->columns; i++) {
        block->children[i] = &block->child[i];
        block->buffers[i][0] = NULL;
        block->buffers[i][1] = (uint8_t *)block + at[i];
        block->child[i] = (struct ArrowArray){.length = (int64_t)n,
                                              .n_buffers = 2,
                                              .buffers = block->buffers[i],
                                              .release = flux_arrow_array_release,
                                              .private_data = block};
    }
    block->none[0] = NULL;
    *out = (struct ArrowArray){.length = (int64_t)n,
                               .n_buffers = 1,
                               .n_children = shape->columns,
                               .buffers = block->none,
                               .children = block->children,
                               .release = flux_arrow_array_release,
                               .private_data = block};
    for (size_t from = 0; from < n; from += FLUX_ARROW_TILE) {
        size_t some = n - from < FLUX_ARROW_TILE ? n - from : FLUX_ARROW_TILE;
        for (int i = 0; i < shape->columns; i++) {
            const flux_arrow_column *column = &shape->column[i];
            uint8_t *values = (uint8_t *)block + at[i] + from * column->width;
            if (column->at != FLUX_ARROW_COUNTED)
                flux_arrow_column_copy(values, rows + (int64_t)from * stride + column->at, stride, some, column->width);
            else if (sequences)
                memcpy(values, sequences + 8 * from, 8 * some);
            else
                for (size_t k = 0; k < some; k++) ((uint64_t *)values)[k] = start + from + k;
        }
    }
    return 0;
}

/* ---- stream: the schema as often as asked for, the array once ---------------------------------------------------- */

typedef struct {
    flux_arrow_block block;
    struct ArrowArray array; /* released or given away: no release */
    int kind;
    char time_format[FLUX_ARROW_TIME_FORMAT];
    size_t metadata_size;
    char metadata[];
} flux_arrow_stream_block;

static int flux_arrow_stream_schema(struct ArrowArrayStream *stream, struct ArrowSchema *out) {
    flux_arrow_stream_block *block = stream->private_data;
    return flux_arrow_schema_make(out, block->kind, block->time_format, block->metadata, block->metadata_size);
}

static int flux_arrow_stream_next(struct ArrowArrayStream *stream, struct ArrowArray *out) {
    flux_arrow_stream_block *block = stream->private_data;
    *out = block->array; /* without a release: the end */
    block->array.release = NULL;
    return 0;
}

static const char *flux_arrow_stream_error(struct ArrowArrayStream *stream) {
    (void)stream;
    return NULL; /* the one error is ENOMEM, and its number says it */
}

static void flux_arrow_stream_release(struct ArrowArrayStream *stream) {
    flux_arrow_stream_block *block = stream->private_data;
    if (block->array.release) block->array.release(&block->array);
    stream->release = NULL;
    flux_arrow_block_drop(block);
}

/* Takes the array over. 0, or ENOMEM, and then the array is still the caller's. */
static inline int flux_arrow_stream_make(struct ArrowArrayStream *out, struct ArrowArray *array, int kind,
                                         const char *time_format, const char *metadata, size_t metadata_size) {
    flux_arrow_stream_block *block = flux_arrow_block_new(sizeof *block + metadata_size, 0);
    if (!block) return ENOMEM;
    block->array = *array;
    array->release = NULL;
    block->kind = kind;
    strcpy(block->time_format, time_format);
    block->metadata_size = metadata_size;
    if (metadata_size) memcpy(block->metadata, metadata, metadata_size);
    *out = (struct ArrowArrayStream){flux_arrow_stream_schema, flux_arrow_stream_next, flux_arrow_stream_error,
                                     flux_arrow_stream_release, block};
    return 0;
}

#endif
