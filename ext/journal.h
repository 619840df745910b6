/* The journal's bytes: records, groups of records closed by a COMMIT, files of groups. It knows neither rows nor
 * FlatBuffers.
 *
 *   file    "fluxlog\n" | format u32 | number u32 | before u32 | CRC of these 20 u32   then groups, then zeros
 *   group   record ... record COMMIT                        the first group of a file begins with HEADS
 *   record  length u32 | kind u32 | CRC of these 8 u32 | body of `length` bytes | zeros to a multiple of 8
 *   BATCH   topic length u16 | topic | payload, whose last 4 bytes are the CRC of those before
 *   other   content | CRC of the content u32
 *   COMMIT  start u64 | synced u64 | the group's CRC u32 | CRC of these 20 u32
 *
 * All CRCs are CRC-32C, all numbers little endian. Offsets count from the file's first byte; records start at
 * multiples of 8.
 *
 * COMMIT.start is the offset of the group's first record: a COMMIT that some earlier, failed attempt left behind
 * closes nothing. COMMIT.synced is the offset up to which the file was known to be on the disk when the group was
 * written. A bad spot below a later COMMIT's `synced` is damage; one above it is a torn tail, whatever the order in
 * which a dying machine wrote the pages.
 *
 * The group's CRC covers headers, topics, and of every body the CRC that it ends in, in order. So no record can change
 * places with another, nor a body be another that is valid. (Format 1 took it over all bytes before the COMMIT: over a
 * body and its own CRC, of the same polynomial, that is a constant.) Padding must be zero: no flipped bit goes unseen.
 *
 * `before` is the CRC at the end of the last COMMIT of the file that this one goes on from: a file that is missing
 * between the two, or an older copy of the first, is noticed. 0: unknown (the first file; format 1). */
#ifndef FLUX_JOURNAL_H
#define FLUX_JOURNAL_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "crc32c.h"

enum flux_record_kind {
    FLUX_BATCH = 1,
    FLUX_STREAM = 2,
    FLUX_SOURCE = 3,
    FLUX_HEADS = 4,
    FLUX_EPOCH = 5,
    FLUX_COMMIT = 6,
    FLUX_CLOSE = 7,
    FLUX_HOLE = 8, /* fills the place of groups that no longer read: what is lost there */
};

#define FLUX_JOURNAL_FORMAT 2u
#define FLUX_JOURNAL_OLDEST 1u /* what is still read */
#define FLUX_FILE_HEADER_SIZE 24u
#define FLUX_RECORD_HEADER_SIZE 12u
#define FLUX_COMMIT_BODY_SIZE 24u
#define FLUX_COMMIT_SIZE 40u /* header, body, padding */
#define FLUX_POSITION_SIZE 15u /* of a source, at the end of a SOURCE record */

/* Where a record's body lies in the group (`at` counts from the group's first byte). `size` is what the caller gave:
 * the CRC that flux_group_append adds is not in it. The labels are the caller's. */
typedef struct {
    uint64_t at;
    uint32_t size, kind;
    uint64_t label, label2;
} flux_entry;

typedef struct {
    uint8_t *data; /* records, then always room for a COMMIT */
    uint64_t used, capacity;
    flux_entry *entries;
    uint32_t count, entry_capacity;
} flux_group;

static inline uint32_t flux_get32(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, 4);
    return value;
}

static inline uint64_t flux_get64(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, 8);
    return value;
}

static inline void flux_put32(uint8_t *at, uint32_t value) { memcpy(at, &value, 4); }
static inline void flux_put64(uint8_t *at, uint64_t value) { memcpy(at, &value, 8); }

/* Bytes of a record whose body has `length` bytes. */
static inline uint64_t flux_record_size(uint32_t length) {
    return (FLUX_RECORD_HEADER_SIZE + (uint64_t)length + 7) & ~(uint64_t)7;
}

/* 0, or -1 without memory. The capacity is in bytes, COMMIT included. */
static inline int flux_group_init(flux_group *group, uint64_t capacity, uint32_t entry_capacity) {
    memset(group, 0, sizeof *group);
    group->data = (uint8_t *)malloc(capacity ? capacity : 1);
    group->entries = (flux_entry *)malloc((entry_capacity ? entry_capacity : 1) * sizeof(flux_entry));
    if (!group->data || !group->entries) {
        free(group->data);
        free(group->entries);
        memset(group, 0, sizeof *group);
        return -1;
    }
    group->capacity = capacity;
    group->entry_capacity = entry_capacity;
    return 0;
}

static inline void flux_group_free(flux_group *group) {
    free(group->data);
    free(group->entries);
    memset(group, 0, sizeof *group);
}

static inline void flux_group_clear(flux_group *group) {
    group->used = 0;
    group->count = 0;
}

/* Header and padding of a record of `length` body bytes at `record`. */
static inline void flux_record_begin(uint8_t *record, uint32_t kind, uint32_t length) {
    uint64_t size = flux_record_size(length);
    flux_put64(record + size - 8, 0); /* the padding, before anything that it may overlap */
    flux_put32(record, length);
    flux_put32(record + 4, kind);
    flux_put32(record + 8, flux_crc32c(0, record, 8));
}

/* A record with room for body_size bytes, which the caller fills at the pointer returned (4 mod 8). NULL when the
 * group is full: nothing was changed. A BATCH is complete once filled; other kinds are flux_group_append's. */
static inline uint8_t *flux_group_reserve(flux_group *group, uint32_t kind, uint32_t body_size, uint64_t label,
                                          uint64_t label2) {
    uint64_t size = flux_record_size(body_size);
    uint8_t *record = group->data + group->used;
    flux_entry *entry = group->entries + group->count;
    if (group->count == group->entry_capacity || group->used + size + FLUX_COMMIT_SIZE > group->capacity)
        return NULL;
    flux_record_begin(record, kind, body_size);
    entry->at = group->used + FLUX_RECORD_HEADER_SIZE;
    entry->size = body_size;
    entry->kind = kind;
    entry->label = label;
    entry->label2 = label2;
    group->used += size;
    group->count++;
    return record + FLUX_RECORD_HEADER_SIZE;
}

/* The CRC of a record of a kind other than BATCH, whose body has `size` bytes and was reserved with four more. */
static inline void flux_group_end(flux_group *group, uint8_t *body, uint32_t size) {
    flux_put32(body + size, flux_crc32c(0, body, size));
    group->entries[group->count - 1].size = size;
}

/* A complete record of a kind other than BATCH: the content and its CRC. 0, or -1 when the group is full. */
static inline int flux_group_append(flux_group *group, uint32_t kind, const void *content, uint32_t size,
                                    uint64_t label, uint64_t label2) {
    uint8_t *body;
    if (size > UINT32_MAX - 64) return -1;
    body = flux_group_reserve(group, kind, size + 4, label, label2);
    if (!body) return -1;
    memcpy(body, content, size);
    flux_group_end(group, body, size);
    return 0;
}

/* A SOURCE record: how its msgpack begins (records.source_begins), then the position, as an array of an unsigned of eight
 * bytes and one of four. 0, or -1 when the group is full. */
static inline int flux_group_append_source(flux_group *group, const uint8_t *begins, uint32_t size, uint64_t rows,
                                           uint32_t incarnation, uint64_t label) {
    uint8_t *body = flux_group_reserve(group, FLUX_SOURCE, size + FLUX_POSITION_SIZE + 4, label, rows), *at = body + size;
    if (!body) return -1;
    memcpy(body, begins, size);
    *at++ = 0x92;
    *at++ = 0xcf;
    for (int shift = 56; shift >= 0; shift -= 8) *at++ = (uint8_t)(rows >> shift);
    *at++ = 0xce;
    for (int shift = 24; shift >= 0; shift -= 8) *at++ = (uint8_t)(incarnation >> shift);
    flux_group_end(group, body, size + FLUX_POSITION_SIZE);
    return 0;
}

/* Goes on with a group's CRC over a record whose body passes: over its header and topic, and into that goes the CRC that
 * its body ends in (so it stands where the next record's first four bytes do). */
static inline uint32_t flux_cover_valid(uint32_t crc, const uint8_t *record, uint32_t length, uint32_t kind) {
    const uint8_t *body = record + FLUX_RECORD_HEADER_SIZE;
    uint32_t front = kind == FLUX_BATCH ? FLUX_RECORD_HEADER_SIZE + 2u + (uint32_t)(body[0] | body[1] << 8)
                                        : FLUX_RECORD_HEADER_SIZE;
    return flux_crc32c(crc, record, front) ^ flux_get32(body + length - 4);
}

/* The same over any record that is there whole. */
static inline uint32_t flux_cover(uint32_t crc, const uint8_t *record) {
    const uint8_t *body = record + FLUX_RECORD_HEADER_SIZE;
    uint32_t length = flux_get32(record), kind = flux_get32(record + 4);
    uint32_t topic = kind == FLUX_BATCH && length >= 2 ? 2u + (uint32_t)(body[0] | body[1] << 8) : 0;
    if (length < topic + 4) return flux_crc32c(crc, record, FLUX_RECORD_HEADER_SIZE);
    return flux_cover_valid(crc, record, length, kind);
}

/* Whether all behind a record's body is zero. */
static inline int flux_padding_zero(const uint8_t *record, uint32_t length) {
    uint64_t size = flux_record_size(length), bits = 8 * (size - FLUX_RECORD_HEADER_SIZE - length);
    return bits == 0 || flux_get64(record + size - 8) >> (64 - bits) == 0;
}

/* Write the COMMIT behind the records, in the room that is kept for it; the group itself is left as it is, so that a
 * failed write can be tried again elsewhere. Bytes to write: records and COMMIT. */
static inline uint64_t flux_group_seal(flux_group *group, uint64_t start, uint64_t synced) {
    uint8_t *record = group->data + group->used, *body = record + FLUX_RECORD_HEADER_SIZE;
    uint32_t crc = 0;
    for (uint32_t i = 0; i < group->count; i++)
        crc = flux_cover(crc, group->data + group->entries[i].at - FLUX_RECORD_HEADER_SIZE);
    flux_record_begin(record, FLUX_COMMIT, FLUX_COMMIT_BODY_SIZE);
    flux_put64(body, start);
    flux_put64(body + 8, synced);
    flux_put32(body + 16, crc);
    flux_put32(body + 20, flux_crc32c(0, body, 20));
    return group->used + FLUX_COMMIT_SIZE;
}

static inline void flux_file_header_of(uint8_t *out, uint32_t format, uint32_t number, uint32_t before) {
    memcpy(out, "fluxlog\n", 8);
    flux_put32(out + 8, format);
    flux_put32(out + 12, number);
    flux_put32(out + 16, before);
    flux_put32(out + 20, flux_crc32c(0, out, 20));
}

static inline void flux_file_header(uint8_t *out, uint32_t number) {
    flux_file_header_of(out, FLUX_JOURNAL_FORMAT, number, 0);
}

/* Why a scan stopped. Append-only; the words are in journal.pyx. */
enum flux_scan_stop {
    FLUX_SCAN_END = 0,     /* zeros, or the end of the bytes: nothing wrong */
    FLUX_SCAN_SHORT = 1,   /* a record reaches past the end of the bytes */
    FLUX_SCAN_HEADER = 2,  /* a record's header is not what its CRC says */
    FLUX_SCAN_BODY = 3,    /* a body is not what its CRC says */
    FLUX_SCAN_GROUP = 4,   /* a COMMIT does not belong to the records before it */
    FLUX_SCAN_FILE = 5,    /* no header of a journal file */
    FLUX_SCAN_FORMAT = 6,  /* a format that this code does not know */
    FLUX_SCAN_STOPS = 7,
};

typedef struct {
    uint64_t at;         /* of the body, from the file's first byte */
    uint32_t size, kind; /* `size` without the CRC that flux_group_append added */
} flux_record;

typedef struct {
    uint64_t end;       /* where the valid records stop */
    uint64_t group;     /* start of the group being read */
    uint64_t committed; /* behind the last COMMIT; 0 when there is none and the file header is not right either */
    uint64_t tail;      /* behind the last byte that is not zero (set by flux_scan_tail) */
    uint64_t records;   /* in all, uncommitted ones included */
    uint64_t committed_records;
    uint32_t format;         /* of the file header */
    uint32_t number, before; /* of the file header; 0 when the scan began behind it */
    uint32_t crc;            /* of the group so far */
    int stop;           /* -1 while there may be more */
    int resumes;        /* damage: the disk once held what is bad or missing now (set by flux_scan_tail) */
} flux_scan;

/* Is the body of `length` bytes what its CRC says? The size without the journal's own CRC goes to *size. */
static inline int flux_body_valid(const uint8_t *body, uint32_t length, uint32_t kind, uint32_t *size) {
    uint32_t from = 0;
    if (kind == FLUX_BATCH) {
        if (length < 2) return 0;
        from = 2u + (uint32_t)(body[0] | body[1] << 8);
    }
    if (length < from + 4) return 0;
    *size = kind == FLUX_BATCH ? length : length - 4;
    return flux_crc32c(0, body + from, length - from - 4) == flux_get32(body + length - 4);
}

/* Read the file header, or begin behind it at a `start` where a group begins (of another format than the newest: set
 * scan->format then). */
static inline void flux_scan_begin(flux_scan *scan, const uint8_t *data, uint64_t size, uint64_t start) {
    static const uint8_t magic[8] = {'f', 'l', 'u', 'x', 'l', 'o', 'g', '\n'};
    memset(scan, 0, sizeof *scan);
    scan->stop = -1;
    scan->format = FLUX_JOURNAL_FORMAT;
    if (start == 0) {
        scan->format = 0;
        if (size < FLUX_FILE_HEADER_SIZE || memcmp(data, magic, 8) != 0 ||
            flux_crc32c(0, data, 20) != flux_get32(data + 20)) {
            scan->stop = FLUX_SCAN_FILE;
            return;
        }
        scan->format = flux_get32(data + 8);
        scan->number = flux_get32(data + 12);
        scan->before = flux_get32(data + 16);
        if (scan->format < FLUX_JOURNAL_OLDEST || scan->format > FLUX_JOURNAL_FORMAT) {
            scan->stop = FLUX_SCAN_FORMAT;
            return;
        }
        start = FLUX_FILE_HEADER_SIZE;
    }
    scan->end = scan->group = scan->committed = start;
    if (start > size) scan->stop = FLUX_SCAN_SHORT;
}

/* Look at the record at scan->end: fill *out, or say why not. */
static inline int flux_scan_record(const flux_scan *scan, const uint8_t *data, uint64_t size, flux_record *out) {
    const uint8_t *record = data + scan->end, *body = record + FLUX_RECORD_HEADER_SIZE;
    uint64_t left = size - scan->end;
    uint32_t length;
    if (left < FLUX_RECORD_HEADER_SIZE) {
        uint64_t i;
        for (i = 0; i < left; i++)
            if (record[i]) return FLUX_SCAN_SHORT;
        return FLUX_SCAN_END;
    }
    length = flux_get32(record);
    if (flux_get64(record) == 0 && flux_get32(record + 8) == 0) return FLUX_SCAN_END;
    if (flux_crc32c(0, record, 8) != flux_get32(record + 8)) return FLUX_SCAN_HEADER;
    if (flux_record_size(length) > left) return FLUX_SCAN_SHORT;
    out->at = scan->end + FLUX_RECORD_HEADER_SIZE;
    out->kind = flux_get32(record + 4);
    if (!flux_body_valid(body, length, out->kind, &out->size)) return FLUX_SCAN_BODY;
    if (scan->format > 1 && !flux_padding_zero(record, length)) return FLUX_SCAN_BODY;
    if (out->kind == FLUX_COMMIT &&
        (length != FLUX_COMMIT_BODY_SIZE || flux_get32(body + length) != 0 || flux_get64(body) != scan->group ||
         flux_get32(body + 16) != (scan->format > 1 ? scan->crc : flux_crc32c(0, data + scan->group, scan->end - scan->group))))
        return FLUX_SCAN_GROUP;
    return -1;
}

/* The next records, at most `max`; how many. Call again until scan->stop says why it is over. */
static inline uint64_t flux_scan_next(flux_scan *scan, const uint8_t *data, uint64_t size, flux_record *out,
                                      uint64_t max) {
    uint64_t count = 0;
    while (scan->stop < 0 && count < max) {
        scan->stop = flux_scan_record(scan, data, size, out + count);
        if (scan->stop >= 0) break;
        uint32_t length = flux_get32(data + scan->end);
        scan->crc = flux_cover_valid(scan->crc, data + scan->end, length, out[count].kind);
        scan->end += flux_record_size(length);
        scan->records++;
        if (out[count].kind == FLUX_COMMIT) {
            scan->crc = 0;
            scan->group = scan->committed = scan->end;
            scan->committed_records = scan->records;
        }
        count++;
    }
    return count;
}

/* Behind the last byte from `start` on that is not zero; `start` when all are. */
static inline uint64_t flux_last_byte(const uint8_t *data, uint64_t size, uint64_t start) {
    while (size - start >= 64) {
        const uint8_t *block = data + size - 64;
        uint64_t any = 0;
        int i;
        for (i = 0; i < 64; i += 8) any |= flux_get64(block + i);
        if (any) break;
        size -= 64;
    }
    while (size > start && data[size - 1] == 0) size--;
    return size;
}

/* What stands behind the last COMMIT: where it ends, and whether some COMMIT in it (or, with a file header that is
 * wrong, anywhere) was written when the disk already held the spot where the scan stopped. */
static inline void flux_scan_tail(flux_scan *scan, const uint8_t *data, uint64_t size) {
    uint8_t sought[12];
    uint64_t at = (scan->end + 7) & ~(uint64_t)7;
    scan->tail = scan->committed < size ? flux_last_byte(data, size, scan->committed) : size;
    flux_put32(sought, FLUX_COMMIT_BODY_SIZE);
    flux_put32(sought + 4, FLUX_COMMIT);
    flux_put32(sought + 8, flux_crc32c(0, sought, 8));
    for (; at + FLUX_COMMIT_SIZE <= size && at < scan->tail; at += 8) {
        const uint8_t *body = data + at + FLUX_RECORD_HEADER_SIZE;
        uint32_t content;
        if (memcmp(data + at, sought, 12) == 0 &&
            flux_body_valid(body, FLUX_COMMIT_BODY_SIZE, FLUX_COMMIT, &content) && flux_get64(body + 8) > scan->end) {
            scan->resumes = 1;
            return;
        }
    }
}

#endif
