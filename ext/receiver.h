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

#include "orders.h"
#include "streams.h"
#include "zmq_calls.h"

#define FLUX_NO_RUN UINT32_MAX
#define FLUX_RUN_NAME_MAX 72
#define FLUX_REFUSED_KEPT 256 /* refused rows of a run that can be asked for */

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
    FLUX_COUNT_SHARED, /* messages */
    FLUX_COUNT_OLDER_CLAIM,
    FLUX_COUNT_VALUES, /* messages */
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

/* Why a row was refused, beside enum flux_admitted. On the wire (RefusedRow.reason): append only. */
enum flux_refused_reason { FLUX_REFUSED_OWNER = 32, FLUX_REFUSED_STREAM };

typedef struct { /* flux.model.REFUSED */
    uint64_t row; /* the run's number of it */
    uint32_t reason, reserved;
} flux_refused;

_Static_assert(sizeof(flux_refused) == 16, "as in flux/model.py");

typedef struct { /* a row that a client was sent and no server numbers */
    uint64_t sequence;
    uint32_t slot, fault; /* enum flux_admitted */
} flux_unsound;

typedef struct { /* how far a feed's run has been taken: rows of that run admitted or refused */
    uint64_t run_id, taken;
    uint32_t source_hash, owner;
    uint64_t recorded;  /* `taken` as the last SOURCE record says it */
    uint64_t committed; /* as the last committed one does; read by other threads */
    uint32_t serial;    /* counts the runs there ever were: a place in the table is used again */
    uint32_t name_size; /* how a SOURCE record of this run begins */
    uint8_t name[FLUX_RUN_NAME_MAX];
    uint32_t incarnation;   /* the process that has a durable run: messages of an older one are dropped */
    uint32_t committed_incarnation; /* as the last committed SOURCE record says it */
    uint64_t refused_total; /* rows; written after `refused`, read by other threads */
    flux_refused *refused;  /* the last FLUX_REFUSED_KEPT of them, used in turn; made by the first */
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
    int64_t ahead_ms, latest_ms;      /* server: how far a live row may be ahead of the clock (0: as far as it likes) */
    uint64_t turn;                    /* counts the turns: what arrived in this one */
    flux_orders turn_rows;            /* the inbox's rows of streams that something not newer came for in this turn */
    uint32_t *turn_streams;
    uint32_t last_refused[FLUX_ADMIT_OUTCOMES]; /* slot + 1 of the last row refused so; read by other threads */
    flux_unsound last_unsound;        /* client: the last of them; fault 0 = there was none */
    uint32_t last_shared;             /* the same of a stream that two live runs write */
    uint64_t counters[FLUX_COUNTERS];
} flux_receiver;

/* Empties what the last turn brought. */
static inline void flux_turn_begin(flux_receiver *r) {
    r->arrival_count = 0;
    r->inbox_used = 0;
    r->others_used = 0;
    r->turn++;
    flux_orders_clear(&r->turn_rows);
}

static inline void flux_receiver_free(flux_receiver *r) {
    for (uint32_t i = 0; r->runs && i < r->run_limit; i++) free(r->runs[i].refused);
    free(r->runs);
    flux_orders_free(&r->turn_rows);
    free(r->turn_streams);
}

/* Remembers a row of a run that was refused. */
static inline void flux_note_refused(flux_feed_run *run, uint64_t row, uint32_t reason) {
    if (run->refused == NULL) run->refused = (flux_refused *)calloc(FLUX_REFUSED_KEPT, sizeof *run->refused);
    if (run->refused) run->refused[run->refused_total % FLUX_REFUSED_KEPT] = (flux_refused){row, reason, 0};
    __atomic_store_n(&run->refused_total, run->refused_total + 1, __ATOMIC_RELEASE);
}

/* Copies the refused rows that are still remembered and have a number above `after`, at most `upto`: in order, at most
 * FLUX_REFUSED_KEPT, from any thread. How many. */
static inline uint32_t flux_copy_refused(const flux_feed_run *run, uint64_t after, uint64_t upto, flux_refused *out) {
    uint64_t end = __atomic_load_n(&run->refused_total, __ATOMIC_ACQUIRE);
    uint64_t begin = end < FLUX_REFUSED_KEPT ? 0 : end - FLUX_REFUSED_KEPT;
    uint32_t n = 0;
    if (run->refused == NULL) return 0;
    for (uint64_t i = begin; i < end; i++) {
        flux_refused one = run->refused[i % FLUX_REFUSED_KEPT];
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (__atomic_load_n(&run->refused_total, __ATOMIC_ACQUIRE) >= i + FLUX_REFUSED_KEPT) continue; /* overwritten */
        if (one.row > after && one.row <= upto) out[n++] = one;
    }
    return n;
}

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
