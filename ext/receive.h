/* Receiving: what a payload does to rings (client) or to the inbox (server).
 *
 *   client   SUB ──► flux_receive ──► verify ─► find stream ─► ring (by the server's sequence) ─► arrivals
 *   server   PULL ─► flux_receive ──► verify ─► find stream ─► position of the run ─► admit ─► inbox ─► arrivals
 *
 * One thread owns a receiver. Nothing here allocates per message. A message that cannot be taken yet (unknown stream or
 * run, full inbox, full ring) is held, never lost: the next call begins with it. */
#ifndef FLUX_RECEIVE_H
#define FLUX_RECEIVE_H

#include <errno.h>

#include "streams.h"
#include "zmq_calls.h"

#define FLUX_NO_RUN UINT32_MAX
#define FLUX_RUN_NAME_MAX 72

/* Why flux_receive came back. */
enum flux_drained {
    FLUX_DRAINED = 0,
    FLUX_FULL,
    FLUX_UNKNOWN_STREAM,
    FLUX_UNKNOWN_RUN,
    FLUX_HELD,
    FLUX_SOCKET_ERROR,
    FLUX_INTERRUPTED /* by a signal, between two messages: see to it and call again */
};

/* What became of a message's rows (the most telling one). */
enum flux_outcome { FLUX_PLACED = 0, FLUX_OTHER_EPOCH, FLUX_CONFLICT, FLUX_BEYOND };

/* What a receiver counts: messages, but for the last group, which are rows. Names: pump.pyx. */
enum flux_counter {
    FLUX_COUNT_MESSAGES = 0,
    FLUX_COUNT_BYTES,
    FLUX_COUNT_SHORT,
    FLUX_COUNT_SIZE,
    FLUX_COUNT_CHECKSUM,
    FLUX_COUNT_VERIFY,
    FLUX_COUNT_FRAMES,
    FLUX_COUNT_VERSION,
    FLUX_COUNT_SEQUENCE,
    FLUX_COUNT_ROWS,
    FLUX_COUNT_KIND,
    FLUX_COUNT_KEY,
    FLUX_COUNT_REFUSED_STREAM,
    FLUX_COUNT_OTHERS_DROPPED,
    FLUX_COUNT_OWNER,
    FLUX_COUNT_AHEAD,
    FLUX_COUNT_RESENT,
    FLUX_COUNT_ADMIT, /* FLUX_ADMIT_OUTCOMES counters in rows follow */
    FLUX_COUNTERS = FLUX_COUNT_ADMIT + FLUX_ADMIT_OUTCOMES
};

typedef struct { /* flux.model.ARRIVAL */
    uint32_t stream, rows;
    uint64_t start, at, store_id;
    uint32_t epoch;
    uint16_t outcome;
    uint8_t kind, tag;
    uint32_t count, run;
    int64_t origin_ns, recorded_ns;
} flux_arrival;

_Static_assert(sizeof(flux_arrival) == 64, "as in flux/model.py");

typedef struct { /* how far a feed's run has been taken: rows of that run admitted or refused */
    uint64_t run_id, taken;
    uint32_t source_hash, owner;
    uint64_t recorded;  /* `taken` as the last SOURCE record says it */
    uint64_t committed; /* as the last committed one does; read by other threads */
    uint32_t serial;    /* counts the runs there ever were: a place in the table is used again */
    uint32_t name_size; /* how a SOURCE record of this run begins */
    uint8_t name[FLUX_RUN_NAME_MAX];
} flux_feed_run;

typedef struct {
    flux_zmq zmq;
    void *socket;
    flux_streams *streams;
    int server, topic_frames;         /* frames before the payload: 1 on SUB, 0 on PULL */
    uint64_t max_frame, max_rows;
    flux_arrival *arrivals;
    uint32_t arrival_count, arrival_limit;
    uint8_t *inbox;                   /* server: rows in order of arrival, each kind by its own size */
    uint64_t inbox_used, inbox_limit;
    uint8_t *others;                  /* payloads that carry no rows: u32 size, bytes */
    uint64_t others_used, others_limit;
    flux_candle *scratch;             /* rows out of version 1 tables */
    flux_feed_run *runs;
    uint32_t run_count, run_limit, run_serial;
    uint32_t patch_at;                /* where the last learned head keeps its integers */
    flux_zmq_msg message;
    int holding, socket_errno;
    uint64_t partial;                 /* rows of the held message that were taken already */
    flux_view held;
    uint32_t held_slot;
    uint64_t counters[FLUX_COUNTERS];
} flux_receiver;

/* ------------------------------------------------------------------ receive: client */

static inline flux_arrival *flux_arrive(flux_receiver *r, uint32_t slot, const flux_view *v) {
    flux_arrival *a = &r->arrivals[r->arrival_count++];
    a->stream = slot;
    a->rows = 0;
    a->start = v->start_sequence;
    a->at = 0;
    a->store_id = v->store_id;
    a->epoch = v->epoch;
    a->outcome = FLUX_PLACED;
    a->kind = v->row_kind;
    a->tag = v->tag;
    a->count = v->row_count;
    a->run = FLUX_NO_RUN;
    a->origin_ns = v->origin_ns;
    a->recorded_ns = v->recorded_ns;
    return a;
}

static inline void flux_place(flux_receiver *r, uint32_t slot, const flux_view *v, const uint8_t *rows) {
    flux_stream *s = r->streams->streams[slot];
    flux_arrival *a = flux_arrive(r, slot, v);
    if (s->store_id != v->store_id || s->epoch != v->epoch) {
        a->outcome = FLUX_OTHER_EPOCH;
        return;
    }
    if (v->row_count == 0) return;
    flux_placed placed;
    flux_ring_place(s->ring, v->start_sequence, rows, v->row_count, &placed);
    a->rows = placed.placed;
    if (placed.conflicts) a->outcome = FLUX_CONFLICT;
    else if (placed.beyond) a->outcome = FLUX_BEYOND;
}

/* ------------------------------------------------------------------ receive: server */

static inline uint32_t flux_find_run(const flux_receiver *r, uint64_t run_id, uint32_t source_hash) {
    for (uint32_t i = r->run_count; i-- > 0;)
        if (r->runs[i].run_id == run_id && r->runs[i].source_hash == source_hash) return i;
    return FLUX_NO_RUN;
}

/* Looks for a row that is not newer than its stream's newest: in this turn's inbox, then in the ring. */
static inline int flux_admit_older(const flux_receiver *r, const flux_stream *s, uint32_t slot, const uint8_t *row,
                                   uint64_t late_rows) {
    flux_span spans[3];
    int older = FLUX_ADMIT_NEW;
    for (uint32_t i = s->reserved ? r->arrival_count : 0; i-- > 0;) {
        const flux_arrival *a = &r->arrivals[i];
        if (a->stream != slot || a->rows == 0) continue;
        spans[0] = (flux_span){r->inbox + a->at, a->rows};
        int found = flux_look_back(s->kind, row, spans, 1);
        if (found == FLUX_ADMIT_REPEAT) return found;
        if (found == FLUX_ADMIT_CORRECTION) older = found;
    }
    uint64_t kept = s->ring->contiguous + 1 - s->ring->first, n = kept < late_rows ? kept : late_rows;
    uint64_t from = s->ring->contiguous + 1 - n, piece = flux_ring_piece(s->ring, from, n);
    spans[0] = (flux_span){s->ring->rows, n - piece};
    spans[1] = (flux_span){flux_ring_row(s->ring, from), piece};
    int found = flux_look_back(s->kind, row, spans, 2);
    return found == FLUX_ADMIT_LATE && older == FLUX_ADMIT_CORRECTION ? older : found;
}

#define FLUX_LATE_SEARCH_ROWS 4096

/* Admits one sound or unsound row of a stream; an admitted row is copied to `out` with its flags. */
static inline int flux_admit_row(flux_receiver *r, flux_stream *s, uint32_t slot, const uint8_t *row, uint8_t *out) {
    uint8_t copy[sizeof(flux_candle)];
    uint32_t size = s->ring->row_size;
    memcpy(copy, row, size); /* rows of a frame have no alignment in memory */
    int outcome = flux_row_fault(s->kind, copy);
    if (outcome) return outcome;
    int64_t order = flux_row_order(s->kind, copy);
    if (flux_newer(s->kind, order, s->highest)) {
        s->highest = order;
    } else if (s->kind != FLUX_ROWS_TRADE || order != 0) {
        outcome = flux_admit_older(r, s, slot, copy, FLUX_LATE_SEARCH_ROWS);
        if (outcome == FLUX_ADMIT_REPEAT) return outcome;
    }
    if (s->kind == FLUX_ROWS_CANDLE) {
        flux_candle *candle = (flux_candle *)copy;
        candle->flags = flux_admitted_flags(candle->flags, outcome);
    }
    memcpy(out, copy, size);
    return outcome;
}

static inline int flux_is_admitted(int outcome) {
    return outcome == FLUX_ADMIT_NEW || outcome == FLUX_ADMIT_CORRECTION || outcome == FLUX_ADMIT_LATE;
}

/* How many rows of a stream can be taken now: ring slots that hold nothing unpersisted, and inbox. */
static inline uint64_t flux_room(const flux_receiver *r, const flux_stream *s) {
    uint64_t keep = __atomic_load_n(&s->ring->keep, __ATOMIC_ACQUIRE), held = s->head + s->reserved;
    uint64_t unpersisted = held > keep ? held - keep : 0;
    uint64_t ring = s->ring->capacity > unpersisted ? s->ring->capacity - unpersisted : 0;
    uint64_t inbox = (r->inbox_limit - r->inbox_used) / s->ring->row_size;
    return ring < inbox ? ring : inbox;
}

/* Admits `n` rows, for which there is room, into the inbox; the arrival says how many went in. */
static inline void flux_admit_rows(flux_receiver *r, uint32_t slot, flux_arrival *a, const uint8_t *rows, uint64_t n) {
    flux_stream *s = r->streams->streams[slot];
    uint32_t size = s->ring->row_size;
    a->at = r->inbox_used;
    for (uint64_t i = 0; i < n; i++) {
        int outcome = flux_admit_row(r, s, slot, rows + i * size, r->inbox + r->inbox_used);
        r->counters[FLUX_COUNT_ADMIT + outcome]++;
        if (!flux_is_admitted(outcome)) continue;
        r->inbox_used += size;
        s->reserved++;
        a->rows++;
    }
}

/* A feed's message: rows already taken are skipped, a message ahead of its run is dropped (the feed sends it again).
 * Rows of a stream that another input writes are refused, and the run is that much further: they need not come again. */
static inline int flux_take(flux_receiver *r, uint32_t slot, uint32_t run, const flux_view *v, const uint8_t *rows) {
    flux_stream *s = r->streams->streams[slot];
    flux_feed_run *feed = &r->runs[run];
    if (v->start_sequence > feed->taken + 1) {
        r->counters[FLUX_COUNT_AHEAD] += v->row_count;
        return FLUX_DRAINED;
    }
    uint64_t skip = feed->taken + 1 - v->start_sequence;
    if (skip >= v->row_count) {
        r->counters[FLUX_COUNT_RESENT] += v->row_count;
        return FLUX_DRAINED;
    }
    uint64_t n = v->row_count - skip;
    if (s->owner == 0) s->owner = feed->owner; /* nobody's since the start: the first input that writes it has it */
    if (s->owner != feed->owner) {
        r->counters[FLUX_COUNT_RESENT] += skip;
        r->counters[FLUX_COUNT_OWNER] += n;
        flux_arrive(r, slot, v)->run = run; /* no rows, only the run's new position */
        feed->taken += n;
        return FLUX_DRAINED;
    }
    uint64_t room = flux_room(r, s), taken = n < room ? n : room;
    if (taken == 0) return r->inbox_limit - r->inbox_used < s->ring->row_size ? FLUX_FULL : FLUX_HELD;
    r->counters[FLUX_COUNT_RESENT] += skip - r->partial;
    r->partial = skip + taken;
    flux_arrival *a = flux_arrive(r, slot, v);
    a->run = run;
    a->start += skip;
    a->count = (uint32_t)taken;
    flux_admit_rows(r, slot, a, rows + skip * s->ring->row_size, taken);
    feed->taken += taken;
    return taken == n ? FLUX_DRAINED : FLUX_FULL; /* the rest of the message comes with the next call */
}

/* ------------------------------------------------------------------ receive: both */

static inline int flux_keep_other(flux_receiver *r, const uint8_t *payload, size_t size) {
    if (size + 4 > r->others_limit) {
        r->counters[FLUX_COUNT_OTHERS_DROPPED]++;
        return FLUX_DRAINED;
    }
    if (r->others_used + size + 4 > r->others_limit) return FLUX_FULL;
    uint32_t head = (uint32_t)size;
    memcpy(r->others + r->others_used, &head, 4);
    memcpy(r->others + r->others_used + 4, payload, size);
    r->others_used += size + 4;
    return FLUX_DRAINED;
}

/* What a message of rows must mean, beyond its bytes being sound (promises B1). Counts and returns 0 if not. */
static inline int flux_meaningful(flux_receiver *r, const flux_view *v) {
    if (v->row_count > r->max_rows) {
        r->counters[FLUX_COUNT_ROWS]++;
        return 0;
    }
    if (v->start_sequence == 0 || v->start_sequence > (uint64_t)FLUX_MAX_SEQUENCE ||
        v->row_count > (uint64_t)FLUX_MAX_SEQUENCE - v->start_sequence + 1) {
        r->counters[FLUX_COUNT_SEQUENCE]++;
        return 0;
    }
    return 1;
}

/* The long way: verifies the whole frame and finds the stream by its key. Anything but FLUX_PLACED ends the message. */
static inline int flux_learn(flux_receiver *r, const uint8_t *payload, size_t size, flux_view *v, uint32_t *slot,
                             uint32_t *run, int *done) {
    *done = 1;
    int reason = flux_verify(payload, size, v);
    if (reason != FLUX_OK) {
        r->counters[FLUX_COUNT_SHORT + reason - FLUX_SHORT]++;
        return FLUX_DRAINED;
    }
    if (v->schema_version < 1 || v->schema_version > 2) {
        r->counters[FLUX_COUNT_VERSION]++;
        return r->server ? FLUX_DRAINED : flux_keep_other(r, payload, size);
    }
    if (v->row_kind == FLUX_ROWS_NONE || (r->server && v->row_kind == FLUX_ROWS_CANDLE_V1)) {
        if (!r->server) return flux_keep_other(r, payload, size);
        r->counters[FLUX_COUNT_KIND]++;
        return FLUX_DRAINED;
    }
    if (v->source_size == UINT32_MAX || v->symbol_size == UINT32_MAX || v->interval_size == UINT32_MAX) {
        r->counters[FLUX_COUNT_KEY]++;
        return FLUX_DRAINED;
    }
    if (!flux_meaningful(r, v)) return FLUX_DRAINED; /* before anybody makes a stream of it */
    *slot = flux_streams_find_view(r->streams, payload, v);
    r->held = *v;
    r->held_slot = *slot;
    if (*slot == FLUX_NO_SLOT) return FLUX_UNKNOWN_STREAM;
    if (r->server) {
        *run = flux_find_run(r, v->store_id, flux_crc32c(0, payload + v->source_at, v->source_size));
        if (*run == FLUX_NO_RUN) return FLUX_UNKNOWN_RUN;
    }
    flux_route_learn(r->streams, payload, size, v, *slot, *run);
    flux_route *route = flux_route_find(r->streams, v->store_id, v->stream_id);
    if (route != NULL) r->patch_at = route->head.patch_at;
    *done = 0;
    return FLUX_DRAINED;
}

static inline int flux_payload(flux_receiver *r, const uint8_t *payload, size_t size) {
    flux_view v;
    uint32_t slot = FLUX_NO_SLOT, run = FLUX_NO_RUN;
    int matched = 0, done = 0;
    if (size > r->max_frame) {
        r->counters[FLUX_COUNT_SIZE]++;
        return FLUX_DRAINED;
    }
    if (size >= (size_t)r->patch_at + 40 && r->patch_at) {
        uint64_t store_id;
        uint32_t stream_id;
        memcpy(&store_id, payload + r->patch_at + 8, 8);
        memcpy(&stream_id, payload + r->patch_at + 36, 4);
        const flux_route *route = flux_route_find(r->streams, store_id, stream_id);
        if (route != NULL) {
            matched = flux_match(&route->head, payload, size, &v);
            slot = route->slot;
            run = route->run;
        }
    }
    if (matched < 0) {
        r->counters[FLUX_COUNT_CHECKSUM]++;
        return FLUX_DRAINED;
    }
    if (!matched) {
        run = FLUX_NO_RUN;
        int status = flux_learn(r, payload, size, &v, &slot, &run, &done);
        if (done) return status;
    }
    const flux_stream *s = r->streams->streams[slot];
    if (s->kind != v.row_kind && !(v.row_kind == FLUX_ROWS_CANDLE_V1 && s->kind == FLUX_ROWS_CANDLE)) {
        r->counters[FLUX_COUNT_KIND]++;
        return FLUX_DRAINED;
    }
    if (matched && !flux_meaningful(r, &v)) return FLUX_DRAINED;
    if (r->server) return flux_take(r, slot, run, &v, payload + v.rows_at);
    const uint8_t *rows = payload + v.rows_at;
    if (v.row_kind == FLUX_ROWS_CANDLE_V1) {
        flux_v1_rows(payload, &v, r->scratch);
        rows = (const uint8_t *)r->scratch;
    }
    flux_place(r, slot, &v, rows);
    return FLUX_DRAINED;
}

/* Reads one whole message into r->message; 1 = there is one, 0 = none, -1 = socket error. A message with the wrong
 * number of frames is counted and passed over. */
static inline int flux_next_message(flux_receiver *r) {
    for (;;) {
        int frames = 0, more = 1;
        while (more) {
            if (frames) r->zmq.msg_close(&r->message);
            r->zmq.msg_init(&r->message);
            int got = r->zmq.msg_recv(&r->message, r->socket, FLUX_ZMQ_DONTWAIT);
            while (got < 0 && frames && r->zmq.error() == EINTR) /* the message is there: first all of it */
                got = r->zmq.msg_recv(&r->message, r->socket, FLUX_ZMQ_DONTWAIT);
            if (got < 0) {
                int error = r->zmq.error();
                r->zmq.msg_close(&r->message);
                r->socket_errno = error;
                return error == EAGAIN ? 0 : -1;
            }
            more = r->zmq.msg_more(&r->message);
            frames++;
        }
        if (frames == r->topic_frames + 1) return 1;
        r->counters[FLUX_COUNT_FRAMES]++;
        r->zmq.msg_close(&r->message);
    }
}

/* Done with the held message. */
static inline void flux_let_go(flux_receiver *r) {
    if (r->holding) r->zmq.msg_close(&r->message);
    r->holding = 0;
    r->partial = 0;
}

/* Refuses the held message of a feed's run for good: the run goes on behind it, so it need not come again. */
static inline void flux_refuse(flux_receiver *r, uint32_t run) {
    flux_feed_run *feed = &r->runs[run];
    const flux_view *v = &r->held;
    if (!r->holding) return;
    if (v->start_sequence <= feed->taken + 1 && v->start_sequence + v->row_count > feed->taken + 1)
        feed->taken = v->start_sequence + v->row_count - 1;
    r->counters[FLUX_COUNT_REFUSED_STREAM]++;
    flux_let_go(r);
}

/* Drains the socket until it is empty or something must be decided; see enum flux_drained. */
static inline int flux_receive(flux_receiver *r) {
    r->arrival_count = 0;
    r->inbox_used = 0;
    r->others_used = 0;
    for (;;) {
        if (r->arrival_count == r->arrival_limit) return FLUX_FULL;
        if (!r->holding) {
            int got = flux_next_message(r);
            if (got < 0) return r->socket_errno == EINTR ? FLUX_INTERRUPTED : FLUX_SOCKET_ERROR;
            if (got == 0) return FLUX_DRAINED;
            r->counters[FLUX_COUNT_MESSAGES]++;
            r->counters[FLUX_COUNT_BYTES] += r->zmq.msg_size(&r->message);
        }
        r->holding = 1;
        int status = flux_payload(r, (const uint8_t *)r->zmq.msg_data(&r->message), r->zmq.msg_size(&r->message));
        if (status != FLUX_DRAINED) return status;
        flux_let_go(r);
    }
}

#endif
