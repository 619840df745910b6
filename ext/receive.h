/* Receiving: what a payload does to rings (client) or to the inbox (server).
 *
 *   client   SUB ──► flux_receive ──► verify ─► find stream ─► ring (by the server's sequence) ─► arrivals
 *   server   PULL ─► flux_receive ──► verify ─► find stream ─► take.h: run, admit ─► inbox ─► arrivals
 *
 * One thread owns a receiver. Nothing here allocates per message. A message that cannot be taken yet (unknown stream or
 * run, full inbox, full ring) is held, never lost: the next call begins with it. */
#ifndef FLUX_RECEIVE_H
#define FLUX_RECEIVE_H

#include <errno.h>
#include <time.h>

#include "receiver.h"
#include "take.h"

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

/* Whether the rows of a message are such as a server numbers. Counts and remembers the first that is not. */
static inline int flux_numbered(flux_receiver *r, uint32_t slot, const flux_view *v, const uint8_t *rows) {
    int fault;
    uint32_t at = flux_first_fault(v->row_kind, rows, v->row_count, &fault);
    if (at == v->row_count) return 1;
    r->counters[FLUX_COUNT_VALUES]++;
    r->last_unsound = (flux_unsound){v->start_sequence + at, slot, (uint32_t)fault};
    return 0;
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
    if (v.row_kind == FLUX_ROWS_CANDLE_V1) { /* version 1 promises nothing of the values */
        flux_v1_rows(payload, &v, r->scratch);
        rows = (const uint8_t *)r->scratch;
    } else if (!flux_numbered(r, slot, &v, rows)) {
        return FLUX_DRAINED;
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
    if (v->start_sequence <= feed->taken + 1 && v->start_sequence + v->row_count > feed->taken + 1) {
        while (feed->taken < v->start_sequence + v->row_count - 1)
            flux_note_refused(feed, ++feed->taken, FLUX_REFUSED_STREAM);
    }
    r->counters[FLUX_COUNT_REFUSED_STREAM]++;
    flux_let_go(r);
}

static inline int64_t flux_now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Drains the socket until it is empty or something must be decided; see enum flux_drained. */
static inline int flux_receive(flux_receiver *r) {
    flux_turn_begin(r);
    if (r->ahead_ms) r->latest_ms = flux_now_ms() + r->ahead_ms;
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
