/* The bridge: the ordinary way of a feed's rows through the server, two threads that need no Python for it.
 *
 *   loop        PULL ─► receive ─► number at head + 1 ─► rings and records ─► [ filling ]      here
 *   committer   [ the other ] ─► write, (sync), fence ─► marks, position ─► PUB ─► given back   commit.h
 *
 * When little arrives the loop does the committer's part itself, instead of waking it (exchange.h).
 *
 * Each comes back when something is out of the ordinary (a new stream or run, a full ring or file, a group that Python
 * put something into, a disk that refuses) and at the time it was given: then Python decides, and calls again. */
#ifndef FLUX_BRIDGE_H
#define FLUX_BRIDGE_H

#include <poll.h>

#include "commit.h"

/* Runs for the arrivals that brought rows: by stream in the order of its first arrival, within it in order of arrival,
 * numbered behind the stream's head. `runs` has room for `count`, `touched` for as many slots. How many runs. */
static inline uint32_t flux_number(flux_streams *t, const flux_arrival *arrivals, uint32_t count, flux_run_rows *runs,
                                   uint32_t *touched) {
    uint32_t slots = 0, at = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (arrivals[i].rows == 0) continue;
        flux_stream *s = t->streams[arrivals[i].stream];
        if (s->turn_runs++ == 0) touched[slots++] = arrivals[i].stream;
    }
    for (uint32_t i = 0; i < slots; i++) {
        flux_stream *s = t->streams[touched[i]];
        uint32_t n = s->turn_runs;
        s->turn_runs = at;
        s->turn_next = s->head + 1;
        at += n;
    }
    for (uint32_t i = 0; i < count; i++) {
        const flux_arrival *a = &arrivals[i];
        if (a->rows == 0) continue;
        flux_stream *s = t->streams[a->stream];
        runs[s->turn_runs++] = (flux_run_rows){a->stream, a->rows, a->at, s->turn_next, a->origin_ns};
        s->turn_next += a->rows;
    }
    for (uint32_t i = 0; i < slots; i++) t->streams[touched[i]]->turn_runs = 0;
    return at;
}

typedef struct {
    flux_receiver *receiver;
    flux_exchange *exchange;
    uint64_t store_id, room; /* bytes that the records of one turn may take ... */
    uint32_t room_records;   /* ... and how many they may be */
    uint32_t epoch, max_rows;
    int pull_fd, wake_fd;    /* -1: there is no such socket */
    int more;                /* messages may wait that no descriptor tells of */
    int64_t turned_ns;       /* CLOCK_MONOTONIC, when it last came round: read by others */
    flux_run_rows *runs;     /* room for receiver->arrival_limit, as `touched` */
    uint32_t *touched;
} flux_loop;

#define FLUX_IDLE_NS INT64_C(250000000) /* it comes round at least this often */

enum { FLUX_TURN_TIME = 16, FLUX_TURN_WOKEN, FLUX_TURN_NO_ROOM }; /* beside enum flux_drained */

/* Numbers and records what arrived into the group being filled, whose lock is held: 0, or -1 without room (the caller
 * made sure of it). */
static inline int flux_loop_record(flux_loop *l) {
    flux_receiver *r = l->receiver;
    flux_exchange *x = l->exchange;
    flux_group *g = x->filled[x->filling].group;
    uint32_t n = flux_number(r->streams, r->arrivals, r->arrival_count, l->runs, l->touched);
    int failed = flux_pump_record(r->streams, g, r->inbox, l->runs, n, l->store_id, l->epoch, l->max_rows);
    for (uint32_t i = 0; i < r->arrival_count && !failed; i++) {
        uint32_t at = r->arrivals[i].run;
        flux_feed_run *run = at == FLUX_NO_RUN ? NULL : &r->runs[at];
        if (!run || run->taken == run->recorded) continue;
        failed = flux_group_append_source(g, run->name, run->name_size, run->taken, run->incarnation,
                                          (uint64_t)run->serial << 32 | at);
        run->recorded = run->taken;
    }
    return failed;
}

/* Waits for a message or the wake flag: FLUX_DRAINED to receive, else why to come back. */
static inline int flux_loop_wait(flux_loop *l, int64_t until_ns) {
    struct pollfd fds[2] = {{l->pull_fd, POLLIN, 0}, {l->wake_fd, POLLIN, 0}};
    int64_t left = until_ns - flux_clock(CLOCK_MONOTONIC);
    if (left > FLUX_IDLE_NS) left = FLUX_IDLE_NS;
    int timeout = l->more || left <= 0 ? 0 : (int)((left + 999999) / 1000000);
    int ready = poll(fds, 2, timeout);
    if (ready > 0 && fds[1].revents) return FLUX_TURN_WOKEN;
    if (l->more || (ready > 0 && fds[0].revents)) return FLUX_DRAINED;
    return flux_clock(CLOCK_MONOTONIC) >= until_ns ? FLUX_TURN_TIME : FLUX_DRAINED;
}

#define FLUX_STAND_IN_MOST (UINT64_C(64) << 10) /* bytes of a group that the loop commits itself */

/* Numbers and records what arrived. Where nothing more waits it commits that too, if the committer has nothing to do;
 * else it leaves that to the committer. -1: no room. */
static inline int flux_loop_pass_on(flux_loop *l, int drained) {
    flux_exchange *x = l->exchange;
    pthread_mutex_lock(&x->lock);
    int failed = flux_loop_record(l);
    int standing_in = !failed && drained && flux_exchange_stand_in(x, FLUX_STAND_IN_MOST);
    if (!standing_in) pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
    if (standing_in) flux_commit_standing_in(x);
    return failed;
}

/* Turns until `until_ns` (CLOCK_MONOTONIC) or until something is out of the ordinary. -1: a group or ring was full that
 * must not be. A socket's descriptor tells of messages only once all that waited was received: hence `more`. */
static inline int flux_loop_turns(flux_loop *l, int64_t until_ns) {
    for (;;) {
        int status = flux_loop_wait(l, until_ns);
        __atomic_store_n(&l->turned_ns, flux_clock(CLOCK_MONOTONIC), __ATOMIC_RELAXED);
        if (status != FLUX_DRAINED) return status;
        if (l->pull_fd < 0) continue; /* rows come by the receiver's offer alone */
        if (!flux_exchange_room(l->exchange, l->room, l->room_records, until_ns)) return FLUX_TURN_NO_ROOM;
        l->more = 1;
        status = flux_receive(l->receiver);
        if (l->receiver->arrival_count && flux_loop_pass_on(l, status == FLUX_DRAINED)) return -1;
        if (status == FLUX_DRAINED) l->more = 0;
        else if (status != FLUX_FULL && status != FLUX_INTERRUPTED) return status;
        if (flux_clock(CLOCK_MONOTONIC) >= until_ns) return FLUX_TURN_TIME;
    }
}

#endif
