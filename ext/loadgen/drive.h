/* The loops of the load generator's processes: from one told second to the next without Python.
 *
 *   publisher   clock ─► due ─► a piece: rows ─► rings and records ─► PUB ─┐
 *   feeder      clock ─► due ─► a piece: rows ─► PUSH ─────────────────────┤
 *                 ▲                                                        │ all that is due is out
 *                 └────────────────── sleep until the next tick ◄──────────┘
 *   subscriber  (poll) ─► a bite: SUB ─► rings ─► clock ─► tally
 *
 * A piece is small enough for its rows, records and frames to stay in the processor's cache, and has one send time; a
 * bite has one time of receipt, taken behind the last message of it. So neither time is off by more than its handful.
 *
 * A closed loop (`flux_flight`) has no due times: pieces go out as long as few enough messages are under way. */
#ifndef FLUX_DRIVE_H
#define FLUX_DRIVE_H

#include <poll.h>

#include "load.h"
#include "push.h"

enum flux_drive {       /* why a loop came back */
    FLUX_DRIVE_TIME,    /* it is `until_ns` */
    FLUX_DRIVE_DONE,    /* all is sent, or it is `end_ns`; subscriber: it has got as far as it should */
    FLUX_DRIVE_LAID,    /* publisher: a piece is in the group, and Python sends it */
    FLUX_DRIVE_TAKEN,   /* subscriber: one bite, as asked */
    FLUX_DRIVE_WOKEN,   /* subscriber: the wake flag is up */
    FLUX_DRIVE_HELD,    /* subscriber: a message is held that Python must decide on */
    FLUX_DRIVE_SOCKET,  /* the socket failed */
    FLUX_DRIVE_NO_ROOM, /* publisher: a ring or the group was full that must not be */
};

/* ------------------------------------------------------------------ what goes out when */

typedef struct {
    const flux_load *load; /* this process's share */
    flux_hdr *slip;        /* measured rows: from the intended to the actual send time */
    int64_t start_ns, end_ns, tick_ns; /* the run's start, and when nothing is sent any more: CLOCK_MONOTONIC */
    int64_t all, warmup;   /* this process's messages of the run, and of its warm-up */
    int64_t messages, due; /* taken so far, and due by the last look at the clock */
    uint32_t piece;        /* messages */
    flux_candle *rows;     /* room for a piece */
} flux_pace;

static inline int64_t flux_pace_due(const flux_pace *p, int64_t elapsed_ns) {
    const flux_load *l = p->load;
    int64_t due = flux_schedule_due(&l->schedule, elapsed_ns);
    due = due > l->part ? (due - l->part - 1) / l->parts + 1 : 0;
    return due < p->all ? due : p->all;
}

/* Messages of the next piece: of what is due, warm-up or measured, never both. */
static inline uint32_t flux_pace_piece(const flux_pace *p) {
    int64_t count = p->due - p->messages;
    if (count > p->piece) count = p->piece;
    if (p->messages < p->warmup && count > p->warmup - p->messages) count = p->warmup - p->messages;
    return (uint32_t)count;
}

/* The piece's first `taken` messages are out, sent at `elapsed_ns`. */
static inline void flux_pace_sent(flux_pace *p, uint32_t taken, int64_t elapsed_ns) {
    if (p->messages >= p->warmup)
        flux_hdr_record_doubles(p->slip, (const uint8_t *)&p->rows->turnover, sizeof *p->rows,
                                (size_t)taken * p->load->rows, 1, elapsed_ns);
    p->messages += taken;
}

/* Ticks are counted from the run's start, so one that came late moves no other. A signal ends it early. */
static inline void flux_pace_rest(const flux_pace *p, int64_t now_ns) {
    flux_sleep_until(p->start_ns + ((now_ns - p->start_ns) / p->tick_ns + 1) * p->tick_ns);
}

/* ------------------------------------------------------------------ closed loop */

#define FLUX_FLIGHT_LINE 8 /* int64 from one count to the next: each is written by another process */

typedef struct { /* counts in memory that all processes of a run share */
    int64_t *numbered;       /* messages taken to be sent, by all publishers */
    const int64_t *received; /* messages that have arrived, one count a subscriber */
    uint32_t subscribers;
    int64_t most;            /* messages under way */
} flux_flight;

/* Whether `count` more messages may be under way: then they are, from now on. The slowest subscriber counts. */
static inline int flux_flight_take(const flux_flight *f, uint32_t count) {
    int64_t numbered = __atomic_load_n(f->numbered, __ATOMIC_RELAXED), least = INT64_MAX;
    for (uint32_t i = 0; i < f->subscribers; i++) {
        int64_t received = __atomic_load_n(f->received + (size_t)i * FLUX_FLIGHT_LINE, __ATOMIC_RELAXED);
        if (received < least) least = received;
    }
    do
        if (numbered - least + count > f->most) return 0;
    while (!__atomic_compare_exchange_n(f->numbered, &numbered, numbered + count, 0, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
    return 1;
}

/* ------------------------------------------------------------------ publisher */

typedef struct {
    flux_pace pace;
    flux_streams *streams;
    flux_group *group; /* room for a piece */
    const flux_zmq *zmq;
    void *socket;
    uint64_t store_id;
    uint32_t epoch;
    flux_run_rows *runs; /* room for a run each of a piece's messages */
    int64_t *numbers;    /* of the messages of the piece that was laid down, which Python sends; NULL: sent here */
    flux_flight *flight; /* NULL: open loop */
    flux_sent sent;
} flux_publisher;

static inline int flux_publish_piece(flux_publisher *p, uint32_t count, int64_t elapsed_ns) {
    flux_pace *pace = &p->pace;
    uint32_t runs = flux_load_fill(pace->load, pace->messages, count, elapsed_ns, pace->rows, p->runs, p->numbers);
    flux_group_clear(p->group);
    if (flux_pump_record(p->streams, p->group, (const uint8_t *)pace->rows, p->runs, runs, p->store_id, p->epoch,
                         pace->load->rows))
        return FLUX_DRIVE_NO_ROOM;
    flux_pace_sent(pace, count, elapsed_ns);
    if (p->numbers) return FLUX_DRIVE_LAID;
    flux_publish(p->zmq, p->socket, p->streams, p->group, NULL, NULL, p->group->count, NULL, 0, &p->sent);
    return p->sent.error ? FLUX_DRIVE_SOCKET : FLUX_DRIVE_TIME;
}

/* Sends what is due, each tick, until `until_ns`. */
static inline int flux_drive_publisher(flux_publisher *p, int64_t until_ns) {
    flux_pace *pace = &p->pace;
    for (;;) {
        int64_t now_ns = flux_clock_ns(), elapsed_ns = now_ns - pace->start_ns;
        pace->due = flux_pace_due(pace, elapsed_ns);
        if (pace->messages == pace->all || now_ns >= pace->end_ns) return FLUX_DRIVE_DONE;
        if (now_ns >= until_ns) return FLUX_DRIVE_TIME;
        uint32_t count = flux_pace_piece(pace);
        if (count && p->flight && !flux_flight_take(p->flight, count)) count = 0;
        if (count) {
            int status = flux_publish_piece(p, count, elapsed_ns);
            if (status != FLUX_DRIVE_TIME) return status;
        }
        if (!count || pace->messages == pace->due) flux_pace_rest(pace, now_ns);
    }
}

/* ------------------------------------------------------------------ feeder */

typedef struct {
    flux_pace pace;
    const flux_streams *streams;
    const flux_zmq *zmq;
    void *socket;
    uint64_t run;     /* the feed's, on the wire */
    uint32_t *slots;  /* room for a piece */
    uint8_t *scratch; /* room for a message */
    uint64_t blocked; /* times the socket was full */
    int error;
} flux_feeder;

/* Pushes what is due, each tick, until `until_ns`. What the socket does not take is late, and goes with the next tick. */
static inline int flux_drive_feeder(flux_feeder *f, int64_t until_ns) {
    flux_pace *pace = &f->pace;
    uint32_t rows = pace->load->rows;
    for (;;) {
        int64_t now_ns = flux_clock_ns(), elapsed_ns = now_ns - pace->start_ns;
        pace->due = flux_pace_due(pace, elapsed_ns);
        if (pace->messages == pace->all || now_ns >= pace->end_ns) return FLUX_DRIVE_DONE;
        if (now_ns >= until_ns) return FLUX_DRIVE_TIME;
        uint32_t count = flux_pace_piece(pace), taken = 0;
        if (count) {
            flux_load_lay(pace->load, pace->messages, count, elapsed_ns, pace->rows, f->slots);
            taken = flux_push(f->zmq, f->socket, f->streams, (const uint8_t *)pace->rows, f->slots, count, rows,
                              (uint64_t)pace->messages * rows + 1, f->run, 0, f->scratch, &f->error);
            flux_pace_sent(pace, taken, elapsed_ns);
            f->blocked += taken < count;
        }
        if (f->error) return FLUX_DRIVE_SOCKET;
        if (taken < count || pace->messages == pace->due) flux_pace_rest(pace, now_ns);
    }
}

/* ------------------------------------------------------------------ subscriber */

typedef struct {
    flux_receiver *receiver;
    const flux_load *load;
    flux_tally *tally;
    flux_ring *const *rings;
    flux_tally_times times;
    int socket_fd, wake_fd;
    int more;           /* messages may wait that no descriptor tells of */
    uint32_t bite;      /* messages; at most the receiver's arrivals */
    int64_t start_ns;
    int64_t measure_ns[2]; /* closed loop: what arrives from .. until is measured, ns of the run; else [0] < 0 */
    int64_t *received;     /* closed loop: where the publishers look; else NULL */
} flux_subscriber;

/* Receives a bite and accounts for it; what flux_receive said. The time is that of its last message. */
static inline int flux_take_bite(flux_subscriber *s, int64_t *now_ns) {
    flux_receiver *r = s->receiver;
    uint32_t limit = r->arrival_limit;
    r->arrival_limit = s->bite;
    int status = flux_receive(r);
    r->arrival_limit = limit;
    *now_ns = flux_clock_ns();
    s->more = status != FLUX_DRAINED;
    int64_t elapsed_ns = *now_ns - s->start_ns;
    if (s->measure_ns[0] >= 0) /* by time: no message says by its number what it is */
        s->tally->warmup_messages =
            elapsed_ns >= s->measure_ns[0] && elapsed_ns < s->measure_ns[1] ? 0 : INT64_MAX;
    flux_tally_account(s->load, s->tally, s->rings, r->arrivals, r->arrival_count, elapsed_ns, &s->times);
    if (s->received)
        __atomic_store_n(s->received, (int64_t)r->counters[FLUX_COUNT_MESSAGES], __ATOMIC_RELAXED);
    return status;
}

/* Waits for a message or the wake flag: FLUX_DRIVE_TIME, or FLUX_DRIVE_WOKEN. */
static inline int flux_await_bite(flux_subscriber *s, int64_t until_ns) {
    struct pollfd fds[2] = {{s->socket_fd, POLLIN, 0}, {s->wake_fd, POLLIN, 0}};
    int64_t left = until_ns - flux_clock_ns();
    if (left < 0) left = 0;
    struct timespec timeout = {.tv_sec = left / FLUX_NS_PER_S, .tv_nsec = left % FLUX_NS_PER_S};
    return ppoll(fds, 2, &timeout, NULL) > 0 && fds[1].revents ? FLUX_DRIVE_WOKEN : FLUX_DRIVE_TIME;
}

/* Receives until `until_ns`, until the sum of the streams' highest sequences is `goal` and nothing more waits (what was
 * sent twice comes behind it) or, with `once`, until one bite brought something. The socket's descriptor tells of
 * messages only once all that waited was received: hence `more`. */
static inline int flux_drive_subscriber(flux_subscriber *s, int64_t until_ns, uint64_t goal, int once) {
    for (;;) {
        int64_t now_ns;
        if (!s->more && s->tally->reached >= goal) return FLUX_DRIVE_DONE;
        int woken = s->more ? FLUX_DRIVE_TIME : flux_await_bite(s, until_ns);
        int status = flux_take_bite(s, &now_ns);
        if (status == FLUX_SOCKET_ERROR) return FLUX_DRIVE_SOCKET;
        if (status != FLUX_DRAINED && status != FLUX_FULL && status != FLUX_INTERRUPTED) return FLUX_DRIVE_HELD;
        if (woken) return woken;
        if (once && s->receiver->arrival_count) return FLUX_DRIVE_TAKEN;
        if (now_ns >= until_ns || status == FLUX_INTERRUPTED) return FLUX_DRIVE_TIME;
    }
}

#endif
