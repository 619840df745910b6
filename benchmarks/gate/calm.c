/* How late this machine wakes up who sleeps: a thread bound to each processor sleeps to each whole millisecond of an
 * absolute schedule, until standard input ends. What is missed is not skipped: a processor that was away for 50 ms
 * counts as 50 late wake-ups, as a generator's messages would.
 *
 * Prints a line for each processor: its number, wake-ups, p99 and greatest lateness in ns. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { STEP_NS = 1000000, SLOT_NS = 10000, SLOTS = 100000, MOST = 1024 }; /* 10 us a slot, a second in all */

typedef struct {
    pthread_t thread;
    int cpu;
    uint32_t *slots;
    int64_t wakes, worst;
} sleeper;

static atomic_int ended;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void *sleeps(void *given) {
    sleeper *s = given;
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(s->cpu, &own);
    pthread_setaffinity_np(pthread_self(), sizeof own, &own);
    for (int64_t due = now_ns() + STEP_NS; !atomic_load(&ended); due += STEP_NS) {
        struct timespec t = {due / 1000000000, due % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        int64_t late = now_ns() - due;
        if (late > s->worst) s->worst = late;
        s->slots[late / SLOT_NS < SLOTS ? late / SLOT_NS : SLOTS - 1]++;
        s->wakes++;
    }
    return NULL;
}

static int64_t p99(const sleeper *s) {
    int64_t seen = 0;
    for (int i = 0; i < SLOTS; i++)
        if ((seen += s->slots[i]) * 100 >= s->wakes * 99) return (int64_t)(i + 1) * SLOT_NS;
    return s->worst;
}

int main(void) {
    static sleeper all[MOST];
    cpu_set_t allowed;
    int count = 0;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE && count < MOST; cpu++) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        sleeper *s = &all[count++];
        s->cpu = cpu;
        if (!(s->slots = calloc(SLOTS, sizeof *s->slots))) return 1;
        if (pthread_create(&s->thread, NULL, sleeps, s)) return 1;
    }
    char byte;
    while (read(0, &byte, 1) > 0) {}
    atomic_store(&ended, 1);
    for (int i = 0; i < count; i++) {
        pthread_join(all[i].thread, NULL);
        printf("%d %lld %lld %lld\n", all[i].cpu, (long long)all[i].wakes, (long long)p99(&all[i]),
               (long long)all[i].worst);
    }
    return 0;
}
