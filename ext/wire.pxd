"""What codec.h and wire.h give a .pyx: the verifier, the templates, and the shapes of all messages."""

from libc.stdint cimport int8_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from row cimport flux_candle, flux_run_rows


cdef extern from "wire.h" nogil:
    enum:
        FLUX_TAGS
        FLUX_TABLES
        FLUX_TABLE_KEY
        FLUX_TABLE_CANDLE
        FLUX_TAG_FORMING
        FLUX_TAG_BACKFILL_CANDLES_RESPONSE
        FLUX_TAG_BACKFILL_ROWS_RESPONSE

    enum:
        FLUX_W_BOOL
        FLUX_W_TRUE
        FLUX_W_U8
        FLUX_W_U32
        FLUX_W_I64
        FLUX_W_U64
        FLUX_W_F64
        FLUX_W_STRING
        FLUX_W_TABLE
        FLUX_W_TABLES
        FLUX_W_BYTES
        FLUX_W_CANDLES
        FLUX_W_TRADES
        FLUX_W_QUOTES
        FLUX_W_MARKS
        FLUX_W_REFUSED

    ctypedef struct flux_slot_shape "__typeof__(flux_shapes[0].slot[0])":
        uint8_t kind
        uint8_t of

    ctypedef struct flux_table_shape:
        uint8_t slots
        flux_slot_shape slot[14]

    const flux_table_shape flux_shapes[FLUX_TABLES]

    ctypedef struct flux_head_shape:
        uint8_t tag
        uint8_t slots
        uint8_t table_size
        uint8_t vtable[14]

    ctypedef struct flux_wire_text:
        const char *text
        size_t size

    uint32_t flux_wire_u32(const uint8_t *at)
    uint64_t flux_wire_u64(const uint8_t *at)
    void flux_wire_put32(uint8_t *at, uint32_t value)
    void flux_wire_put64(uint8_t *at, uint64_t value)
    uint32_t flux_wire_slot(const uint8_t *frame, uint32_t table, unsigned slot)
    uint32_t flux_wire_follow(const uint8_t *frame, uint32_t at)
    size_t flux_wire_head_size(flux_wire_text source, flux_wire_text symbol, flux_wire_text interval,
                               flux_wire_text correlation)
    uint32_t flux_wire_head(uint8_t *out, const flux_head_shape *shape, uint32_t version, flux_wire_text source,
                            flux_wire_text symbol, flux_wire_text interval, flux_wire_text correlation,
                            uint32_t *integers_at)


cdef extern from "codec.h" nogil:
    enum:
        FLUX_OK
        FLUX_SHORT
        FLUX_SIZE
        FLUX_CHECKSUM
        FLUX_VERIFY
        FLUX_REASONS

    enum:
        FLUX_NULL
        FLUX_FRAME_MAX
        FLUX_VERIFY_TABLES
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
        uint32_t rows_at
        uint32_t row_count
        uint32_t message_at
        uint32_t error_at
        uint32_t checksum_present

    ctypedef struct flux_template:
        uint32_t head_size
        uint32_t patch_at
        uint32_t row_kind
        uint32_t row_size

    ctypedef struct flux_v1_template:
        uint32_t head_size

    int flux_verify_as(const uint8_t *frame, size_t size, int checksum, flux_view *out)
    int flux_verify(const uint8_t *frame, size_t size, flux_view *out)
    int flux_template_make(flux_template *t, int row_kind, const char *source, size_t source_size, const char *symbol,
                           size_t symbol_size, const char *interval, size_t interval_size)
    size_t flux_encoded_size(const flux_template *t, uint32_t n)
    size_t flux_encode(const flux_template *t, uint8_t *out, uint64_t start_sequence, uint64_t store_id,
                       int64_t origin_ns, int64_t recorded_ns, uint32_t epoch, uint32_t stream_id, const void *rows,
                       uint32_t n)
    size_t flux_runs_place(const flux_template *const *templates, size_t streams, const flux_run_rows *runs,
                           size_t count, uint64_t rows_size, uint64_t *offsets)
    void flux_runs_encode(const flux_template *const *templates, const uint32_t *stream_ids, const flux_run_rows *runs,
                          size_t count, const uint8_t *rows, const uint64_t *offsets, uint8_t *out, uint64_t store_id,
                          uint32_t epoch, int64_t recorded_ns)
    int flux_match(const flux_template *t, const uint8_t *frame, size_t size, flux_view *out)
    int flux_template_from(flux_template *t, const uint8_t *frame, size_t size, const flux_view *v)
    int flux_v1_template_make(flux_v1_template *t, const char *source, size_t source_size, const char *symbol,
                              size_t symbol_size, const char *interval, size_t interval_size)
    size_t flux_v1_encoded_size(const flux_v1_template *t, uint32_t n)
    size_t flux_v1_encode(const flux_v1_template *t, uint8_t *out, uint64_t start_sequence, const flux_candle *rows,
                          uint32_t n)
    size_t flux_v1_tail_size(uint32_t n)
    void flux_v1_tail(uint8_t *out, uint32_t head_size, const flux_candle *rows, uint32_t n)
    uint32_t flux_v1_rows(const uint8_t *frame, const flux_view *v, flux_candle *out)


cdef extern from "crc32c.h" nogil:
    uint32_t flux_crc32c(uint32_t crc, const void *data, size_t size)
    uint32_t flux_crc32c_table(uint32_t crc, const void *data, size_t size)
    uint32_t flux_crc32c_hardware(uint32_t crc, const void *data, size_t size)
    int flux_crc32c_in_hardware()
