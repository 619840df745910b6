/* How a group is committed, whoever asks: the committer, or the loop in its place (exchange.h).
 *
 *   flux_keep   write ─► (sync) ─► fence            a disk that refuses: nothing was added, and it is kept again later
 *                  [ Python, where it is asked: what it put into the group, which faults to put into the sending ]
 *   flux_show   marks ─► position ─► publish
 *
 * In this order what is published or read is in the journal, a journal that ends before what was shown has a fence that
 * says so, and no subscriber who is quick to ask is ahead of the head. */
#ifndef FLUX_COMMIT_H
#define FLUX_COMMIT_H

#include "append.h"
#include "exchange.h"
#include "pump.h"

/* Why Python is to look. With all but the first a group is held that the next call goes on with. */
enum flux_committed {
    FLUX_COMMITTED = 0, /* nothing: the time is over, a heartbeat was sent, it is closed */
    FLUX_COMMIT_HEARD,  /* a subscriber said something */
    FLUX_COMMIT_NO_ROOM, /* the file has none for the group */
    FLUX_COMMIT_REFUSED, /* the disk refuses the group (errno in `refused`) ... */
    FLUX_COMMIT_UNMARKED, /* ... or its mark in the fence */
    FLUX_COMMIT_ASKED,  /* the group is in the journal, and is to be shown by the next call */
    FLUX_COMMIT_UNSENT, /* sending failed (errno in `sent`): the socket is no good */
};

typedef struct flux_committer {
    flux_exchange *exchange;
    flux_end *end;
    flux_fence *fence;
    flux_receiver *receiver; /* whose runs get their committed positions */
    flux_streams *streams;
    const flux_zmq *zmq;
    void *socket;
    uint64_t store_id;
    uint32_t epoch;
    int disk, ask_always; /* sync every group; ask Python about every group */
    const uint8_t *beat_topic;
    size_t beat_topic_size;
    uint8_t *scratch; /* for version 1 frames */
    size_t scratch_size;
    uint8_t *heard; /* what a subscriber said, one frame: for Python */
    size_t heard_size, heard_limit;
    uint64_t groups, beats;
    flux_sent sent;
    int refused;
    enum flux_committed left; /* of a group that the loop left to the committer */
} flux_committer;

typedef struct { /* how the next group is sent, where that is not as it stands (flux_publish) */
    const uint32_t *entries;
    const uint8_t *spoilt;
    uint32_t count;
} flux_order;

static inline enum flux_committed flux_keep(flux_committer *c, flux_group *g) {
    flux_end *end = c->end;
    uint64_t start = end->offset;
    if (!flux_end_fits(end, g)) return FLUX_COMMIT_NO_ROOM;
    if (flux_end_write(end, g, c->disk)) {
        c->refused = errno;
        return FLUX_COMMIT_REFUSED;
    }
    if (flux_fence_store(c->fence, c->store_id, c->epoch, end->file, end->offset)) {
        c->refused = errno;
        flux_end_take_back(end, start); /* without its mark it is as if it were not written */
        return FLUX_COMMIT_UNMARKED;
    }
    return FLUX_COMMITTED;
}

/* The committed positions of the runs that the group's SOURCE records name. A serial tells a run from another that has
 * its place now. */
static inline void flux_mark_runs(flux_receiver *r, const flux_group *g) {
    for (uint32_t i = 0; i < g->count; i++) {
        const flux_entry *e = &g->entries[i];
        if (e->kind != FLUX_SOURCE) continue;
        flux_feed_run *run = &r->runs[(uint32_t)e->label];
        if (run->serial != e->label >> 32) continue;
        const uint8_t *end = g->data + e->at + e->size; /* of flux_group_append_source's body: the incarnation, big endian */
        run->committed_incarnation = (uint32_t)end[-4] << 24 | (uint32_t)end[-3] << 16 | (uint32_t)end[-2] << 8 | end[-1];
        __atomic_store_n(&run->committed, e->label2, __ATOMIC_RELEASE);
    }
}

static inline enum flux_committed flux_show(flux_committer *c, flux_group *g, const flux_order *order) {
    const flux_order all = {NULL, NULL, g->count}, *o = order ? order : &all;
    flux_mark_runs(c->receiver, g);
    flux_mark_committed(c->streams, g, flux_clock(CLOCK_MONOTONIC));
    flux_position_move(&c->exchange->position, c->end->file, c->end->offset);
    flux_publish(c->zmq, c->socket, c->streams, g, o->entries, o->spoilt, o->count, c->scratch, c->scratch_size, &c->sent);
    c->groups++;
    return c->sent.error ? FLUX_COMMIT_UNSENT : FLUX_COMMITTED;
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

/* The loop's: commits the group that it took in the committer's place, or leaves it to that. */
static inline void flux_commit_standing_in(flux_exchange *x) {
    flux_committer *c = x->committer;
    flux_group *g = flux_exchange_other(x)->group;
    enum flux_exchange_state left = FLUX_SPARE;
    c->left = flux_hear_subscriber(c) ? FLUX_COMMIT_HEARD : flux_keep(c, g);
    if (c->left) left = FLUX_TAKEN;
    else if ((c->left = flux_show(c, g, NULL))) left = FLUX_KEPT;
    flux_exchange_stood_in(x, left);
}

/* The committer's: goes on with the group that it holds. */
static inline enum flux_committed flux_commit_held(flux_committer *c, const flux_order *order) {
    flux_exchange *x = c->exchange;
    const flux_filled *f = flux_exchange_other(x);
    enum flux_committed found;
    if (x->state == FLUX_TAKEN) {
        if ((found = flux_keep(c, f->group))) return found;
        if (f->by_python || c->ask_always) {
            flux_exchange_keep(x);
            return FLUX_COMMIT_ASKED;
        }
    }
    if ((found = flux_show(c, f->group, order))) return found;
    flux_exchange_give_back(x);
    return FLUX_COMMITTED;
}

/* Sends the heartbeat that waits, if one does. */
static inline void flux_send_beat(flux_committer *c) {
    flux_exchange *x = c->exchange;
    size_t size = __atomic_load_n(&x->beat_size, __ATOMIC_ACQUIRE);
    flux_sent sent = {0, 0, 0, 0};
    if (!size) return; /* the frame is ours until that is 0 again */
    flux_send_one(c->zmq, c->socket, c->beat_topic, c->beat_topic_size, x->beat, size, &sent);
    c->beats++;
    pthread_mutex_lock(&x->lock);
    x->beat_size = 0;
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
    if (sent.error) c->sent.error = sent.error;
}

/* Commits and shows groups until `until_ns` (CLOCK_MONOTONIC) or until Python is to look: first the one that it was to
 * look at, sent by `order`. */
static inline enum flux_committed flux_commit_until(flux_committer *c, const flux_order *order, int64_t until_ns) {
    flux_exchange *x = c->exchange;
    enum flux_committed found = FLUX_COMMITTED;
    int held = flux_exchange_held(x), took;
    do {
        took = held ? FLUX_TOOK_NEW : flux_exchange_take(x, until_ns);
        flux_send_beat(c);
        if (took == FLUX_TOOK_LEFT) found = c->left;
        else if (!held && flux_hear_subscriber(c)) found = FLUX_COMMIT_HEARD;
        else if (took == FLUX_TOOK_NEW) found = flux_commit_held(c, held ? order : NULL);
        held = 0;
    } while (!found && !c->sent.error && !(took == FLUX_TOOK_NONE && x->closed) && flux_clock(CLOCK_MONOTONIC) < until_ns);
    return c->sent.error ? FLUX_COMMIT_UNSENT : found;
}

#endif
