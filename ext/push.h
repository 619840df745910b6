/* Pushing: a feed's rows onto its PUSH socket, one frame a message, without Python per message.
 *
 *   rows of message 0 | rows of message 1 | ...  ─► encode (numbered through the run, not by stream) ─► PUSH socket
 *
 * The high-water mark holds the feed back: a message that the socket does not take is told, never dropped.
 *
 * An outbox keeps what it was given until the server has committed it, in a ring of bytes, and can send it again:
 *
 *      head                next              tail
 *       │ size rows last frame │ size rows ... │
 *       └── sent, not committed ┴── not sent ──┘      (what is committed goes; a record never wraps)
 *
 * Any thread may put rows in, the feed's own thread commits and sends again: all under its lock. */
#ifndef FLUX_PUSH_H
#define FLUX_PUSH_H

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "receiver.h"
#include "streams.h"
#include "zmq_calls.h"

/* Sends `count` messages of `n` rows each, message i of the stream in slots[i] and numbered from first + i * n on for
 * the run `run`. How many the socket took; *error is 0, or the errno of what ended it other than a full socket.
 * `scratch` has room for one message. */
static inline uint32_t flux_push(const flux_zmq *zmq, void *socket, const flux_streams *t, const uint8_t *rows,
                                 const uint32_t *slots, uint32_t count, uint32_t n, uint64_t first, uint64_t run,
                                 int64_t origin_ns, uint8_t *scratch, int *error) {
    *error = 0;
    for (uint32_t i = 0; i < count; i++) {
        const flux_stream *s = t->streams[slots[i]];
        size_t size = flux_encode(&s->out, scratch, first + (uint64_t)i * n, run, origin_ns, 0, 0, s->stream_id, rows, n);
        int taken;
        do taken = zmq->send(socket, scratch, size, FLUX_ZMQ_DONTWAIT);
        while (taken < 0 && zmq->error() == EINTR);
        if (taken < 0) {
            if (zmq->error() != EAGAIN) *error = zmq->error();
            return i;
        }
        rows += (size_t)n * s->out.row_size;
    }
    return count;
}

typedef struct {
    uint32_t size, rows; /* size of the frame; FLUX_OUTBOX_SKIP: nothing more up to the end of the ring */
    uint64_t last;       /* the run's number of the message's last row */
    uint32_t stream_id, row_size;
    uint32_t space, reserved; /* bytes that the record takes */
} flux_outbox_record;

_Static_assert(sizeof(flux_outbox_record) == 32, "the frame after it is aligned as the record is");

#define FLUX_OUTBOX_SKIP UINT32_MAX

typedef struct {
    pthread_mutex_t lock;
    flux_zmq zmq;
    void *socket;              /* NULL = not connected yet */
    uint8_t *data;
    uint64_t capacity;         /* bytes, a multiple of 32 */
    uint64_t head, next, tail; /* bytes since it was last empty */
    uint64_t queued, sent, committed; /* rows of this feed */
    uint64_t before;           /* of them committed under runs that the server forgot: the run counts from there */
    uint64_t run;
    uint32_t incarnation;
    int closed;                /* nothing more is put in; what is there is still sent */
    int error;                 /* errno of what ended the sending; 0 = nothing did */
} flux_outbox;

static inline uint64_t flux_outbox_space(size_t frame) {
    return (sizeof(flux_outbox_record) + (uint64_t)frame + 31) & ~UINT64_C(31);
}

/* Bytes that `n` rows take, at most `most` a message. */
static inline uint64_t flux_outbox_need(const flux_template *t, uint64_t n, uint32_t most) {
    uint64_t need = n / most * flux_outbox_space(flux_encoded_size(t, most));
    return n % most ? need + flux_outbox_space(flux_encoded_size(t, (uint32_t)(n % most))) : need;
}

/* Whether so many bytes fit, wherever the ring's end lies. */
static inline int flux_outbox_fits(const flux_outbox *o, uint64_t need, uint64_t largest) {
    return need + largest <= o->capacity - (o->tail - o->head);
}

/* Sends what was not sent yet, as far as the socket takes it. */
static inline void flux_outbox_send(flux_outbox *o) {
    while (o->socket && o->next < o->tail && !o->error) {
        const uint8_t *at = o->data + o->next % o->capacity;
        flux_outbox_record record;
        memcpy(&record, at, sizeof record);
        if (record.size == FLUX_OUTBOX_SKIP) {
            o->next += o->capacity - o->next % o->capacity;
            continue;
        }
        int taken;
        do taken = o->zmq.send(o->socket, at + sizeof record, record.size, FLUX_ZMQ_DONTWAIT);
        while (taken < 0 && o->zmq.error() == EINTR);
        if (taken < 0) {
            if (o->zmq.error() != EAGAIN) o->error = o->zmq.error();
            return;
        }
        o->sent = record.last;
        o->next += record.space;
    }
}

/* Puts `n` rows in, which fit, as messages of at most `most` rows, and sends what the socket takes. */
static inline void flux_outbox_put(flux_outbox *o, const flux_template *t, uint32_t stream_id, const uint8_t *rows,
                                   uint64_t n, uint32_t most) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t origin_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    while (n) {
        uint32_t count = n < most ? (uint32_t)n : most;
        flux_outbox_record record = {(uint32_t)flux_encoded_size(t, count), count, o->queued + count, stream_id,
                                     t->row_size, 0, 0};
        uint64_t space = record.space = (uint32_t)flux_outbox_space(record.size), left = o->capacity - o->tail % o->capacity;
        if (left < space) {
            flux_outbox_record skip = {FLUX_OUTBOX_SKIP, 0, 0, 0, 0, 0, 0};
            memcpy(o->data + o->tail % o->capacity, &skip, sizeof skip);
            o->tail += left;
        }
        uint8_t *at = o->data + o->tail % o->capacity;
        memcpy(at, &record, sizeof record);
        flux_encode(t, at + sizeof record, o->queued + 1 - o->before, o->run, origin_ns, 0, o->incarnation, stream_id, rows, count);
        o->tail += space;
        o->queued += count;
        rows += (size_t)count * t->row_size;
        n -= count;
    }
    flux_outbox_send(o);
}

/* Goes on as another run: what is not committed, and was never sent, is numbered from 1 again. `templates` by stream_id - 1; `scratch` has
 * room for the rows of one message. */
static inline void flux_outbox_begin_anew(flux_outbox *o, uint64_t run, uint32_t incarnation,
                                          const flux_template *const *templates, uint8_t *scratch) {
    o->run = run;
    o->incarnation = incarnation;
    o->before = o->sent = o->committed;
    o->next = o->head;
    for (uint64_t at = o->head; at < o->tail;) {
        flux_outbox_record record;
        uint8_t *frame = o->data + at % o->capacity + sizeof record;
        memcpy(&record, frame - sizeof record, sizeof record);
        if (record.size == FLUX_OUTBOX_SKIP) {
            at += o->capacity - at % o->capacity;
            continue;
        }
        const flux_template *t = templates[record.stream_id - 1];
        int64_t origin_ns;
        memcpy(&origin_ns, frame + t->patch_at + 16, sizeof origin_ns);
        if (record.rows > record.last - o->committed) record.rows = (uint32_t)(record.last - o->committed);
        memcpy(scratch, frame + record.size - FLUX_CHECKSUM_SIZE - record.rows * record.row_size,
               (size_t)record.rows * record.row_size);
        record.size = (uint32_t)flux_encode(t, frame, record.last + 1 - record.rows - o->before, run, origin_ns, 0,
                                            o->incarnation, record.stream_id, scratch, record.rows);
        memcpy(frame - sizeof record, &record, sizeof record);
        at += record.space;
    }
}

typedef struct { /* a row that waits */
    uint32_t stream_id; /* 0 = it does not wait here */
    const uint8_t *row;
} flux_outbox_row;

/* Finds `count` rows of the run, by their numbers, which ascend. */
static inline void flux_outbox_find(const flux_outbox *o, const flux_refused *refused, uint32_t count,
                                    flux_outbox_row *out) {
    uint64_t at = o->head;
    for (uint32_t i = 0; i < count; i++) out[i] = (flux_outbox_row){0, NULL};
    for (uint32_t i = 0; at < o->tail && i < count;) {
        flux_outbox_record record;
        const uint8_t *frame = o->data + at % o->capacity + sizeof record;
        memcpy(&record, frame - sizeof record, sizeof record);
        if (record.size == FLUX_OUTBOX_SKIP) {
            at += o->capacity - at % o->capacity;
            continue;
        }
        uint64_t first = record.last + 1 - record.rows;
        for (; i < count && refused[i].row <= record.last; i++) {
            if (refused[i].row < first) continue;
            uint32_t size = record.row_size, left = (uint32_t)(record.last - refused[i].row) + 1;
            out[i] = (flux_outbox_row){record.stream_id, frame + record.size - FLUX_CHECKSUM_SIZE - left * size};
        }
        at += record.space;
    }
}

/* Lets go of what is committed: the run's rows up to there. */
static inline void flux_outbox_commit(flux_outbox *o, uint64_t committed) {
    if (committed > o->committed) o->committed = committed;
    while (o->head < o->tail) {
        flux_outbox_record record;
        memcpy(&record, o->data + o->head % o->capacity, sizeof record);
        if (record.size == FLUX_OUTBOX_SKIP) {
            o->head += o->capacity - o->head % o->capacity;
        } else {
            if (record.last > o->committed) break;
            o->head += record.space;
        }
    }
    if (o->next < o->head) o->next = o->head;
    if (o->head == o->tail) o->head = o->next = o->tail = 0; /* the same bytes again, while they are in the cache */
}

#endif
