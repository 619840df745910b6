/* Where the rows of a stream are, by what it is ordered by: how a row that is not newer than all before it is looked
 * for in a few steps, whatever the order in which rows come.
 *
 *   order           ─hash─► place ─► the newest row of that order
 *   order's values  ─hash─► place ─► an older row of that order, which was corrected since
 *
 * A place holds the row's sequence (of a ring) or its byte (of an inbox); the row itself is then compared, so a hash
 * never decides. Rows that a ring has evicted stay as dead places until the table is filled, and is made anew from what
 * the ring holds. Nothing is kept for a stream whose rows come in order: its table is made, and brought up to date, by
 * the first row that is not newer. */
#ifndef FLUX_ORDERS_H
#define FLUX_ORDERS_H

#include <stdlib.h>

#include "admit.h"
#include "crc32c.h"
#include "ring.h"

typedef struct {
    uint32_t tag; /* 0 = empty; odd: by order, even: by values */
    uint32_t at;  /* the low bits of a sequence, or a byte of the inbox */
} flux_order_place;

typedef struct {
    flux_order_place *places;
    uint32_t mask, used;
    uint64_t upto;    /* of a ring: sequences up to here were laid down */
    uint32_t *filled; /* of an inbox: the places in use, to empty them again */
} flux_orders;

typedef struct { /* what the places point into: a ring, or an inbox whose rows are of many streams */
    const flux_ring *ring;
    const uint8_t *inbox;
    uint32_t *streams; /* beside the places of an inbox: whose row it is */
    uint32_t stream;
    int kind;
} flux_orders_of;

#define FLUX_NO_PLACE UINT32_MAX

static inline uint64_t flux_order_mix(uint64_t x) {
    x = (x ^ (x >> 31)) * UINT64_C(0x7fb5d329728ea185);
    x = (x ^ (x >> 27)) * UINT64_C(0x81dadef4bc2dd44d);
    return x ^ (x >> 33);
}

static inline uint32_t flux_order_tag(const flux_orders_of *of, int64_t order) {
    return (uint32_t)flux_order_mix((uint64_t)order + ((uint64_t)of->stream << 40)) | 1u;
}

static inline uint32_t flux_values_tag(const flux_orders_of *of, const uint8_t *row) {
    uint8_t values[64];
    uint32_t size = flux_row_values(of->kind, row, values);
    uint32_t tag = (uint32_t)flux_order_mix(flux_crc32c(of->stream, values, size)) & ~1u;
    return tag ? tag : 2u;
}

/* The row that a place points at, or NULL when it is gone. */
static inline const uint8_t *flux_order_row(const flux_orders_of *of, const flux_orders *o, uint32_t place) {
    uint32_t at = o->places[place].at;
    if (of->ring == NULL) return of->streams[place] == of->stream ? of->inbox + at : NULL;
    uint64_t sequence = of->ring->contiguous - (uint32_t)((uint32_t)of->ring->contiguous - at);
    return sequence >= of->ring->first && sequence <= of->ring->contiguous ? flux_ring_row(of->ring, sequence) : NULL;
}

static inline uint32_t flux_order_put(const flux_orders_of *of, flux_orders *o, uint32_t tag, uint32_t at) {
    uint32_t place = tag >> 2 & o->mask;
    while (o->places[place].tag) place = (place + 1) & o->mask;
    o->places[place] = (flux_order_place){tag, at};
    if (of->streams) of->streams[place] = of->stream;
    if (o->filled) o->filled[o->used] = place;
    o->used++;
    return place;
}

/* The place of the newest row of an order, or FLUX_NO_PLACE. */
static inline uint32_t flux_order_newest(const flux_orders_of *of, const flux_orders *o, int64_t order) {
    uint32_t tag = flux_order_tag(of, order);
    for (uint32_t place = tag >> 2 & o->mask; o->places[place].tag; place = (place + 1) & o->mask) {
        if (o->places[place].tag != tag) continue;
        const uint8_t *row = flux_order_row(of, o, place);
        if (row && flux_row_order(of->kind, row) == order) return place;
    }
    return FLUX_NO_PLACE;
}

/* Whether a row of this order with these values is there; `newest` is the place of the order's newest row. */
static inline int flux_order_has(const flux_orders_of *of, const flux_orders *o, uint32_t newest, const uint8_t *row) {
    int64_t order = flux_row_order(of->kind, row);
    if (flux_row_same(of->kind, row, flux_order_row(of, o, newest))) return 1;
    uint32_t tag = flux_values_tag(of, row);
    for (uint32_t place = tag >> 2 & o->mask; o->places[place].tag; place = (place + 1) & o->mask) {
        if (o->places[place].tag != tag) continue;
        const uint8_t *other = flux_order_row(of, o, place);
        if (other && flux_row_order(of->kind, other) == order && flux_row_same(of->kind, row, other)) return 1;
    }
    return 0;
}

/* Lays one row down as the newest of its order. There must be a place for it. */
static inline void flux_order_add(const flux_orders_of *of, flux_orders *o, const uint8_t *row, uint32_t at) {
    int64_t order = flux_row_order(of->kind, row);
    if (of->kind == FLUX_ROWS_TRADE && order == 0) return; /* no id: never looked for */
    uint32_t newest = flux_order_newest(of, o, order);
    if (newest != FLUX_NO_PLACE) {
        const uint8_t *older = flux_order_row(of, o, newest);
        uint32_t older_at = o->places[newest].at;
        o->places[newest].at = at;
        flux_order_put(of, o, flux_values_tag(of, older), older_at);
    } else {
        flux_order_put(of, o, flux_order_tag(of, order), at);
    }
}

static inline int flux_orders_make(flux_orders *o, uint64_t rows) {
    uint64_t size = 64;
    while (size < 2 * rows) size *= 2;
    o->places = (flux_order_place *)calloc(size, sizeof *o->places);
    o->mask = (uint32_t)(size - 1);
    o->used = 0;
    o->upto = 0;
    return o->places ? 0 : -1;
}

static inline void flux_orders_free(flux_orders *o) {
    free(o->places);
    free(o->filled);
    memset(o, 0, sizeof *o);
}

/* Empties the table of an inbox, in as many steps as it has rows. */
static inline void flux_orders_clear(flux_orders *o) {
    for (uint32_t i = 0; i < o->used; i++) o->places[o->filled[i]].tag = 0;
    o->used = 0;
}

/* Brings a ring's table up to the ring's newest row; made where there is none. 0, or -1 without memory. */
static inline int flux_orders_follow(const flux_orders_of *of, flux_orders *o) {
    const flux_ring *ring = of->ring;
    uint64_t from = o->upto + 1;
    if (o->places == NULL && flux_orders_make(o, ring->capacity)) return -1;
    if (from < ring->first) from = ring->first;
    if (from > ring->contiguous) return 0;
    if (o->used + (ring->contiguous - from + 1) > o->mask - o->mask / 4) {
        memset(o->places, 0, ((size_t)o->mask + 1) * sizeof *o->places);
        o->used = 0;
        from = ring->first;
    }
    for (uint64_t sequence = from; sequence <= ring->contiguous; sequence++)
        flux_order_add(of, o, flux_ring_row(ring, sequence), (uint32_t)sequence);
    o->upto = ring->contiguous;
    return 0;
}

#endif
