/* journal: a file of groups, then damage with its checksums put right again or not; scanned, and gathered from.
 *
 *   input   the bytes of a file; `gather` also gets them from where no scan has been */
#ifndef TARGET_JOURNAL_H
#define TARGET_JOURNAL_H

#include "frames.h"
#include "journal.h"
#include "pump.h"
#include "target_codec.h"

static void fuzz_gather_all(const uint8_t *data, uint64_t from, uint64_t to, uint64_t limit) {
    flux_gathered *out = malloc(16 * sizeof *out);
    flux_rows_out rows[4];
    uint64_t at = from;
    for (int kind = 0; kind < 4; kind++) rows[kind] = (flux_rows_out){malloc(limit + 1), 0, limit};
    for (;;) {
        uint32_t count;
        uint64_t stopped = flux_gather(data, at, to, out, 16, &count, rows);
        FUZZ_HOLDS(count <= 16);
        for (int kind = 0; kind < 4; kind++) {
            FUZZ_HOLDS(rows[kind].used <= limit);
            rows[kind].used = 0;
        }
        for (uint32_t i = 0; i < count; i++)
            if (!out[i].kind) fuzz_touch(data, (uint32_t)out[i].first, out[i].count);
        if (stopped == FLUX_GATHER_BROKEN || stopped == at) break;
        FUZZ_HOLDS(stopped > at && stopped <= to);
        at = stopped;
    }
    for (int kind = 0; kind < 4; kind++) free(rows[kind].data);
    free(out);
}

static void fuzz_journal_run(const uint8_t *input, size_t size) {
    uint8_t *file = fuzz_exact(input, size, 7); /* at 0 mod 8, as a mapping is */
    flux_record records[8];
    flux_scan scan;
    uint64_t seen = 0;
    flux_scan_begin(&scan, file, size, 0);
    while (scan.stop < 0) {
        uint64_t count = flux_scan_next(&scan, file, size, records, 8);
        for (uint64_t i = 0; i < count; i++) {
            FUZZ_HOLDS(records[i].at >= FLUX_FILE_HEADER_SIZE && records[i].at + records[i].size <= scan.end);
            fuzz_touch(file, (uint32_t)records[i].at, records[i].size);
        }
        seen += count;
    }
    FUZZ_HOLDS(scan.stop >= FLUX_SCAN_END && scan.stop < FLUX_SCAN_STOPS);
    flux_scan_tail(&scan, file, size);
    if (scan.stop != FLUX_SCAN_FILE && scan.stop != FLUX_SCAN_FORMAT) {
        FUZZ_HOLDS(scan.records == seen && scan.committed_records <= seen);
        FUZZ_HOLDS(scan.committed <= scan.end && scan.end <= size && scan.committed >= FLUX_FILE_HEADER_SIZE);
        FUZZ_HOLDS(scan.tail >= scan.committed && scan.tail <= size);
        fuzz_gather_all(file, FLUX_FILE_HEADER_SIZE, scan.committed, 64 * 1000);
    }
    if (size >= FLUX_FILE_HEADER_SIZE) fuzz_gather_all(file, FLUX_FILE_HEADER_SIZE, size, 64 * 3);
    fuzz_release(file);
}

static size_t fuzz_journal_make(uint8_t *out) {
    flux_group group;
    size_t size = FLUX_FILE_HEADER_SIZE;
    FUZZ_HOLDS(!flux_group_init(&group, FUZZ_INPUT_MAX / 4, 64));
    flux_file_header(out, 1);
    for (size_t groups = fuzz_below(4); groups; groups--) {
        uint8_t content[300];
        flux_group_clear(&group);
        for (size_t records = fuzz_below(8); records; records--) {
            const fuzz_frame *frame = &fuzz_frames[fuzz_below(fuzz_frame_count)];
            size_t n = fuzz_below(sizeof content), topic = fuzz_below(40);
            fuzz_fill(content, n);
            if (fuzz_one_in(3)) {
                flux_group_append(&group, (uint32_t)(fuzz_one_in(8) ? fuzz_next() : 2 + fuzz_below(6)), content,
                                  (uint32_t)n, 0, 0);
                continue;
            }
            if (frame->size > 8000) continue;
            uint8_t *body = flux_group_reserve(&group, FLUX_BATCH, (uint32_t)(2 + topic + frame->size), 0, 0);
            if (body == NULL) break;
            flux_put32(body, (uint32_t)topic);
            memset(body + 2, 't', topic);
            memcpy(body + 2 + topic, frame->data, frame->size);
        }
        uint64_t bytes = flux_group_seal(&group, size, fuzz_one_in(2) ? size : 0);
        memcpy(out + size, group.data, bytes);
        size += bytes;
    }
    for (size_t zeros = fuzz_below(3) * fuzz_below(200); zeros; zeros--) out[size++] = 0;
    flux_group_free(&group);
    return size;
}

/* Puts right what a change at the record at `at` made wrong: its header's checksum, its body's, its COMMIT's. */
static void fuzz_journal_reseal(uint8_t *file, size_t size, size_t at, uint64_t group) {
    uint32_t length = flux_get32(file + at), kind = flux_get32(file + at + 4);
    uint8_t *body = file + at + FLUX_RECORD_HEADER_SIZE;
    flux_put32(file + at + 8, flux_crc32c(0, file + at, 8));
    if (length < 4 || flux_record_size(length) > size - at) return;
    if (kind == FLUX_COMMIT && length == FLUX_COMMIT_BODY_SIZE)
        flux_put32(body + 16, flux_crc32c(0, file + group, at - group));
    uint32_t from = kind == FLUX_BATCH ? 2u + (uint32_t)(body[0] | body[1] << 8) : 0;
    if (from + 4 <= length) flux_put32(body + length - 4, flux_crc32c(0, body + from, length - from - 4));
}

/* Changes one record (a length, a kind, a topic's length, the frame in it), then walks on, putting checksums right. */
static size_t fuzz_journal_mutate(uint8_t *input, size_t size) {
    size_t at[64], group[64];
    unsigned count = 0;
    if (size < FLUX_FILE_HEADER_SIZE || fuzz_one_in(6)) return fuzz_scramble(input, size);
    for (size_t next = FLUX_FILE_HEADER_SIZE, begin = next; count < 64 && next + 16 <= size;) {
        uint64_t bytes = flux_record_size(flux_get32(input + next));
        if (flux_get64(input + next) == 0 || bytes > size - next) break;
        at[count] = next;
        group[count++] = begin;
        next += bytes;
        if (flux_get32(input + at[count - 1] + 4) == FLUX_COMMIT) begin = next;
    }
    if (!count) return fuzz_scramble(input, size);
    unsigned chosen = (unsigned)fuzz_below(count);
    uint8_t *record = input + at[chosen], *body = record + FLUX_RECORD_HEADER_SIZE;
    uint32_t length = flux_get32(record);
    switch (fuzz_below(6)) {
    case 0: flux_put32(record, (uint32_t)fuzz_number()); break;
    case 1: flux_put32(record, length + (uint32_t)fuzz_below(33) - 16); break;
    case 2: flux_put32(record + 4, (uint32_t)(fuzz_one_in(4) ? fuzz_number() : fuzz_below(9))); break;
    case 3:
        if (length >= 2) body[0] = (uint8_t)fuzz_number(), body[1] = (uint8_t)(fuzz_one_in(2) ? 0 : fuzz_next());
        break;
    case 4: /* the frame, keeping its size */
        if (length > 2 && 2u + body[0] < length) {
            static uint8_t frame[FUZZ_INPUT_MAX];
            size_t bytes = length - 2u - body[0];
            memcpy(frame, body + 2 + body[0], bytes);
            if (fuzz_mutate_frame(frame, bytes, bytes) == bytes) memcpy(body + 2 + body[0], frame, bytes);
        }
        break;
    default: size = fuzz_below(size + 1); /* torn */
    }
    for (unsigned i = chosen; i < count && !fuzz_one_in(8); i++)
        if (at[i] + 16 <= size) fuzz_journal_reseal(input, size, at[i], group[i]);
    return size;
}

#endif
