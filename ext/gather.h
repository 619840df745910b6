/* Gathering: journal records back into rows, for the store and for a start.
 *
 *   record | record | record ...  ──► one entry each, and the rows of each kind laid end to end */
#ifndef FLUX_GATHER_H
#define FLUX_GATHER_H

#include "codec.h"
#include "journal.h"

typedef struct { /* flux.model.GATHERED: one journal record on its way into the store */
    uint32_t kind;      /* enum flux_row_kind of a batch; 0 = another record, to be read at `first` */
    uint32_t stream_id;
    uint64_t first;     /* first sequence; of another record: where its body lies in the buffer */
    uint32_t count;     /* rows; of another record: bytes of its content */
    uint32_t epoch;     /* of another record: its record kind */
} flux_gathered;

typedef struct {
    uint8_t *data;
    uint64_t used, limit;
} flux_rows_out;

#define FLUX_GATHER_BROKEN UINT64_MAX

/* Walks records from `at` and lays the rows of each kind end to end. Returns where it stopped: at `end`, at the first
 * record that is not there whole, or when an output is full. FLUX_GATHER_BROKEN: a batch that does not verify (*count
 * says which record). */
static inline uint64_t flux_gather(const uint8_t *data, uint64_t at, uint64_t end, flux_gathered *out, uint32_t limit,
                                   uint32_t *count, flux_rows_out rows[4]) {
    uint32_t head[3];
    *count = 0;
    while (at + sizeof head <= end && *count < limit) {
        memcpy(head, data + at, sizeof head);
        if (flux_crc32c(0, head, 8) != head[2]) break;
        uint64_t body = at + sizeof head, next = (body + head[0] + 7) & ~UINT64_C(7);
        if (next > end) break;
        flux_gathered *g = &out[*count];
        if (head[1] != FLUX_BATCH) {
            uint32_t content;
            if (!flux_body_valid(data + body, head[0], head[1], &content)) return FLUX_GATHER_BROKEN;
            *g = (flux_gathered){0, 0, body, content, head[1]};
            ++*count;
            at = next;
            continue;
        }
        uint16_t topic_size;
        flux_view v;
        memcpy(&topic_size, data + body, 2);
        if (2u + topic_size > head[0]) return FLUX_GATHER_BROKEN;
        const uint8_t *payload = data + body + 2 + topic_size;
        if (flux_verify(payload, head[0] - 2u - topic_size, &v) != FLUX_OK || v.row_kind == FLUX_ROWS_NONE ||
            v.row_kind > FLUX_ROWS_QUOTE)
            return FLUX_GATHER_BROKEN;
        uint64_t bytes = (uint64_t)v.row_count * flux_row_size(v.row_kind);
        flux_rows_out *o = &rows[v.row_kind];
        if (o->used + bytes > o->limit) break;
        memcpy(o->data + o->used, payload + v.rows_at, bytes);
        o->used += bytes;
        *g = (flux_gathered){v.row_kind, v.stream_id, v.start_sequence, v.row_count, v.epoch};
        ++*count;
        at = next;
    }
    return at;
}

#endif
