/* codec: verify a frame and read all that it says; match: learn from one frame, compare another.
 *
 * `match` must never take a frame that `verify` refuses, and where it takes one both must say the same of it. */
#ifndef TARGET_CODEC_H
#define TARGET_CODEC_H

#include "frames.h"

static inline void fuzz_touch(const uint8_t *frame, uint32_t at, uint32_t size) {
    if (size != FLUX_NULL) flux_crc32c_table(0, frame + at, size); /* by table: the sanitizers see each byte */
}

/* Every scalar, string and vector of a table of a verified frame, as the reader in decode.pxi goes through them. */
static void fuzz_read_table(const uint8_t *frame, uint32_t table, unsigned which) {
    for (unsigned slot = 0; slot < flux_shapes[which].slots; slot++) {
        uint32_t at = flux_wire_slot(frame, table, slot);
        unsigned kind = flux_shapes[which].slot[slot].kind, of = flux_shapes[which].slot[slot].of;
        if (!at) continue;
        if (kind < FLUX_W_STRING) {
            fuzz_touch(frame, at, flux_wire_width[kind]);
            continue;
        }
        at = flux_wire_follow(frame, at);
        if (kind == FLUX_W_TABLE) {
            fuzz_read_table(frame, at, of);
            continue;
        }
        uint32_t count = flux_wire_u32(frame + at);
        if (kind == FLUX_W_TABLES)
            for (uint32_t i = 0; i < count; i++) fuzz_read_table(frame, flux_wire_follow(frame, at + 4 + 4 * i), of);
        else
            fuzz_touch(frame, at + 4, count * (kind == FLUX_W_STRING ? 1 : flux_wire_width[kind]));
    }
}

static inline void fuzz_read_rows(const uint8_t *frame, const flux_view *view) {
    if (view->row_kind == FLUX_ROWS_CANDLE_V1) {
        flux_candle *rows = malloc(sizeof(flux_candle) * (size_t)view->row_count + 1);
        FUZZ_HOLDS(flux_v1_rows(frame, view, rows) == view->row_count);
        fuzz_touch((const uint8_t *)rows, 0, (uint32_t)sizeof(flux_candle) * view->row_count);
        free(rows);
    } else if (view->row_kind != FLUX_ROWS_NONE) {
        fuzz_touch(frame, view->rows_at, view->row_count * flux_row_size(view->row_kind));
    }
}

static inline int fuzz_same_view(const flux_view *a, const flux_view *b) {
    return a->schema_version == b->schema_version && a->tag == b->tag && a->type_hint == b->type_hint &&
           a->row_kind == b->row_kind && a->source_at == b->source_at && a->source_size == b->source_size &&
           a->symbol_at == b->symbol_at && a->symbol_size == b->symbol_size && a->interval_at == b->interval_at &&
           a->interval_size == b->interval_size && a->start_sequence == b->start_sequence &&
           a->store_id == b->store_id && a->origin_ns == b->origin_ns && a->recorded_ns == b->recorded_ns &&
           a->epoch == b->epoch && a->stream_id == b->stream_id && a->rows_at == b->rows_at &&
           a->row_count == b->row_count && a->message_at == b->message_at &&
           a->correlation_size == b->correlation_size && a->checksum_present == b->checksum_present;
}

/* A verified row message: learned from, it must match itself, and encoded again it must be the same bytes. */
static inline void fuzz_learn(const uint8_t *frame, size_t size, const flux_view *view) {
    flux_template learned;
    flux_view again;
    if (view->row_kind == FLUX_ROWS_NONE || view->row_kind == FLUX_ROWS_CANDLE_V1) return;
    if (flux_template_from(&learned, frame, size, view)) return;
    FUZZ_HOLDS(flux_match(&learned, frame, size, &again) == 1 && fuzz_same_view(view, &again));
    uint8_t *made = malloc(size);
    FUZZ_HOLDS(flux_encoded_size(&learned, view->row_count) == size);
    flux_encode(&learned, made, view->start_sequence, view->store_id, view->origin_ns, view->recorded_ns, view->epoch,
                view->stream_id, frame + view->rows_at, view->row_count);
    FUZZ_HOLDS(memcmp(made, frame, size) == 0);
    free(made);
    learned.middle.usable = 0; /* as where there is no hardware */
    FUZZ_HOLDS(flux_match(&learned, frame, size, &again) == 1);
}

static void fuzz_codec_run(const uint8_t *input, size_t size) {
    uint8_t *frame = fuzz_exact(input, size, size ? input[size - 1] & 7 : 0);
    flux_view view;
    int reason = flux_verify(frame, size, &view);
    FUZZ_HOLDS(flux_crc32c(0, frame, size) == flux_crc32c_table(0, frame, size));
    if (reason != FLUX_OK) {
        FUZZ_HOLDS(reason > FLUX_OK && reason < FLUX_REASONS && view.error_at <= size);
    } else {
        fuzz_touch(frame, view.correlation_at, view.correlation_size);
        fuzz_touch(frame, view.source_at, view.source_size);
        fuzz_touch(frame, view.symbol_at, view.symbol_size);
        fuzz_touch(frame, view.interval_at, view.interval_size);
        if (view.message_at) fuzz_read_table(frame, view.message_at, view.tag);
        fuzz_read_rows(frame, &view);
        fuzz_learn(frame, size, &view);
    }
    fuzz_release(frame);
}

static size_t fuzz_codec_make(uint8_t *out) {
    const fuzz_frame *frame = &fuzz_frames[fuzz_below(fuzz_frame_count)];
    memcpy(out, frame->data, frame->size);
    return frame->size;
}

static size_t fuzz_codec_mutate(uint8_t *input, size_t size) {
    return fuzz_mutate_frame(input, size, FUZZ_INPUT_MAX);
}

/* ---- match: | size of the first u32 | first frame | second frame | ---- */

static void fuzz_match_run(const uint8_t *input, size_t size) {
    flux_template learned;
    flux_view first, second, matched;
    if (size < 4) return;
    size_t one = flux_wire_u32(input), two = size - 4;
    if (one > two) return;
    two -= one;
    uint8_t *a = fuzz_exact(input + 4, one, one & 7), *b = fuzz_exact(input + 4 + one, two, two & 7);
    if (flux_verify(a, one, &first) == FLUX_OK && first.row_kind != FLUX_ROWS_NONE &&
        flux_template_from(&learned, a, one, &first) == 0) {
        int found = flux_match(&learned, b, two, &matched);
        FUZZ_HOLDS(found >= -1 && found <= 1);
        if (found == 1) {
            FUZZ_HOLDS(flux_verify(b, two, &second) == FLUX_OK && fuzz_same_view(&matched, &second));
            fuzz_read_rows(b, &matched);
        }
    }
    fuzz_release(a);
    fuzz_release(b);
}

/* A frame of the corpus that carries v2 rows, twice. */
static size_t fuzz_match_make(uint8_t *out) {
    for (unsigned tries = 64; tries; tries--) {
        const fuzz_frame *frame = &fuzz_frames[fuzz_below(fuzz_frame_count)];
        flux_view view;
        if (flux_verify(frame->data, frame->size, &view) != FLUX_OK || view.row_kind == FLUX_ROWS_NONE ||
            2 * frame->size + 4 > FUZZ_INPUT_MAX)
            continue;
        flux_wire_put32(out, (uint32_t)frame->size);
        memcpy(out + 4, frame->data, frame->size);
        memcpy(out + 4 + frame->size, frame->data, frame->size);
        return 4 + 2 * frame->size;
    }
    return 0;
}

static size_t fuzz_match_mutate(uint8_t *input, size_t size) {
    if (size < 4 || flux_wire_u32(input) > size - 4) return size;
    size_t one = flux_wire_u32(input), two = size - 4 - one;
    if (fuzz_one_in(8)) { /* the first, in place: it keeps its size */
        static uint8_t copy[FUZZ_INPUT_MAX];
        memcpy(copy, input + 4, one);
        if (fuzz_mutate_frame(copy, one, one) == one) memcpy(input + 4, copy, one);
        return size;
    }
    return 4 + one + fuzz_mutate_frame(input + 4 + one, two, FUZZ_INPUT_MAX - 4 - one);
}

#endif
