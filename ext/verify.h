/* The verifier: is a frame what it says, and where does what it says stand. Nothing here allocates, and nothing is read
 * outside the frame, whatever it holds.
 *
 *   size ──► checksum (where bytes 4..7 say "FLX2") ──► envelope ──► its message, by flux_shapes ──► flux_view
 *
 * It accepts and refuses what the Rust reader does: positions are aligned relative to the frame's first byte, extra
 * slots, unknown tags, shared offsets and trailing bytes are fine. Depth needs no counter: tables nest as the shapes do
 * (envelope, list, record, key: 4, and the limit is 64), no shape contains itself. */
#ifndef FLUX_VERIFY_H
#define FLUX_VERIFY_H

#include <stdint.h>
#include <string.h>

#include "crc32c.h"
#include "row.h"
#include "wire.h"

enum {
    FLUX_FRAME_MAX = 4 << 20,         /* bytes; limits.MAX_FRAME_BYTES */
    FLUX_VERIFY_TABLES = 1000000,     /* limits.MAX_VERIFY_TABLES */
    FLUX_VERIFY_LISTED = 65536,       /* tables other than v1 candles in one vector */
    FLUX_VERIFY_TEXT = 64 << 20,      /* bytes of string looked at, shared offsets counted each time */
    FLUX_CHECKSUM_SIZE = 4,
};

enum flux_reason { FLUX_OK = 0, FLUX_SHORT, FLUX_SIZE, FLUX_CHECKSUM, FLUX_VERIFY, FLUX_REASONS }; /* append only */

#define FLUX_NULL UINT32_MAX /* the size of a string that is not there */

typedef struct { /* what a verified envelope says; offsets are from the frame's first byte; nothing is copied */
    uint32_t schema_version;
    uint8_t tag;
    int8_t type_hint;
    uint8_t row_kind; /* enum flux_row_kind; NONE when the message carries no live rows */
    uint32_t correlation_at, correlation_size; /* size FLUX_NULL = null */
    uint32_t source_at, source_size, symbol_at, symbol_size, interval_at, interval_size; /* same */
    uint64_t start_sequence, store_id;
    int64_t origin_ns, recorded_ns;
    uint32_t epoch, stream_id;
    uint32_t rows_at, row_count; /* v2: first packed row. v1: the first uoffset of the vector of tables */
    uint32_t message_at;         /* the union member's table; 0 when there is none or its tag is unknown */
    uint32_t error_at;           /* byte where a check failed */
    uint32_t checksum_present;
} flux_view;

typedef struct {
    const uint8_t *frame;
    uint32_t size;
    uint32_t tables; /* seen so far */
    uint32_t text;   /* bytes of string that may still be looked at */
    uint32_t at;     /* where the check that failed stood */
} flux_check;

typedef struct {
    uint32_t at, vtable, vtable_size;
} flux_table;

static inline int flux_check_fail(flux_check *check, uint64_t at) {
    check->at = at < check->size ? (uint32_t)at : check->size;
    return 0;
}

static inline int flux_check_item(flux_check *check, uint64_t at, uint32_t size, uint32_t align) {
    if ((at & (align - 1)) || at + size > check->size) return flux_check_fail(check, at);
    return 1;
}

static inline int flux_check_table(flux_check *check, uint64_t at, flux_table *table) {
    if (!flux_check_item(check, at, 4, 4)) return 0;
    int64_t vtable = (int64_t)at - (int32_t)flux_wire_u32(check->frame + at);
    if (vtable < 0 || (vtable & 1) || vtable + 2 > (int64_t)check->size) return flux_check_fail(check, at);
    uint32_t size = flux_wire_u16(check->frame + vtable);
    if ((size & 1) || vtable + size > (int64_t)check->size) return flux_check_fail(check, (uint64_t)vtable);
    if (++check->tables > FLUX_VERIFY_TABLES) return flux_check_fail(check, at);
    table->at = (uint32_t)at;
    table->vtable = (uint32_t)vtable;
    table->vtable_size = size;
    return 1;
}

/* Position of a slot's value, unchecked itself; 0 when absent. */
static inline uint32_t flux_check_slot(const flux_check *check, const flux_table *table, unsigned slot) {
    uint32_t entry = 4 + 2 * slot;
    if (entry + 2 > table->vtable_size) return 0;
    uint16_t offset = flux_wire_u16(check->frame + table->vtable + entry);
    return offset ? table->at + offset : 0;
}

/* Strict UTF-8, as Rust has it: no surrogates, nothing overlong, nothing past U+10FFFF. Size of the valid start. */
static inline uint32_t flux_utf8(const uint8_t *text, uint32_t size) {
    uint32_t i = 0;
    while (i < size) {
        while (i + 8 <= size && !(flux_wire_u64(text + i) & 0x8080808080808080u)) i += 8;
        if (i >= size) break;
        uint8_t lead = text[i];
        if (lead < 0x80) {
            i++;
            continue;
        }
        uint32_t more = lead >= 0xC2 && lead <= 0xDF ? 1 : (lead & 0xF0) == 0xE0 ? 2 : lead >= 0xF0 && lead <= 0xF4 ? 3 : 0;
        if (!more || i + more >= size) return i;
        uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
        uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
        if (text[i + 1] < low || text[i + 1] > high) return i;
        for (uint32_t k = 2; k <= more; k++)
            if ((text[i + k] & 0xC0) != 0x80) return i;
        i += more + 1;
    }
    return size;
}

/* The vector whose uoffset stands at `field`: where its first item is, and how many. */
static inline int flux_check_vector(flux_check *check, uint32_t field, uint32_t width, uint32_t align, uint32_t *items,
                                    uint32_t *count) {
    if (!flux_check_item(check, field, 4, 4)) return 0;
    uint64_t at = (uint64_t)field + flux_wire_u32(check->frame + field);
    if (!flux_check_item(check, at, 4, 4)) return 0;
    uint64_t n = flux_wire_u32(check->frame + at);
    if (((at + 4) & (align - 1)) || n * width > check->size - (at + 4)) return flux_check_fail(check, at);
    *items = (uint32_t)(at + 4);
    *count = (uint32_t)n;
    return 1;
}

static inline int flux_check_string(flux_check *check, uint32_t field, uint32_t *text_at, uint32_t *text_size) {
    uint32_t at, size;
    if (!flux_check_vector(check, field, 1, 1, &at, &size)) return 0;
    if (at + size >= check->size || check->frame[at + size]) return flux_check_fail(check, (uint64_t)at + size);
    if (size > check->text) return flux_check_fail(check, at);
    check->text -= size;
    uint32_t valid = flux_utf8(check->frame + at, size);
    if (valid < size) return flux_check_fail(check, at + valid);
    *text_at = at;
    *text_size = size;
    return 1;
}

/* Candle tables of v1. Batches share one vtable, so what was found right for it is not looked up again: only the
 * table's own place is (its alignment, and that its furthest field ends inside the frame). */
static inline int flux_check_candles(flux_check *check, uint32_t field, uint32_t *items, uint32_t *count) {
    if (!flux_check_vector(check, field, 4, 4, items, count)) return 0;
    if (*count > FLUX_VERIFY_TABLES - check->tables) return flux_check_fail(check, *items);
    int64_t known = -1;
    uint32_t known_align = 0, known_end = 0;
    for (uint32_t i = 0; i < *count; i++) {
        uint64_t at = (uint64_t)*items + 4 * (uint64_t)i;
        at += flux_wire_u32(check->frame + at);
        if (!(at & 3) && at + 4 <= check->size) {
            int64_t vtable = (int64_t)at - (int32_t)flux_wire_u32(check->frame + at);
            if (vtable == known && (at & 7) == known_align && at + known_end <= check->size) {
                check->tables++;
                continue;
            }
        }
        flux_table table;
        if (!flux_check_table(check, at, &table)) return 0;
        known_end = 4;
        for (unsigned slot = 0; slot < 6; slot++) {
            uint32_t value = flux_check_slot(check, &table, slot);
            if (!value) continue;
            if (!flux_check_item(check, value, 8, 8)) return 0;
            if (value + 8 - table.at > known_end) known_end = value + 8 - table.at;
        }
        known = table.vtable;
        known_align = table.at & 7;
    }
    return 1;
}

/* One table and all below it, by its shape. */
static int flux_check_shape(flux_check *check, uint64_t at, unsigned which) {
    const flux_table_shape *shape = &flux_shapes[which];
    flux_table table;
    if (!flux_check_table(check, at, &table)) return 0;
    for (unsigned slot = 0; slot < shape->slots; slot++) {
        uint32_t field = flux_check_slot(check, &table, slot), items, count;
        if (!field) continue;
        unsigned kind = shape->slot[slot].kind, of = shape->slot[slot].of;
        if (kind < FLUX_W_STRING) {
            if (!flux_check_item(check, field, flux_wire_width[kind], flux_wire_align[kind])) return 0;
        } else if (kind == FLUX_W_STRING) {
            if (!flux_check_string(check, field, &items, &count)) return 0;
        } else if (kind == FLUX_W_TABLE) {
            if (!flux_check_item(check, field, 4, 4)) return 0;
            if (!flux_check_shape(check, (uint64_t)field + flux_wire_u32(check->frame + field), of)) return 0;
        } else if (kind == FLUX_W_TABLES && of == FLUX_TABLE_CANDLE) {
            if (!flux_check_candles(check, field, &items, &count)) return 0;
        } else {
            if (!flux_check_vector(check, field, flux_wire_width[kind], flux_wire_align[kind], &items, &count)) return 0;
            if (kind != FLUX_W_TABLES) continue;
            if (count > FLUX_VERIFY_LISTED) return flux_check_fail(check, items);
            for (uint32_t i = 0; i < count; i++) {
                uint32_t item = items + 4 * i;
                if (!flux_check_shape(check, (uint64_t)item + flux_wire_u32(check->frame + item), of)) return 0;
            }
        }
    }
    return 1;
}

static inline int flux_check_key(flux_check *check, uint32_t field, flux_view *view) {
    flux_table key;
    if (!flux_check_item(check, field, 4, 4)) return 0;
    if (!flux_check_table(check, (uint64_t)field + flux_wire_u32(check->frame + field), &key)) return 0;
    uint32_t source = flux_check_slot(check, &key, 0), symbol = flux_check_slot(check, &key, 1);
    uint32_t interval = flux_check_slot(check, &key, 2);
    return (!source || flux_check_string(check, source, &view->source_at, &view->source_size)) &&
           (!symbol || flux_check_string(check, symbol, &view->symbol_at, &view->symbol_size)) &&
           (!interval || flux_check_string(check, interval, &view->interval_at, &view->interval_size));
}

static inline int flux_check_u64(flux_check *check, const flux_table *table, unsigned slot, void *out) {
    uint32_t field = flux_check_slot(check, table, slot);
    if (!field) return 1;
    if (!flux_check_item(check, field, 8, 8)) return 0;
    memcpy(out, check->frame + field, 8);
    return 1;
}

static inline int flux_check_u32(flux_check *check, const flux_table *table, unsigned slot, uint32_t *out) {
    uint32_t field = flux_check_slot(check, table, slot);
    if (!field) return 1;
    if (!flux_check_item(check, field, 4, 4)) return 0;
    *out = flux_wire_u32(check->frame + field);
    return 1;
}

/* The messages that live streams are made of, checked and read in one go. A Forming is a batch whose slots 1 and 2 have
 * changed places. */
static inline int flux_check_batch(flux_check *check, uint64_t at, flux_view *view) {
    flux_table table;
    if (!flux_check_table(check, at, &table)) return 0;
    int forming = view->tag == FLUX_TAG_FORMING;
    uint32_t key = flux_check_slot(check, &table, FLUX_BATCH_KEY);
    if (key && !flux_check_key(check, key, view)) return 0;
    uint32_t rows = flux_check_slot(check, &table, forming ? 1 : FLUX_BATCH_ROWS);
    if (!flux_check_u64(check, &table, forming ? 2 : FLUX_BATCH_START, &view->start_sequence)) return 0;
    if (view->tag == FLUX_TAG_CANDLE_BATCH)
        return !rows || flux_check_candles(check, rows, &view->rows_at, &view->row_count);
    uint32_t width = view->tag == FLUX_TAG_TRADE_ROWS || view->tag == FLUX_TAG_QUOTE_ROWS ? 40 : 64;
    return (!rows || flux_check_vector(check, rows, width, 8, &view->rows_at, &view->row_count)) &&
           flux_check_u32(check, &table, FLUX_BATCH_EPOCH, &view->epoch) &&
           flux_check_u64(check, &table, FLUX_BATCH_STORE, &view->store_id) &&
           flux_check_u64(check, &table, FLUX_BATCH_ORIGIN, &view->origin_ns) &&
           flux_check_u64(check, &table, FLUX_BATCH_RECORDED, &view->recorded_ns) &&
           flux_check_u32(check, &table, FLUX_BATCH_STREAM, &view->stream_id);
}

static inline uint8_t flux_row_kind_of(uint8_t tag) {
    return tag == FLUX_TAG_CANDLE_ROWS   ? FLUX_ROWS_CANDLE
           : tag == FLUX_TAG_TRADE_ROWS  ? FLUX_ROWS_TRADE
           : tag == FLUX_TAG_QUOTE_ROWS  ? FLUX_ROWS_QUOTE
           : tag == FLUX_TAG_CANDLE_BATCH ? FLUX_ROWS_CANDLE_V1
                                          : FLUX_ROWS_NONE;
}

static inline int flux_check_message(flux_check *check, uint32_t field, flux_view *view) {
    if (view->tag == FLUX_TAG_NONE || view->tag >= FLUX_TAGS) return 1; /* unknown: opaque */
    if (!flux_check_item(check, field, 4, 4)) return 0;
    uint64_t at = (uint64_t)field + flux_wire_u32(check->frame + field);
    view->row_kind = flux_row_kind_of(view->tag);
    if (view->row_kind != FLUX_ROWS_NONE || view->tag == FLUX_TAG_FORMING) {
        if (!flux_check_batch(check, at, view)) return 0;
    } else {
        if (!flux_check_shape(check, at, view->tag)) return 0;
        unsigned key_slot = view->tag == FLUX_TAG_SUBSCRIBE_ACK ? 2 : 0;
        uint32_t key = flux_wire_slot(check->frame, (uint32_t)at, key_slot);
        if (key && flux_shapes[view->tag].slot[key_slot].kind == FLUX_W_TABLE && !flux_check_key(check, key, view)) return 0;
    }
    view->message_at = (uint32_t)at;
    return 1;
}

/* The envelope behind its checksum. A FLUX_CHECKSUM here is a message that only exists in v2 and lacks the identifier. */
static inline int flux_check_envelope(flux_check *check, flux_view *view) {
    flux_table table;
    if (!flux_check_table(check, flux_wire_u32(check->frame), &table)) return FLUX_VERIFY;
    uint32_t tag = flux_check_slot(check, &table, FLUX_ENVELOPE_TAG);
    if (tag) {
        if (!flux_check_item(check, tag, 1, 1)) return FLUX_VERIFY;
        view->tag = check->frame[tag];
        if (view->tag >= FLUX_FIRST_CHECKED_TAG && !view->checksum_present) {
            check->at = tag;
            return FLUX_CHECKSUM;
        }
    }
    if (!flux_check_u32(check, &table, FLUX_ENVELOPE_VERSION, &view->schema_version)) return FLUX_VERIFY;
    uint32_t hint = flux_check_slot(check, &table, FLUX_ENVELOPE_HINT);
    if (hint) {
        if (!flux_check_item(check, hint, 1, 1)) return FLUX_VERIFY;
        view->type_hint = (int8_t)check->frame[hint];
    }
    uint32_t correlation = flux_check_slot(check, &table, FLUX_ENVELOPE_CORRELATION);
    if (correlation && !flux_check_string(check, correlation, &view->correlation_at, &view->correlation_size))
        return FLUX_VERIFY;
    uint32_t message = flux_check_slot(check, &table, FLUX_ENVELOPE_MESSAGE);
    if (!tag != !message) {
        flux_check_fail(check, tag ? tag : message);
        return FLUX_VERIFY;
    }
    return !message || flux_check_message(check, message, view) ? FLUX_OK : FLUX_VERIFY;
}

static inline void flux_view_clear(flux_view *view) {
    memset(view, 0, sizeof *view);
    view->schema_version = 1;
    view->correlation_size = view->source_size = view->symbol_size = view->interval_size = FLUX_NULL;
}

/* As flux_verify(); without `checksum` that one comparison is left out, for a frame that was compared before. */
static inline int flux_verify_as(const uint8_t *frame, size_t size, int checksum, flux_view *out) {
    static const uint32_t identifier = 0x32584C46; /* "FLX2" */
    flux_view_clear(out);
    if (size < 8) {
        out->error_at = (uint32_t)size;
        return FLUX_SHORT;
    }
    if (size > FLUX_FRAME_MAX) {
        out->error_at = FLUX_FRAME_MAX;
        return FLUX_SIZE;
    }
    flux_check check = {frame, (uint32_t)size, 0, FLUX_VERIFY_TEXT, 0};
    uint32_t wrong = flux_wire_u32(frame + 4) ^ identifier;
    if (!(wrong & (wrong - 1))) { /* at most one bit */
        out->error_at = 4;
        if (wrong || size < 8 + FLUX_CHECKSUM_SIZE) return FLUX_CHECKSUM;
        check.size -= FLUX_CHECKSUM_SIZE;
        out->error_at = check.size;
        if (checksum && flux_crc32c(0, frame, check.size) != flux_wire_u32(frame + check.size)) return FLUX_CHECKSUM;
        out->error_at = 0;
        out->checksum_present = 1;
    }
    int reason = flux_check_envelope(&check, out);
    if (reason) out->error_at = check.at;
    return reason;
}

/* Size, checksum where the identifier says there is one, then the whole envelope. Fills *out as far as it came; on a
 * failure, which is the reason returned, out->error_at is the byte.
 *
 * An identifier with one bit wrong is a v2 frame that was damaged: no builder writes one by chance. */
static inline int flux_verify(const uint8_t *frame, size_t size, flux_view *out) {
    return flux_verify_as(frame, size, 1, out);
}

#endif
