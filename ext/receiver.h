/* A receiver: what one thread drains a socket into, and what it says of every message.
 *
 *   receiver   socket · streams · runs of feeds · counters · the message being held
 *     arrivals   ┌ stream, rows, start, outcome ┬ ... ┐   64 bytes a message; rows = what went in
 *     inbox      ┌ rows of arrival 0 ┬ rows of arrival 1 ┬ ... ┐   (server) arrival.at = where its rows begin
 *     others     ┌ u32 size ┬ payload ┬ ... ┐   messages without rows
 *
 * All are rewritten by each call of flux_receive; nothing grows. */
#ifndef FLUX_RECEIVER_H
#define FLUX_RECEIVER_H

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

static inline uint32_t flux_find_run(const flux_receiver *r, uint64_t run_id, uint32_t source_hash) {
    for (uint32_t i = r->run_count; i-- > 0;)
        if (r->runs[i].run_id == run_id && r->runs[i].source_hash == source_hash) return i;
    return FLUX_NO_RUN;
}

#endif
