/* Our side of codec_peers.cpp, and the floors: plain calls of ext/codec.h. */
#include <stdlib.h>

#include "../../ext/codec.h"
#include "codec.h"

static const uint32_t sizes[2] = {1, PEERS_ROWS};

uint8_t peers_rows[64 * PEERS_ROWS];
static flux_template template, learned;
static flux_v1_template template_v1;
static uint8_t out[FLUX_HEAD_MAX + 64 * PEERS_ROWS + 64], out_v1[FLUX_HEAD_MAX + 64 * PEERS_ROWS + 64];
static struct {
    size_t size, size_v1;
    uint8_t frame[sizeof out], frame_v1[sizeof out];
} made[2];
static flux_candle decoded[PEERS_ROWS];

static int which(uint32_t n) { return n != 1; }

void ours_prepare(void) {
    flux_candle *rows = (flux_candle *)peers_rows;
    for (int i = 0; i < PEERS_ROWS; i++) {
        flux_candle row = {1700000000000 + 60000 * (int64_t)i, 100.5 + i, 101.5 + i, 99.5 + i, 100.75 + i, 12.5, 1250, 7, 33};
        rows[i] = row;
    }
    flux_template_make(&template, FLUX_ROWS_CANDLE, "SIM", 3, "BTCUSDT", 7, "1m", 2);
    flux_v1_template_make(&template_v1, "SIM", 3, "BTCUSDT", 7, "1m", 2);
    for (int i = 0; i < 2; i++) {
        made[i].size = ours_encode(sizes[i]);
        memcpy(made[i].frame, out, made[i].size);
        made[i].size_v1 = ours_encode_v1(sizes[i]);
        memcpy(made[i].frame_v1, out_v1, made[i].size_v1);
    }
    flux_view view;
    if (flux_verify(made[0].frame, made[0].size, &view) || flux_template_from(&learned, made[0].frame, made[0].size, &view))
        abort();
}

size_t ours_encode(uint32_t n) { return flux_encode(&template, out, 7, 1, 2, 3, 4, 5, peers_rows, n); }

size_t ours_encode_v1(uint32_t n) { return flux_v1_encode(&template_v1, out_v1, 7, (const flux_candle *)peers_rows, n); }

static size_t decode(uint32_t n, int checksum) {
    flux_view view;
    if (flux_verify_as(made[which(n)].frame, made[which(n)].size, checksum, &view)) abort();
    return view.rows_at + view.row_count + view.symbol_size + (size_t)view.start_sequence;
}

size_t ours_decode(uint32_t n) { return decode(n, 1); }

size_t ours_decode_unchecked(uint32_t n) { return decode(n, 0); }

size_t ours_decode_known(uint32_t n) {
    flux_view view;
    if (flux_match(&learned, made[which(n)].frame, made[which(n)].size, &view) != 1) abort();
    return view.rows_at + view.row_count + view.symbol_size + (size_t)view.start_sequence;
}

size_t ours_decode_v1(uint32_t n) {
    flux_view view;
    if (flux_verify(made[which(n)].frame_v1, made[which(n)].size_v1, &view)) abort();
    flux_v1_rows(made[which(n)].frame_v1, &view, decoded);
    return (size_t)decoded[n - 1].ts_ms;
}

size_t floor_memcpy(uint32_t n) {
    memcpy(out + template.head_size, peers_rows, 64 * (size_t)n);
    __asm__ volatile("" : : "r"(out) : "memory");
    return n;
}

size_t floor_memcpy_and_checksum(uint32_t n) {
    memcpy(out, template.head, template.head_size);
    floor_memcpy(n);
    return flux_crc32c(0, out, template.head_size + 64 * (size_t)n);
}
