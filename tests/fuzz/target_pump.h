/* pump: messages out of a libzmq made of a list, through receive, and on a server through record, scan, gather, publish.
 *
 *   input   | mode u8 | (flags u8 | size u16 | bytes) ... |      one (...) is one frame
 *   mode    bit 0 server, bits 1-3 the ring's rows (1 << 0..7), bits 4-5 arrivals in a turn, bit 6 a small inbox
 *   flags   bit 0 more frames of this message follow; bits 4-6 = 1: EINTR comes first, 2: EAGAIN, 3: ETERM
 *
 * What the loops of client and server do with each answer of the pump is done here too, as simply as can be. */
#ifndef TARGET_PUMP_H
#define TARGET_PUMP_H

#include "frames.h"
#include "pump.h"
#include "rings.h"
#include "target_codec.h"

enum { FUZZ_ETERM = 156384765, FUZZ_STREAMS = 6, FUZZ_RUNS = 4, FUZZ_MESSAGE_ROWS = 256, FUZZ_TURNS = 400 };

/* ---- libzmq, as far as the pump knows it ---- */

static struct {
    fuzz_reader input;
    int error, open, interrupted;
    uint64_t sent;
} fuzz_wire;

static int fuzz_msg_init(flux_zmq_msg *m) {
    memset(m, 0, sizeof *m);
    m->words[3] = m;
    fuzz_wire.open++;
    return 0;
}

static int fuzz_msg_close(flux_zmq_msg *m) {
    FUZZ_HOLDS(m->words[3] == m && fuzz_wire.open-- > 0); /* initialised, and closed once */
    if (m->words[0]) fuzz_release(m->words[0]);
    m->words[3] = NULL;
    return 0;
}

static int fuzz_msg_recv(flux_zmq_msg *m, void *socket, int flags) {
    (void)socket;
    FUZZ_HOLDS(flags == FLUX_ZMQ_DONTWAIT && m->words[3] == m);
    fuzz_wire.error = EAGAIN;
    if (fuzz_wire.input.at == fuzz_wire.input.end) return -1;
    uint8_t how = *fuzz_wire.input.at, trouble = fuzz_wire.interrupted ? 0 : how >> 4 & 7;
    fuzz_wire.interrupted = trouble >= 1 && trouble <= 3;
    if (fuzz_wire.interrupted) {
        fuzz_wire.error = trouble == 1 ? EINTR : trouble == 2 ? EAGAIN : FUZZ_ETERM;
        return -1;
    }
    fuzz_take(&fuzz_wire.input, 1);
    size_t size = fuzz_take(&fuzz_wire.input, 2), left = (size_t)(fuzz_wire.input.end - fuzz_wire.input.at);
    if (size > left) size = left;
    m->words[0] = fuzz_exact(fuzz_wire.input.at, size, how >> 1 & 7);
    m->words[1] = (void *)size;
    m->words[2] = (void *)(uintptr_t)(how & 1 && fuzz_wire.input.at + size < fuzz_wire.input.end);
    fuzz_wire.input.at += size;
    return (int)size;
}

static void *fuzz_msg_data(flux_zmq_msg *m) { return m->words[0]; }
static size_t fuzz_msg_size(const flux_zmq_msg *m) { return (size_t)m->words[1]; }
static int fuzz_msg_more(const flux_zmq_msg *m) { return m->words[2] != NULL; }
static int fuzz_error(void) { return fuzz_wire.error; }

static int fuzz_send(void *socket, const void *data, size_t size, int flags) {
    (void)socket;
    FUZZ_HOLDS(flags & FLUX_ZMQ_DONTWAIT);
    fuzz_touch(data, 0, (uint32_t)size);
    fuzz_wire.sent++;
    return (int)size;
}

static const flux_zmq fuzz_zmq = {fuzz_msg_init, fuzz_msg_recv, fuzz_msg_close, fuzz_msg_data,
                                  fuzz_msg_size, fuzz_msg_more, fuzz_send,      fuzz_error};

/* ---- one process: its streams, its receiver ---- */

typedef struct {
    flux_streams streams;
    flux_ring rings[FUZZ_STREAMS];
    flux_receiver receiver;
    flux_group *group;
    uint64_t capacity;
} fuzz_process;

/* A slot for the held message's key, as the door adds one; 0 when it is refused. */
static int fuzz_add_stream(fuzz_process *p) {
    const flux_view *v = &p->receiver.held;
    const uint8_t *frame = fuzz_msg_data(&p->receiver.message);
    uint32_t sizes = v->source_size + v->symbol_size + v->interval_size, slot = p->streams.count;
    int kind = v->row_kind == FLUX_ROWS_CANDLE_V1 ? FLUX_ROWS_CANDLE : v->row_kind;
    if (slot == FUZZ_STREAMS || v->source_size > 32 || v->symbol_size > 64 || v->interval_size > 8) return 0;
    flux_stream *s = calloc(1, sizeof *s);
    s->names = malloc(2 * sizes + 1);
    uint8_t *at = s->names;
    for (int twice = 0; twice < 2; twice++) { /* the topic is the key here; there is no v1 topic of its own */
        memcpy(at, frame + v->source_at, v->source_size);
        memcpy(at + v->source_size, frame + v->symbol_at, v->symbol_size);
        memcpy(at + v->source_size + v->symbol_size, frame + v->interval_at, v->interval_size);
        at += sizes;
    }
    s->topic_size = (uint16_t)sizes;
    s->source_size = (uint16_t)v->source_size;
    s->symbol_size = (uint16_t)v->symbol_size;
    s->interval_size = (uint16_t)v->interval_size;
    const char *names = (const char *)flux_stream_source(s);
    FUZZ_HOLDS(!flux_template_make(&s->out, kind, names, s->source_size, names + s->source_size, s->symbol_size,
                                   names + s->source_size + s->symbol_size, s->interval_size));
    s->out_v1 = malloc(sizeof *s->out_v1);
    FUZZ_HOLDS(!flux_v1_template_make(s->out_v1, names, s->source_size, names + s->source_size, s->symbol_size,
                                      names + s->source_size + s->symbol_size, s->interval_size));
    s->wanted_v1 = 1;
    fuzz_ring_open(&p->rings[slot], p->capacity, flux_row_size(kind), slot & 1);
    if (p->receiver.server) p->rings[slot].keep = 0;
    s->ring = &p->rings[slot];
    s->kind = (uint8_t)kind;
    s->stream_id = slot + 1;
    s->highest = s->committed_highest = flux_row_size(kind) == 40 ? 0 : INT64_MIN;
    s->store_id = v->store_id;
    s->epoch = v->epoch;
    FUZZ_HOLDS(flux_streams_add(&p->streams, s) == slot);
    return 1;
}

static int fuzz_add_run(flux_receiver *r) {
    const flux_view *v = &r->held;
    const uint8_t *frame = fuzz_msg_data(&r->message);
    if (r->run_count == r->run_limit) return 0;
    flux_feed_run *run = &r->runs[r->run_count++];
    run->run_id = v->store_id;
    run->taken = v->start_sequence - 1; /* as if all before it had come */
    run->owner = 1 + r->run_count % 2;
    run->source_hash = flux_crc32c(0, frame + v->source_at, v->source_size);
    return 1;
}

static void fuzz_check_arrivals(const fuzz_process *p) {
    const flux_receiver *r = &p->receiver;
    FUZZ_HOLDS(r->arrival_count <= r->arrival_limit && r->inbox_used <= r->inbox_limit);
    FUZZ_HOLDS(r->others_used <= r->others_limit);
    for (uint32_t i = 0; i < r->arrival_count; i++) {
        const flux_arrival *a = &r->arrivals[i];
        FUZZ_HOLDS(a->stream < p->streams.count && a->rows <= a->count);
        const flux_ring *ring = p->streams.streams[a->stream]->ring;
        if (r->server && a->rows) {
            FUZZ_HOLDS(a->at + (uint64_t)a->rows * ring->row_size <= r->inbox_used);
            fuzz_touch(r->inbox, (uint32_t)a->at, a->rows * ring->row_size);
        }
        FUZZ_HOLDS(ring->first <= ring->contiguous + 1 && ring->contiguous <= ring->top);
        FUZZ_HOLDS(ring->top + 1 - ring->first <= ring->capacity);
    }
}

/* ---- what the server does with a turn: number, record, commit, send ---- */

/* The file that the journal would hold now must scan whole, and give back every row. */
static void fuzz_check_group(fuzz_process *p, uint64_t rows) {
    uint8_t header[FLUX_FILE_HEADER_SIZE];
    uint64_t sealed = flux_group_seal(p->group, sizeof header, 0), size = sizeof header + sealed;
    uint8_t *file = malloc(size), *out[4];
    flux_record *found = malloc((p->group->count + 1) * sizeof *found);
    flux_gathered *gathered = malloc((p->group->count + 1) * sizeof *gathered);
    flux_rows_out room[4];
    flux_scan scan;
    uint32_t count = 0;
    flux_file_header(header, 1);
    memcpy(file, header, sizeof header);
    memcpy(file + sizeof header, p->group->data, sealed);
    flux_scan_begin(&scan, file, size, 0);
    FUZZ_HOLDS(flux_scan_next(&scan, file, size, found, p->group->count + 1) == p->group->count + 1u);
    FUZZ_HOLDS(scan.committed == size && scan.committed_records == p->group->count + 1u);
    for (int kind = 0; kind < 4; kind++) room[kind] = (flux_rows_out){out[kind] = malloc(64 * rows + 1), 0, 64 * rows};
    FUZZ_HOLDS(flux_gather(file, sizeof header, size, gathered, p->group->count + 1, &count, room) == size);
    FUZZ_HOLDS(count == p->group->count + 1u);
    FUZZ_HOLDS(room[1].used / 64 + room[2].used / 40 + room[3].used / 40 == rows);
    for (int kind = 0; kind < 4; kind++) free(out[kind]);
    free(gathered);
    free(found);
    free(file);
}

static void fuzz_record(fuzz_process *p, uint32_t max_rows) {
    const flux_receiver *r = &p->receiver;
    flux_run_rows *runs = malloc((r->arrival_count + 1) * sizeof *runs);
    static uint8_t scratch[16 << 10];
    uint32_t count = 0;
    uint64_t rows = 0;
    for (uint32_t slot = 0; slot < p->streams.count; slot++) {
        uint64_t head = p->streams.streams[slot]->head;
        for (uint32_t i = 0; i < r->arrival_count; i++) {
            const flux_arrival *a = &r->arrivals[i];
            if (a->stream != slot || !a->rows) continue;
            runs[count++] = (flux_run_rows){slot, a->rows, a->at, head + 1, a->origin_ns};
            head += a->rows;
            rows += a->rows;
        }
    }
    flux_group_clear(p->group);
    FUZZ_HOLDS(flux_pump_record(&p->streams, p->group, r->inbox, runs, count, 7, 1, max_rows) == 0);
    free(runs);
    if (!rows) return;
    fuzz_check_group(p, rows);
    flux_sent sent = {0};
    flux_publish(&fuzz_zmq, NULL, &p->streams, p->group, NULL, NULL, p->group->count, scratch, sizeof scratch, &sent);
    FUZZ_HOLDS(sent.sent >= p->group->count && !sent.error);
    flux_mark_committed(&p->streams, p->group, 1);
    for (uint32_t slot = 0; slot < p->streams.count; slot++)
        FUZZ_HOLDS(p->streams.streams[slot]->committed == p->streams.streams[slot]->head);
}

static void fuzz_persist(fuzz_process *p) {
    for (uint32_t slot = 0; slot < p->streams.count; slot++) {
        flux_stream *s = p->streams.streams[slot];
        flux_ring_store(&s->ring->keep, s->head);
        FUZZ_HOLDS(!p->receiver.server || s->reserved == 0);
    }
}

/* 0 when nothing is left to do. */
static int fuzz_turn(fuzz_process *p, uint32_t max_rows) {
    flux_receiver *r = &p->receiver;
    int status = flux_receive(r);
    fuzz_check_arrivals(p);
    if (r->server) fuzz_record(p, max_rows);
    switch (status) {
    case FLUX_DRAINED: return fuzz_wire.input.at < fuzz_wire.input.end;
    case FLUX_UNKNOWN_STREAM:
        if (!fuzz_add_stream(p)) flux_let_go(r);
        return 1;
    case FLUX_UNKNOWN_RUN:
        if (!fuzz_add_run(r)) flux_let_go(r);
        return 1;
    case FLUX_HELD:
        if (r->partial && r->holding && r->run_count) flux_refuse(r, 0);
        fuzz_persist(p);
        return 1;
    case FLUX_FULL: fuzz_persist(p); return 1;
    case FLUX_INTERRUPTED: FUZZ_HOLDS(r->socket_errno == EINTR && !r->holding); return 1;
    case FLUX_SOCKET_ERROR: FUZZ_HOLDS(r->socket_errno == FUZZ_ETERM); return 1;
    default: FUZZ_HOLDS(!"a status that is none"); return 0;
    }
}

static void fuzz_pump_run(const uint8_t *input, size_t size) {
    fuzz_process p;
    flux_receiver *r = &p.receiver;
    memset(&p, 0, sizeof p);
    memset(&fuzz_wire, 0, sizeof fuzz_wire);
    fuzz_wire.input = (fuzz_reader){input, input + size};
    uint8_t mode = (uint8_t)fuzz_take(&fuzz_wire.input, 1);
    p.capacity = UINT64_C(1) << (mode >> 1 & 7);
    r->zmq = fuzz_zmq;
    r->server = mode & 1;
    r->topic_frames = !r->server;
    r->streams = &p.streams;
    r->max_frame = FUZZ_INPUT_MAX / 2;
    r->max_rows = FUZZ_MESSAGE_ROWS;
    r->arrival_limit = 1 + (mode >> 4 & 3) * 5u;
    r->inbox_limit = r->server ? (mode & 64 ? 64 * 3 : 64 * 200) : 0;
    r->others_limit = r->server ? 0 : 4096;
    r->run_limit = FUZZ_RUNS;
    r->arrivals = malloc(r->arrival_limit * sizeof *r->arrivals);
    r->inbox = malloc(r->inbox_limit);
    r->others = malloc(r->others_limit);
    r->scratch = malloc(r->server ? 1 : FUZZ_MESSAGE_ROWS * sizeof *r->scratch);
    r->runs = calloc(FUZZ_RUNS, sizeof *r->runs);
    r->ahead_ms = mode & 32 ? 60000 : 0;
    FUZZ_HOLDS(!flux_streams_init(&p.streams, FUZZ_STREAMS));
    static flux_group group; /* one for all runs: half a MiB each time would be most of the work */
    if (!group.data) FUZZ_HOLDS(!flux_group_init(&group, 512 << 10, 512));
    p.group = &group;
    for (int turn = 0; turn < FUZZ_TURNS && fuzz_turn(&p, 1 + (mode >> 5) * 7u); turn++) continue;
    flux_let_go(r);
    FUZZ_HOLDS(fuzz_wire.open == 0);
    for (uint32_t slot = 0; slot < p.streams.count; slot++) fuzz_ring_close(&p.rings[slot]);
    flux_streams_free(&p.streams);
    free(r->arrivals);
    free(r->inbox);
    free(r->others);
    free(r->scratch);
    flux_receiver_free(r);
}

/* ---- inputs ---- */

static inline size_t fuzz_put_frame(uint8_t *out, size_t at, uint8_t flags, const uint8_t *frame, size_t size) {
    if (size > UINT16_MAX || at + 3 + size > FUZZ_INPUT_MAX) return at;
    out[at] = flags;
    flux_wire_put16(out + at + 1, (uint16_t)size);
    memcpy(out + at + 3, frame, size);
    return at + 3 + size;
}

/* Rows in order for one of three streams, now and then something else from the corpus. */
static size_t fuzz_pump_make(uint8_t *out) {
    static const char *symbols[] = {"BTCUSDT", "ETHUSDT", "A"}, *intervals[] = {"1m", "trade", "quote"};
    uint64_t next[3] = {1, 1, 1};
    size_t at = 1;
    out[0] = (uint8_t)fuzz_next();
    for (size_t left = 1 + fuzz_below(24); left; left--) {
        uint8_t frame[FLUX_HEAD_MAX + 64 * 64 + 8];
        flux_candle rows[64];
        flux_template t;
        size_t which = fuzz_below(3), n = fuzz_one_in(4) ? fuzz_below(64) : 1 + fuzz_below(3), size;
        uint8_t flags = (uint8_t)(fuzz_below(8) << 1 | (fuzz_one_in(10) ? fuzz_below(4) << 4 : 0));
        if (!(out[0] & 1)) at = fuzz_put_frame(out, at, (uint8_t)(flags | 1), (const uint8_t *)"topic", 5);
        if (fuzz_one_in(8)) {
            const fuzz_frame *other = &fuzz_frames[fuzz_below(fuzz_frame_count)];
            at = fuzz_put_frame(out, at, flags, other->data, other->size);
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            int64_t when = FLUX_TIME_FIRST_MS + (int64_t)(next[which] + i) * 60000 - (fuzz_one_in(9) ? 120000 : 0);
            rows[i] = (flux_candle){which ? when * 1000000 : when, 1, 2, 0.5, 1, 3, 4, 5, 1};
        }
        if (which) /* trades and quotes: any numbers, at the right times, 40 bytes each */
            for (size_t i = 0; i < n; i++) memmove((uint8_t *)rows + 40 * i, &rows[i], 40);
        FUZZ_HOLDS(!flux_template_make(&t, (int)which + 1, "SIM", 3, symbols[which], strlen(symbols[which]),
                                       intervals[which], strlen(intervals[which])));
        size = flux_encode(&t, frame, next[which], 5, 0, 0, 1, (uint32_t)which + 1, rows, (uint32_t)n);
        at = fuzz_put_frame(out, at, flags, frame, size);
        if (!fuzz_one_in(6)) next[which] += n; /* else the same again, or a hole before it */
        if (fuzz_one_in(12)) next[which] += fuzz_below(80);
    }
    return at;
}

/* Frames of a list, found by their sizes; how many. */
static inline unsigned fuzz_list(const uint8_t *input, size_t size, size_t *at, unsigned most) {
    unsigned count = 0;
    for (size_t next = 1; next + 3 <= size && count < most; count++) {
        size_t bytes = flux_wire_u16(input + next + 1);
        if (next + 3 + bytes > size) break;
        at[count] = next;
        next += 3 + bytes;
    }
    return count;
}

static size_t fuzz_pump_mutate(uint8_t *input, size_t size) {
    static uint8_t frame[FUZZ_INPUT_MAX];
    size_t places[256];
    unsigned count = fuzz_list(input, size, places, 256);
    if (!count || fuzz_one_in(16)) return fuzz_scramble(input, size);
    size_t at = places[fuzz_below(count)], other = places[fuzz_below(count)];
    size_t bytes = 3u + flux_wire_u16(input + at + 1), others = 3u + flux_wire_u16(input + other + 1), made;
    switch (fuzz_below(10)) {
    case 0: input[0] = (uint8_t)fuzz_next(); return size;
    case 1: input[at] ^= (uint8_t)(1 << fuzz_below(7)); return size;
    case 2: /* a frame goes */
        memmove(input + at, input + at + bytes, size - at - bytes);
        return size - bytes;
    case 3: /* a frame comes again, elsewhere */
        if (size + bytes > FUZZ_INPUT_MAX) return size;
        memcpy(frame, input + at, bytes);
        memmove(input + other + bytes, input + other, size - other);
        memcpy(input + other, frame, bytes);
        return size + bytes;
    case 4: /* a frame of another place, at the end */
        return others ? fuzz_put_frame(input, size, input[at], input + other + 3, others - 3) : size;
    default: /* a frame changes */
        memcpy(frame, input + at + 3, bytes - 3);
        made = fuzz_mutate_frame(frame, bytes - 3, UINT16_MAX);
        if (size - bytes + 3 + made > FUZZ_INPUT_MAX) return size;
        memmove(input + at + 3 + made, input + at + bytes, size - at - bytes);
        memcpy(input + at + 3, frame, made);
        flux_wire_put16(input + at + 1, (uint16_t)made);
        return size - bytes + 3 + made;
    }
}

#endif
