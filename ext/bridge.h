/* The bridge: the ordinary way of a feed's rows through the server, two threads that need no Python for it.
 *
 *   loop        PULL ─► receive ─► number at head + 1 ─► rings and records ─► [ filling ]
 *   committer   [ taken ] ─► write, (sync) ─► fence ─► committed marks ─► PUB ─► given back
 *
 * When little arrives the loop does the committer's part itself, instead of waking it (exchange.h: `borrow`).
 *
 * Each comes back when something is out of the ordinary (a new stream or run, a full ring or file, a group that Python
 * noted something in, a disk that refuses) and at the time it was given: then Python decides, and calls again. */
#ifndef FLUX_BRIDGE_H
#define FLUX_BRIDGE_H

#include <poll.h>
#include <unistd.h>

#include "exchange.h"
#include "pump.h"

/* ------------------------------------------------------------------ numbering */

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

/* ------------------------------------------------------------------ the loop's side */

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

/* A SOURCE record for a run that is further than its last one said: what the journal's records.SourceRecord is. */
static inline int flux_record_source(flux_group *g, flux_feed_run *run, uint32_t index) {
    uint8_t body[FLUX_RUN_NAME_MAX + 15], *at = body + run->name_size;
    memcpy(body, run->name, run->name_size);
    *at++ = 0x92; /* msgpack: an array of two, an unsigned of eight bytes and one of four */
    *at++ = 0xcf;
    for (int shift = 56; shift >= 0; shift -= 8) *at++ = (uint8_t)(run->taken >> shift);
    *at++ = 0xce;
    for (int shift = 24; shift >= 0; shift -= 8) *at++ = (uint8_t)(run->incarnation >> shift);
    run->recorded = run->taken;
    return flux_group_append(g, FLUX_SOURCE, body, (uint32_t)(at - body), (uint64_t)run->serial << 32 | index,
                             run->taken);
}

/* Numbers and records what arrived into the group being filled, whose lock is held: 0, or -1 without room (the caller
 * made sure of it). */
static inline int flux_loop_record(flux_loop *l) {
    flux_receiver *r = l->receiver;
    flux_exchange *x = l->exchange;
    flux_group *g = x->filled[x->filling].group;
    uint32_t n = flux_number(r->streams, r->arrivals, r->arrival_count, l->runs, l->touched);
    int failed = flux_pump_record(r->streams, g, r->inbox, l->runs, n, l->store_id, l->epoch, l->max_rows);
    for (uint32_t i = 0; i < r->arrival_count && !failed; i++) {
        uint32_t run = r->arrivals[i].run;
        if (run != FLUX_NO_RUN && r->runs[run].taken != r->runs[run].recorded)
            failed = flux_record_source(g, &r->runs[run], run);
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

/* ------------------------------------------------------------------ the committer's side */

typedef struct { /* what Journal and Fence hold, lent for one call */
    int fd, fence, slot; /* the fence's two slots are FLUX_FENCE_PAGE apart; `slot` is the newer one */
    uint32_t file, serial;
    uint64_t offset, synced, spoiled, limit; /* limit: a group must end before it */
} flux_journal_end;

typedef struct {
    flux_exchange *exchange;
    flux_receiver *receiver; /* whose runs get their committed positions */
    flux_streams *streams;
    const flux_zmq *zmq;
    void *socket;
    uint64_t store_id;
    uint32_t epoch;
    int disk, by_python; /* by_python: every group is for Python to commit */
    const uint8_t *beat_topic;
    size_t beat_topic_size;
    uint8_t *scratch; /* for version 1 frames */
    size_t scratch_size;
    uint64_t groups, beats;
    int refused; /* errno of the disk that refused a group, 0: none did */
    flux_sent sent;
    uint8_t *heard;   /* what a subscriber said, one frame: for Python */
    size_t heard_size, heard_limit;
} flux_committer;

#define FLUX_FENCE_PAGE 4096

/* All of it, or -1 when the disk refuses. */
static inline int flux_write_all(int fd, const uint8_t *data, uint64_t size, uint64_t at) {
    while (size > 0) {
        ssize_t written = pwrite(fd, data, size, (off_t)at);
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) return -1;
        data += written;
        size -= (uint64_t)written;
        at += (uint64_t)written;
    }
    return 0;
}

/* Replaces the older of the fence's two marks; the layout is flux/journal/fence.py's. -1 when the disk refuses: the newer mark
 * stays as it was. */
static inline int flux_fence_store(flux_journal_end *j, uint64_t store_id, uint32_t epoch) {
    int slot = 1 - j->slot;
    uint8_t mark[32];
    flux_put64(mark, store_id);
    flux_put32(mark + 8, epoch);
    flux_put32(mark + 12, j->file);
    flux_put64(mark + 16, j->offset);
    flux_put32(mark + 24, j->serial + 1);
    flux_put32(mark + 28, flux_crc32c(0, mark, 28));
    if (flux_write_all(j->fence, mark, sizeof mark, (uint64_t)slot * FLUX_FENCE_PAGE)) return -1;
    j->slot = slot;
    j->serial++;
    return 0;
}

/* Writes the group and its COMMIT at the journal's end: 0, or -1 when the disk refuses; then nothing was added, and the
 * group may be written again. */
static inline int flux_journal_write(flux_journal_end *j, flux_group *g, int sync) {
    uint64_t size = flux_group_seal(g, j->offset, j->synced);
    if (j->spoiled < j->offset + size) j->spoiled = j->offset + size;
    if (flux_write_all(j->fd, g->data, size, j->offset)) return -1;
    if (sync && fdatasync(j->fd)) return -1;
    j->offset += size;
    if (sync) j->synced = j->offset;
    return 0;
}

/* The committed positions of the runs that the group's SOURCE records name. A serial tells a run from another that has
 * its place now. */
static inline void flux_mark_runs(flux_receiver *r, const flux_group *g) {
    for (uint32_t i = 0; i < g->count; i++) {
        const flux_entry *e = &g->entries[i];
        if (e->kind != FLUX_SOURCE) continue;
        flux_feed_run *run = &r->runs[(uint32_t)e->label];
        if (run->serial != e->label >> 32) continue;
        const uint8_t *end = g->data + e->at + e->size; /* of flux_record_source's body: the incarnation, big endian */
        run->committed_incarnation = (uint32_t)end[-4] << 24 | (uint32_t)end[-3] << 16 | (uint32_t)end[-2] << 8 | end[-1];
        __atomic_store_n(&run->committed, e->label2, __ATOMIC_RELEASE);
    }
}

/* Sends the heartbeat that waits, if there is one. */
static inline void flux_send_beat(flux_committer *c) {
    flux_exchange *x = c->exchange;
    flux_sent sent = {0, 0, 0, 0};
    pthread_mutex_lock(&x->lock);
    if (x->beat_size) {
        flux_send_one(c->zmq, c->socket, c->beat_topic, c->beat_topic_size, x->beat, x->beat_size, &sent);
        c->beats++;
        x->beat_size = 0;
        pthread_cond_broadcast(&x->changed);
    }
    pthread_mutex_unlock(&x->lock);
    if (sent.error) c->sent.error = sent.error;
}

/* Takes what a subscriber said, if there is anything and room for it: whether Python has to look. */
static inline int flux_hear_subscriber(flux_committer *c) {
    const flux_zmq *zmq = c->zmq;
    flux_zmq_msg message;
    int frames = 0, more = 1;
    while (more) {
        zmq->msg_init(&message);
        if (zmq->msg_recv(&message, c->socket, FLUX_ZMQ_DONTWAIT) < 0) {
            zmq->msg_close(&message);
            return frames != 0; /* between two frames only a signal comes: Python reads on */
        }
        size_t size = zmq->msg_size(&message);
        more = zmq->msg_more(&message);
        if (frames++ == 0 && !more && size <= c->heard_limit) {
            memcpy(c->heard, zmq->msg_data(&message), size);
            c->heard_size = size;
        }
        zmq->msg_close(&message);
    }
    return 1;
}

/* Commits and publishes the taken group: 0, or 1 when Python must see to it: it is noted, a subscriber said something,
 * the file has no room for it, or the disk refuses. */
static inline int flux_commit_group(flux_committer *c, flux_journal_end *j) {
    flux_exchange *x = c->exchange;
    flux_group *g = x->filled[x->taken].group;
    if (x->filled[x->taken].noted || c->by_python || flux_hear_subscriber(c) ||
        j->offset + g->used + FLUX_COMMIT_SIZE > j->limit)
        return 1;
    uint64_t start = j->offset;
    if (flux_journal_write(j, g, c->disk)) {
        c->refused = errno;
        return 1;
    }
    if (flux_fence_store(j, c->store_id, c->epoch)) { /* without its mark it is as if it were not written */
        c->refused = errno;
        j->offset = start;
        if (j->synced > start) j->synced = start;
        return 1;
    }
    flux_mark_runs(c->receiver, g);
    flux_mark_committed(c->streams, g, flux_clock(CLOCK_MONOTONIC));
    flux_exchange_committed(x, j->file, j->offset);
    flux_publish(c->zmq, c->socket, c->streams, g, NULL, NULL, g->count, c->scratch, c->scratch_size, &c->sent);
    c->groups++;
    return 0;
}

/* Commits and publishes groups until `until_ns` (CLOCK_MONOTONIC), 0, or until one is taken that Python must see to, 1. */
static inline int flux_commit_until(flux_committer *c, flux_journal_end *j, int64_t until_ns) {
    flux_exchange *x = c->exchange;
    for (;;) {
        int taken = flux_exchange_take(x, until_ns);
        flux_send_beat(c);
        if (taken < 0) {
            if (c->sent.error || x->closed || flux_hear_subscriber(c) || flux_clock(CLOCK_MONOTONIC) >= until_ns)
                return 0;
            continue;
        }
        if (x->handed || flux_commit_group(c, j)) {
            x->handed = 0;
            return 1;
        }
        flux_exchange_give_back(x);
        if (c->sent.error || flux_clock(CLOCK_MONOTONIC) >= until_ns) return 0;
    }
}

typedef struct flux_lender {
    flux_committer *committer;
    flux_journal_end *journal;
} flux_lender;

/* `flux_commit_until`, and whatever it waits for meanwhile the loop may commit in its place. Not with a sync for each
 * group: the loop would wait for the disk while rows arrive. */
static inline int flux_commit_groups(flux_committer *c, flux_journal_end *j, int64_t until_ns) {
    flux_lender lender = {c, j};
    flux_exchange_lend(c->exchange, c->disk ? NULL : &lender);
    int noted = flux_commit_until(c, j, until_ns);
    flux_exchange_lend(c->exchange, NULL);
    return noted;
}

/* ------------------------------------------------------------------ the loop's turns */

#define FLUX_BORROW_MOST (UINT64_C(64) << 10) /* bytes of a group that the loop commits itself */

/* Numbers and records what arrived. Where nothing more waits it commits that too, if the committer has nothing to do;
 * else it leaves that to the committer. -1: no room. */
static inline int flux_loop_pass_on(flux_loop *l, int drained) {
    flux_exchange *x = l->exchange;
    pthread_mutex_lock(&x->lock);
    int failed = flux_loop_record(l);
    int borrowed = !failed && drained && flux_exchange_borrow(x, FLUX_BORROW_MOST);
    if (!borrowed) pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
    if (borrowed) {
        flux_committer *c = x->lender->committer;
        int handed = flux_commit_group(c, x->lender->journal);
        flux_exchange_return(x, handed, c->sent.error != 0);
    }
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
