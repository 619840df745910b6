/* What the recorder and the failing of calls have in common: which calls count, and the log.
 *
 *   FLUX_DISK_ROOT   the data directory, an absolute path without links: calls on what is below it count
 *   FLUX_DISK_LOG    the file that gets an entry for each of them, outside of the directory, appended to
 *   FLUX_DISK_KILL   N: the process is killed (-9) just before its Nth entry
 *   FLUX_DISK_FAIL   "N errno MODE": the Nth call that can fail so fails so; MODE is once, lasting (until the file
 *                    that FLUX_DISK_CAUSE names is gone, every such call fails) or short (half of a write is written)
 *
 * The log is read by log.py: an entry is 64 bytes, then `size` bytes of data, then zeros to a multiple of 8. */
#ifndef FLUX_SHIM_H
#define FLUX_SHIM_H

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum shim_kind {
    SHIM_START = 1, /* a process begins; data: nothing */
    SHIM_WRITE,     /* inode, offset in a; data: the bytes */
    SHIM_SIZE,      /* inode, the new size in a */
    SHIM_CREATE,    /* inode; data: the path */
    SHIM_RENAME,    /* data: old path, 0, new path */
    SHIM_LINK,      /* inode; data: the new path */
    SHIM_UNLINK,    /* data: the path */
    SHIM_FOLDER,    /* inode; data: the path of a new folder */
    SHIM_SYNCING,   /* inode; a: the number of this sync */
    SHIM_SYNCED,    /* inode; a: the number of the sync that is over, b: 0 or its errno */
    SHIM_STORE,     /* inode, offset in a; data: a page of shared memory that has changed */
    SHIM_FAILED,    /* a: enum shim_class, b: errno; data: the path, or the call's name */
    SHIM_KILLED,    /* the process kills itself here */
};

enum shim_class {
    CALL_WRITE = 1,
    CALL_SYNC = 2,
    CALL_OPEN = 4,
    CALL_RENAME = 8, /* and link and unlink */
    CALL_ALLOCATE = 16,
    CALL_MAP = 32,    /* mmap of a file, and the double mapping of a ring */
    CALL_SOCKET = 64, /* socket, bind, listen, accept */
    CALL_DESCRIPTOR = 128, /* epoll_create, eventfd, memfd_create, a duplicate */
};

typedef struct {
    uint32_t kind, thread;
    int64_t time_ns; /* CLOCK_MONOTONIC, once it was done */
    uint64_t inode, a, b;
    uint32_t size, process;
    uint64_t number, reserved;
} shim_entry;

_Static_assert(sizeof(shim_entry) == 64, "log.py reads 64 bytes");

#define SHIM_PATH 4096
#define SHIM_MAPS 16
#define SHIM_PAGE 4096
#define SHIM_MAP_BYTES (16 * SHIM_PAGE) /* larger mappings are not the fence */

typedef struct {
    uint8_t *at, *shadow;
    size_t size;
    uint64_t inode, offset;
} shim_map;

static struct {
    pthread_mutex_t lock;
    int ready, log;
    char root[SHIM_PATH];
    size_t root_size;
    uint64_t entries, kill_at, calls, syncs;
    uint64_t fail_at;
    int fail_errno, lasting, shorten;
    uint32_t fail_classes;
    const char *cause;
    shim_map maps[SHIM_MAPS];
} shim = {.lock = PTHREAD_MUTEX_INITIALIZER, .log = -1};

/* Which calls may fail with an error: what a file system, a full table or a signal does. */
static uint32_t shim_classes(int error, int shorten) {
    if (shorten) return CALL_WRITE;
    switch (error) {
    case ENOSPC: return CALL_WRITE | CALL_ALLOCATE | CALL_OPEN | CALL_RENAME;
    case EIO: return CALL_WRITE | CALL_ALLOCATE | CALL_OPEN | CALL_RENAME | CALL_SYNC;
    case EMFILE: return CALL_OPEN | CALL_SOCKET | CALL_DESCRIPTOR;
    case ENOMEM: return CALL_MAP | CALL_OPEN | CALL_SOCKET;
    case EINTR: return CALL_WRITE | CALL_ALLOCATE | CALL_OPEN | CALL_SYNC;
    default: return 0;
    }
}

static void shim_write_entry(shim_entry *e, const void *data) {
    static const uint8_t zeros[8];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    e->time_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    e->thread = (uint32_t)syscall(SYS_gettid);
    e->process = (uint32_t)getpid();
    e->number = shim.entries;
    struct iovec parts[3] = {
        {e, sizeof *e}, {(void *)data, e->size}, {(void *)zeros, (8 - e->size % 8) % 8}};
    if (syscall(SYS_writev, shim.log, parts, 3) < 0) abort(); /* a log with a hole proves nothing */
}

/* Pages of shared memory that have changed since the last look. The lock is held. */
static void shim_look_at_maps(void) {
    for (int i = 0; i < SHIM_MAPS; i++) {
        shim_map *m = &shim.maps[i];
        for (size_t at = 0; m->at && at < m->size; at += SHIM_PAGE) {
            if (memcmp(m->at + at, m->shadow + at, SHIM_PAGE) == 0) continue;
            memcpy(m->shadow + at, m->at + at, SHIM_PAGE);
            shim_entry e = {.kind = SHIM_STORE, .inode = m->inode, .a = m->offset + at, .size = SHIM_PAGE};
            shim_write_entry(&e, m->shadow + at);
        }
    }
}

/* An entry is about to be made: the lock is held. The one place where the process may be killed. */
static void shim_reach(void) {
    if (shim.log < 0) return;
    shim_look_at_maps();
    shim.entries++;
    if (shim.kill_at && shim.entries == shim.kill_at) {
        shim_entry e = {.kind = SHIM_KILLED};
        shim_write_entry(&e, NULL);
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
}

static void shim_note(uint32_t kind, uint64_t inode, uint64_t a, uint64_t b, const void *data, size_t size) {
    if (shim.log < 0) return;
    shim_entry e = {.kind = kind, .inode = inode, .a = a, .b = b, .size = (uint32_t)size};
    shim_write_entry(&e, data);
}

static void shim_begin(void) {
    if (shim.ready) return;
    shim.ready = 1;
    const char *root = getenv("FLUX_DISK_ROOT"), *log = getenv("FLUX_DISK_LOG"), *said;
    if (!root) return;
    shim.root_size = strlen(root);
    memcpy(shim.root, root, shim.root_size + 1);
    if (log) {
        int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        shim.log = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 700); /* out of the way of numbers that are told */
        if (shim.log < 0) abort();
        syscall(SYS_close, fd);
    }
    if ((said = getenv("FLUX_DISK_KILL"))) shim.kill_at = strtoull(said, NULL, 10);
    if ((said = getenv("FLUX_DISK_FAIL"))) {
        char mode[16] = "";
        if (sscanf(said, "%lu %d %15s", &shim.fail_at, &shim.fail_errno, mode) != 3) abort();
        shim.lasting = strcmp(mode, "lasting") == 0;
        shim.shorten = strcmp(mode, "short") == 0;
        shim.fail_classes = shim_classes(shim.fail_errno, shim.shorten);
        shim.cause = getenv("FLUX_DISK_CAUSE");
    }
    shim_note(SHIM_START, 0, 0, 0, NULL, 0);
}

__attribute__((constructor)) static void shim_load(void) { shim_begin(); }

static int shim_below_root(const char *path) {
    return shim.root_size && strncmp(path, shim.root, shim.root_size) == 0 &&
           (path[shim.root_size] == '/' || path[shim.root_size] == 0);
}

/* The path of a descriptor; whether it is below the root. */
static int shim_path_of(int fd, char *path) {
    char link[64];
    path[0] = 0;
    if (!shim.root_size) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, SHIM_PATH - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return shim_below_root(path);
}

/* A path as it was given, made absolute; whether it is below the root. */
static int shim_resolve(int folder, const char *given, char *path) {
    path[0] = 0;
    if (!shim.root_size || !given) return 0;
    if (given[0] == '/') {
        snprintf(path, SHIM_PATH, "%s", given);
    } else {
        char base[SHIM_PATH];
        if (folder == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else {
            shim_path_of(folder, base);
        }
        if ((size_t)snprintf(path, SHIM_PATH, "%s/%s", base, given) >= SHIM_PATH) return 0;
    }
    return shim_below_root(path);
}

static uint64_t shim_inode(int fd) {
    struct stat found;
    return fstat(fd, &found) ? 0 : found.st_ino;
}

static uint64_t shim_inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) ? 0 : found.st_ino;
}

/* Whether this call is to fail: then errno is set. The lock is held. */
static int shim_fails(uint32_t call, const char *where) {
    if (!shim.fail_at || !(call & shim.fail_classes)) return 0;
    shim.calls++;
    if (shim.calls < shim.fail_at) return 0;
    if (shim.calls > shim.fail_at && !(shim.lasting && shim.cause && access(shim.cause, F_OK) == 0)) return 0;
    shim_note(SHIM_FAILED, 0, call, (uint64_t)shim.fail_errno, where, strlen(where));
    errno = shim.fail_errno;
    return 1;
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); \
    shim_begin()

#define LOCK() pthread_mutex_lock(&shim.lock)
#define UNLOCK() pthread_mutex_unlock(&shim.lock)

#endif
