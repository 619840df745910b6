"""The codec: from Python beside the FlatBuffers package and memcpy, in C beside flatc's C++.

The lines in C need g++, flatc and libflatbuffers-dev; without them they are skipped, and said so. A call there is a
loop of many, so that Python around it costs nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import pytest

from benchmarks.peers.build import build_codec_peers, missing_for_flatc
from flux import codec
from flux.model import CANDLE, StreamKey
from flux.schema.generated import Candle as CandleTable
from flux.schema.generated import CandleBatch, Envelope
from flux.schema.generated import StreamKey as StreamKeyTable

KEY = StreamKey("SIM", "BTCUSDT", "1m")

IN_C = {
    "encode": {
        "flux": "ours_encode",
        "flatc C++": "flatc_encode",
        "memcpy": "floor_memcpy",
        "memcpy + checksum": "floor_memcpy_and_checksum",
    },
    "decode": {
        "flux": "ours_decode",
        "flux, no checksum": "ours_decode_unchecked",
        "flux, known head": "ours_decode_known",
        "flatc C++": "flatc_decode",
    },
    "encode v1": {"flux": "ours_encode_v1", "flatc C++": "flatc_encode_v1"},
    "decode v1": {"flux": "ours_decode_v1", "flatc C++": "flatc_decode_v1"},
}
"""By what is done and by way, the function of peers/codec.h."""
LOOPS = {1: 10_000, 1000: 100}
"""Messages a call, by the rows of each."""
SIZES = (256, 4096, 8192, 65536, 1 << 20)


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


def read_with_flatbuffers(frame: bytes) -> float:
    """Every field of every candle of a version 1 batch by the generated accessors."""
    table = Envelope.Envelope.GetRootAs(frame).Message()
    batch = CandleBatch.CandleBatch()
    batch.Init(table.Bytes, table.Pos)
    total = 0.0
    for i in range(batch.CandlesLength()):
        c = batch.Candles(i)
        total += c.TsMs() + c.Open() + c.High() + c.Low() + c.Close() + c.Volume()
    return total


def rows_in_words(n: int) -> str:
    return "1 row" if n == 1 else f"{n} rows"


def rows_of(frame: bytes) -> Any:
    return codec.decode(frame).rows


@pytest.mark.gate
@pytest.mark.parametrize("way", ["flux", "flux v1", "flatbuffers"])
@pytest.mark.parametrize("n", [1, 1000])
def test_encode(benchmark: Any, n: int, way: str) -> None:
    rows = np.ones(n, CANDLE)
    benchmark.group, benchmark.extra_info["items"] = f"codec: encode {rows_in_words(n)}", 1
    if way == "flatbuffers":
        benchmark(build_with_flatbuffers, rows)
    else:
        benchmark(codec.Encoder(KEY, version=1 if way == "flux v1" else 2).encode, rows, 7)


@pytest.mark.gate
@pytest.mark.parametrize("way", ["flux", "its checksum", "flux, with its rows"])
@pytest.mark.parametrize("n", [1, 1000])
def test_decode(benchmark: Any, n: int, way: str) -> None:
    frame = codec.Encoder(KEY).encode(np.ones(n, CANDLE), 1)
    benchmark.group = f"codec: decode {rows_in_words(n)}"
    calls = {"flux": codec.decode, "its checksum": codec.crc32c, "flux, with its rows": rows_of}
    benchmark(calls[way], frame)


@pytest.mark.gate
@pytest.mark.parametrize("way", ["flux", "flatbuffers"])
@pytest.mark.parametrize("n", [1, 1000])
def test_decode_v1(benchmark: Any, n: int, way: str) -> None:
    frame = codec.Encoder(KEY, version=1).encode(np.ones(n, CANDLE), 1)
    benchmark.group = f"codec: decode v1 {rows_in_words(n)}"
    benchmark(rows_of if way == "flux" else read_with_flatbuffers, frame)


@pytest.mark.informational
@pytest.mark.parametrize("way", ["crc32c", "memcpy"])
@pytest.mark.parametrize("size", [256, 4096, 65536, 1 << 20])
def test_checksum(benchmark: Any, size: int, way: str) -> None:
    source, room = memoryview(bytearray(size)), bytearray(size)
    benchmark.group = f"codec: checksum of {size} bytes"
    if way == "crc32c":
        benchmark(codec.crc32c, source)
    else:
        benchmark(room.__setitem__, slice(None), source)


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int, int], None]:
    """Runs a function of peers/codec.h so many times, on messages of so many rows (bytes, for the checksum)."""
    if missing := missing_for_flatc():
        pytest.skip(f"flatc's C++ is left out: {missing} is not installed")
    library = build_codec_peers(tmp_path_factory.mktemp("codec"))

    def call(name: str, rows: int, times: int) -> None:
        known = library.repeat(name.encode(), ctypes.c_uint32(rows), ctypes.c_long(times)) == 0
        assert known, name

    return call


@pytest.mark.gate
@pytest.mark.parametrize(
    ("what", "way"), [(what, way) for what, ways in IN_C.items() for way in ways], ids=lambda value: value
)
@pytest.mark.parametrize("n", [1, 1000])
def test_in_c(benchmark: Any, in_c: Callable[[str, int, int], None], n: int, what: str, way: str) -> None:
    benchmark.group, benchmark.extra_info["items"] = f"codec in C: {what} {rows_in_words(n)}", LOOPS[n]
    benchmark(in_c, IN_C[what][way], n, LOOPS[n])


@pytest.mark.gate
@pytest.mark.parametrize("way", [f"{size} bytes" for size in SIZES])
def test_checksum_in_c(benchmark: Any, in_c: Callable[[str, int, int], None], way: str) -> None:
    size = int(way.split()[0])
    times = max(10, (1 << 20) // size)
    benchmark.group, benchmark.extra_info["items"] = "codec in C: checksum", times
    benchmark(in_c, "checksum", size, times)
