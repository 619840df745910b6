"""What the codec costs, beside the Python FlatBuffers builder and memcpy in the same run.

`python benchmarks/bench_codec.py` prints nanoseconds (the least of many short rounds: on a shared machine the
rest is noise) and GB/s. informational: the gates are instruction counts, see benchmarks/README.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np

from flux import codec
from flux.model import CANDLE, StreamKey
from flux.schema.generated import Candle as CandleTable
from flux.schema.generated import CandleBatch, Envelope
from flux.schema.generated import StreamKey as StreamKeyTable

KEY = StreamKey("SIM", "BTCUSDT", "1m")
ROUNDS = 7


def least_ns(call: Callable[[], Any], seconds: float = 0.15) -> float:
    """The least time of one call, over rounds that take `seconds` together."""
    number = 1
    while True:
        begin = time.perf_counter_ns()
        for _ in range(number):
            call()
        if time.perf_counter_ns() - begin > seconds / ROUNDS * 1e9 or number > 1 << 22:
            break
        number *= 2
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter_ns()
        for _ in range(number):
            call()
        best = min(best, (time.perf_counter_ns() - begin) / number)
    return best


def build_with_flatbuffers(rows: np.ndarray[Any, np.dtype[np.void]]) -> bytes:
    """A version 1 CandleBatch by the generated code, as a service without flux would."""
    builder = flatbuffers.Builder(1024)
    source, symbol, interval = (builder.CreateString(name) for name in KEY)
    StreamKeyTable.Start(builder)
    StreamKeyTable.AddSourceId(builder, source)
    StreamKeyTable.AddSymbol(builder, symbol)
    StreamKeyTable.AddInterval(builder, interval)
    key = StreamKeyTable.End(builder)
    candles = []
    for ts_ms, open_, high, low, close, volume, *_ in rows.tolist():
        CandleTable.Start(builder)
        CandleTable.AddTsMs(builder, ts_ms)
        CandleTable.AddOpen(builder, open_)
        CandleTable.AddHigh(builder, high)
        CandleTable.AddLow(builder, low)
        CandleTable.AddClose(builder, close)
        CandleTable.AddVolume(builder, volume)
        candles.append(CandleTable.End(builder))
    CandleBatch.StartCandlesVector(builder, len(candles))
    for candle in reversed(candles):
        builder.PrependUOffsetTRelative(candle)
    vector = builder.EndVector()
    CandleBatch.Start(builder)
    CandleBatch.AddKey(builder, key)
    CandleBatch.AddStartSequence(builder, 1)
    CandleBatch.AddCandles(builder, vector)
    batch = CandleBatch.End(builder)
    Envelope.Start(builder)
    Envelope.AddMessageType(builder, 7)
    Envelope.AddMessage(builder, batch)
    builder.Finish(Envelope.End(builder))
    return bytes(builder.Output())


def codec_figures() -> None:
    for n in (1, 1000):
        rows = np.ones(n, CANDLE)
        encoder, encoder_v1 = codec.Encoder(KEY), codec.Encoder(KEY, version=1)
        frame, frame_v1 = encoder.encode(rows, 1), encoder_v1.encode(rows, 1)
        figures = {
            "encode v2": least_ns(lambda e=encoder, r=rows: e.encode(r, 7)),
            "decode v2": least_ns(lambda f=frame: codec.decode(f)),
            "its checksum": least_ns(lambda f=frame: codec.crc32c(f)),
            "decode and rows": least_ns(lambda f=frame: codec.decode(f).rows),
            "encode v1": least_ns(lambda e=encoder_v1, r=rows: e.encode(r, 7)),
            "decode v1": least_ns(lambda f=frame_v1: codec.decode(f)),
            "Python builder v1": least_ns(lambda r=rows: build_with_flatbuffers(r)),
        }
        print(f"{n} rows, ns a call")
        for name, ns in figures.items():
            print(f"  {name:20} {ns:12,.0f}")
        ratio = figures["Python builder v1"] / figures["encode v2"]
        print(f"  encode v2 is {ratio:,.0f}x as fast as the Python builder")


def checksum_figures() -> None:
    print("CRC-32C, GB/s, beside memcpy")
    for size in (256, 4096, 65536, 1 << 20):
        data, room = bytearray(size), bytearray(size)
        source = memoryview(data)

        def copy(source: memoryview = source, room: bytearray = room) -> None:
            room[:] = source

        checksum, copied = least_ns(lambda d=data: codec.crc32c(d)), least_ns(copy)
        print(f"  {size:8} bytes: {size / checksum:6.1f}   memcpy {size / copied:6.1f} ({checksum:,.0f} ns)")


if __name__ == "__main__":
    codec_figures()
    checksum_figures()
