/* Mutations that know what a frame is: they change the places that say where other things are.
 *
 *   root, soffsets, vtable entries, uoffsets, lengths, tags       found by walking a sound frame with flux_shapes
 *   ─► an edge value, a neighbour's value, a pointer to another such place, a little more or less
 *   ─► the checksum put right again, or nothing behind it would ever be looked at */
#ifndef FUZZ_FRAMES_H
#define FUZZ_FRAMES_H

#include "codec.h"
#include "fuzz.h"

enum { FUZZ_SPOTS_MAX = 2048 };

typedef struct {
    uint32_t at;
    uint8_t width;
} fuzz_spot;

typedef struct {
    const uint8_t *frame;
    unsigned count;
    fuzz_spot spot[FUZZ_SPOTS_MAX];
} fuzz_spots;

static inline void fuzz_spot_at(fuzz_spots *s, uint32_t at, uint8_t width) {
    if (s->count < FUZZ_SPOTS_MAX) s->spot[s->count++] = (fuzz_spot){at, width};
}

/* The places of one table of a verified frame, and of all below it. */
static void fuzz_walk(fuzz_spots *s, uint32_t table, unsigned which) {
    uint32_t vtable = table - flux_wire_u32(s->frame + table), size = flux_wire_u16(s->frame + vtable);
    if (s->count > FUZZ_SPOTS_MAX - 64) return;
    fuzz_spot_at(s, table, 4);
    for (uint32_t at = 0; at < size && at < 48; at += 2) fuzz_spot_at(s, vtable + at, 2);
    for (unsigned slot = 0; slot < flux_shapes[which].slots; slot++) {
        uint32_t field = flux_wire_slot(s->frame, table, slot);
        unsigned kind = flux_shapes[which].slot[slot].kind, of = flux_shapes[which].slot[slot].of;
        if (!field) continue;
        fuzz_spot_at(s, field, kind < FLUX_W_STRING ? flux_wire_width[kind] : 4);
        if (kind < FLUX_W_STRING) continue;
        uint32_t at = flux_wire_follow(s->frame, field);
        if (kind == FLUX_W_TABLE) {
            fuzz_walk(s, at, of);
            continue;
        }
        uint32_t count = flux_wire_u32(s->frame + at);
        fuzz_spot_at(s, at, 4);
        if (kind == FLUX_W_STRING) fuzz_spot_at(s, at + 4 + count, 1); /* the NUL */
        for (uint32_t i = 0; kind == FLUX_W_TABLES && i < count && i < 8; i++) {
            fuzz_spot_at(s, at + 4 + 4 * i, 4);
            fuzz_walk(s, flux_wire_follow(s->frame, at + 4 + 4 * i), of);
        }
    }
}

/* 0 spots where the frame is not sound: then only plain mutations remain. */
static inline void fuzz_find_spots(fuzz_spots *s, const uint8_t *frame, size_t size) {
    flux_view view;
    s->frame = frame;
    s->count = 0;
    if (flux_verify_as(frame, size, 0, &view) != FLUX_OK) return;
    fuzz_spot_at(s, 0, 4);
    uint32_t envelope = flux_wire_u32(frame), vtable = envelope - flux_wire_u32(frame + envelope);
    fuzz_spot_at(s, envelope, 4);
    for (uint32_t at = 0; at < flux_wire_u16(frame + vtable) && at < 48; at += 2) fuzz_spot_at(s, vtable + at, 2);
    for (unsigned slot = 0; slot <= FLUX_ENVELOPE_MESSAGE; slot++) {
        static const uint8_t width[] = {4, 1, 4, 1, 4};
        uint32_t field = flux_wire_slot(frame, envelope, slot);
        if (field) fuzz_spot_at(s, field, width[slot]);
    }
    if (view.correlation_size != FLUX_NULL) fuzz_spot_at(s, view.correlation_at - 4, 4);
    if (view.message_at) fuzz_walk(s, view.message_at, view.tag);
}

static inline int fuzz_is_checked(const uint8_t *frame, size_t size) {
    return size >= 12 && memcmp(frame + 4, "FLX2", 4) == 0;
}

static inline void fuzz_reseal(uint8_t *frame, size_t size) {
    if (fuzz_is_checked(frame, size))
        flux_wire_put32(frame + size - FLUX_CHECKSUM_SIZE, flux_crc32c(0, frame, size - FLUX_CHECKSUM_SIZE));
}

static inline void fuzz_bend(uint8_t *frame, size_t size, const fuzz_spots *spots) {
    const fuzz_spot *spot = &spots->spot[fuzz_below(spots->count)], *other = &spots->spot[fuzz_below(spots->count)];
    uint64_t value = 0;
    if (spot->at + spot->width > size || other->at + other->width > size) return; /* the frame is shorter by now */
    memcpy(&value, frame + spot->at, spot->width);
    switch (fuzz_below(7)) {
    case 0: value = fuzz_number(); break;
    case 1: value += fuzz_below(17) - 8; break;
    case 2: value = other->at - spot->at; break;          /* an offset to another place that matters */
    case 3: value = (uint64_t)spot->at - other->at; break; /* the same, as a vtable's */
    case 4: value = size - spot->at - fuzz_below(12) + 4; break; /* around the frame's end */
    case 5: memcpy(&value, frame + other->at, other->width); break;
    default: value = fuzz_below(size + 8);
    }
    memcpy(frame + spot->at, &value, spot->width);
}

/* One frame, in place; the new size, at most `most`. */
static inline size_t fuzz_mutate_frame(uint8_t *frame, size_t size, size_t most) {
    static fuzz_spots spots;
    int checked = fuzz_is_checked(frame, size);
    fuzz_find_spots(&spots, frame, size);
    for (size_t times = 1 + fuzz_below(3); times; times--) {
        if (spots.count && !fuzz_one_in(4)) {
            fuzz_bend(frame, size, &spots);
        } else if (size <= FUZZ_INPUT_MAX && fuzz_one_in(3)) {
            size_t room = most - size; /* what scramble may add: 64 bytes, or nothing here */
            if (room >= 64) size = fuzz_scramble(frame, size);
        } else if (size) {
            frame[fuzz_below(size)] ^= (uint8_t)(1 << fuzz_below(8));
        }
    }
    if (fuzz_one_in(12)) size = fuzz_below(size + 1);
    if (checked && size >= 12 && !fuzz_one_in(16)) memcpy(frame + 4, "FLX2", 4);
    if (!fuzz_one_in(16)) fuzz_reseal(frame, size);
    return size;
}

#endif
