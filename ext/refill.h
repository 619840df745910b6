/* The rings at a start: the last rows of every stream out of the journal, without Python per row.
 *
 *   journal's bytes ─► head of a record ─► stream ─► does its ring begin before the batch ends? ─► verify ─► ring
 *
 * The caller has set each ring to begin where its last rows do; older ones are passed over unverified. */
#ifndef FLUX_REFILL_H
#define FLUX_REFILL_H

#include "past.h"
#include "streams.h"

/* Lays the batches in `data` into the rings. `have`, `end` and what is returned are as in flux_places; `slots` are by
 * stream id. *broken: it ended at a batch that does not verify, and is wanted. */
static inline uint64_t flux_refill(flux_streams *t, const uint8_t *data, uint64_t have, uint64_t end,
                                   const uint32_t *slots, uint32_t ids, int *broken) {
    uint64_t at = 0;
    uint32_t head[3];
    flux_view v;
    flux_placed placed;
    while (at < have && flux_record_head(data, at, have, head)) {
        uint64_t next = at + flux_record_size(head[0]);
        if (next > end) break;
        if (head[1] == FLUX_BATCH) {
            const uint8_t *body = data + at + FLUX_RECORD_HEADER_SIZE;
            if (next > have) break;
            if (flux_batch_view(body, head[0], 0, &v) == 0 && v.stream_id < ids && slots[v.stream_id] < t->count) {
                flux_stream *s = t->streams[slots[v.stream_id]];
                if (v.row_kind == s->kind && v.start_sequence + v.row_count > s->ring->first) {
                    if (flux_batch_view(body, head[0], 1, &v)) {
                        *broken = 1;
                        return at;
                    }
                    flux_ring_place(s->ring, v.start_sequence, body + v.rows_at, v.row_count, &placed);
                }
            }
        }
        at = next;
    }
    return at;
}

#endif
