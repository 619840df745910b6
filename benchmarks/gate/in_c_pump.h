/* The pump's share of in_c.c: messages out of a list in memory, in libzmq's place. */
#ifndef GATE_IN_C_PUMP_H
#define GATE_IN_C_PUMP_H

enum { PUMP_ROWS = 1000 }; /* five times the operations of a count */

static struct {
    uint8_t frames[PUMP_ROWS][512];
    size_t size;
    uint32_t next, until, topic; /* `topic`: a frame of a topic comes before each payload */
    uint64_t sent, bytes;
} wire;

static int wire_init(flux_zmq_msg *m) { return m->words[0] = NULL, 0; }
static int wire_close(flux_zmq_msg *m) { return m->words[0] = NULL, 0; }
static void *wire_data(flux_zmq_msg *m) { return m->words[0]; }
static size_t wire_size(const flux_zmq_msg *m) { return m->words[2] ? 5 : wire.size; }
static int wire_more(const flux_zmq_msg *m) { return m->words[2] != NULL; }
static int wire_error(void) { return EAGAIN; }

static int wire_recv(flux_zmq_msg *m, void *socket, int flags) {
    (void)socket, (void)flags;
    if (wire.next == wire.until) return -1;
    wire.topic ^= 1;
    m->words[2] = wire.topic ? &wire : NULL;
    m->words[0] = wire.topic ? (void *)&wire : wire.frames[wire.next++];
    return 1;
}

static int wire_send(void *socket, const void *data, size_t size, int flags) {
    (void)socket, (void)data;
    if (!(flags & FLUX_ZMQ_SNDMORE)) wire.sent++, wire.bytes += size;
    return 1;
}

static flux_streams streams;
static flux_ring their_ring;
static flux_receiver receiver;
static flux_group records;
static const flux_zmq calls = {wire_init, wire_recv, wire_close, wire_data, wire_size, wire_more, wire_send, wire_error};

static void prepare_pump(void) {
    flux_stream *s = calloc(1, sizeof *s);
    s->names = (uint8_t *)strdup("topicSIMBTCUSDT1m");
    s->topic_size = 5, s->source_size = 3, s->symbol_size = 7, s->interval_size = 2;
    s->out = of_candles;
    s->kind = FLUX_ROWS_CANDLE;
    s->ring = &their_ring;
    s->store_id = 2, s->epoch = 5, s->stream_id = 6;
    flux_arena_ring(&arena, &their_ring, 4096, 64);
    flux_streams_init(&streams, STREAMS);
    flux_streams_add(&streams, s);
    flux_group_init(&records, GROUP, 4096);
    receiver.zmq = calls;
    receiver.streams = &streams;
    receiver.topic_frames = 1;
    receiver.max_frame = 1 << 20;
    receiver.max_rows = 4096;
    receiver.arrivals = calloc(receiver.arrival_limit = 4096, sizeof *receiver.arrivals);
    receiver.inbox = malloc(receiver.inbox_limit = 1 << 20);
    receiver.runs = calloc(4, sizeof *receiver.runs);
    for (uint32_t i = 0; i < PUMP_ROWS; i++)
        wire.size = flux_encode(&of_candles, wire.frames[i], i + 1, 2, 0, 0, 5, 6, &rows[i % ROWS], 1);
}

static uint64_t taken;

static void pump_client(uint32_t n) {
    wire.until = wire.next + n;
    flux_receive(&receiver);
    for (uint32_t i = 0; i < receiver.arrival_count; i++) taken += receiver.arrivals[i].rows;
}

static int right_client(uint64_t done) {
    int right = taken == done && their_ring.contiguous == done && receiver.counters[FLUX_COUNT_MESSAGES] == done;
    memset(&wire.next, 0, sizeof wire.next);
    flux_ring_reset(&their_ring, 1); /* for the server */
    their_ring.keep = 0;
    flux_streams_forget_routes(&streams);
    memset(receiver.counters, 0, sizeof receiver.counters);
    receiver.server = 1;
    receiver.run_count = 1;
    receiver.runs[0] = (flux_feed_run){2, 0, flux_crc32c(0, "SIM", 3), 1};
    streams.streams[0]->highest = INT64_MIN;
    taken = 0;
    return right;
}

static void pump_server(uint32_t n) {
    wire.until = wire.next + n;
    flux_receive(&receiver);
    for (uint32_t i = 0; i < receiver.arrival_count; i++) taken += receiver.arrivals[i].rows;
}

static int right_server(uint64_t done) {
    return taken == done && receiver.runs[0].taken == done && receiver.counters[FLUX_COUNT_ADMIT] == done &&
           !memcmp(receiver.inbox, &rows[2 * done / 5], 64);
}

/* One run of one row each: the ring's place, one record. */
static void pump_record(uint32_t n) {
    flux_stream *s = streams.streams[0];
    flux_group_clear(&records);
    while (n--) {
        flux_run_rows run = {0, 1, 0, s->head + 1, 0};
        sink += (uint64_t)flux_pump_record(&streams, &records, (const uint8_t *)rows, &run, 1, 2, 5, 64);
    }
}

static int right_record(uint64_t done) {
    flux_view v;
    const flux_entry *e = &records.entries[records.count - 1];
    return streams.streams[0]->head == done && their_ring.contiguous == done && records.count == done / 5 * 3 &&
           e->label2 == done && flux_verify(records.data + e->at + 7, e->size - 7, &v) == FLUX_OK &&
           v.start_sequence == done && v.row_count == 1;
}

static void pump_publish(uint32_t n) {
    flux_sent sent = {0};
    flux_publish(&calls, NULL, &streams, &records, NULL, NULL, n, out, sizeof out, &sent);
}

static int right_publish(uint64_t done) { return wire.sent == done && wire.bytes == done * wire.size; }

#endif
