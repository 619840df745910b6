/* What codec_peers.cpp measures, each one call = one message. Ours is codec_flux.c, flatc's is in codec_peers.cpp. */
#ifndef PEERS_CODEC_H
#define PEERS_CODEC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PEERS_ROWS = 1000 };

void ours_prepare(void);
size_t ours_encode(uint32_t n);    /* version 2, checksum included */
size_t ours_encode_v1(uint32_t n); /* version 1 */
size_t ours_decode(uint32_t n);    /* checksum and verification: the view */
size_t ours_decode_unchecked(uint32_t n); /* verification alone, as C++ does it */
size_t ours_decode_known(uint32_t n);     /* by the learned head: what a stream's second message costs */
size_t ours_decode_v1(uint32_t n); /* verification, and tables to rows */

size_t floor_memcpy(uint32_t n);
size_t floor_memcpy_and_checksum(uint32_t n);
uint32_t flux_crc32c(uint32_t crc, const void *data, size_t size);

extern uint8_t peers_rows[64 * PEERS_ROWS]; /* candles */

#ifdef __cplusplus
}
#endif
#endif
