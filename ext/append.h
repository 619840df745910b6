/* What is written with every group: its bytes at the journal's end, and a mark of how far that is.
 *
 *   file    ... | COMMIT | the next group goes here, at `offset` | zeros, or what a failed group left, up to `spoiled` |
 *   fence   slot 0 | slot 1, a page apart, written in turn: a slot that is torn by a kill leaves the other
 *   slot    store_id u64 | epoch u32 | file u32 | offset u64 | serial u32 (which is the newer one) | CRC-32C of these 28 */
#ifndef FLUX_APPEND_H
#define FLUX_APPEND_H

#include <errno.h>
#include <unistd.h>

#include "journal.h"

#define FLUX_FENCE_PAGE 4096

typedef struct {
    int fd;
    uint32_t file;
    uint64_t offset, synced, spoiled; /* synced: it is known to be on the disk up to there */
    uint64_t limit;                   /* a group and its COMMIT must end before it */
} flux_end;

typedef struct {
    int fd, slot; /* the newer one, and what it holds */
    uint64_t store_id, offset;
    uint32_t epoch, file, serial; /* epoch 0: no mark was ever stored */
} flux_fence;

/* All of it, or -1 when the disk refuses (errno). */
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

static inline int flux_end_fits(const flux_end *end, const flux_group *g) {
    return end->offset + g->used + FLUX_COMMIT_SIZE <= end->limit;
}

/* What was written from `offset` on counts as a group that failed: it was shown to nobody. */
static inline void flux_end_take_back(flux_end *end, uint64_t offset) {
    end->offset = offset;
    if (end->synced > offset) end->synced = offset;
}

/* Writes the group and its COMMIT: 0, or -1 when the disk refuses (errno); then nothing was added, and the group may be
 * written again. */
static inline int flux_end_write(flux_end *end, flux_group *g, int sync) {
    uint64_t size = flux_group_seal(g, end->offset, end->synced);
    if (end->spoiled < end->offset + size) end->spoiled = end->offset + size;
    if (flux_write_all(end->fd, g->data, size, end->offset)) return -1;
    if (sync && fdatasync(end->fd)) return -1;
    end->offset += size;
    if (sync) end->synced = end->offset;
    return 0;
}

/* Replaces the older of the two marks: 0, or -1 when the disk refuses (errno): the newer one stays as it was. */
static inline int flux_fence_store(flux_fence *f, uint64_t store_id, uint32_t epoch, uint32_t file, uint64_t offset) {
    flux_fence next = {f->fd, 1 - f->slot, store_id, offset, epoch, file, f->serial + 1};
    uint8_t mark[32];
    flux_put64(mark, next.store_id);
    flux_put32(mark + 8, next.epoch);
    flux_put32(mark + 12, next.file);
    flux_put64(mark + 16, next.offset);
    flux_put32(mark + 24, next.serial);
    flux_put32(mark + 28, flux_crc32c(0, mark, 28));
    if (flux_write_all(f->fd, mark, sizeof mark, (uint64_t)next.slot * FLUX_FENCE_PAGE)) return -1;
    *f = next;
    return 0;
}

#endif
