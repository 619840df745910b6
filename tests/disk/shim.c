/* A library to preload: every call that changes a data directory is recorded, and one of them made to fail (shim.h).
 *
 * A change is made and noted under one lock, so the log has them in the order in which they happened. A sync is noted
 * when it begins and when it is over, and others go on meanwhile: it stands for what was noted before it began. */
#define _GNU_SOURCE
#include "shim.h"
#include "shim_sockets.h"

/* ------------------------------------------------------------------ writes */

/* Begins a write on the data directory: how much of it to write, or -1. The lock is held, if it goes on. */
static ssize_t begin_writing(const char *path, size_t size) {
    LOCK();
    shim_reach();
    if (!shim_fails(CALL_WRITE, path)) return (ssize_t)size;
    if (shim.shorten) return (ssize_t)(size < 2 ? size : size / 2);
    UNLOCK();
    return -1;
}

static ssize_t end_writing(int fd, const void *data, ssize_t done, off64_t offset) {
    int error = errno;
    if (done > 0) shim_note(SHIM_WRITE, shim_inode(fd), (uint64_t)offset, 0, data, (size_t)done);
    UNLOCK();
    errno = error;
    return done;
}

#define WRITES(NAME, OFFSET_TYPE) \
    ssize_t NAME(int fd, const void *data, size_t size, OFFSET_TYPE offset) { \
        REAL(NAME); \
        char path[SHIM_PATH]; \
        if (!shim_path_of(fd, path)) return real(fd, data, size, offset); \
        ssize_t allowed = begin_writing(path, size); \
        return allowed < 0 ? -1 : end_writing(fd, data, real(fd, data, (size_t)allowed, offset), offset); \
    }

WRITES(pwrite, off_t)
WRITES(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    char path[SHIM_PATH];
    if (!shim_path_of(fd, path)) return real(fd, data, size);
    ssize_t allowed = begin_writing(path, size);
    if (allowed < 0) return -1;
    ssize_t done = real(fd, data, (size_t)allowed);
    int error = errno;
    off64_t end = lseek64(fd, 0, SEEK_CUR); /* with O_APPEND too it is behind what was written */
    errno = error;
    return end_writing(fd, data, done, end - (done > 0 ? done : 0));
}

/* Nothing in flux or DuckDB gathers its writes on the data directory; who begins to, must be recorded. */
#define GATHERED(NAME, ...) \
    do { \
        char path[SHIM_PATH]; \
        if (shim_path_of(fd, path)) { fprintf(stderr, "shim: %s on %s is not recorded\n", NAME, path); abort(); } \
    } while (0)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    GATHERED("writev");
    return real(fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(pwritev);
    GATHERED("pwritev");
    return real(fd, parts, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    REAL(pwritev64);
    GATHERED("pwritev64");
    return real(fd, parts, count, offset);
}

ssize_t copy_file_range(int in, off64_t *from, int fd, off64_t *to, size_t size, unsigned flags) {
    REAL(copy_file_range);
    GATHERED("copy_file_range");
    return real(in, from, fd, to, size, flags);
}

/* ------------------------------------------------------------------ sizes */

static void note_size(int fd) {
    struct stat found;
    if (fstat(fd, &found) == 0) shim_note(SHIM_SIZE, found.st_ino, (uint64_t)found.st_size, 0, NULL, 0);
}

#define SIZES(NAME, ON_ERROR, PARAMETERS, ARGUMENTS) \
    int NAME PARAMETERS { \
        REAL(NAME); \
        char path[SHIM_PATH]; \
        if (!shim_path_of(fd, path)) return real ARGUMENTS; \
        LOCK(); \
        shim_reach(); \
        if (shim_fails(CALL_ALLOCATE, path)) { \
            int error = errno; \
            UNLOCK(); \
            return ON_ERROR; \
        } \
        int done = real ARGUMENTS; \
        int error = errno; \
        if (done == 0) note_size(fd); \
        UNLOCK(); \
        errno = error; \
        return done; \
    }

SIZES(ftruncate, (errno = error, -1), (int fd, off_t size), (fd, size))
SIZES(ftruncate64, (errno = error, -1), (int fd, off64_t size), (fd, size))
SIZES(fallocate, (errno = error, -1), (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
SIZES(fallocate64, (errno = error, -1), (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
SIZES(posix_fallocate, error, (int fd, off_t at, off_t size), (fd, at, size))
SIZES(posix_fallocate64, error, (int fd, off64_t at, off64_t size), (fd, at, size))

/* ------------------------------------------------------------------ names */

static int opened(int (*real)(int, const char *, int, ...), int folder, const char *given, int flags, mode_t mode) {
    char path[SHIM_PATH];
    if (!shim_resolve(folder, given, path)) return real(folder, given, flags, mode);
    LOCK();
    int changes = flags & (O_CREAT | O_TRUNC);
    if (changes) shim_reach();
    /* A full disk refuses no opening of what is there. */
    if ((changes & O_CREAT || shim.fail_errno != ENOSPC) && shim_fails(CALL_OPEN, path)) {
        UNLOCK();
        return -1;
    }
    struct stat before;
    int was = lstat(path, &before) == 0;
    int fd = real(folder, given, flags, mode);
    int error = errno;
    if (fd >= 0 && changes) {
        if (!was) shim_note(SHIM_CREATE, shim_inode(fd), 0, 0, path, strlen(path));
        else if ((flags & O_TRUNC) && before.st_size) note_size(fd);
    }
    UNLOCK();
    errno = error;
    return fd;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...) {
    REAL(openat);
    MODE_OF(flags);
    return opened(real, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    REAL(openat64);
    MODE_OF(flags);
    return opened(real, AT_FDCWD, path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    REAL(openat);
    MODE_OF(flags);
    return opened(real, folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    REAL(openat64);
    MODE_OF(flags);
    return opened(real, folder, path, flags, mode);
}

static int begin_renaming(const char *path) {
    LOCK();
    shim_reach();
    if (!shim_fails(CALL_RENAME, path)) return 1;
    UNLOCK();
    return 0;
}

int rename(const char *from, const char *to) {
    REAL(rename);
    char both[2 * SHIM_PATH], other[SHIM_PATH];
    int mine = shim_resolve(AT_FDCWD, from, both) | shim_resolve(AT_FDCWD, to, other);
    if (!mine) return real(from, to);
    if (!begin_renaming(other)) return -1;
    int done = real(from, to), error = errno;
    size_t first = strlen(both) + 1, second = strlen(other);
    memcpy(both + first, other, second);
    if (done == 0) shim_note(SHIM_RENAME, 0, 0, 0, both, first + second);
    UNLOCK();
    errno = error;
    return done;
}

static int unlinked(int (*real)(int, const char *, int), int folder, const char *given, int flags) {
    char path[SHIM_PATH];
    if (!shim_resolve(folder, given, path)) return real(folder, given, flags);
    if (!begin_renaming(path)) return -1;
    int done = real(folder, given, flags), error = errno;
    if (done == 0) shim_note(SHIM_UNLINK, 0, 0, 0, path, strlen(path));
    UNLOCK();
    errno = error;
    return done;
}

int unlink(const char *path) {
    REAL(unlinkat);
    return unlinked(real, AT_FDCWD, path, 0);
}

int remove(const char *path) {
    REAL(unlinkat);
    struct stat found;
    return unlinked(real, AT_FDCWD, path, lstat(path, &found) == 0 && S_ISDIR(found.st_mode) ? AT_REMOVEDIR : 0);
}

int rmdir(const char *path) {
    REAL(unlinkat);
    return unlinked(real, AT_FDCWD, path, AT_REMOVEDIR);
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat);
    return unlinked(real, folder, path, flags);
}

int link(const char *from, const char *to) {
    REAL(link);
    char path[SHIM_PATH];
    if (!shim_resolve(AT_FDCWD, to, path)) return real(from, to);
    if (!begin_renaming(path)) return -1;
    int done = real(from, to), error = errno;
    if (done == 0) shim_note(SHIM_LINK, shim_inode_at(path), 0, 0, path, strlen(path));
    UNLOCK();
    errno = error;
    return done;
}

int mkdir(const char *given, mode_t mode) {
    REAL(mkdir);
    char path[SHIM_PATH];
    if (!shim_resolve(AT_FDCWD, given, path)) return real(given, mode);
    LOCK();
    shim_reach();
    if (!shim_inode_at(path) && shim_fails(CALL_OPEN, path)) { /* one that is there is refused anyhow */
        UNLOCK();
        return -1;
    }
    int done = real(given, mode), error = errno;
    if (done == 0) shim_note(SHIM_FOLDER, shim_inode_at(path), 0, 0, path, strlen(path));
    UNLOCK();
    errno = error;
    return done;
}

/* ------------------------------------------------------------------ syncs */

static int synced(int (*real)(int), int fd) {
    char path[SHIM_PATH];
    if (!shim_path_of(fd, path)) return real(fd);
    uint64_t inode = shim_inode(fd);
    LOCK();
    shim_reach();
    uint64_t number = ++shim.syncs;
    int failed = shim_fails(CALL_SYNC, path), error = errno;
    if (!failed) shim_note(SHIM_SYNCING, inode, number, 0, path, strlen(path));
    UNLOCK();
    if (failed) {
        errno = error;
        return -1;
    }
    int done = real(fd);
    error = errno;
    LOCK();
    shim_reach();
    shim_note(SHIM_SYNCED, inode, number, done ? (uint64_t)error : 0, path, strlen(path));
    UNLOCK();
    errno = error;
    return done;
}

int fsync(int fd) {
    REAL(fsync);
    return synced(real, fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return synced(real, fd);
}

static int map_descriptor(const void *at) {
    for (int i = 0; i < SHIM_MAPS; i++)
        if (shim.maps[i].at == at) return i;
    return -1;
}

int msync(void *at, size_t size, int flags) {
    REAL(msync);
    LOCK();
    int map = map_descriptor(at);
    uint64_t number = 0, inode = 0;
    if (map >= 0) {
        shim_reach();
        number = ++shim.syncs, inode = shim.maps[map].inode;
        if (shim_fails(CALL_SYNC, "msync")) {
            UNLOCK();
            return -1;
        }
        shim_note(SHIM_SYNCING, inode, number, 0, "msync", 5);
    }
    UNLOCK();
    int done = real(at, size, flags), error = errno;
    if (map >= 0) {
        LOCK();
        shim_reach();
        shim_note(SHIM_SYNCED, inode, number, done || !(flags & MS_SYNC) ? EIO : 0, "msync", 5);
        UNLOCK();
    }
    errno = error;
    return done;
}

/* ------------------------------------------------------------------ memory */

/* A shared mapping of a file that can be written: from now on its pages are looked at. The lock is held. */
static void watch_map(uint8_t *at, size_t size, uint64_t inode, uint64_t offset) {
    int i = map_descriptor(NULL);
    if (i < 0 || size > SHIM_MAP_BYTES) abort(); /* what cannot be watched proves nothing */
    size_t rounded = (size + SHIM_PAGE - 1) / SHIM_PAGE * SHIM_PAGE;
    shim.maps[i] = (shim_map){at, (uint8_t *)malloc(rounded), rounded, inode, offset};
    memcpy(shim.maps[i].shadow, at, rounded);
    for (size_t page = 0; page < rounded; page += SHIM_PAGE) /* a life that was killed may have left stores behind */
        shim_note(SHIM_STORE, inode, offset + page, 0, at + page, SHIM_PAGE);
}

static void *mapped(void *(*real)(void *, size_t, int, int, int, off64_t), void *at, size_t size, int access, int flags,
                    int fd, off64_t offset) {
    char path[SHIM_PATH];
    if (fd < 0 || !shim.root_size) return real(at, size, access, flags, fd, offset);
    int mine = shim_path_of(fd, path);
    if (!mine && strncmp(path, "/memfd:flux", 11) != 0) return real(at, size, access, flags, fd, offset);
    LOCK();
    void *made = MAP_FAILED;
    if (!shim_fails(CALL_MAP, path)) {
        made = real(at, size, access, flags, fd, offset);
        if (mine && shim.log >= 0 && made != MAP_FAILED && (flags & MAP_SHARED) && (access & PROT_WRITE))
            watch_map((uint8_t *)made, size, shim_inode(fd), (uint64_t)offset);
    }
    int error = errno;
    UNLOCK();
    errno = error;
    return made;
}

void *mmap(void *at, size_t size, int access, int flags, int fd, off_t offset) {
    REAL(mmap);
    return mapped((void *(*)(void *, size_t, int, int, int, off64_t))real, at, size, access, flags, fd, offset);
}

void *mmap64(void *at, size_t size, int access, int flags, int fd, off64_t offset) {
    REAL(mmap64);
    return mapped(real, at, size, access, flags, fd, offset);
}

int munmap(void *at, size_t size) {
    REAL(munmap);
    if (!shim.root_size || shim.log < 0) return real(at, size);
    LOCK();
    int map = at ? map_descriptor(at) : -1;
    if (map >= 0) {
        shim_look_at_maps();
        free(shim.maps[map].shadow);
        shim.maps[map].at = NULL;
    }
    UNLOCK();
    return real(at, size);
}
