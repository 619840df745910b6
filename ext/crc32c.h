/* CRC-32C (Castagnoli, reflected, as iSCSI, ext4 and SSE4.2 have it): what ends every v2 frame and every journal record.
 *
 * A checksum runs: start with 0, and crc(a + b) = flux_crc32c(flux_crc32c(0, a), b). The hardware way and the table
 * give the same bits; which one runs is decided once, when the library is loaded.
 *
 * These functions are in crc32c.c, which whoever includes this (or verify.h, or codec.h) compiles as C and links. */
#ifndef FLUX_CRC32C_H
#define FLUX_CRC32C_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

uint32_t flux_crc32c(uint32_t crc, const void *data, size_t size);

/* Both ways by name, for the tests. The hardware one may only be called where flux_crc32c_in_hardware() is 1. */
uint32_t flux_crc32c_table(uint32_t crc, const void *data, size_t size);
uint32_t flux_crc32c_hardware(uint32_t crc, const void *data, size_t size);
int flux_crc32c_in_hardware(void);

/* Advance a checksum over bytes that never change without reading them. CRC is linear: the state behind a + b is the
 * state behind a times x^(8 |b|), plus a constant of b. flux_crc32c_jump_to() makes both factors for a run of at least 5
 * bytes; flux_crc32c_jump() is then a carry-less multiplication however long the run. Where there is no hardware,
 * `usable` is 0 and the caller reads the bytes. */
typedef struct {
    uint32_t factor; /* x^(8 size - 33) mod P */
    uint32_t offset; /* what the bytes themselves add */
    uint32_t usable;
} flux_crc32c_run;

void flux_crc32c_jump_to(flux_crc32c_run *run, const void *data, size_t size);
uint32_t flux_crc32c_jump(uint32_t crc, const flux_crc32c_run *run);

#ifdef __cplusplus
}
#endif

#endif
