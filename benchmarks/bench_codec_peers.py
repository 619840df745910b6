"""The codec beside its peers, and the table of what it must reach: flatc's C++, the Python FlatBuffers package, memcpy
and the checksum, all in turns in one run.

    python benchmarks/bench_codec_peers.py [--rounds 300] [--json FILE]

informational: prints each measured value beside what the table asks, and judges it. Figures are the least of many short
rounds. The C++ lines need g++, flatc and libflatbuffers-dev; without them they are left out, and said so.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from bench_codec import KEY, build_with_flatbuffers
from peers.build import build_codec_peers, flatc_version, missing_for_flatc
from ratios import Ratio, keep

from flux import codec
from flux.model import CANDLE
from flux.schema.generated.CandleBatch import CandleBatch
from flux.schema.generated.Envelope import Envelope

ROWS = 1000


class Line(NamedTuple):
    """One line of the table. `most` says whether the bound is an "at most"."""

    what: str
    measured: float
    unit: str
    most: bool
    bound: float

    @property
    def reached(self) -> bool:
        return self.measured <= self.bound if self.most else self.measured >= self.bound


def read_with_flatbuffers(frame: bytes) -> float:
    """Every field of every candle of a version 1 batch by the generated accessors."""
    table = Envelope.GetRootAs(frame).Message()
    batch = CandleBatch()
    batch.Init(table.Bytes, table.Pos)
    total = 0.0
    for i in range(batch.CandlesLength()):
        c = batch.Candles(i)
        total += c.TsMs() + c.Open() + c.High() + c.Low() + c.Close() + c.Volume()
    return total


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int, slice_s: float = 0.0005) -> dict[str, float]:
    """The least nanoseconds of each call over rounds in which all have their turn of about `slice_s`."""
    counts = {}
    for name, call in calls.items():
        begin = time.perf_counter()
        call()
        counts[name] = max(1, int(slice_s / max(time.perf_counter() - begin, 1e-7)))
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            number = counts[name]
            begin = time.perf_counter_ns()
            for _ in range(number):
                call()
            took = (time.perf_counter_ns() - begin) / number
            least[name] = min(least[name], took)
    return least


def from_python(rounds: int) -> dict[str, float]:
    """ns of the calls that a Python user makes, ours and the FlatBuffers package's."""
    calls: dict[str, Callable[[], Any]] = {"nothing": lambda: None}
    for n in (1, ROWS):
        rows = np.ones(n, CANDLE)
        encoder, v1 = codec.Encoder(KEY), codec.Encoder(KEY, version=1)
        frame, frame_v1 = encoder.encode(rows, 1), v1.encode(rows, 1)
        calls |= {
            f"encode {n}": lambda e=encoder, r=rows: e.encode(r, 7),
            f"decode {n}": lambda f=frame: codec.decode(f),
            f"checksum {n}": lambda f=frame: codec.crc32c(f),
            f"decode v1 {n}": lambda f=frame_v1: codec.decode(f).rows,
        }
    one = np.ones(1, CANDLE)
    few = {
        "builder 1": lambda: build_with_flatbuffers(one),
        f"accessors v1 {ROWS}": lambda f=frame_v1: read_with_flatbuffers(f),
    }
    return in_turns(calls, rounds) | in_turns(few, max(3, rounds // 30))


def in_c(rounds: int) -> dict[str, float]:
    """ns of each operation of peers/codec_peers.cpp, by `NAME ROWS`."""
    with tempfile.TemporaryDirectory() as folder:
        program = build_codec_peers(Path(folder))
        told = subprocess.run([program, str(rounds)], capture_output=True, text=True, check=True).stdout
    return {f"{name} {rows}": float(ns) for name, rows, ns in map(str.split, told.splitlines())}


def lines_from_python(t: dict[str, float]) -> list[Line]:
    empty = t["nothing"]  # of the loop and the lambda around each call
    many = f"v1 {ROWS}"
    return [
        Line("encode 1 row, from Python", t["encode 1"] - empty, "ns", True, 250),
        Line("  Python builder / ours", t["builder 1"] / (t["encode 1"] - empty), "x", False, 100),
        Line(
            "decode 1 row, from Python, beyond the checksum", t["decode 1"] - t["checksum 1"], "ns", True, 350
        ),
        Line(
            "decode 1,000 rows, beyond the checksum",
            t[f"decode {ROWS}"] - t[f"checksum {ROWS}"],
            "ns",
            True,
            350,
        ),
        Line(
            "v1 1,000 candles into rows: Python accessors / ours",
            t[f"accessors {many}"] / (t[f"decode {many}"] - empty),
            "x",
            False,
            2000,
        ),
    ]


def lines_in_c(t: dict[str, float]) -> list[Line]:
    n = ROWS
    decode, unchecked, theirs = "ours_decode", "ours_decode_unchecked", "flatc_decode"
    return [
        Line(
            "in C, encode 1 row, checksum included / flatc C++",
            t["ours_encode 1"] / t["flatc_encode 1"],
            "x",
            True,
            0.25,
        ),
        Line(
            "in C, encode 1,000 rows / (memcpy + checksum)",
            t[f"ours_encode {n}"] / t[f"floor_memcpy_and_checksum {n}"],
            "x",
            True,
            1.15,
        ),
        Line(
            "v1, encode 1,000 candles: flatc C++ / ours",
            t[f"flatc_encode_v1 {n}"] / t[f"ours_encode_v1 {n}"],
            "x",
            False,
            20,
        ),
        Line(
            "in C, verify + view 1 row / C++ Verifier + access",
            t[f"{unchecked} 1"] / t[f"{theirs} 1"],
            "x",
            True,
            1.5,
        ),
        Line(
            "  the checksum, which C++ has not, included", t[f"{decode} 1"] / t[f"{theirs} 1"], "x", True, 1.5
        ),
        Line(
            "  by a head that is known, checksum included",
            t["ours_decode_known 1"] / t[f"{theirs} 1"],
            "x",
            True,
            1.5,
        ),
        Line(
            "in C, verify + view 1,000 rows / C++", t[f"{unchecked} {n}"] / t[f"{theirs} {n}"], "x", True, 1.5
        ),
        Line(
            "v1, verify + 1,000 candles into rows: C++ / ours",
            t[f"flatc_decode_v1 {n}"] / t[f"ours_decode_v1 {n}"],
            "x",
            False,
            1.5,
        ),
        Line("checksum, 8 KiB", 8192 / t["checksum 8192"], "GB/s", False, 20),
        Line("checksum, 1 MiB", (1 << 20) / t[f"checksum {1 << 20}"], "GB/s", False, 20),
        Line("checksum, 256 B", t["checksum 256"], "ns", True, 20),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="the codec beside its peers")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write every measured value there")
    args = parser.parse_args()
    measured = from_python(args.rounds)
    lines, peers = lines_from_python(measured), f"flatbuffers {flatbuffers.__version__}"
    missing = missing_for_flatc()
    if missing:
        print(f"flatc's C++ is left out: {missing} is not installed", file=sys.stderr)
    else:
        native = in_c(args.rounds)
        lines += lines_in_c(native)
        measured |= native
        peers += f", {flatc_version()}"
    print(f"{platform.machine()}, Python {platform.python_version()}, numpy {np.__version__}, {peers}")
    for line in lines:
        bound = f"{'at most' if line.most else 'at least'} {line.bound:,g}"
        print(
            f"{line.what:54} {line.measured:10,.2f} {line.unit:5} {bound:>14}  {'' if line.reached else 'MISSED'}"
        )
        # A ratio can be a gate, the rest is of this machine's hour.
        name = f"codec: {line.what.strip()}"
        keep(Ratio(name, line.measured, line.bound, line.most, line.unit, gate=line.unit == "x"))
    print("\nns a call")
    for name, ns in measured.items():
        print(f"  {name:34} {ns:14,.1f}")
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1))


if __name__ == "__main__":
    main()
