# cython: language_level=3
"""A Cython module of somebody else's that reads and writes frames of flux without Python (see cython_extension.py)."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcpy

from flux.kernels.codec cimport (
    FLUX_OK,
    FLUX_ROWS_CANDLE,
    flux_candle,
    flux_encode,
    flux_encoded_size,
    flux_template,
    flux_template_make,
    flux_verify,
    flux_view,
)


cdef extern from *:
    """
    typedef struct { double turnover, volume; } tally;
    """
    ctypedef struct tally:
        double turnover
        double volume


cdef int add(const unsigned char *frame, size_t size, tally *sum) noexcept nogil:
    """Adds a frame's candles; the reason where it is refused, -1 where it holds no candles of version 2."""
    cdef flux_view view
    cdef flux_candle row
    cdef unsigned int i
    cdef int reason = flux_verify(frame, size, &view)
    if reason != FLUX_OK:
        return reason
    if view.row_kind != FLUX_ROWS_CANDLE:
        return -1
    for i in range(view.row_count):
        memcpy(&row, frame + view.rows_at + 64 * i, 64)  # a frame stands at any address
        sum.turnover += row.turnover
        sum.volume += row.volume
    return 0


def vwap(frames):
    """The volume-weighted price over all candles of the frames (bytes)."""
    cdef tally sum
    cdef bytes frame
    cdef const unsigned char *data
    cdef size_t size
    cdef int reason
    sum.turnover = sum.volume = 0
    for frame in frames:
        data, size = frame, len(frame)
        with nogil:
            reason = add(data, size, &sum)
        if reason:
            raise ValueError(f"not a frame of candles: {reason}")
    return sum.turnover / sum.volume


def one_candle(bytes source, bytes symbol, bytes interval, long long ts_ms, double price, double volume):
    """A frame with one candle of one price, as sequence 1."""
    cdef flux_template template
    cdef flux_candle row
    if flux_template_make(&template, FLUX_ROWS_CANDLE, source, len(source), symbol, len(symbol), interval,
                          len(interval)):
        raise ValueError("the names are too long")
    row.ts_ms, row.open, row.high, row.low, row.close = ts_ms, price, price, price, price
    row.volume, row.turnover, row.trade_count, row.flags = volume, price * volume, 1, 33
    frame = PyBytes_FromStringAndSize(NULL, flux_encoded_size(&template, 1))
    flux_encode(&template, <unsigned char *><char *>frame, 1, 0, 0, 0, 0, 0, &row, 1)
    return frame
