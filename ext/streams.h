/* The streams of one process, as compiled code sees them: a table of slots, and two ways to find a slot.
 *
 *   key (source, symbol, interval) ──hash──► slot ──► flux_stream {ring, template, topics, marks}
 *   (store_id, stream_id) of a frame ─hash─► route ─► {learned head, slot, run}     the fast way: one look, one memcmp
 *
 * A route is learned from a frame that was verified whole; the next frame of that stream whose head is byte-equal needs
 * no second verification. The table grows only in the thread that receives; slots never move and never go, so other
 * threads may read a stream they were given. */
#ifndef FLUX_STREAMS_H
#define FLUX_STREAMS_H

#include <stdlib.h>

#include "admit.h"
#include "codec.h"
#include "orders.h"
#include "ring.h"

#define FLUX_NO_SLOT UINT32_MAX

typedef struct {
    flux_ring *ring;             /* owned by the Python object that was given to `add` */
    uint64_t head;               /* highest sequence recorded: server */
    uint64_t reserved;           /* rows in the inbox, not yet recorded: server */
    uint64_t turn_next;          /* while a turn is numbered (ext/bridge.h): its next sequence, its next run */
    uint32_t turn_runs;
    uint64_t committed;          /* highest sequence that may be shown: server, read by other threads */
    int64_t committed_ts;        /* time of that row, ms (candles) or ns */
    int64_t committed_highest;   /* highest time or trade id among committed rows */
    int64_t moved_ns;            /* monotonic, when `committed` last moved */
    int64_t highest;             /* highest time or trade id admitted: server */
    uint64_t store_id;           /* what frames of this stream must carry: client */
    uint32_t epoch;
    uint32_t stream_id;          /* ours, in the frames we make */
    uint32_t owner;              /* the input that writes it: server */
    uint8_t kind;                /* enum flux_row_kind */
    uint8_t wanted_v1;           /* somebody subscribes to its version 1 topic */
    uint16_t topic_size, v1_topic_size, source_size, symbol_size, interval_size;
    uint8_t *names;              /* topic, v1 topic, source, symbol, interval; one allocation */
    flux_template out;
    flux_v1_template *out_v1;    /* made on first use */
    /* What the server's receiver alone needs: */
    /* Times or trade ids that none of its rows has: below `lowest`, and between `page` and `floor`. Rows that came from
     * below are a page of history, from `lowest` to `page`; all others are at or above `floor`. */
    int64_t lowest, page, floor;
    int64_t grid_ms;             /* a candle's time is a multiple of it; 0 = anything */
    uint64_t turn, turn_laid;    /* the last turn that brought rows; that of which they are in turn_rows */
    uint32_t turn_first;         /* the arrival at which that turn's rows begin */
    uint32_t writer, writer_before; /* serials of the runs that wrote it last */
    uint64_t refused;            /* rows; read by other threads */
    flux_orders orders;          /* its ring's rows by order, once something not newer came */
} flux_stream;

typedef struct {
    uint64_t store_id;
    uint32_t stream_id, slot, run, used;
    flux_template head;
} flux_route;

typedef struct {
    flux_stream **streams;       /* slot -> stream; room for `limit` */
    uint32_t count, limit;
    uint32_t *by_key;            /* open addressing: slot + 1, 0 = empty */
    uint32_t key_mask;
    flux_route **routes;         /* open addressing, made as learned */
    uint32_t route_mask, route_count;
} flux_streams;

static inline const uint8_t *flux_stream_topic(const flux_stream *s) { return s->names; }
static inline const uint8_t *flux_stream_v1_topic(const flux_stream *s) { return s->names + s->topic_size; }
static inline const uint8_t *flux_stream_source(const flux_stream *s) {
    return s->names + s->topic_size + s->v1_topic_size;
}

static inline int flux_streams_init(flux_streams *t, uint32_t limit) {
    memset(t, 0, sizeof *t);
    uint32_t size = 64;
    while (size < limit * 2u) size *= 2;
    t->limit = limit;
    t->key_mask = t->route_mask = size - 1;
    t->streams = (flux_stream **)calloc(limit, sizeof *t->streams);
    t->by_key = (uint32_t *)calloc(size, sizeof *t->by_key);
    t->routes = (flux_route **)calloc(size, sizeof *t->routes);
    return t->streams && t->by_key && t->routes ? 0 : -1;
}

static inline void flux_streams_forget_routes(flux_streams *t) {
    if (t->route_count == 0) return; /* the table is large, and runs come many at a time */
    for (uint32_t i = 0; t->routes && i <= t->route_mask; i++) {
        free(t->routes[i]);
        t->routes[i] = NULL;
    }
    t->route_count = 0;
}

static inline void flux_streams_free(flux_streams *t) {
    for (uint32_t i = 0; i < t->count; i++) {
        free(t->streams[i]->names);
        free(t->streams[i]->out_v1);
        flux_orders_free(&t->streams[i]->orders);
        free(t->streams[i]);
    }
    flux_streams_forget_routes(t);
    free(t->streams);
    free(t->by_key);
    free(t->routes);
    memset(t, 0, sizeof *t);
}

static inline uint32_t flux_key_hash(const void *source, size_t source_size, const void *symbol, size_t symbol_size,
                                     const void *interval, size_t interval_size) {
    uint32_t h = flux_crc32c((uint32_t)source_size, source, source_size);
    h = flux_crc32c(h ^ (uint32_t)symbol_size, symbol, symbol_size);
    return flux_crc32c(h, interval, interval_size);
}

static inline int flux_key_equal(const flux_stream *s, const void *source, size_t source_size, const void *symbol,
                                 size_t symbol_size, const void *interval, size_t interval_size) {
    const uint8_t *mine = flux_stream_source(s);
    return s->source_size == source_size && s->symbol_size == symbol_size && s->interval_size == interval_size &&
           memcmp(mine, source, source_size) == 0 && memcmp(mine + source_size, symbol, symbol_size) == 0 &&
           memcmp(mine + source_size + symbol_size, interval, interval_size) == 0;
}

static inline uint32_t flux_streams_find(const flux_streams *t, const void *source, size_t source_size,
                                         const void *symbol, size_t symbol_size, const void *interval,
                                         size_t interval_size) {
    uint32_t at = flux_key_hash(source, source_size, symbol, symbol_size, interval, interval_size);
    for (;; at++) {
        uint32_t slot = t->by_key[at & t->key_mask];
        if (slot == 0) return FLUX_NO_SLOT;
        if (flux_key_equal(t->streams[slot - 1], source, source_size, symbol, symbol_size, interval, interval_size))
            return slot - 1;
    }
}

/* The slot of the key of a verified frame; FLUX_NO_SLOT when it is unknown or a part of it is null. */
static inline uint32_t flux_streams_find_view(const flux_streams *t, const uint8_t *frame, const flux_view *v) {
    if (v->source_size == UINT32_MAX || v->symbol_size == UINT32_MAX || v->interval_size == UINT32_MAX)
        return FLUX_NO_SLOT;
    return flux_streams_find(t, frame + v->source_at, v->source_size, frame + v->symbol_at, v->symbol_size,
                             frame + v->interval_at, v->interval_size);
}

/* Takes ownership of `s` (and of s->names); the caller has made sure that the key is new and that there is room. */
static inline uint32_t flux_streams_add(flux_streams *t, flux_stream *s) {
    const uint8_t *names = flux_stream_source(s);
    uint32_t at = flux_key_hash(names, s->source_size, names + s->source_size, s->symbol_size,
                                names + s->source_size + s->symbol_size, s->interval_size);
    while (t->by_key[at & t->key_mask] != 0) at++;
    uint32_t slot = t->count;
    t->streams[slot] = s;
    t->by_key[at & t->key_mask] = slot + 1;
    __atomic_store_n(&t->count, slot + 1, __ATOMIC_RELEASE);
    return slot;
}

static inline uint32_t flux_route_hash(uint64_t store_id, uint32_t stream_id) {
    uint64_t mixed = (store_id ^ ((uint64_t)stream_id << 32 | stream_id)) * UINT64_C(0x9E3779B97F4A7C15);
    return (uint32_t)(mixed >> 32);
}

static inline flux_route *flux_route_find(const flux_streams *t, uint64_t store_id, uint32_t stream_id) {
    for (uint32_t at = flux_route_hash(store_id, stream_id);; at++) {
        flux_route *route = t->routes[at & t->route_mask];
        if (route == NULL || (route->store_id == store_id && route->stream_id == stream_id)) return route;
    }
}

/* Remembers the head of a frame that was verified whole. Learning is an optimisation: out of room or memory, or for a
 * layout other than ours, the frames of the stream are simply verified each time. */
static inline void flux_route_learn(flux_streams *t, const uint8_t *frame, size_t size, const flux_view *v,
                                    uint32_t slot, uint32_t run) {
    flux_template head;
    if (v->row_kind == FLUX_ROWS_CANDLE_V1 || flux_template_from(&head, frame, size, v) != 0) return;
    flux_route *route = flux_route_find(t, v->store_id, v->stream_id);
    if (route == NULL) {
        if (t->route_count >= t->limit) flux_streams_forget_routes(t);
        route = (flux_route *)malloc(sizeof *route);
        if (route == NULL) return;
        uint32_t at = flux_route_hash(v->store_id, v->stream_id);
        while (t->routes[at & t->route_mask] != NULL) at++;
        t->routes[at & t->route_mask] = route;
        t->route_count++;
    }
    route->store_id = v->store_id;
    route->stream_id = v->stream_id;
    route->slot = slot;
    route->run = run;
    route->head = head;
}

#endif
