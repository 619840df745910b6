"""The rows in C (ext/row.h), for every kernel and for other people's Cython."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "row.h" nogil:
    ctypedef struct flux_candle:
        int64_t ts_ms
        double open
        double high
        double low
        double close
        double volume
        double turnover
        uint32_t trade_count
        uint32_t flags

    ctypedef struct flux_trade:
        int64_t ts_ns
        double price
        double size
        uint64_t trade_id
        uint32_t flags
        uint32_t reserved

    ctypedef struct flux_quote:
        int64_t ts_ns
        double bid
        double ask
        double bid_size
        double ask_size

    ctypedef struct flux_run_rows:
        uint32_t stream
        uint32_t rows
        uint64_t at
        uint64_t first
        int64_t origin_ns

    enum:
        FLUX_CLOSED
        FLUX_CORRECTION
        FLUX_SYNTHETIC
        FLUX_INJECTED
        FLUX_LATE
        FLUX_TRADED
        FLUX_TURNOVER
        FLUX_TRADE_COUNT

    enum:
        FLUX_ROWS_NONE
        FLUX_ROWS_CANDLE
        FLUX_ROWS_TRADE
        FLUX_ROWS_QUOTE
        FLUX_ROWS_CANDLE_V1

    uint32_t flux_row_size(int kind)
