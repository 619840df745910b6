/* Pushing: a feed's rows onto its PUSH socket, one frame a message, without Python per message.
 *
 *   rows of message 0 | rows of message 1 | ...  ─► encode (numbered through the run, not by stream) ─► PUSH socket
 *
 * The high-water mark holds the feed back: a message that the socket does not take is told, never dropped. */
#ifndef FLUX_PUSH_H
#define FLUX_PUSH_H

#include <errno.h>

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

#endif
