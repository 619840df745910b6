/* The fuzzer: built with AddressSanitizer and UndefinedBehaviorSanitizer by tests/fuzz/build.py, run by tools/fuzz.
 *
 *   driver run SEED SECONDS LAST FRAME...   inputs of chance, until the time is over; FRAME... are the corpus
 *   driver replay NAME-ANYTHING.bin ...     these inputs, NAME says for which target
 *
 * The input of the run that is going on stands in the file LAST ( name | size u32 | bytes ), which is mapped: whatever
 * ends this process, the input that did it is there. */
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "coverage.h"
#include "target_arrow.h"
#include "target_codec.h"
#include "target_indicator.h"
#include "target_journal.h"
#include "target_pump.h"
#include "target_ring.h"
#include "target_window.h"

uint64_t fuzz_state = 1;
fuzz_frame fuzz_frames[FUZZ_FRAMES_MAX];
unsigned fuzz_frame_count;

enum { FUZZ_POOL = 2000, FUZZ_NAME = 12 };

static const fuzz_target targets[] = {
    {"codec", fuzz_codec_make, fuzz_codec_mutate, fuzz_codec_run},
    {"match", fuzz_match_make, fuzz_match_mutate, fuzz_match_run},
    {"pump", fuzz_pump_make, fuzz_pump_mutate, fuzz_pump_run},
    {"ring", fuzz_ring_make, fuzz_scramble, fuzz_ring_run},
    {"journal", fuzz_journal_make, fuzz_journal_mutate, fuzz_journal_run},
    {"admit", fuzz_admit_make, fuzz_scramble, fuzz_admit_run},
    {"window", fuzz_window_make, fuzz_scramble, fuzz_window_run},
    {"indicator", fuzz_indicator_make, fuzz_scramble, fuzz_indicator_run},
    {"arrow", fuzz_arrow_make, fuzz_scramble, fuzz_arrow_run},
};

enum { TARGETS = sizeof targets / sizeof *targets };

typedef struct {
    fuzz_frame input[FUZZ_POOL]; /* those that covered new ground; when it is full one of them goes */
    unsigned count;
    fuzz_ground ground;
    unsigned long runs;
} fuzz_pool;

static fuzz_pool pools[TARGETS];

typedef struct {
    char name[FUZZ_NAME];
    uint32_t size;
    uint8_t bytes[FUZZ_INPUT_MAX];
} fuzz_last;

static fuzz_last *last;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void execute(const fuzz_target *target, fuzz_pool *pool, const uint8_t *input, size_t size) {
    memset(last->name, 0, sizeof last->name);
    memcpy(last->name, target->name, strlen(target->name));
    last->size = (uint32_t)size;
    memcpy(last->bytes, input, size);
    fuzz_cover_begin();
    target->run(input, size);
    pool->runs++;
    if (!fuzz_cover_end(&pool->ground)) return;
    unsigned at = pool->count < FUZZ_POOL ? pool->count++ : (unsigned)fuzz_below(FUZZ_POOL);
    free(pool->input[at].data);
    pool->input[at] = (fuzz_frame){malloc(size + 1), size};
    memcpy(pool->input[at].data, input, size);
}

static void one(const fuzz_target *target, fuzz_pool *pool) {
    static uint8_t input[FUZZ_INPUT_MAX + 64];
    size_t size;
    if (pool->count && !fuzz_one_in(8)) {
        const fuzz_frame *from = &pool->input[fuzz_below(pool->count)];
        memcpy(input, from->data, size = from->size);
    } else {
        size = target->make(input);
    }
    for (size_t times = fuzz_below(4); times; times--) size = target->mutate(input, size);
    execute(target, pool, input, size);
}

static uint8_t *read_file(const char *path, size_t *size) {
    uint8_t *data = malloc(FUZZ_INPUT_MAX + 1);
    FILE *file = fopen(path, "rb");
    if (!file) {
        perror(path);
        exit(2);
    }
    *size = fread(data, 1, FUZZ_INPUT_MAX + 1, file);
    fclose(file);
    return data;
}

static int run(char **arguments) {
    double until = now() + strtod(arguments[1], NULL);
    int file = open(arguments[2], O_RDWR | O_CREAT, 0644);
    if (file < 0 || ftruncate(file, sizeof *last)) return 2;
    last = mmap(NULL, sizeof *last, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (last == MAP_FAILED) return 2;
    fuzz_state = strtoull(arguments[0], NULL, 10) * 2 + 1;
    for (int i = 0; i < 64; i++) fuzz_next();
    for (char **path = arguments + 3; *path && fuzz_frame_count < FUZZ_FRAMES_MAX; path++) {
        fuzz_frame *frame = &fuzz_frames[fuzz_frame_count];
        frame->data = read_file(*path, &frame->size);
        if (frame->size <= FUZZ_INPUT_MAX) fuzz_frame_count++;
    }
    if (!fuzz_frame_count) return 2;
    for (unsigned i = 0; i < fuzz_frame_count; i++) execute(&targets[0], &pools[0], fuzz_frames[i].data, fuzz_frames[i].size);
    while (now() < until)
        for (unsigned t = 0; t < TARGETS; t++)
            for (unsigned n = 0; n < 32; n++) one(&targets[t], &pools[t]);
    for (unsigned t = 0; t < TARGETS; t++)
        printf("%s %lu %u %lu\n", targets[t].name, pools[t].runs, pools[t].count, pools[t].ground.edges);
    return 0;
}

static int replay(char **paths) {
    for (; *paths; paths++) {
        const char *slash = strrchr(*paths, '/'), *name = slash ? slash + 1 : *paths;
        for (unsigned t = 0; t < TARGETS; t++) {
            size_t length = strlen(targets[t].name), size;
            if (strncmp(name, targets[t].name, length) || name[length] != '-') continue;
            uint8_t *data = read_file(*paths, &size);
            targets[t].run(data, size);
            free(data);
            printf("%s\n", name);
        }
    }
    return 0;
}

int main(int count, char **arguments) {
    if (count >= 6 && !strcmp(arguments[1], "run")) return run(arguments + 2);
    if (count >= 3 && !strcmp(arguments[1], "replay")) return replay(arguments + 2);
    fprintf(stderr, "driver run SEED SECONDS LAST FRAME... | driver replay FILE...\n");
    return 2;
}
