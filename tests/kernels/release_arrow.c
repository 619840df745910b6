/* Exports of every kind and size, taken apart in every way a consumer may, built with AddressSanitizer and
 * UndefinedBehaviorSanitizer by test_arrow_sanitized.py. The rows end at the end of their allocation. */
#include <assert.h>
#include <stdio.h>

#include "arrow.h"

enum { MOVE_CHILDREN = 1, BY_STREAM = 2, READ_STREAM = 4, WAYS = 8 };

static void through_stream(struct ArrowArray *array, int kind, const char *time_format, int read) {
    struct ArrowArrayStream stream;
    struct ArrowSchema schema;
    struct ArrowArray given, end;
    assert(!flux_arrow_stream_make(&stream, array, kind, time_format, "\0\0\0\0", 4));
    assert(!array->release);
    assert(!stream.get_schema(&stream, &schema));
    schema.release(&schema);
    if (read) {
        assert(!stream.get_next(&stream, &given) && given.release);
        assert(!stream.get_next(&stream, &end) && !end.release);
        given.release(&given);
    }
    stream.release(&stream);
    assert(!stream.release);
}

static unsigned take_apart(int kind, size_t n, int way) {
    struct ArrowArray array, column = {0};
    struct ArrowSchema schema, field = {0};
    char time_format[FLUX_ARROW_TIME_FORMAT];
    size_t size = n * flux_row_size(kind);
    uint8_t *rows = malloc(size + !size);
    memset(rows, 7, size);
    assert(!flux_arrow_wish(kind, NULL, time_format));
    assert(!flux_arrow_schema_make(&schema, kind, time_format, "\0\0\0\0", way & MOVE_CHILDREN ? 4 : 0));
    assert(!flux_arrow_wish(kind, &schema, time_format));
    assert(!flux_arrow_array_make(&array, kind, rows, flux_row_size(kind), n, 5, NULL));
    free(rows);
    if (way & MOVE_CHILDREN) {
        column = *array.children[1];
        field = *schema.children[1];
        array.children[1]->release = NULL;
        schema.children[1]->release = NULL;
    }
    if (way & BY_STREAM)
        through_stream(&array, kind, time_format, way & READ_STREAM);
    else
        array.release(&array);
    schema.release(&schema);
    unsigned sum = 0;
    if (way & MOVE_CHILDREN) { /* they outlive their parents */
        const uint8_t *values = column.buffers[1];
        for (size_t i = 0; i < 8 * n; i++) sum += values[i];
        assert(sum == 7 * 8 * n && field.name[0]);
        column.release(&column);
        field.release(&field);
    }
    assert(flux_arrow_live == 0);
    return sum;
}

int main(void) {
    unsigned done = 0;
    for (int kind = FLUX_ROWS_CANDLE; kind <= FLUX_ROWS_QUOTE; kind++)
        for (size_t n = 0; n < 600; n += 1 + n / 3)
            for (int way = 0; way < WAYS; way++, done++) take_apart(kind, n, way);
    printf("%u exports\n", done);
}
