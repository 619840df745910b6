/* Two groups change hands: the loop fills one while the committer commits the other.
 *
 *   loop ── fill ──► [ filling ] ── take ──► committer ── give back ──► [ spare ] ──► filling again
 *
 * There is never a third: when both are full the loop waits, and with it the inputs. A group is `noted` when it holds
 * what Python has to see to (a new stream, a replayed file's position): such a group is committed by Python.
 *
 * While the committer waits, it lends what it owns: the loop may then take a group itself and commit it on the spot,
 * which saves waking a thread for a few rows. Until it returns that, the committer does not come out of its wait. */
#ifndef FLUX_EXCHANGE_H
#define FLUX_EXCHANGE_H

#include <pthread.h>
#include <time.h>

#include "journal.h"

typedef struct {
    flux_group *group;
    int noted;
} flux_filled;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed, committed;
    flux_filled filled[2];
    int filling, taken; /* indices; taken -1 = the other one is spare */
    int closed;
    struct flux_lender *lender; /* what a committer lends while it waits; NULL = nothing */
    int waiting;        /* the committer waits in flux_exchange_take */
    int lent;           /* the loop has taken a group in its place */
    int handed;         /* ... and left it taken: it is for Python to commit */
    int wanted;         /* the committer wants to hear that it was returned */
    uint64_t borrowed;  /* groups that the loop committed itself */
    uint32_t file;      /* behind the last committed group: read by others */
    uint64_t offset;
    uint8_t *beat;      /* a heartbeat's frame that waits for the committer to send it; beat_size 0 = none */
    size_t beat_size, beat_limit;
} flux_exchange;

static inline int flux_exchange_init(flux_exchange *x, flux_group *first, flux_group *second) {
    pthread_condattr_t monotonic;
    memset(x, 0, sizeof *x);
    x->filled[0].group = first;
    x->filled[1].group = second;
    x->taken = -1;
    if (pthread_condattr_init(&monotonic)) return -1;
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    int failed = pthread_mutex_init(&x->lock, NULL) || pthread_cond_init(&x->changed, &monotonic) ||
                 pthread_cond_init(&x->committed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return failed ? -1 : 0;
}

static inline void flux_exchange_free(flux_exchange *x) {
    pthread_cond_destroy(&x->committed);
    pthread_cond_destroy(&x->changed);
    pthread_mutex_destroy(&x->lock);
}

/* Waits for the next change, the lock being held; 0 once `until_ns` (CLOCK_MONOTONIC) has passed. */
static inline int flux_exchange_wait(flux_exchange *x, pthread_cond_t *change, int64_t until_ns) {
    struct timespec t = {until_ns / 1000000000, until_ns % 1000000000};
    return pthread_cond_timedwait(change, &x->lock, &t) == 0;
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
        waited = flux_exchange_wait(x, &x->changed, until_ns);
    }
    pthread_mutex_unlock(&x->lock);
    return room;
}

/* Takes what was filled so far, waiting for it until then: the index of the group, or -1: nothing, or a heartbeat.
 * -2: a fault of ours, one is taken and was not given back. With `handed` set it is a group that the loop took. */
static inline int flux_exchange_take(flux_exchange *x, int64_t until_ns) {
    int waited = 1, taken = -1;
    pthread_mutex_lock(&x->lock);
    x->waiting = 1;
    while (x->lent ||
           (x->filled[x->filling].group->count == 0 && !x->closed && !x->beat_size && !x->handed && !x->wanted && waited)) {
        if (x->lent) {
            x->wanted = 1;
            pthread_cond_wait(&x->changed, &x->lock);
        } else {
            waited = flux_exchange_wait(x, &x->changed, until_ns);
        }
    }
    x->waiting = x->wanted = 0;
    if (x->handed) {
        taken = x->taken;
    } else if (x->filled[x->filling].group->count != 0 && x->taken >= 0) {
        taken = -2;
    } else if (x->filled[x->filling].group->count != 0) {
        taken = x->taken = x->filling;
        x->filling = 1 - taken;
        pthread_cond_broadcast(&x->changed);
    }
    pthread_mutex_unlock(&x->lock);
    return taken;
}

/* Whether the loop, which holds the lock, has the group that was filled to commit in the committer's place. Not while
 * something waits that only the committer does, nor a group of more than `most` bytes: then both work at once. */
static inline int flux_exchange_borrow(flux_exchange *x, uint64_t most) {
    const flux_filled *f = &x->filled[x->filling];
    if (!x->lender || !x->waiting || x->lent || x->wanted || x->taken >= 0 || x->beat_size || x->closed || f->noted ||
        f->group->count == 0 || f->group->used > most)
        return 0;
    x->lent = 1;
    x->borrowed++;
    x->taken = x->filling;
    x->filling = 1 - x->taken;
    return 1;
}

/* Gives back what was borrowed: the group is committed and sent, or (`handed`) as it was taken. The committer is woken
 * for a group that is handed to it, when it is told to `look`, or when it wanted to go on meanwhile. */
static inline void flux_exchange_return(flux_exchange *x, int handed, int look) {
    pthread_mutex_lock(&x->lock);
    if (!handed) {
        flux_group_clear(x->filled[x->taken].group);
        x->taken = -1;
    }
    x->lent = 0;
    x->handed = handed;
    x->wanted |= look;
    if (handed || x->wanted) pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

/* From now on `lender` may be borrowed while the committer waits; NULL: no longer. */
static inline void flux_exchange_lend(flux_exchange *x, struct flux_lender *lender) {
    pthread_mutex_lock(&x->lock);
    x->lender = lender;
    pthread_mutex_unlock(&x->lock);
}

/* The taken group is committed and sent: it may be filled again. */
static inline void flux_exchange_give_back(flux_exchange *x) {
    pthread_mutex_lock(&x->lock);
    flux_group_clear(x->filled[x->taken].group);
    x->filled[x->taken].noted = 0;
    x->taken = -1;
    pthread_mutex_unlock(&x->lock);
}

/* Leaves a heartbeat for the committer, waiting until then for the one before to be gone; whether it was left. */
static inline int flux_exchange_leave_beat(flux_exchange *x, const uint8_t *frame, size_t size, int64_t until_ns) {
    int waited = 1, left = 0;
    pthread_mutex_lock(&x->lock);
    while (x->beat_size && waited) waited = flux_exchange_wait(x, &x->changed, until_ns);
    if (!x->beat_size && size <= x->beat_limit) {
        memcpy(x->beat, frame, size);
        x->beat_size = size;
        left = 1;
        pthread_cond_broadcast(&x->changed);
    }
    pthread_mutex_unlock(&x->lock);
    return left;
}

/* Says how far the journal is committed. */
static inline void flux_exchange_committed(flux_exchange *x, uint32_t file, uint64_t offset) {
    pthread_mutex_lock(&x->lock);
    x->file = file;
    x->offset = offset;
    pthread_cond_broadcast(&x->committed);
    pthread_mutex_unlock(&x->lock);
}

/* Waits until the committed position is past (*file, *offset), or until then, and gives it. */
static inline void flux_exchange_wait_past(flux_exchange *x, uint32_t *file, uint64_t *offset, int64_t until_ns) {
    int waited = 1;
    pthread_mutex_lock(&x->lock);
    while (waited && (x->file < *file || (x->file == *file && x->offset <= *offset)))
        waited = flux_exchange_wait(x, &x->committed, until_ns);
    *file = x->file;
    *offset = x->offset;
    pthread_mutex_unlock(&x->lock);
}

#endif
