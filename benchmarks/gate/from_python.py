"""The kernels as Python calls them, counted by callgrind: `python -S from_python.py REQUESTS PACKAGE PACKAGES`.

Run by benchmarks/gate/instructions.py, against the package of whichever tree is to be judged. Prints `wrong: NAME` and
exits 1 where a result is not what it must be.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from itertools import repeat
from typing import Any, NamedTuple


class Work(NamedTuple):
    """An operation, how often it is done in the first count, and whether what it gives is right."""

    name: str
    n: int
    call: Callable[[], Any]
    right: Callable[[Any], bool]


def works() -> list[Work]:
    """All that is counted."""
    import numpy as np

    from flux import codec
    from flux.model import CANDLE, StreamKey
    from flux.ring import Ring

    key = StreamKey("SIM", "BTCUSDT", "1m")
    one, many = np.ones(1, CANDLE), np.ones(1000, CANDLE)
    many["ts_ms"] = np.arange(1000)
    encoder, encoder_v1 = codec.Encoder(key), codec.Encoder(key, version=1)
    frame, frame_v1 = encoder.encode(one, 7), encoder_v1.encode(many, 7)
    ring = Ring(4096)

    def place() -> int:
        ring.place(ring.contiguous + 1, one)
        return ring.contiguous

    batch = codec.decode(frame)
    arrow = [
        Work(
            "Python: arrow array of 1 row",
            100,
            lambda: batch.__arrow_c_array__(),
            lambda made: [type(part).__name__ for part in made] == ["PyCapsule", "PyCapsule"],
        )
    ]
    return [
        *(arrow if hasattr(codec.Candles, "__arrow_c_array__") else []),
        Work("Python: encode 1 row", 100, lambda: encoder.encode(one, 7), lambda made: made == frame),
        Work(
            "Python: encode 1000 rows",
            20,
            lambda: encoder.encode(many, 7),
            lambda made: codec.decode(made).rows.tobytes() == many.tobytes(),
        ),
        Work(
            "Python: decode 1 row",
            100,
            lambda: codec.decode(frame),
            lambda made: (made.start_sequence, len(made.rows), made.key) == (7, 1, key),
        ),
        Work(
            "Python: decode 1 row and its array",
            100,
            lambda: codec.decode(frame).rows,
            lambda rows: rows.tobytes() == one.tobytes(),
        ),
        Work(
            "Python: decode v1 1000 rows",
            20,
            lambda: codec.decode(frame_v1).rows,
            lambda rows: rows["ts_ms"].tolist() == list(range(1000)) and rows["flags"].all(),
        ),
        Work("Python: ring 1 row in order", 100, place, lambda top: top == ring.top and top % 100 == 1),
        Work(
            "Python: crc 256 bytes",
            100,
            lambda: codec.crc32c(b"123456789"),
            lambda crc: crc == 0xE3069283,
        ),
    ]


def done(call: Callable[[], Any], times: int) -> None:
    """The loop around what is counted: it is in both counts of a work, and so in neither's difference but once."""
    for _ in repeat(None, times):
        call()


def main() -> int:
    """See the module."""
    requests = ctypes.CDLL(sys.argv[1])
    sys.path[:0] = sys.argv[2:]
    wrong = 0
    chosen = works()
    gc.collect()
    gc.disable()
    requests.gate_start()
    for work in chosen:
        done(work.call, work.n)
        for times in (work.n, 3 * work.n):
            requests.gate_begin()
            done(work.call, times)
            requests.gate_end(f"{work.name} {times}".encode())
        if not work.right(work.call()):
            print(f"wrong: {work.name}")
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
