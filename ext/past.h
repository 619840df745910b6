/* A stream's rows in one file of the journal: where they lie, and reading them back.
 *
 *   file     | a  b  a  c  a  ......  a  b  a  ...... |     records of the streams a, b, c
 *   places     ^a ^b    ^c            ^a                    at most one of a stream in FLUX_PLACE_SPAN bytes
 *
 * Every record of a stream begins less than FLUX_PLACE_SPAN bytes behind one of its places (or at it). So a file of few
 * streams has few places, and one of very many a place for each record; reading a stream jumps from place to place.
 *
 * Places are made from heads of records alone: nothing is believed that was not verified when it is read. */
#ifndef FLUX_PAST_H
#define FLUX_PAST_H

#include <errno.h>
#include <unistd.h>

#include "gather.h"

#define FLUX_PLACE_SPAN 32768u
#define FLUX_PLACE_SLACK 16384u /* a batch that begins at the end of a span lies within this */

typedef struct {        /* flux.journal.past.PLACE */
    uint64_t first;     /* sequence of the record's first row */
    uint32_t at;        /* of the record, in units of 8 bytes */
    uint32_t stream_id;
} flux_spot;

/* The record at `at`: its body's length and kind, or 0 where no whole head stands. */
static inline int flux_record_head(const uint8_t *data, uint64_t at, uint64_t end, uint32_t head[3]) {
    if (at + FLUX_RECORD_HEADER_SIZE > end) return 0;
    memcpy(head, data + at, FLUX_RECORD_HEADER_SIZE);
    return flux_crc32c(0, head, 8) == head[2];
}

/* The rows that a batch's body says it has, without looking at its checksum: 0, or -1 for what is none. */
static inline int flux_batch_view(const uint8_t *body, uint32_t length, int checksum, flux_view *v) {
    uint16_t topic;
    if (length < 2) return -1;
    memcpy(&topic, body, 2);
    if (2u + topic > length) return -1;
    if (flux_verify_as(body + 2 + topic, length - 2u - topic, checksum, v) != FLUX_OK || v->row_kind == FLUX_ROWS_NONE ||
        v->row_kind > FLUX_ROWS_QUOTE)
        return -1;
    v->rows_at += 2u + topic; /* from the body's first byte */
    return 0;
}

/* Notes places of the records in `data`, which stands at byte `base` of the file, up to byte `end` of the buffer that is
 * committed; `have` bytes of it are there. `latest` has of each stream below `streams` its last place, 0: none. Returns
 * where the first record begins that was not looked at: it may lie behind `have`, since of most only the head is needed. */
static inline uint64_t flux_places(const uint8_t *data, uint64_t have, uint64_t end, uint64_t base, uint32_t *latest,
                                   uint32_t streams, flux_spot *out, uint32_t limit, uint32_t *count) {
    uint64_t at = 0;
    uint32_t head[3];
    flux_view v;
    *count = 0;
    while (*count < limit && at < have && flux_record_head(data, at, have, head)) {
        uint64_t next = at + flux_record_size(head[0]);
        if (next > end) break;
        if (head[1] == FLUX_BATCH) {
            if (next > have) break;
            uint32_t place = (uint32_t)((base + at) / 8);
            if (flux_batch_view(data + at + FLUX_RECORD_HEADER_SIZE, head[0], 0, &v) == 0 && v.row_count &&
                v.stream_id < streams &&
                (latest[v.stream_id] == 0 || place - latest[v.stream_id] >= FLUX_PLACE_SPAN / 8)) {
                latest[v.stream_id] = place;
                out[(*count)++] = (flux_spot){v.start_sequence, place, v.stream_id};
            }
        }
        at = next;
    }
    return at;
}

/* The rows asked for, as far as they were found. */
typedef struct {
    uint64_t first;      /* sequence of the first row found; a hole may lie before it */
    uint64_t next, last; /* sequences: the next one to find, and where to end */
    uint8_t *out;
    uint64_t room;       /* rows */
    uint64_t read;       /* bytes of the file */
    uint32_t stream_id, kind;
    int broken;          /* errno of a file that cannot be read; -1: a record does not verify; 0: neither */
} flux_past;

/* Takes what is asked for out of one batch; whether reading goes on. */
static inline int flux_past_take(flux_past *p, const uint8_t *body, uint32_t length) {
    flux_view v;
    if (flux_batch_view(body, length, 1, &v)) {
        p->broken = -1;
        return 0;
    }
    if (v.stream_id != p->stream_id || v.row_kind != p->kind || v.start_sequence + v.row_count <= p->next) return 1;
    if (v.start_sequence > p->next) { /* what lies between is not here */
        if (p->next != p->first || v.start_sequence > p->last) return 0;
        p->first = p->next = v.start_sequence;
    }
    uint64_t skip = p->next - v.start_sequence, n = v.row_count - skip, size = flux_row_size((int)p->kind);
    if (n > p->last - p->next + 1) n = p->last - p->next + 1;
    if (n > p->room) n = p->room;
    memcpy(p->out, body + v.rows_at + skip * size, n * size);
    p->out += n * size;
    p->room -= n;
    p->next += n;
    return p->room > 0 && p->next <= p->last;
}

/* The span behind one place, of which `have` bytes are in `data`. The first record is the stream's; others with another
 * topic are passed over. Whether reading goes on. */
static inline int flux_past_span(flux_past *p, const uint8_t *data, uint64_t have) {
    uint32_t head[3];
    uint64_t at = 0;
    const uint8_t *mine = NULL;
    while (at < FLUX_PLACE_SPAN && flux_record_head(data, at, have, head)) {
        uint64_t next = at + flux_record_size(head[0]);
        const uint8_t *body = data + at + FLUX_RECORD_HEADER_SIZE;
        if (head[1] == FLUX_BATCH) {
            if (next > have || head[0] < 2) break;
            uint32_t topic = 2u + (uint32_t)(body[0] | body[1] << 8);
            if (mine == NULL) mine = body;
            if (head[0] >= topic && memcmp(mine, body, topic) == 0 && !flux_past_take(p, body, head[0])) return 0;
        }
        at = next;
    }
    if (mine == NULL) p->broken = -1;
    return mine != NULL;
}

/* Reads rows from the stream's places on (ascending, all of it below byte `end`), until what is asked for is there, no
 * place is left, or `budget` bytes were read. `scratch`: FLUX_PLACE_SPAN + FLUX_PLACE_SLACK bytes. */
static inline void flux_past_read(flux_past *p, int fd, uint64_t end, const uint32_t *places, uint64_t count,
                                  uint8_t *scratch, uint64_t budget) {
    for (uint64_t i = 0; i < count && p->read < budget; i++) {
        uint64_t at = (uint64_t)places[i] * 8, want = FLUX_PLACE_SPAN + FLUX_PLACE_SLACK, have = 0;
        if (i + 1 < count && (uint64_t)places[i + 1] * 8 - at + FLUX_PLACE_SLACK < want)
            want = (uint64_t)places[i + 1] * 8 - at + FLUX_PLACE_SLACK;
        if (at >= end) return;
        if (want > end - at) want = end - at;
        while (have < want) {
            ssize_t got = pread(fd, scratch + have, want - have, (off_t)(at + have));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) {
                p->broken = errno;
                return;
            }
            if (got == 0) break;
            have += (uint64_t)got;
        }
        p->read += have;
        if (!flux_past_span(p, scratch, have)) return;
    }
}

#endif
