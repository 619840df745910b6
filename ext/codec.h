/* Build a message from rows, and know a frame by its head again. Nothing here allocates; verify.h, which this includes,
 * holds the reading of frames that are not known. For C (gnu11) and C++ (17); link crc32c.c, compiled as C, with it.
 *
 * A v2 row message, as flux_encode() lays it out (offsets from the frame's first byte):
 *
 *    0 root  "FLX2"  envelope  message | start_sequence store_id origin_ns recorded_ns epoch stream_id | key  source
 *                                      └ patch_at: 40 bytes, changed in every message                ┘
 *    symbol  interval  padding  row_count | row 0 | row 1 | ... | CRC-32C of all bytes before
 *                               4 mod 8     ^ head_size, 0 mod 8
 *
 * All but the patched bytes and row_count is constant for a stream: made once, copied and compared after that. Its share
 * of the checksum is made once too (flux_crc32c_jump). */
#ifndef FLUX_CODEC_H
#define FLUX_CODEC_H

#include <stdint.h>
#include <string.h>

#include "verify.h"

enum {
    FLUX_HEAD_MAX = 384, /* limits.MAX_HEAD_BYTES */
    FLUX_V1_STRIDE = 56, /* a v1 candle as we write it: 4 padding, soffset, six 8-byte fields */
};

/* ---- v2 by template ---------------------------------------------------------------------------------------------- */

enum { FLUX_PATCH_SIZE = 40 };

typedef struct {
    uint32_t head_size; /* the first row's offset */
    uint32_t patch_at, row_kind, row_size;
    uint32_t prefix_crc;     /* of the bytes before patch_at */
    flux_crc32c_run middle;  /* the bytes between the patched ones and row_count */
    uint32_t source_at, symbol_at, interval_at;
    uint16_t source_size, symbol_size, interval_size;
    uint8_t tag;
    uint8_t head[FLUX_HEAD_MAX];
} flux_template;

/* 0, or -1 where the names are too long for a head, or `row_kind` is none of CANDLE, TRADE, QUOTE. */
static inline int flux_template_make(flux_template *t, int row_kind, const char *source, size_t source_size,
                                     const char *symbol, size_t symbol_size, const char *interval,
                                     size_t interval_size) {
    flux_head_shape shape = {0, 8, 52, {4, 12, 8, 44, 20, 28, 36, 48}};
    shape.tag = row_kind == FLUX_ROWS_CANDLE  ? FLUX_TAG_CANDLE_ROWS
                : row_kind == FLUX_ROWS_TRADE ? FLUX_TAG_TRADE_ROWS
                : row_kind == FLUX_ROWS_QUOTE ? FLUX_TAG_QUOTE_ROWS
                                              : FLUX_TAG_NONE;
    flux_wire_text none = {0, 0}, texts[3] = {{source, source_size}, {symbol, symbol_size}, {interval, interval_size}};
    for (int i = 0; i < 3; i++)
        if (texts[i].size > FLUX_HEAD_MAX) return -1;
    if (!shape.tag || flux_wire_head_size(texts[0], texts[1], texts[2], none) > FLUX_HEAD_MAX) return -1;
    t->head_size = flux_wire_head(t->head, &shape, 2, texts[0], texts[1], texts[2], none, &t->patch_at);
    t->row_kind = (uint32_t)row_kind;
    t->row_size = flux_row_size(row_kind);
    t->tag = shape.tag;
    uint32_t behind = t->patch_at + FLUX_PATCH_SIZE;
    t->source_at = behind + 28 + 4; /* the key's vtable with its padding, its table, the string's length */
    t->symbol_at = t->source_at + (uint32_t)flux_wire_text_size(texts[0]);
    t->interval_at = t->symbol_at + (uint32_t)flux_wire_text_size(texts[1]);
    t->source_size = (uint16_t)source_size;
    t->symbol_size = (uint16_t)symbol_size;
    t->interval_size = (uint16_t)interval_size;
    t->prefix_crc = flux_crc32c(0, t->head, t->patch_at);
    flux_crc32c_jump_to(&t->middle, t->head + behind, t->head_size - 4 - behind);
    return 0;
}

static inline size_t flux_encoded_size(const flux_template *t, uint32_t n) {
    return t->head_size + (size_t)n * t->row_size + FLUX_CHECKSUM_SIZE;
}

/* CRC-32C of a message whose constant bytes are the template's: only the others are read. */
static inline uint32_t flux_template_crc(const flux_template *t, const uint8_t *frame, size_t rows_size) {
    uint32_t crc = flux_crc32c(t->prefix_crc, frame + t->patch_at, FLUX_PATCH_SIZE);
    uint32_t behind = t->patch_at + FLUX_PATCH_SIZE;
    crc = t->middle.usable ? flux_crc32c_jump(crc, &t->middle)
                           : flux_crc32c(crc, frame + behind, t->head_size - 4 - behind);
    return flux_crc32c(crc, frame + t->head_size - 4, 4 + rows_size);
}

/* One message into `out`, which has flux_encoded_size() bytes; returns that size. */
static inline size_t flux_encode(const flux_template *t, uint8_t *out, uint64_t start_sequence, uint64_t store_id,
                                 int64_t origin_ns, int64_t recorded_ns, uint32_t epoch, uint32_t stream_id,
                                 const void *rows, uint32_t n) {
    size_t rows_size = (size_t)n * t->row_size;
    memcpy(out, t->head, t->head_size);
    uint8_t *patch = out + t->patch_at;
    flux_wire_put64(patch, start_sequence);
    flux_wire_put64(patch + 8, store_id);
    flux_wire_put64(patch + 16, (uint64_t)origin_ns);
    flux_wire_put64(patch + 24, (uint64_t)recorded_ns);
    flux_wire_put32(patch + 32, epoch);
    flux_wire_put32(patch + 36, stream_id);
    flux_wire_put32(out + t->head_size - 4, n);
    if (rows_size) memcpy(out + t->head_size, rows, rows_size);
    flux_wire_put32(out + t->head_size + rows_size, flux_template_crc(t, out, rows_size));
    return t->head_size + rows_size + FLUX_CHECKSUM_SIZE;
}

/* Where the messages of `count` runs stand behind one another: `offsets` has count + 1 of them, the last is their size.
 * Returns count, or the first run that cannot be: no such stream, rows outside the `rows_size` bytes, over a frame. */
static inline size_t flux_runs_place(const flux_template *const *templates, size_t streams, const flux_run_rows *runs,
                                     size_t count, uint64_t rows_size, uint64_t *offsets) {
    offsets[0] = 0;
    for (size_t i = 0; i < count; i++) {
        if (runs[i].stream >= streams) return i;
        const flux_template *t = templates[runs[i].stream];
        size_t size = flux_encoded_size(t, runs[i].rows);
        if (size > FLUX_FRAME_MAX || runs[i].at > rows_size) return i;
        if ((uint64_t)runs[i].rows * t->row_size > rows_size - runs[i].at) return i;
        offsets[i + 1] = offsets[i] + size;
    }
    return count;
}

/* The messages of runs that flux_runs_place() has placed. `stream_ids` are by stream. */
static inline void flux_runs_encode(const flux_template *const *templates, const uint32_t *stream_ids,
                                    const flux_run_rows *runs, size_t count, const uint8_t *rows,
                                    const uint64_t *offsets, uint8_t *out, uint64_t store_id, uint32_t epoch,
                                    int64_t recorded_ns) {
    for (size_t i = 0; i < count; i++) {
        const flux_run_rows *run = &runs[i];
        flux_encode(templates[run->stream], out + offsets[i], run->first, store_id, run->origin_ns, recorded_ns, epoch,
                    stream_ids[run->stream], rows + run->at, run->rows);
    }
}

static inline void flux_template_view(const flux_template *t, const uint8_t *frame, flux_view *out) {
    flux_view_clear(out);
    out->schema_version = 2;
    out->tag = t->tag;
    out->type_hint = flux_wire_type_hint(t->tag);
    out->row_kind = (uint8_t)t->row_kind;
    out->source_at = t->source_at;
    out->source_size = t->source_size;
    out->symbol_at = t->symbol_at;
    out->symbol_size = t->symbol_size;
    out->interval_at = t->interval_at;
    out->interval_size = t->interval_size;
    const uint8_t *patch = frame + t->patch_at;
    out->start_sequence = flux_wire_u64(patch);
    out->store_id = flux_wire_u64(patch + 8);
    out->origin_ns = (int64_t)flux_wire_u64(patch + 16);
    out->recorded_ns = (int64_t)flux_wire_u64(patch + 24);
    out->epoch = flux_wire_u32(patch + 32);
    out->stream_id = flux_wire_u32(patch + 36);
    out->rows_at = t->head_size;
    out->row_count = flux_wire_u32(frame + t->head_size - 4);
    out->message_at = t->patch_at - 12;
    out->checksum_present = 1;
}

/* 1: the frame's constant bytes are the template's, its length fits its row count and its checksum is right: *out is
 *    filled, as flux_verify() would.
 * 0: another head: do the full verification.
 * -1: this head, but length or checksum are wrong (FLUX_CHECKSUM, at out->error_at). */
static inline int flux_match(const flux_template *t, const uint8_t *frame, size_t size, flux_view *out) {
    if (size < (size_t)t->head_size + FLUX_CHECKSUM_SIZE || size > FLUX_FRAME_MAX) return 0;
    uint32_t behind = t->patch_at + FLUX_PATCH_SIZE;
    if (memcmp(frame, t->head, t->patch_at)) return 0;
    if (memcmp(frame + behind, t->head + behind, t->head_size - 4 - behind)) return 0;
    size_t rows_size = (size_t)flux_wire_u32(frame + t->head_size - 4) * t->row_size;
    if (size != t->head_size + rows_size + FLUX_CHECKSUM_SIZE ||
        flux_template_crc(t, frame, rows_size) != flux_wire_u32(frame + t->head_size + rows_size)) {
        flux_view_clear(out);
        out->error_at = (uint32_t)(size - FLUX_CHECKSUM_SIZE);
        return -1;
    }
    flux_template_view(t, frame, out);
    return 1;
}

/* Learn a template from a verified v2 row message. 0; -1 where its bytes are not laid out as ours are. Comparing with a
 * template of our own making is the whole check: nothing that a stranger put into the patched bytes is ever skipped. */
static inline int flux_template_from(flux_template *t, const uint8_t *frame, size_t size, const flux_view *v) {
    flux_view view;
    if (v->source_size == FLUX_NULL || v->symbol_size == FLUX_NULL || v->interval_size == FLUX_NULL) return -1;
    if (flux_template_make(t, v->row_kind, (const char *)frame + v->source_at, v->source_size,
                           (const char *)frame + v->symbol_at, v->symbol_size, (const char *)frame + v->interval_at,
                           v->interval_size))
        return -1;
    return flux_match(t, frame, size, &view) == 1 ? 0 : -1;
}

/* ---- v1: candles as tables --------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t head_size; /* the first uoffset's place */
    uint32_t patch_at;  /* start_sequence u64 */
    uint8_t head[FLUX_HEAD_MAX];
} flux_v1_template;

/* 0, or -1 where the names are too long for a head. For CandleBatch. */
static inline int flux_v1_template_make(flux_v1_template *t, const char *source, size_t source_size,
                                        const char *symbol, size_t symbol_size, const char *interval,
                                        size_t interval_size) {
    static const flux_head_shape shape = {FLUX_TAG_CANDLE_BATCH, 3, 20, {4, 12, 8}};
    flux_wire_text none = {0, 0}, texts[3] = {{source, source_size}, {symbol, symbol_size}, {interval, interval_size}};
    for (int i = 0; i < 3; i++)
        if (texts[i].size > FLUX_HEAD_MAX) return -1;
    if (flux_wire_head_size(texts[0], texts[1], texts[2], none) > FLUX_HEAD_MAX) return -1;
    t->head_size = flux_wire_head(t->head, &shape, 1, texts[0], texts[1], texts[2], none, &t->patch_at);
    return 0;
}

/* Bytes that n candle tables take behind a head: their uoffsets, the shared vtable, then a fixed stride each. */
static inline size_t flux_v1_tail_size(uint32_t n) { return ((4 * (size_t)n + 16 + 7) & ~(size_t)7) + FLUX_V1_STRIDE * (size_t)n; }

static inline size_t flux_v1_encoded_size(const flux_v1_template *t, uint32_t n) { return t->head_size + flux_v1_tail_size(n); }

/*   head_size: uoffset 0 .. n-1 | vtable, 16 bytes | padding to 0 mod 8 | { padding 4, soffset 4, ts_ms .. volume 48 } x n
 * The first 48 bytes of a row are the six fields of a v1 candle in their order. Writes row_count before the uoffsets. */
static inline void flux_v1_tail(uint8_t *out, uint32_t head_size, const flux_candle *rows, uint32_t n) {
    static const uint16_t vtable[8] = {16, 52, 4, 12, 20, 28, 36, 44};
    uint32_t vtable_at = head_size + 4 * n, tables_at = (vtable_at + 16 + 7) & ~7u;
    flux_wire_put32(out + head_size - 4, n);
    memcpy(out + vtable_at, vtable, sizeof vtable);
    memset(out + vtable_at + 16, 0, tables_at - vtable_at - 16);
    uint32_t offset = tables_at + 4 - head_size; /* grows by the stride less the four bytes of the next uoffset */
    for (uint32_t i = 0; i < n; i++, offset += FLUX_V1_STRIDE - 4) flux_wire_put32(out + head_size + 4 * i, offset);
    uint32_t back = tables_at + 4 - vtable_at;
    uint8_t *at = out + tables_at;
    for (uint32_t i = 0; i < n; i++, back += FLUX_V1_STRIDE, at += FLUX_V1_STRIDE) {
        flux_wire_put64(at, (uint64_t)back << 32);
        memcpy(at + 8, rows + i, 48);
    }
}

static inline size_t flux_v1_encode(const flux_v1_template *t, uint8_t *out, uint64_t start_sequence,
                                    const flux_candle *rows, uint32_t n) {
    memcpy(out, t->head, t->head_size);
    flux_wire_put64(out + t->patch_at, start_sequence);
    flux_v1_tail(out, t->head_size, rows, n);
    return flux_v1_encoded_size(t, n);
}

/* Candle tables of a verified frame into packed rows: v->rows_at is the first of v->row_count uoffsets. The flags are
 * CLOSED, turnover and count 0: v1 does not know them. Returns the rows written. */
static inline uint32_t flux_v1_rows(const uint8_t *frame, const flux_view *v, flux_candle *out) {
    uint32_t known = UINT32_MAX;
    uint16_t offset[6] = {0};
    int in_order = 0; /* all six there, one behind the other: so flatc's C++ and Rust lay them out, and we */
    for (uint32_t i = 0; i < v->row_count; i++) {
        uint32_t at = flux_wire_follow(frame, v->rows_at + 4 * i);
        uint32_t vtable = at - flux_wire_u32(frame + at);
        if (vtable != known) {
            for (unsigned slot = 0; slot < 6; slot++) {
                uint32_t value = flux_wire_slot(frame, at, slot);
                offset[slot] = (uint16_t)(value ? value - at : 0);
            }
            known = vtable;
            in_order = offset[0] != 0;
            for (unsigned slot = 1; slot < 6; slot++) in_order &= offset[slot] == offset[0] + 8 * slot;
        }
        if (in_order) {
            memcpy(out + i, frame + at + offset[0], 48);
        } else {
            for (unsigned slot = 0; slot < 6; slot++) {
                uint64_t value = offset[slot] ? flux_wire_u64(frame + at + offset[slot]) : 0;
                memcpy((uint8_t *)(out + i) + 8 * slot, &value, 8);
            }
        }
        out[i].turnover = 0;
        out[i].trade_count = 0;
        out[i].flags = FLUX_CLOSED;
    }
    return v->row_count;
}

#endif
