/* Recording and publishing: numbered rows into rings and journal records, and those onto the PUB socket.
 *
 *   runs ─► flux_pump_record ──► ring at head + 1 ─► encode ─► group of journal records
 *   group ► flux_mark_committed ► what requests may read
 *         ► flux_publish ───────► PUB socket, version 2 as it stands in the journal, version 1 where it is asked for */
#ifndef FLUX_RECORD_H
#define FLUX_RECORD_H

#include <errno.h>
#include <time.h>

#include "journal.h"
#include "streams.h"
#include "zmq_calls.h"

static inline int64_t flux_clock(int clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline int flux_record_message(flux_stream *s, uint32_t slot, flux_group *g, uint64_t store_id, uint32_t epoch,
                                      uint64_t first, uint32_t n, int64_t origin_ns, int64_t now_ns) {
    uint32_t payload = (uint32_t)flux_encoded_size(&s->out, n);
    uint64_t last = first + n - 1;
    uint8_t *body = flux_group_reserve(g, FLUX_BATCH, 2 + s->topic_size + payload, slot, last);
    if (body == NULL) return -1;
    memcpy(body, &s->topic_size, 2);
    memcpy(body + 2, flux_stream_topic(s), s->topic_size);
    flux_encode(&s->out, body + 2 + s->topic_size, first, store_id, origin_ns, now_ns, epoch, s->stream_id,
                flux_ring_row(s->ring, first), n);
    return 0;
}

/* Encodes `rows` rows of a stream from `first` on, out of its ring, at most `max_rows` a message and each in one piece
 * of the ring (a ring that is not mapped twice ends one more message at its end); `runs` (in order) say where the
 * source's times begin. */
static inline int flux_record_stream(flux_stream *s, flux_group *g, uint64_t store_id, uint32_t epoch,
                                     const flux_run_rows *runs, uint64_t first, uint64_t rows, uint32_t max_rows,
                                     int64_t now_ns) {
    while (rows > 0) {
        while (runs->first + runs->rows <= first) runs++;
        uint32_t n = (uint32_t)flux_ring_piece(s->ring, first, rows < max_rows ? rows : max_rows);
        if (flux_record_message(s, runs->stream, g, store_id, epoch, first, n, runs->origin_ns, now_ns)) return -1;
        first += n;
        rows -= n;
    }
    return 0;
}

/* Asks for the memory of runs to come, so that many misses are under way at once. What a run needs lies in four places,
 * each found by way of the one before, so each is asked for later than that one:
 *
 *   run i + 12: stream (marks and the template's head)  ─►  i + 8: its ring's marks, its topic  ─►  i + 4: the row's slot
 *
 * Always inlined: of a function that only prefetches, gcc says that it does nothing, and leaves out the call. */
enum { FLUX_AHEAD_STREAM = 12, FLUX_AHEAD_RING = 8, FLUX_AHEAD_ROW = 4, FLUX_LINE = 64 };

static inline __attribute__((always_inline)) void flux_record_ahead(const flux_streams *t, const flux_run_rows *runs,
                                                                    uint32_t i, uint32_t run_count) {
    if (i + FLUX_AHEAD_STREAM < run_count) {
        const uint8_t *s = (const uint8_t *)t->streams[runs[i + FLUX_AHEAD_STREAM].stream];
        for (size_t at = 0; at < offsetof(flux_stream, out.head) + 3 * FLUX_LINE; at += FLUX_LINE)
            __builtin_prefetch(s + at, 1);
    }
    if (i + FLUX_AHEAD_RING < run_count) {
        const flux_stream *s = t->streams[runs[i + FLUX_AHEAD_RING].stream];
        __builtin_prefetch(s->ring, 1);
        __builtin_prefetch((const uint8_t *)s->ring + FLUX_LINE, 1);
        __builtin_prefetch(s->names);
    }
    if (i + FLUX_AHEAD_ROW < run_count) {
        const flux_run_rows *run = &runs[i + FLUX_AHEAD_ROW];
        __builtin_prefetch(flux_ring_row(t->streams[run->stream]->ring, run->first), 1);
    }
}

/* Copies runs (sorted by stream, in order of sequence) from the inbox into the rings and encodes them as records of the
 * group. 0, or -1 when the group is full (the caller made sure that it is not). */
static inline int flux_pump_record(flux_streams *t, flux_group *g, const uint8_t *inbox, const flux_run_rows *runs,
                              uint32_t run_count, uint64_t store_id, uint32_t epoch, uint32_t max_rows) {
    int64_t now_ns = flux_clock(CLOCK_REALTIME);
    for (uint32_t i = 0; i < run_count;) {
        flux_stream *s = t->streams[runs[i].stream];
        uint64_t first = runs[i].first, rows = 0;
        uint32_t begin = i;
        flux_placed placed;
        flux_record_ahead(t, runs, i, run_count);
        for (; i < run_count && runs[i].stream == runs[begin].stream; i++) {
            flux_ring_place(s->ring, runs[i].first, inbox + runs[i].at, runs[i].rows, &placed);
            if (placed.placed != runs[i].rows) return -1;
            rows += runs[i].rows;
        }
        s->head = first + rows - 1;
        s->reserved -= rows < s->reserved ? rows : s->reserved;
        if (flux_record_stream(s, g, store_id, epoch, runs + begin, first, rows, max_rows, now_ns)) return -1;
    }
    return 0;
}

typedef struct {
    uint64_t sent, sent_v1, bytes;
    int error; /* errno of what ended the sending; 0 = nothing did */
} flux_sent;

/* Whether the frame was taken. A signal must not part the frames of a message, and never takes long. */
static inline int flux_send_frame(const flux_zmq *zmq, void *socket, const void *data, size_t size, int flags) {
    int taken;
    do taken = zmq->send(socket, data, size, flags | FLUX_ZMQ_DONTWAIT);
    while (taken < 0 && zmq->error() == EINTR);
    return taken >= 0;
}

/* A PUB or XPUB socket without XPUB_NODROP never says EAGAIN: what a slow subscriber has no room for libzmq drops, and
 * nobody can count it here. So every error is one. */
static inline void flux_send_one(const flux_zmq *zmq, void *socket, const uint8_t *topic, size_t topic_size,
                                 const uint8_t *payload, size_t size, flux_sent *sent) {
    if (!flux_send_frame(zmq, socket, topic, topic_size, FLUX_ZMQ_SNDMORE) ||
        !flux_send_frame(zmq, socket, payload, size, 0)) {
        sent->error = zmq->error();
        return;
    }
    sent->sent++;
    sent->bytes += topic_size + size;
}

static inline void flux_send_v1(const flux_zmq *zmq, void *socket, flux_stream *s, const uint8_t *payload, size_t size,
                                uint8_t *scratch, size_t scratch_size, flux_sent *sent) {
    uint64_t start;
    memcpy(&start, payload + s->out.patch_at, 8);
    uint32_t n = (uint32_t)((size - 4 - s->out.head_size) / s->out.row_size);
    if (s->out_v1 == NULL || flux_v1_encoded_size(s->out_v1, n) > scratch_size) return;
    size_t made = flux_v1_encode(s->out_v1, scratch, start, (const flux_candle *)(payload + s->out.head_size), n);
    flux_send_one(zmq, socket, flux_stream_v1_topic(s), s->v1_topic_size, scratch, made, sent);
    sent->sent_v1++;
}

/* Sends the group's batches in the given order (an entry may be left out, or stand twice: that is how faults are put
 * in); `spoilt[i]` flips a bit of the i-th sent payload. An error (a context that ended) ends the sending and stands in
 * `sent`. */
static inline void flux_publish(const flux_zmq *zmq, void *socket, flux_streams *t, flux_group *g,
                                const uint32_t *order, const uint8_t *spoilt, uint32_t count, uint8_t *scratch,
                                size_t scratch_size, flux_sent *sent) {
    for (uint32_t i = 0; i < count && !sent->error; i++) {
        const flux_entry *e = &g->entries[order ? order[i] : i];
        if (e->kind != FLUX_BATCH) continue;
        uint16_t topic_size;
        memcpy(&topic_size, g->data + e->at, 2);
        uint8_t *payload = g->data + e->at + 2 + topic_size;
        size_t size = e->size - 2u - topic_size;
        flux_stream *s = t->streams[e->label];
        uint8_t flip = spoilt && spoilt[i] ? 0x10 : 0;
        payload[size / 2] ^= flip;
        flux_send_one(zmq, socket, g->data + e->at + 2, topic_size, payload, size, sent);
        payload[size / 2] ^= flip;
        if (s->wanted_v1 && s->kind == FLUX_ROWS_CANDLE && !sent->error)
            flux_send_v1(zmq, socket, s, payload, size, scratch, scratch_size, sent);
    }
}

/* Moves the committed marks to what the group holds: from now on requests, marks and status may read it, and the rings
 * may evict it, since the journal has it. */
static inline void flux_mark_committed(flux_streams *t, const flux_group *g, int64_t now_ns) {
    for (uint32_t i = 0; i < g->count; i++) {
        const flux_entry *e = &g->entries[i];
        if (e->kind != FLUX_BATCH) continue;
        flux_stream *s = t->streams[e->label];
        if (i + FLUX_AHEAD_STREAM < g->count && e[FLUX_AHEAD_STREAM].kind == FLUX_BATCH) {
            const uint8_t *ahead = (const uint8_t *)t->streams[e[FLUX_AHEAD_STREAM].label];
            for (size_t at = 0; at < offsetof(flux_stream, out.head); at += FLUX_LINE) __builtin_prefetch(ahead + at, 1);
        }
        uint32_t size = s->out.row_size;
        const uint8_t *end = g->data + e->at + e->size - 4;
        int64_t ts, highest = s->committed_highest;
        memcpy(&ts, end - size, 8);
        for (const uint8_t *row = g->data + e->at + 2 + s->topic_size + s->out.head_size; row < end; row += size) {
            int64_t order = flux_row_order(s->kind, row);
            if (flux_newer(s->kind, order, highest)) highest = order;
        }
        __atomic_store_n(&s->committed_highest, highest, __ATOMIC_RELAXED);
        __atomic_store_n(&s->committed_ts, ts, __ATOMIC_RELAXED);
        __atomic_store_n(&s->moved_ns, now_ns, __ATOMIC_RELAXED);
        __atomic_store_n(&s->committed, e->label2, __ATOMIC_RELEASE);
        flux_ring_store(&s->ring->keep, e->label2);
    }
}

#endif
