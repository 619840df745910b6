/* Two groups change hands: the loop fills one while the committer commits the other.
 *
 *   loop ── fill ──► [ filling ] ── take ──► [ the other ] ── give back ──► filling again
 *
 * There is never a third: when both are full the loop waits, and with it the inputs. Whose the other is, is the state;
 * what may follow what is `flux_exchange_next`, and checked at every change:
 *
 *   SPARE     nobody's, while the committer is busy        ► WAITING
 *   WAITING   nobody's, while the committer waits          ► TAKEN · STAND_IN · SPARE it waited long enough
 *   STAND_IN  the loop's, which commits it in the          ► WAITING committed · TAKEN, KEPT left as it is ·
 *             waiting committer's place                      RECALLED the committer goes on after that
 *   RECALLED  the same, and the committer waits for it     ► SPARE committed · TAKEN, KEPT left as it is
 *   TAKEN     the committer's                              ► SPARE given back · KEPT
 *   KEPT      the committer's, in the journal and not      ► SPARE given back
 *             shown yet: Python is asked first
 *
 * To commit a few rows itself saves the loop waking a thread. */
#ifndef FLUX_EXCHANGE_H
#define FLUX_EXCHANGE_H

#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "journal.h"

enum flux_exchange_state {
    FLUX_SPARE = 0,
    FLUX_WAITING,
    FLUX_STAND_IN,
    FLUX_RECALLED,
    FLUX_TAKEN,
    FLUX_KEPT,
};

static const uint8_t flux_exchange_next[] = {
    [FLUX_SPARE] = 1 << FLUX_WAITING,
    [FLUX_WAITING] = 1 << FLUX_SPARE | 1 << FLUX_TAKEN | 1 << FLUX_STAND_IN,
    [FLUX_STAND_IN] = 1 << FLUX_WAITING | 1 << FLUX_RECALLED | 1 << FLUX_TAKEN | 1 << FLUX_KEPT,
    [FLUX_RECALLED] = 1 << FLUX_SPARE | 1 << FLUX_TAKEN | 1 << FLUX_KEPT,
    [FLUX_TAKEN] = 1 << FLUX_SPARE | 1 << FLUX_KEPT,
    [FLUX_KEPT] = 1 << FLUX_SPARE,
};

typedef struct {
    flux_group *group;
    int by_python; /* Python put something into it (a new stream, a file's position) and is asked before it is shown */
} flux_filled;

typedef struct { /* how far the journal is committed; with a lock of its own, so that nobody waits for a turn of the loop */
    pthread_mutex_t lock;
    pthread_cond_t moved;
    uint32_t file;
    uint64_t offset;
} flux_position;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    flux_filled filled[2];
    int filling; /* the index of that one */
    enum flux_exchange_state state;
    int closed;
    struct flux_committer *committer; /* in whose place the loop may commit; NULL = it may not */
    uint64_t stood_in;                /* groups that the loop took to commit them itself */
    uint8_t *beat;                    /* a heartbeat's frame that waits for the committer to send it; beat_size 0 = none */
    size_t beat_size, beat_limit;
    flux_position position;
} flux_exchange;

static inline int flux_exchange_init(flux_exchange *x, flux_group *first, flux_group *second) {
    pthread_condattr_t monotonic;
    memset(x, 0, sizeof *x);
    x->filled[0].group = first;
    x->filled[1].group = second;
    if (pthread_condattr_init(&monotonic)) return -1;
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    int failed = pthread_mutex_init(&x->lock, NULL) || pthread_cond_init(&x->changed, &monotonic) ||
                 pthread_mutex_init(&x->position.lock, NULL) || pthread_cond_init(&x->position.moved, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return failed ? -1 : 0;
}

static inline void flux_exchange_free(flux_exchange *x) {
    pthread_cond_destroy(&x->position.moved);
    pthread_mutex_destroy(&x->position.lock);
    pthread_cond_destroy(&x->changed);
    pthread_mutex_destroy(&x->lock);
}

/* Waits for the next change, the lock being held; 0 once `until_ns` (CLOCK_MONOTONIC) has passed. */
static inline int flux_wait(pthread_cond_t *change, pthread_mutex_t *lock, int64_t until_ns) {
    struct timespec t = {until_ns / 1000000000, until_ns % 1000000000};
    return pthread_cond_timedwait(change, lock, &t) == 0;
}

/* The next state, the lock being held. One that cannot follow is a fault of ours, and a group would be lost or committed
 * twice: the process ends, and the next start finds what is in the journal. */
static inline void flux_exchange_go(flux_exchange *x, enum flux_exchange_state next) {
    if (!(flux_exchange_next[x->state] >> next & 1)) {
        fprintf(stderr, "flux: the exchange goes from state %d to %d\n", (int)x->state, (int)next);
        abort();
    }
    x->state = next;
}

static inline flux_filled *flux_exchange_other(flux_exchange *x) { return &x->filled[1 - x->filling]; }

static inline int flux_exchange_held(const flux_exchange *x) { return x->state == FLUX_TAKEN || x->state == FLUX_KEPT; }

/* The other group is what was filled so far, and theirs who go to `next`; the lock is held. */
static inline void flux_exchange_swap(flux_exchange *x, enum flux_exchange_state next) {
    flux_exchange_go(x, next);
    x->filling = 1 - x->filling;
}

/* Whether the group being filled has room for `need` bytes in `records` records, waiting for it until then. Both are
 * bounds of a group: a turn that brings no rows writes many small records. */
static inline int flux_exchange_room(flux_exchange *x, uint64_t need, uint32_t records, int64_t until_ns) {
    int room, waited = 1;
    pthread_mutex_lock(&x->lock);
    for (;;) {
        const flux_group *g = x->filled[x->filling].group;
        room = g->capacity - g->used >= need && g->entry_capacity - g->count >= records;
        if (room || !waited) break;
        waited = flux_wait(&x->changed, &x->lock, until_ns);
    }
    pthread_mutex_unlock(&x->lock);
    return room;
}

enum { FLUX_TOOK_NONE = 0, FLUX_TOOK_NEW, FLUX_TOOK_LEFT };

/* Takes what was filled so far, waiting for it until then: nothing (it is closed, or a heartbeat waits), what is new, or
 * what the loop took in the committer's place and left to it. */
static inline int flux_exchange_take(flux_exchange *x, int64_t until_ns) {
    int waited = 1, took = FLUX_TOOK_NONE;
    pthread_mutex_lock(&x->lock);
    flux_exchange_go(x, FLUX_WAITING);
    while (x->filled[x->filling].group->count == 0 && !x->closed && !x->beat_size && waited && !flux_exchange_held(x))
        waited = flux_wait(&x->changed, &x->lock, until_ns);
    if (x->state == FLUX_STAND_IN) flux_exchange_go(x, FLUX_RECALLED);
    while (x->state == FLUX_RECALLED) pthread_cond_wait(&x->changed, &x->lock);
    if (flux_exchange_held(x)) {
        took = FLUX_TOOK_LEFT;
    } else if (x->filled[x->filling].group->count != 0) {
        took = FLUX_TOOK_NEW;
        flux_exchange_swap(x, FLUX_TAKEN);
        pthread_cond_broadcast(&x->changed);
    } else if (x->state == FLUX_WAITING) {
        flux_exchange_go(x, FLUX_SPARE);
    }
    pthread_mutex_unlock(&x->lock);
    return took;
}

/* Whether the loop, which holds the lock, has the group that was filled to commit in the committer's place. Not while
 * something waits that only the committer does, nor a group of more than `most` bytes: then both work at once. */
static inline int flux_exchange_stand_in(flux_exchange *x, uint64_t most) {
    const flux_filled *f = &x->filled[x->filling];
    if (x->state != FLUX_WAITING || !x->committer || x->beat_size || x->closed || f->by_python || f->group->count == 0 ||
        f->group->used > most)
        return 0;
    flux_exchange_swap(x, FLUX_STAND_IN);
    x->stood_in++;
    return 1;
}

/* The end of that: the group is committed and sent (`left` SPARE), or left to the committer as it is, TAKEN or KEPT. The
 * committer is woken only where it has to go on. */
static inline void flux_exchange_stood_in(flux_exchange *x, enum flux_exchange_state left) {
    pthread_mutex_lock(&x->lock);
    int wake = left != FLUX_SPARE || x->state == FLUX_RECALLED;
    if (left == FLUX_SPARE) flux_group_clear(flux_exchange_other(x)->group);
    flux_exchange_go(x, wake ? left : FLUX_WAITING);
    if (wake) pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

/* The taken group is in the journal, and Python is asked before it is shown. */
static inline void flux_exchange_keep(flux_exchange *x) {
    pthread_mutex_lock(&x->lock);
    flux_exchange_go(x, FLUX_KEPT);
    pthread_mutex_unlock(&x->lock);
}

/* The group is committed and sent: it may be filled again. */
static inline void flux_exchange_give_back(flux_exchange *x) {
    pthread_mutex_lock(&x->lock);
    flux_filled *f = flux_exchange_other(x);
    flux_exchange_go(x, FLUX_SPARE);
    flux_group_clear(f->group);
    f->by_python = 0;
    pthread_mutex_unlock(&x->lock);
}

/* Leaves a heartbeat for the committer, waiting until then for the one before to be gone; whether it was left. */
static inline int flux_exchange_leave_beat(flux_exchange *x, const uint8_t *frame, size_t size, int64_t until_ns) {
    int waited = 1, left = 0;
    pthread_mutex_lock(&x->lock);
    while (x->beat_size && waited) waited = flux_wait(&x->changed, &x->lock, until_ns);
    if (!x->beat_size && size <= x->beat_limit) {
        memcpy(x->beat, frame, size);
        __atomic_store_n(&x->beat_size, size, __ATOMIC_RELEASE);
        left = 1;
        pthread_cond_broadcast(&x->changed);
    }
    pthread_mutex_unlock(&x->lock);
    return left;
}

/* Says how far the journal is committed. */
static inline void flux_position_move(flux_position *p, uint32_t file, uint64_t offset) {
    pthread_mutex_lock(&p->lock);
    p->file = file;
    p->offset = offset;
    pthread_cond_broadcast(&p->moved);
    pthread_mutex_unlock(&p->lock);
}

/* Waits until the committed position is past (*file, *offset), or until then, and gives it. */
static inline void flux_position_wait_past(flux_position *p, uint32_t *file, uint64_t *offset, int64_t until_ns) {
    int waited = 1;
    pthread_mutex_lock(&p->lock);
    while (waited && (p->file < *file || (p->file == *file && p->offset <= *offset)))
        waited = flux_wait(&p->moved, &p->lock, until_ns);
    *file = p->file;
    *offset = p->offset;
    pthread_mutex_unlock(&p->lock);
}

#endif
