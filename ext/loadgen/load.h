/* What the load generator sends, and how its receiving side accounts for it.
 *
 *   message k      stream k mod streams, turn k / streams      intended as schedule.h says
 *   its rows       sequences turn * rows + 1 .. turn * rows + rows of that stream
 *   a row          ts_ms, prices: from (seed, stream, sequence) · trade_count: k, low 32 bits
 *                  turnover: intended time · volume: actual send time, ns since the run's start, exact in a double
 *
 * So any (stream, sequence) tells what its row must be, and the receiver compares every byte. It counts by sequence:
 *
 *   below `next` of the stream   new in the ring: late, counted `reordered`; there already: `duplicate`
 *   at `next`                    received
 *   above `next`                 received, and the sequences stepped over are missing until they come
 *
 * A hole that is never filled would keep the ring from evicting, so one that lies further back than half the ring is
 * given up there, and one wider than the ring at once; it stays missing here. Rows that the ring could not take, or
 * no longer has, are received and timed from the plan all the same, but nobody looked at them: `unread`.
 *
 * Several publishers share the streams: publisher p of n has those with stream mod n = p, and so (n divides the number
 * of streams) the messages with k mod n = p. It counts its own: its message j is k = j * n + p, its stream i of streams
 * / n is i * n + p. The receiving side has all streams: p = 0 of n = 1. */
#ifndef FLUX_LOAD_H
#define FLUX_LOAD_H

#include "histogram.h"
#include "pump.h"
#include "schedule.h"

#define FLUX_LOAD_FIRST_TS_MS INT64_C(1600000000000)

typedef struct {
    flux_schedule schedule; /* starts at 0: times are ns since the run's start */
    uint64_t seed;
    uint32_t streams, rows; /* streams of all publishers, rows per message */
    uint32_t part, parts;   /* which publisher this is, of how many; parts divides streams */
} flux_load;

static inline uint64_t flux_load_mix(uint64_t x) { /* splitmix64's finalizer */
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static inline void flux_load_row(const flux_load *l, uint32_t stream, uint64_t sequence, int64_t k, int64_t intended,
                                 double sent_ns, flux_candle *row) {
    uint64_t bits = flux_load_mix(l->seed + UINT64_C(0x9e3779b97f4a7c15) * (sequence * l->streams + stream + 1));
    double price = 100.0 + (double)(bits >> 44) / 1024.0;
    row->ts_ms = FLUX_LOAD_FIRST_TS_MS + (int64_t)sequence * 1000;
    row->open = price;
    row->high = price + 1.0;
    row->low = price - 1.0;
    row->close = price + 0.5;
    row->volume = sent_ns;
    row->turnover = (double)intended;
    row->trade_count = (uint32_t)k;
    row->flags = FLUX_CLOSED | FLUX_SYNTHETIC | FLUX_TRADED;
}

/* Lays this publisher's messages j .. j + n - 1 down as runs for flux_pump_record: one per stream, sorted by stream.
 * `messages`, where wanted, gets the j of each message in the order of its rows. Returns the number of runs. */
static inline uint32_t flux_load_fill(const flux_load *l, int64_t j, uint32_t n, int64_t sent_ns, flux_candle *rows,
                                      flux_run_rows *runs, int64_t *messages) {
    uint32_t streams = l->streams / l->parts, begin = (uint32_t)(j % streams);
    uint32_t touched = n < streams ? n : streams;
    uint32_t wrapped = begin + touched > streams ? begin + touched - streams : 0;
    flux_candle *at = rows;
    for (uint32_t i = 0; i < touched; i++) {
        uint32_t stream = i < wrapped ? i : begin + i - wrapped;
        int64_t message = j + (stream + streams - begin) % streams;
        uint64_t first = (uint64_t)(message / streams) * l->rows + 1, sequence = first;
        runs[i].stream = stream;
        runs[i].at = (uint64_t)((uint8_t *)at - (uint8_t *)rows);
        runs[i].first = first;
        runs[i].origin_ns = 0;
        for (; message < j + n; message += streams) {
            int64_t k = message * l->parts + l->part, intended = flux_schedule_intended(&l->schedule, k);
            if (messages) *messages++ = message;
            for (uint32_t row = 0; row < l->rows; row++, sequence++)
                flux_load_row(l, stream * l->parts + l->part, sequence, k, intended, (double)sent_ns, at++);
        }
        runs[i].rows = (uint32_t)(sequence - first);
    }
    return touched;
}

/* Lays messages k .. k + n - 1 down in their order, for a feed that pushes them one by one; slots[i] is the stream of
 * message k + i. */
static inline void flux_load_lay(const flux_load *l, int64_t k, uint32_t n, int64_t sent_ns, flux_candle *rows,
                                 uint32_t *slots) {
    for (uint32_t i = 0; i < n; i++) {
        int64_t message = k + i, intended = flux_schedule_intended(&l->schedule, message);
        uint64_t first = (uint64_t)(message / l->streams) * l->rows + 1;
        slots[i] = (uint32_t)(message % l->streams);
        for (uint32_t j = 0; j < l->rows; j++)
            flux_load_row(l, slots[i], first + j, message, intended, (double)sent_ns, rows++);
    }
}

typedef struct { /* of one stream, in rows */
    uint64_t next;     /* the sequence after its highest */
    uint64_t received; /* distinct sequences: next - 1 - received are missing so far */
    uint64_t duplicate, reordered, corrupt;
} flux_tally_stream;

typedef struct { /* rows, over all streams */
    uint64_t received;  /* distinct sequences */
    uint64_t reached;   /* sum of the highest sequences: reached - received are missing so far */
    uint64_t duplicate, reordered, corrupt;
    uint64_t measured;  /* of `received`, those of messages behind the warm-up */
    uint64_t unread;    /* of `received`, those whose bytes were not seen */
    int64_t last_ns;    /* when the last measured one was here */
    int64_t warmup_messages;
    flux_tally_stream *streams;
} flux_tally;

typedef struct {
    flux_hdr *schedule, *send; /* measured rows: from the intended, from the actual send time */
    flux_hdr *interval;        /* every row, from the intended send time */
} flux_tally_times;

/* The row in the ring is the one that was sent, and its send time is possible. */
static inline int flux_tally_sound(const flux_load *l, uint32_t stream, uint64_t sequence, int64_t k, int64_t intended,
                                   int64_t now_ns, const flux_candle *row) {
    flux_candle expected;
    if (!(row->volume >= (double)intended && row->volume <= (double)now_ns)) return 0;
    flux_load_row(l, stream, sequence, k, intended, row->volume, &expected);
    return memcmp(&expected, row, sizeof expected) == 0;
}

static inline void flux_tally_corrupt(flux_tally *t, uint32_t stream, uint64_t rows) {
    t->corrupt += rows;
    t->streams[stream].corrupt += rows;
}

/* Times one row that is new here. Where the ring no longer has it, the plan still says when it was intended. */
static inline void flux_tally_row(const flux_load *l, flux_tally *t, const flux_ring *ring, uint32_t stream,
                                  uint64_t sequence, int64_t now_ns, const flux_tally_times *times) {
    int64_t k = (int64_t)((sequence - 1) / l->rows) * l->streams + stream;
    int64_t intended = flux_schedule_intended(&l->schedule, k);
    int measured = k >= t->warmup_messages;
    flux_hdr_record(times->interval, now_ns - intended);
    if (measured) {
        t->measured++;
        t->last_ns = now_ns;
        flux_hdr_record(times->schedule, now_ns - intended);
    }
    if (sequence < ring->first || sequence > ring->top) {
        t->unread++;
        return;
    }
    const flux_candle *row = (const flux_candle *)flux_ring_row(ring, sequence);
    if (!flux_tally_sound(l, stream, sequence, k, intended, now_ns, row))
        flux_tally_corrupt(t, stream, 1);
    else if (measured)
        flux_hdr_record_double(times->send, (double)now_ns - row->volume);
}

static inline void flux_tally_arrival(const flux_load *l, flux_tally *t, flux_ring *ring, const flux_arrival *a,
                                      int64_t now_ns, const flux_tally_times *times) {
    flux_tally_stream *s = &t->streams[a->stream];
    uint64_t end = a->start + a->count, twice = a->count - a->rows;
    if (a->outcome == FLUX_OTHER_EPOCH) {
        flux_tally_corrupt(t, a->stream, a->count);
        return;
    }
    if (a->outcome == FLUX_CONFLICT) flux_tally_corrupt(t, a->stream, twice);
    int behind = a->start < s->next;
    uint64_t fresh = behind ? a->rows : a->count; /* ahead: also those that the ring could not take */
    t->received += fresh;
    s->received += fresh;
    if (behind) {
        t->reordered += fresh;
        s->reordered += fresh;
        if (a->outcome != FLUX_CONFLICT) {
            t->duplicate += twice;
            s->duplicate += twice;
        }
    }
    if (end > s->next) {
        t->reached += end - s->next;
        s->next = end;
    }
    if (behind && a->rows < a->count) return; /* which rows are new is not known; messages overlap whole or not */
    for (uint32_t i = 0; i < a->count; i++) flux_tally_row(l, t, ring, a->stream, a->start + i, now_ns, times);
    if (a->outcome == FLUX_BEYOND)
        flux_ring_skip(ring, end);
    else if (ring->top > ring->contiguous && ring->top - ring->first >= ring->capacity / 2)
        flux_ring_skip(ring, ring->top - ring->capacity / 4);
}

/* Accounts for `n` arrivals that were all here at now_ns; rings by slot, and slot = stream. */
static inline void flux_tally_account(const flux_load *l, flux_tally *t, flux_ring *const *rings,
                                      const flux_arrival *arrivals, uint32_t n, int64_t now_ns,
                                      const flux_tally_times *times) {
    for (uint32_t i = 0; i < n; i++)
        flux_tally_arrival(l, t, rings[arrivals[i].stream], &arrivals[i], now_ns, times);
}

#endif
