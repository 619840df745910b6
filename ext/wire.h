/* The shape of every message of schemas/market_data.fbs: the only file that knows FlatBuffers slots and offsets.
 *
 * A FlatBuffer is read from its first four bytes (little endian throughout):
 *
 *      0 ──uoffset──► root table        a table: | soffset i32 | fields ... |
 *      4  "FLX2" (v2)                            vtable = table - soffset: | bytes u16 | table bytes u16 | field 0 u16 | ...
 *                                       a string or vector field holds a uoffset to | length u32 | items ... |
 *
 * Slot n of a table stands at byte 4 + 2 n of its vtable; 0, or a vtable that ends before, means absent. */
#ifndef FLUX_WIRE_H
#define FLUX_WIRE_H

#include <stdint.h>
#include <string.h>

enum flux_tag {
    FLUX_TAG_NONE = 0,
    FLUX_TAG_HEALTH_REQUEST = 1,
    FLUX_TAG_HEALTH_RESPONSE = 2,
    FLUX_TAG_GET_CURSOR_REQUEST = 3,
    FLUX_TAG_GET_CURSOR_RESPONSE = 4,
    FLUX_TAG_SUBSCRIBE_REQUEST = 5,
    FLUX_TAG_SUBSCRIBE_ACK = 6,
    FLUX_TAG_CANDLE_BATCH = 7,
    FLUX_TAG_BACKFILL_CANDLES_REQUEST = 8,
    FLUX_TAG_BACKFILL_CANDLES_RESPONSE = 9,
    FLUX_TAG_ERROR_RESPONSE = 10,
    FLUX_TAG_STREAM_STATUS_REQUEST = 11,
    FLUX_TAG_STREAM_STATUS_RESPONSE = 12,
    FLUX_TAG_CANDLE_ROWS = 13,
    FLUX_TAG_BACKFILL_ROWS_REQUEST = 14,
    FLUX_TAG_BACKFILL_ROWS_RESPONSE = 15,
    FLUX_TAG_HEARTBEAT = 16,
    FLUX_TAG_STREAM_LIST_REQUEST = 17,
    FLUX_TAG_STREAM_LIST_RESPONSE = 18,
    FLUX_TAG_TRADE_ROWS = 19,
    FLUX_TAG_QUOTE_ROWS = 20,
    FLUX_TAG_GAP_LIST_REQUEST = 21,
    FLUX_TAG_GAP_LIST_RESPONSE = 22,
    FLUX_TAG_FORMING = 23,
    FLUX_TAG_SOURCE_POSITION_REQUEST = 24,
    FLUX_TAG_SOURCE_POSITION_RESPONSE = 25,
    FLUX_TAGS = 26,
    /* tables that are no union members follow, so that one array describes all */
    FLUX_TABLE_KEY = 26,
    FLUX_TABLE_CURSOR,
    FLUX_TABLE_CANDLE,
    FLUX_TABLE_GAP,
    FLUX_TABLES,
};

/* The enum MessageType: up to 9 the tag itself, then the tag less one, and ERROR_RESPONSE is 100. */
static inline int8_t flux_wire_type_hint(uint8_t tag) {
    return tag == FLUX_TAG_ERROR_RESPONSE ? 100 : tag > FLUX_TAG_ERROR_RESPONSE ? (int8_t)(tag - 1) : (int8_t)tag;
}

#define FLUX_FIRST_CHECKED_TAG FLUX_TAG_CANDLE_ROWS /* from here on a message exists in v2 only */

/* What a slot holds. Scalars first: a scalar of kind k takes flux_wire_width[k] bytes. */
enum flux_slot_kind {
    FLUX_W_BOOL,
    FLUX_W_TRUE, /* a bool whose default is true */
    FLUX_W_U8,
    FLUX_W_U32,
    FLUX_W_I64,
    FLUX_W_U64,
    FLUX_W_F64,
    FLUX_W_STRING,
    FLUX_W_TABLE,   /* of: which */
    FLUX_W_TABLES,  /* of: which */
    FLUX_W_BYTES,
    FLUX_W_CANDLES, /* structs */
    FLUX_W_TRADES,
    FLUX_W_QUOTES,
    FLUX_W_MARKS,
    FLUX_W_REFUSED,
};

static const uint8_t flux_wire_width[] = {1, 1, 1, 4, 8, 8, 8, 4, 4, 4, 1, 64, 40, 40, 24, 16};
static const uint8_t flux_wire_align[] = {1, 1, 1, 4, 8, 8, 8, 4, 4, 4, 1, 8, 8, 8, 8, 8};

#define FLUX_SLOTS_MAX 15

typedef struct {
    uint8_t slots;
    struct {
        uint8_t kind, of;
    } slot[FLUX_SLOTS_MAX];
} flux_table_shape;

#define KEY_ {FLUX_W_TABLE, FLUX_TABLE_KEY}
#define BOOL_ {FLUX_W_BOOL, 0}
#define U8_ {FLUX_W_U8, 0}
#define U32_ {FLUX_W_U32, 0}
#define I64_ {FLUX_W_I64, 0}
#define U64_ {FLUX_W_U64, 0}
#define F64_ {FLUX_W_F64, 0}
#define TEXT_ {FLUX_W_STRING, 0}

static const flux_table_shape flux_shapes[FLUX_TABLES] = {
    [FLUX_TAG_NONE] = {0, {BOOL_}}, /* both without slots; named, since C++ wants no holes */
    [FLUX_TAG_HEALTH_REQUEST] = {0, {BOOL_}},
    [FLUX_TAG_HEALTH_RESPONSE] = {8, {{FLUX_W_TRUE, 0}, TEXT_, U8_, TEXT_, U64_, U32_, U32_, U64_}},
    [FLUX_TAG_GET_CURSOR_REQUEST] = {1, {KEY_}},
    [FLUX_TAG_GET_CURSOR_RESPONSE] = {2, {KEY_, {FLUX_W_TABLE, FLUX_TABLE_CURSOR}}},
    [FLUX_TAG_SUBSCRIBE_REQUEST] = {3, {KEY_, BOOL_, U64_}},
    [FLUX_TAG_SUBSCRIBE_ACK] = {4, {BOOL_, TEXT_, KEY_, U64_}},
    [FLUX_TAG_CANDLE_BATCH] = {3, {KEY_, U64_, {FLUX_W_TABLES, FLUX_TABLE_CANDLE}}},
    [FLUX_TAG_BACKFILL_CANDLES_REQUEST] = {6, {KEY_, BOOL_, U64_, BOOL_, I64_, U32_}},
    [FLUX_TAG_BACKFILL_CANDLES_RESPONSE] = {5, {KEY_, U64_, {FLUX_W_TABLES, FLUX_TABLE_CANDLE}, BOOL_, U64_}},
    [FLUX_TAG_ERROR_RESPONSE] = {4, {U32_, TEXT_, U8_, U32_}},
    [FLUX_TAG_STREAM_STATUS_REQUEST] = {2, {KEY_, U32_}},
    [FLUX_TAG_STREAM_STATUS_RESPONSE] = {9, {KEY_, U64_, I64_, I64_, U64_, U32_, U64_, U32_, {FLUX_W_CANDLES, 0}}},
    [FLUX_TAG_CANDLE_ROWS] = {8, {KEY_, U64_, {FLUX_W_CANDLES, 0}, U32_, U64_, I64_, I64_, U32_}},
    [FLUX_TAG_BACKFILL_ROWS_REQUEST] = {9, {KEY_, U64_, U64_, U32_, U32_, U64_, BOOL_, I64_, I64_}},
    [FLUX_TAG_BACKFILL_ROWS_RESPONSE] = {15,
                                         {KEY_, U64_, {FLUX_W_CANDLES, 0}, U32_, U64_, BOOL_, U64_, U64_, U8_, U64_,
                                          U32_, {FLUX_W_BYTES, 0}, {FLUX_W_TRADES, 0}, {FLUX_W_QUOTES, 0},
                                          U32_}},
    [FLUX_TAG_HEARTBEAT] = {11, {U64_, U32_, U64_, I64_, U64_, U32_, {FLUX_W_MARKS, 0}, U8_, TEXT_, U32_, U64_}},
    [FLUX_TAG_STREAM_LIST_REQUEST] = {3, {TEXT_, U32_, U32_}},
    [FLUX_TAG_STREAM_LIST_RESPONSE] = {2, {{FLUX_W_TABLES, FLUX_TAG_STREAM_STATUS_RESPONSE}, BOOL_}},
    [FLUX_TAG_TRADE_ROWS] = {8, {KEY_, U64_, {FLUX_W_TRADES, 0}, U32_, U64_, I64_, I64_, U32_}},
    [FLUX_TAG_QUOTE_ROWS] = {8, {KEY_, U64_, {FLUX_W_QUOTES, 0}, U32_, U64_, I64_, I64_, U32_}},
    [FLUX_TAG_GAP_LIST_REQUEST] = {3, {KEY_, I64_, U32_}},
    [FLUX_TAG_GAP_LIST_RESPONSE] = {2, {{FLUX_W_TABLES, FLUX_TABLE_GAP}, BOOL_}},
    [FLUX_TAG_FORMING] = {8, {KEY_, {FLUX_W_CANDLES, 0}, U64_, U32_, U64_, I64_, I64_, U32_}},
    [FLUX_TAG_SOURCE_POSITION_REQUEST] = {4, {TEXT_, U64_, U64_, U64_}},
    [FLUX_TAG_SOURCE_POSITION_RESPONSE] = {6, {TEXT_, U64_, U64_, U32_, U64_, {FLUX_W_REFUSED, 0}}},
    [FLUX_TABLE_KEY] = {3, {TEXT_, TEXT_, TEXT_}},
    [FLUX_TABLE_CURSOR] = {2, {U64_, I64_}},
    [FLUX_TABLE_CANDLE] = {6, {I64_, F64_, F64_, F64_, F64_, F64_}},
    [FLUX_TABLE_GAP] = {8, {KEY_, U8_, U64_, U64_, I64_, I64_, I64_, I64_}},
};

#undef KEY_
#undef BOOL_
#undef U8_
#undef U32_
#undef I64_
#undef U64_
#undef F64_
#undef TEXT_

/* Slots of the envelope, and where a stream's key and rows stand in the messages that have them. */
enum { FLUX_ENVELOPE_VERSION, FLUX_ENVELOPE_HINT, FLUX_ENVELOPE_CORRELATION, FLUX_ENVELOPE_TAG, FLUX_ENVELOPE_MESSAGE };
enum { FLUX_BATCH_KEY, FLUX_BATCH_START, FLUX_BATCH_ROWS, FLUX_BATCH_EPOCH, FLUX_BATCH_STORE, FLUX_BATCH_ORIGIN,
       FLUX_BATCH_RECORDED, FLUX_BATCH_STREAM };

static inline uint16_t flux_wire_u16(const uint8_t *at) { uint16_t v; memcpy(&v, at, 2); return v; }
static inline uint32_t flux_wire_u32(const uint8_t *at) { uint32_t v; memcpy(&v, at, 4); return v; }
static inline uint64_t flux_wire_u64(const uint8_t *at) { uint64_t v; memcpy(&v, at, 8); return v; }
static inline void flux_wire_put16(uint8_t *at, uint16_t v) { memcpy(at, &v, 2); }
static inline void flux_wire_put32(uint8_t *at, uint32_t v) { memcpy(at, &v, 4); }
static inline void flux_wire_put64(uint8_t *at, uint64_t v) { memcpy(at, &v, 8); }

/* Position of a slot's value in a table that has been verified; 0 when absent. */
static inline uint32_t flux_wire_slot(const uint8_t *frame, uint32_t table, unsigned slot) {
    uint32_t vtable = table - flux_wire_u32(frame + table); /* soffset: wraps as the signed subtraction does */
    uint32_t entry = 4 + 2 * slot;
    if (entry + 2 > flux_wire_u16(frame + vtable)) return 0;
    uint16_t offset = flux_wire_u16(frame + vtable + entry);
    return offset ? table + offset : 0;
}

/* Position that the uoffset at `at` points to. */
static inline uint32_t flux_wire_follow(const uint8_t *frame, uint32_t at) { return at + flux_wire_u32(frame + at); }

/* ---- Writing the head of a message that ends in a vector ---------------------------------------------------------
 *
 *   0 root · 4 identifier or 0 · 8 envelope vtable · envelope · message vtable · message · key vtable · key ·
 *   source · symbol · interval · correlation · padding · u32 length of the vector | first item at 0 mod 8
 *
 * A message's table is | soffset | key | vector | its integers, at 0 mod 8, without a hole |: `vtable` says where. */
typedef struct {
    uint8_t tag, slots, table_size;
    uint8_t vtable[FLUX_SLOTS_MAX]; /* offset in the table by slot; 4 is the key, 8 the vector, 12 the integers */
} flux_head_shape;

typedef struct {
    const char *text; /* NULL: absent */
    size_t size;
} flux_wire_text;

static inline size_t flux_wire_text_size(flux_wire_text text) {
    return text.text ? (4 + text.size + 1 + 3) & ~(size_t)3 : 0;
}

/* Bytes that a head takes at most. */
static inline size_t flux_wire_head_size(flux_wire_text source, flux_wire_text symbol, flux_wire_text interval,
                                         flux_wire_text correlation) {
    return 216 + flux_wire_text_size(source) + flux_wire_text_size(symbol) + flux_wire_text_size(interval) +
           flux_wire_text_size(correlation);
}

static inline uint32_t flux_wire_put_text(uint8_t *out, uint32_t at, uint32_t field, flux_wire_text text) {
    if (!text.text) return at;
    flux_wire_put32(out + field, at - field);
    flux_wire_put32(out + at, (uint32_t)text.size);
    memcpy(out + at + 4, text.text, text.size);
    return at + (uint32_t)flux_wire_text_size(text); /* the NUL and the padding are zero already */
}

/* Lays out a head in `out`, which has flux_wire_head_size() bytes. Returns its size, which is where the first item goes
 * and before which the vector's length is still 0; *integers_at is where the message's integers stand, all 0. */
static inline uint32_t flux_wire_head(uint8_t *out, const flux_head_shape *shape, uint32_t version,
                                      flux_wire_text source, flux_wire_text symbol, flux_wire_text interval,
                                      flux_wire_text correlation, uint32_t *integers_at) {
    memset(out, 0, flux_wire_head_size(source, symbol, interval, correlation));
    uint32_t envelope = 24, at = envelope + (correlation.text ? 20 : 16);
    flux_wire_put32(out, envelope);
    if (version >= 2) memcpy(out + 4, "FLX2", 4);
    const uint16_t envelope_vtable[7] = {
        14, (uint16_t)(correlation.text ? 20 : 16), 4, 12, (uint16_t)(correlation.text ? 16 : 0), 13, 8};
    memcpy(out + 8, envelope_vtable, sizeof envelope_vtable);
    flux_wire_put32(out + envelope, envelope - 8);
    flux_wire_put32(out + envelope + 4, version);
    out[envelope + 12] = (uint8_t)flux_wire_type_hint(shape->tag);
    out[envelope + 13] = shape->tag;

    uint32_t vtable = at;
    at += 4 + 2u * shape->slots;
    while ((at + 12) % 8) at += 2; /* the integers at 0 mod 8 */
    uint32_t message = at;
    flux_wire_put16(out + vtable, (uint16_t)(4 + 2 * shape->slots));
    flux_wire_put16(out + vtable + 2, shape->table_size);
    for (unsigned i = 0; i < shape->slots; i++) flux_wire_put16(out + vtable + 4 + 2 * i, shape->vtable[i]);
    flux_wire_put32(out + message, message - vtable);
    flux_wire_put32(out + envelope + 8, message - (envelope + 8));
    *integers_at = message + 12;
    at = (message + shape->table_size + 3) & ~3u;

    const uint16_t key_vtable[5] = {10, 16, 4, 8, 12};
    memcpy(out + at, key_vtable, sizeof key_vtable);
    uint32_t key = at + 12;
    flux_wire_put32(out + key, 12);
    flux_wire_put32(out + message + 4, key - (message + 4));
    at = flux_wire_put_text(out, key + 16, key + 4, source);
    at = flux_wire_put_text(out, at, key + 8, symbol);
    at = flux_wire_put_text(out, at, key + 12, interval);
    at = flux_wire_put_text(out, at, envelope + 16, correlation);

    at = (at + 4 + 7) & ~7u; /* the length at 4 mod 8, the first item at 0 mod 8 */
    flux_wire_put32(out + message + 8, at - 4 - (message + 8));
    return at;
}

#endif
