/* Both ends of a PUB/SUB over libzmq, in C: the limit of what any publisher over it can reach. The numbers of the board,
 * the pace and the accounting are those of board.py, pace.py and tally.py; the histogram is flux's own.
 *
 *   libzmq publisher|subscriber LIBZMQ BOARD RATE DURATION_NS WARMUP_NS PREFIX TOPIC_SIZE FRAME_SIZE HWM WINDOW
 *
 * libzmq is opened at run time: the one that pyzmq has brought, so that every peer runs over the same. Two frames a
 * message, each by zmq_msg_init_size, a copy and zmq_msg_send, as libzmq's own measurements do. The subscriber takes what
 * waits without blocking, looks at the clock once a BURST or when nothing waits, and only then sleeps in zmq_poll. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "histogram.h"
#include "schedule.h"

enum { HEARD, START, RECEIVED, SENT, DONE, ENDPOINT, PLACES };
enum { PUB = 1, SUB = 2, LINGER = 17, SNDHWM = 23, RCVHWM = 24, SUBSCRIBE = 6, LAST_ENDPOINT = 32, NODROP = 69 };
enum { DONTWAIT = 1, SNDMORE = 2, POLLIN_ = 1, STREAMS = 64, BATCH = 256, BURST = 32, WAIT_MS = 20 };

static const int64_t TICK_NS = 100000, LEAD_NS = 50000000, PROBE_NS = 20000000, GRACE_NS = 250000000;
static const int64_t QUIET_NS = 1000000000, DRAIN_NS = 5000000000, LIMIT_NS = INT64_C(20000000000);

typedef struct { _Alignas(8) unsigned char words[64]; } msg_t;
typedef struct { void *socket; int fd; short events, revents; } poll_t;

static struct {
    void *(*ctx_new)(void), *(*socket)(void *, int);
    int (*bind)(void *, const char *), (*connect)(void *, const char *);
    int (*setsockopt)(void *, int, const void *, size_t), (*getsockopt)(void *, int, void *, size_t *);
    int (*init)(msg_t *), (*init_size)(msg_t *, size_t), (*close)(msg_t *), (*more)(const msg_t *);
    int (*send)(msg_t *, void *, int), (*recv)(msg_t *, void *, int), (*poll)(poll_t *, int, long);
    void *(*data)(msg_t *);
} z;

static struct {
    volatile int64_t *board;
    int64_t rate, duration_ns, warmup_ns;
    const char *prefix; /* of all topics; the number of the stream follows */
    size_t topic_size, frame_size;
    int hwm;
    int64_t window;
} run;

static void fail(const char *what) {
    fprintf(stderr, "libzmq: %s\n", what);
    exit(1);
}

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) fail(name);
    return found;
}

static void open_library(const char *path) {
    void *l = dlopen(path, RTLD_NOW);
    if (!l) fail(dlerror());
    z.ctx_new = symbol(l, "zmq_ctx_new"), z.socket = symbol(l, "zmq_socket"), z.bind = symbol(l, "zmq_bind");
    z.connect = symbol(l, "zmq_connect"), z.setsockopt = symbol(l, "zmq_setsockopt");
    z.getsockopt = symbol(l, "zmq_getsockopt"), z.init = symbol(l, "zmq_msg_init");
    z.init_size = symbol(l, "zmq_msg_init_size"), z.close = symbol(l, "zmq_msg_close");
    z.more = symbol(l, "zmq_msg_more"), z.send = symbol(l, "zmq_msg_send"), z.recv = symbol(l, "zmq_msg_recv");
    z.poll = symbol(l, "zmq_poll"), z.data = symbol(l, "zmq_msg_data");
}

static int64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * FLUX_NS_PER_S + t.tv_nsec;
}

static void option(void *socket, int name, int value) {
    if (z.setsockopt(socket, name, &value, sizeof value)) fail("setsockopt");
}

/* ---- publisher ---- */

static void send_frame(void *socket, const char *bytes, size_t size, int flags) {
    msg_t m;
    z.init_size(&m, size);
    memcpy(z.data(&m), bytes, size);
    if (z.send(&m, socket, flags) < 0) fail("send");
}

static void send_message(void *socket, int64_t number, int64_t intended) {
    static char topics[STREAMS][256], frame[1024];
    if (!topics[0][0])
        for (int i = 0; i < STREAMS; i++) snprintf(topics[i], sizeof topics[i], "%s%02d\x1f", run.prefix, i);
    memcpy(frame, &number, 8);
    memcpy(frame + 8, &intended, 8);
    send_frame(socket, topics[number < 0 ? 0 : number % STREAMS], run.topic_size, SNDMORE);
    send_frame(socket, frame, run.frame_size, 0);
}

static void probe_until(void *socket, int place) {
    for (int64_t limit = flux_clock_ns() + LIMIT_NS; !run.board[place];) {
        if (flux_clock_ns() > limit) fail("no sign of the subscriber");
        send_message(socket, -1, 0);
        flux_sleep_until(flux_clock_ns() + PROBE_NS);
    }
}

static int64_t open_loop(void *socket, int64_t start) {
    flux_schedule schedule = {.rate = run.rate, .start_ns = start};
    int64_t sent = 0, run_ns = run.warmup_ns + run.duration_ns;
    int64_t total = (int64_t)(((__int128)run_ns * run.rate + FLUX_NS_PER_S - 1) / FLUX_NS_PER_S);
    while (sent < total) {
        int64_t now = flux_clock_ns();
        if (now > start + run_ns + GRACE_NS) break;
        int64_t due = flux_schedule_due(&schedule, now), upto = sent + BATCH;
        if (due > total) due = total;
        if (upto > due) upto = due;
        for (; sent < upto; sent++) send_message(socket, sent, flux_schedule_intended(&schedule, sent));
        if (sent == due) flux_sleep_until(start + ((now - start) / TICK_NS + 1) * TICK_NS);
    }
    return sent;
}

static int64_t saturate(void *socket, int64_t start) {
    int64_t sent = 0, now, end = start + run.warmup_ns + run.duration_ns;
    while ((now = flux_clock_ns()) < end) {
        int64_t free = run.window - (sent - run.board[RECEIVED]);
        if (free > BATCH) free = BATCH;
        for (int64_t i = 0; i < free; i++) send_message(socket, sent++, now);
        if (free <= 0) flux_sleep_until(now + TICK_NS);
    }
    return sent;
}

static void publisher(void *context) {
    char endpoint[64];
    size_t size = sizeof endpoint;
    void *socket = z.socket(context, PUB);
    option(socket, SNDHWM, run.hwm), option(socket, LINGER, 0), option(socket, NODROP, 1);
    if (z.bind(socket, "tcp://127.0.0.1:*") || z.getsockopt(socket, LAST_ENDPOINT, endpoint, &size)) fail("bind");
    run.board[ENDPOINT] = atoll(strrchr(endpoint, ':') + 1);
    flux_sharpen_sleep();
    probe_until(socket, HEARD);
    int64_t start = run.board[START] = flux_clock_ns() + LEAD_NS;
    flux_sleep_until(start);
    int64_t before = cpu_ns();
    run.board[SENT] = run.rate ? open_loop(socket, start) : saturate(socket, start);
    probe_until(socket, DONE);
    printf("{\"cpu_s\": %.6f}\n", (double)(cpu_ns() - before) / 1e9);
}

/* ---- subscriber ---- */

static struct {
    int64_t received, disorder, measured, last_ns, highest, start, active, ended, cpu, warmup_messages;
    int64_t numbers[BURST], intended[BURST];
    int held;
    flux_hdr times;
} tally;

static void account(void) {
    int64_t now = flux_clock_ns(), run_ns = run.warmup_ns + run.duration_ns;
    for (int i = 0; i < tally.held; i++) {
        int64_t number = tally.numbers[i];
        if (number < 0) {
            if (!run.board[HEARD]) tally.cpu = cpu_ns(), run.board[HEARD] = 1;
            continue;
        }
        if (!tally.start) tally.start = run.board[START];
        tally.active = now;
        if (number <= tally.highest) {
            tally.disorder++;
            continue;
        }
        tally.highest = number;
        tally.received++;
        int64_t since = now - tally.start;
        bool measured = run.rate ? number >= tally.warmup_messages : since >= run.warmup_ns && since < run_ns;
        if (run.rate && measured) flux_hdr_record(&tally.times, now - tally.intended[i]);
        if (measured) tally.measured++, tally.last_ns = since;
    }
    tally.held = 0;
    run.board[RECEIVED] = tally.received;
}

static bool finished(void) {
    int64_t sent = run.board[SENT], now;
    if (sent < 0) return false;
    now = flux_clock_ns();
    if (!tally.ended) tally.ended = now;
    int64_t quiet = now - (tally.active > tally.ended ? tally.active : tally.ended);
    return tally.received >= sent || quiet > QUIET_NS || now - tally.ended > DRAIN_NS;
}

/* Whether there was a message. */
static bool take(void *socket, msg_t *m) {
    if (z.recv(m, socket, DONTWAIT) < 0) return false;
    if (!z.more(m)) fail("a message of one frame");
    if (z.recv(m, socket, 0) < 0) fail("recv");
    const char *bytes = z.data(m);
    memcpy(&tally.numbers[tally.held], bytes, 8);
    memcpy(&tally.intended[tally.held], bytes + 8, 8);
    tally.held++;
    return true;
}

static int64_t at(double percentile) {
    int64_t value = flux_hdr_percentile(&tally.times, percentile);
    return value < tally.times.max ? value : tally.times.max;
}

static void subscriber(void *context) {
    char endpoint[64];
    msg_t m;
    for (int64_t limit = flux_clock_ns() + LIMIT_NS; !run.board[ENDPOINT]; usleep(2000))
        if (flux_clock_ns() > limit) fail("the publisher is not bound");
    void *socket = z.socket(context, SUB);
    option(socket, RCVHWM, run.hwm), option(socket, LINGER, 0);
    z.setsockopt(socket, SUBSCRIBE, run.prefix, strlen(run.prefix));
    snprintf(endpoint, sizeof endpoint, "tcp://127.0.0.1:%lld", (long long)run.board[ENDPOINT]);
    if (z.connect(socket, endpoint)) fail("connect");
    flux_hdr_reset(&tally.times);
    tally.highest = -1;
    tally.warmup_messages = (int64_t)(((__int128)run.warmup_ns * run.rate + FLUX_NS_PER_S - 1) / FLUX_NS_PER_S);
    z.init(&m);
    while (!finished()) {
        bool more = true;
        while (tally.held < BURST && (more = take(socket, &m)));
        account();
        poll_t item = {socket, 0, POLLIN_, 0};
        if (!more) z.poll(&item, 1, WAIT_MS);
    }
    run.board[DONE] = 1;
    z.close(&m);
    printf("{\"received\": %lld, \"disorder\": %lld, \"measured\": %lld, \"last_ns\": %lld, \"p50\": %lld, \"p99\": %lld, "
           "\"p999\": %lld, \"max\": %lld, \"cpu_s\": %.6f}\n",
           (long long)tally.received, (long long)tally.disorder, (long long)tally.measured, (long long)tally.last_ns,
           (long long)at(50), (long long)at(99), (long long)at(99.9), (long long)tally.times.max,
           (double)(cpu_ns() - tally.cpu) / 1e9);
}

int main(int argc, char **argv) {
    if (argc != 12) fail("usage: see the head of libzmq.c");
    open_library(argv[2]);
    int file = open(argv[3], O_RDWR);
    run.board = mmap(NULL, PLACES * sizeof *run.board, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (file < 0 || run.board == MAP_FAILED) fail("board");
    run.rate = atoll(argv[4]), run.duration_ns = atoll(argv[5]), run.warmup_ns = atoll(argv[6]);
    run.prefix = argv[7], run.topic_size = (size_t)atoll(argv[8]), run.frame_size = (size_t)atoll(argv[9]);
    run.hwm = atoi(argv[10]), run.window = atoll(argv[11]);
    void *context = z.ctx_new();
    argv[1][0] == 'p' ? publisher(context) : subscriber(context);
    fflush(stdout);
    _exit(0); /* both are through: nothing to linger for */
}
