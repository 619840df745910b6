"""The fuzzer's Python half: `flux.codec.decode` and all that a decoded message shows, zstd replies among it; and the
same frames through real sockets to the pump (receiving.py).

    python -S decoding.py run SEED SECONDS LAST FRAME...
    python -S decoding.py replay FILE...

Run by tests/fuzz/fuzzing.py with sanitized kernels on sys.path (-S: no site folder, so no editable install comes
first). A frame may raise DecodeError and nothing else; the frame at hand stands in the mapped file LAST, as the C
driver leaves it.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import struct
import sys
import time
from pathlib import Path
from typing import Any

import receiving  # beside this file, which is run by its path

MOST = 1 << 16
NAME = b"decode".ljust(12, b"\0")


def look_at(value: Any) -> None:
    """Reads everything that a value shows."""
    import numpy as np

    if isinstance(value, np.ndarray):
        value.tobytes()
    elif isinstance(value, list | tuple):
        for item in value:
            look_at(item)
    elif slots := getattr(type(value), "__slots__", ()):
        for name in slots:
            look_at(getattr(value, name, None))


def decode(frame: bytes) -> bool:
    """Whether the frame decodes; all that it says is looked at."""
    from flux import codec

    try:
        message = codec.decode(frame)
    except codec.DecodeError:
        return False
    repr(message)
    look_at(message)
    for name in ("key", "rows", "start_sequence", "correlation_id"):
        try:
            look_at(getattr(message, name, None))
        except codec.DecodeError as error:
            if error.reason != "zstd":  # anything else should have been said before there was a message
                raise
    return True


def run(seed: int, seconds: float, last: Path, frames: list[bytes], mutations: Path) -> None:
    """Damages frames of the corpus and decodes them, until the time is over; says how many."""
    library = ctypes.CDLL(str(mutations))
    library.fuzz_mutate.restype = ctypes.c_size_t
    library.fuzz_mutate.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
    library.fuzz_seed.argtypes = (ctypes.c_uint64,)
    library.fuzz_seed(seed)
    chance, until, executions, sound = random.Random(seed), time.monotonic() + seconds, 0, 0
    block, sockets = ctypes.create_string_buffer(MOST + 64), receiving.Sockets(seed)
    last.write_bytes(bytes(16 + MOST))
    with last.open("r+b") as file, mmap.mmap(file.fileno(), 0) as at_hand:
        while time.monotonic() < until:
            for _ in range(256):
                frame = chance.choice(frames)
                block[: len(frame)] = frame
                size = len(frame)
                for _ in range(chance.randrange(4)):
                    size = library.fuzz_mutate(block, size, MOST)
                frame = block[:size]
                at_hand[: 16 + size] = NAME + struct.pack("<I", size) + frame
                sound += decode(frame)
                executions += 1
                at_hand[:12] = receiving.NAME
                sockets.send(frame)
        sockets.close()
    print(f"decode {executions} {len(frames)} {sound}")
    print(f"sockets {sockets.executions} {len(frames)} {sockets.rounds}")


def main() -> None:
    """See the module."""
    what, package, packages, mutations, *rest = sys.argv[1:]
    sys.path[:0] = [package, packages]
    if what == "replay":
        sockets = receiving.Sockets(0)
        for path in rest:
            frame = Path(path).read_bytes()
            decode(frame)
            sockets.send(frame)
            print(Path(path).name)
        sockets.close()
        return
    seed, seconds, last, *paths = rest
    frames = [data for path in paths if len(data := Path(path).read_bytes()) <= MOST]
    run(int(seed), float(seconds), Path(last), frames, Path(mutations))


if __name__ == "__main__":
    main()
