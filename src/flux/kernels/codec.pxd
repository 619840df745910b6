"""The codec for other people's Cython: frames verified and read, rows encoded, with neither Python nor the GIL.

    from flux.kernels.codec cimport flux_candle, flux_verify, flux_view

Compile with `flux.codec.get_include()` on the include path, as C; nothing needs to be linked and flux need not be
imported at run time. `flux.examples.cython_extension` is a whole module.

The functions are those of `flux/codec.h`, whose comments hold in full. In short: nothing allocates, nothing keeps a
pointer, every offset is from the frame's first byte. A frame may come from anywhere and stand at any address;
flux_verify() looks at all of it before anything is believed, and only what it accepted may be given on.
"""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "flux/row.h" nogil:
    ctypedef struct flux_candle:
        int64_t ts_ms  # open of the interval, epoch ms UTC
        double open
        double high
        double low
        double close
        double volume
        double turnover  # 0 without FLUX_TRADED or FLUX_TURNOVER
        uint32_t trade_count
        uint32_t flags

    ctypedef struct flux_trade:
        int64_t ts_ns  # epoch ns UTC
        double price
        double size
        uint64_t trade_id
        uint32_t flags
        uint32_t reserved

    ctypedef struct flux_quote:
        int64_t ts_ns  # epoch ns UTC
        double bid
        double ask
        double bid_size
        double ask_size

    ctypedef struct flux_run_rows:  # flux.model.RUN
        uint32_t stream
        uint32_t rows
        uint64_t at
        uint64_t first
        int64_t origin_ns

    enum:  # flux_candle.flags
        FLUX_CLOSED
        FLUX_CORRECTION
        FLUX_SYNTHETIC
        FLUX_INJECTED
        FLUX_LATE
        FLUX_TRADED
        FLUX_TURNOVER
        FLUX_TRADE_COUNT

    enum:  # flux_view.row_kind
        FLUX_ROWS_NONE
        FLUX_ROWS_CANDLE
        FLUX_ROWS_TRADE
        FLUX_ROWS_QUOTE
        FLUX_ROWS_CANDLE_V1  # tables: flux_v1_rows() makes them rows

    uint32_t flux_row_size(int kind) noexcept


# Before codec.h, which declares what this defines: an extension that cimports this file is whole by itself.
cdef extern from "flux/crc32c.c" nogil:
    uint32_t flux_crc32c(uint32_t crc, const void *data, size_t size) noexcept


cdef extern from "flux/codec.h" nogil:
    enum:  # why a frame is refused: flux.codec.REASONS by number
        FLUX_OK
        FLUX_SHORT
        FLUX_SIZE
        FLUX_CHECKSUM
        FLUX_VERIFY

    enum:
        FLUX_NULL  # the size of a name that is not there
        FLUX_FRAME_MAX
        FLUX_CHECKSUM_SIZE

    ctypedef struct flux_view:
        uint32_t schema_version
        uint8_t tag
        int8_t type_hint
        uint8_t row_kind
        uint32_t correlation_at
        uint32_t correlation_size
        uint32_t source_at
        uint32_t source_size
        uint32_t symbol_at
        uint32_t symbol_size
        uint32_t interval_at
        uint32_t interval_size
        uint64_t start_sequence
        uint64_t store_id
        int64_t origin_ns
        int64_t recorded_ns
        uint32_t epoch
        uint32_t stream_id
        uint32_t rows_at  # first row, to be read by memcpy; in version 1 for flux_v1_rows()
        uint32_t row_count
        uint32_t message_at
        uint32_t error_at  # the byte where a check failed
        uint32_t checksum_present

    ctypedef struct flux_template:  # made once for a stream
        uint32_t head_size
        uint32_t row_kind
        uint32_t row_size

    ctypedef struct flux_v1_template:
        uint32_t head_size

    # FLUX_OK, or the reason of the refusal.
    int flux_verify(const uint8_t *frame, size_t size, flux_view *out) noexcept

    # 1: a frame of the template's stream, verified by comparison, *out filled; 0: another head, ask flux_verify();
    # -1: this head with a wrong length or checksum.
    int flux_match(const flux_template *t, const uint8_t *frame, size_t size, flux_view *out) noexcept
    int flux_template_from(flux_template *t, const uint8_t *frame, size_t size, const flux_view *v) noexcept

    # 0, or -1 where the names are too long for a head. The names are UTF-8.
    int flux_template_make(flux_template *t, int row_kind, const char *source, size_t source_size, const char *symbol,
                           size_t symbol_size, const char *interval, size_t interval_size) noexcept

    # Bytes of a message of n rows; `out` of flux_encode() has as many.
    size_t flux_encoded_size(const flux_template *t, uint32_t n) noexcept
    size_t flux_encode(const flux_template *t, uint8_t *out, uint64_t start_sequence, uint64_t store_id,
                       int64_t origin_ns, int64_t recorded_ns, uint32_t epoch, uint32_t stream_id, const void *rows,
                       uint32_t n) noexcept

    # Many streams in one call: first where each message stands (count + 1 offsets), then the messages.
    size_t flux_runs_place(const flux_template *const *templates, size_t streams, const flux_run_rows *runs,
                           size_t count, uint64_t rows_size, uint64_t *offsets) noexcept
    void flux_runs_encode(const flux_template *const *templates, const uint32_t *stream_ids, const flux_run_rows *runs,
                          size_t count, const uint8_t *rows, const uint64_t *offsets, uint8_t *out, uint64_t store_id,
                          uint32_t epoch, int64_t recorded_ns) noexcept

    # Version 1.
    int flux_v1_template_make(flux_v1_template *t, const char *source, size_t source_size, const char *symbol,
                              size_t symbol_size, const char *interval, size_t interval_size) noexcept
    size_t flux_v1_encoded_size(const flux_v1_template *t, uint32_t n) noexcept
    size_t flux_v1_encode(const flux_v1_template *t, uint8_t *out, uint64_t start_sequence, const flux_candle *rows,
                          uint32_t n) noexcept
    uint32_t flux_v1_rows(const uint8_t *frame, const flux_view *v, flux_candle *out) noexcept
