/* arrow: batches of odd lengths, strides and addresses as Arrow, taken apart and released in any order.
 *
 *   input   | kind u8 | stride u8 | start u64 | order u8 | wish u8 | bytes of the rows ... |
 *   stride  bits 0-6 bytes between the rows, bit 7 backwards
 *   order   bits 0-3 children moved out, bit 4 the parent goes first, bit 5 by way of a stream, bits 6-7 metadata
 *
 * Every value must be the row's own, and nothing may be left when all parts are released. */
#ifndef TARGET_ARROW_H
#define TARGET_ARROW_H

#include "arrow.h"
#include "fuzz.h"

enum { FUZZ_ARROW_ROWS = 700 }; /* more than two tiles */

/* Each column against the rows it was made of. */
static void fuzz_arrow_same(const struct ArrowArray *array, int kind, const uint8_t *rows, int64_t stride, size_t n,
                            uint64_t start) {
    const flux_arrow_shape *shape = &flux_arrow_shapes[kind];
    FUZZ_HOLDS(array->length == (int64_t)n && array->n_children == shape->columns && array->null_count == 0);
    for (int c = 0; c < shape->columns; c++) {
        const flux_arrow_column *column = &shape->column[c];
        const uint8_t *values = array->children[c]->buffers[1];
        FUZZ_HOLDS((uintptr_t)values % FLUX_ARROW_ALIGN == 0 && array->children[c]->length == (int64_t)n);
        for (size_t i = 0; i < n; i++) {
            uint64_t counted = start + i;
            const void *wanted = column->at == FLUX_ARROW_COUNTED ? (const void *)&counted
                                                                 : rows + (int64_t)i * stride + column->at;
            FUZZ_HOLDS(memcmp(values + i * column->width, wanted, column->width) == 0);
        }
    }
}

/* A schema that somebody would like: right, or wrong in one of the ways that the wish must see. */
static void fuzz_arrow_wish(int kind, uint8_t how, const char *metadata, size_t metadata_size, char *time_format) {
    static const char *formats[] = {"l", "tsm:Europe/Berlin", "tsn:", "g", "", "tsm:"};
    char name[300];
    struct ArrowSchema wanted;
    FUZZ_HOLDS(!flux_arrow_schema_make(&wanted, kind, "l", metadata, metadata_size));
    struct ArrowSchema *child = wanted.children[(how >> 5) % wanted.n_children];
    if (how & 1) wanted.children[0]->format = formats[(how >> 1 & 7) % 6];
    if (how & 16) { /* a zone longer than there is room for */
        memset(name, 'z', sizeof name - 1);
        memcpy(name, "tsm:", 4);
        name[1] = flux_arrow_shapes[kind].column[0].format[2];
        name[sizeof name - 1 - (how & 15)] = 0;
        wanted.children[0]->format = name;
    }
    if ((how >> 1 & 7) == 6) child->name = NULL;
    if ((how >> 1 & 7) == 7) child->name = "other";
    int refused = flux_arrow_wish(kind, how ? &wanted : NULL, time_format);
    FUZZ_HOLDS(strlen(time_format) < FLUX_ARROW_TIME_FORMAT);
    FUZZ_HOLDS(refused == (how && (how >> 1 & 7) >= 6 ? -1 : 0));
    wanted.release(&wanted);
}

/* Children to structs of their own, then everything released, the parent first or last. */
static void fuzz_arrow_release(struct ArrowArray *array, uint8_t order) {
    struct ArrowArray moved[FLUX_ARROW_COLUMNS];
    int count = 0;
    for (int64_t c = 0; c < array->n_children; c++) {
        if (!(order >> (c & 3) & 1)) continue;
        moved[count++] = *array->children[c];
        array->children[c]->release = NULL;
    }
    if (order & 16) array->release(array);
    for (int i = 0; i < count; i++) {
        if (moved[i].length) flux_arrow_live += ((const uint8_t *)moved[i].buffers[1])[moved[i].length - 1] * 0;
        moved[i].release(&moved[i]);
    }
    if (!(order & 16)) array->release(array);
    FUZZ_HOLDS(array->release == NULL);
}

static void fuzz_arrow_stream(struct ArrowArray *array, int kind, const char *time_format, const char *metadata,
                              size_t metadata_size) {
    struct ArrowArrayStream stream;
    struct ArrowSchema schema[2];
    struct ArrowArray end;
    FUZZ_HOLDS(!flux_arrow_stream_make(&stream, array, kind, time_format, metadata, metadata_size) && !array->release);
    for (int i = 0; i < 2; i++) FUZZ_HOLDS(!stream.get_schema(&stream, &schema[i]));
    FUZZ_HOLDS(!strcmp(schema[0].children[0]->format, time_format) && !stream.get_last_error(&stream));
    if (metadata_size % 2 == 0) {
        FUZZ_HOLDS(!stream.get_next(&stream, array) && array->release);
        FUZZ_HOLDS(!stream.get_next(&stream, &end) && !end.release);
    }
    schema[1].release(&schema[1]);
    stream.release(&stream);
    schema[0].release(&schema[0]);
}

static void fuzz_arrow_run(const uint8_t *input, size_t size) {
    fuzz_reader r = {input, input + size};
    int kind = 1 + (int)(fuzz_take(&r, 1) % 3);
    uint8_t how = (uint8_t)fuzz_take(&r, 1);
    uint64_t start = fuzz_take(&r, 8);
    uint8_t order = (uint8_t)fuzz_take(&r, 1), wish = (uint8_t)fuzz_take(&r, 1);
    size_t width = flux_row_size(kind), step = how & 127, left = (size_t)(r.end - r.at);
    size_t n = left < width ? 0 : step == 0 ? left % FUZZ_ARROW_ROWS : (left - width) / step + 1;
    if (n > FUZZ_ARROW_ROWS) n = FUZZ_ARROW_ROWS;
    size_t used = n ? (n - 1) * step + width : 0;
    uint8_t *block = fuzz_exact(r.at, used, start & 7);
    int64_t stride = how & 128 ? -(int64_t)step : (int64_t)step;
    const uint8_t *rows = n && stride < 0 ? block + (n - 1) * step : block;
    static const char metadata[64] = "\1";
    size_t metadata_size = (size_t)(order >> 6) * 21;
    char time_format[FLUX_ARROW_TIME_FORMAT];
    struct ArrowArray array;
    int64_t before = flux_arrow_live;
    fuzz_arrow_wish(kind, wish, metadata, metadata_size, time_format);
    uint8_t *numbers = NULL; /* the same sequences, one by one, at any address */
    if (order & 16) {
        static uint64_t counted[FUZZ_ARROW_ROWS];
        for (size_t i = 0; i < n; i++) counted[i] = start + i;
        numbers = fuzz_exact((const uint8_t *)counted, 8 * n, start >> 3 & 7);
    }
    FUZZ_HOLDS(!flux_arrow_array_make(&array, kind, rows, stride, n, numbers ? 0 : start, numbers));
    if (numbers) fuzz_release(numbers);
    fuzz_arrow_same(&array, kind, rows, stride, n, start);
    if (order & 32) fuzz_arrow_stream(&array, kind, time_format, metadata, metadata_size);
    fuzz_release(block); /* the export is a copy: it outlives the rows */
    if (array.release) fuzz_arrow_release(&array, order);
    FUZZ_HOLDS(flux_arrow_live == before);
}

static size_t fuzz_arrow_make(uint8_t *out) {
    size_t rows = fuzz_below(fuzz_one_in(8) ? 600 : 12);
    fuzz_fill(out, 12 + 64 * rows);
    if (fuzz_one_in(2)) out[1] = out[0] % 3 ? 40 : 64; /* packed, as rows mostly are */
    return 12 + 64 * rows;
}

#endif
