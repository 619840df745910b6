"""Many streams in one call, and buffers that are used again."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux import codec
from flux.errors import EncodeError
from flux.model import CANDLE, ROW_DTYPES, RUN, StreamKey
from tests.unit.plain_codec import sample

KEYS = [
    StreamKey("SIM", name, interval) for name in ("A", "BTC/USDT") for interval in ("1m", "trade", "quote")
]


def mixed(counts: list[tuple[int, int]]) -> tuple[bytes, np.ndarray[Any, np.dtype[np.void]]]:
    """Rows of (stream, rows) behind one another, and the runs that say so."""
    runs, parts, at = np.zeros(len(counts), RUN), [], 0
    for i, (stream, n) in enumerate(counts):
        runs[i] = (stream, n, at, 2**63 + i, -i)
        parts.append(sample(ROW_DTYPES[KEYS[stream].kind], n, seed=i).tobytes())
        at += len(parts[-1])
    return b"".join(parts), runs


@given(
    st.lists(st.tuples(st.integers(0, len(KEYS) - 1), st.integers(0, 40)), max_size=30),
    st.booleans(),
    st.integers(0, 7),
)
def test_many_streams_in_one_call_are_as_one_at_a_time(
    counts: list[tuple[int, int]], into: bool, offset: int
) -> None:
    rows, runs = mixed(counts)
    encoders = codec.Encoders(KEYS, stream_ids=range(10, 10 + len(KEYS)))
    place: dict[str, Any] = {"epoch": 3, "store_id": 2**64 - 1, "recorded_ns": 7}
    wanted = []
    for stream, n, at, first, origin_ns in runs.tolist():
        dtype = ROW_DTYPES[KEYS[stream].kind]
        own = np.frombuffer(rows, dtype, n, at) if n else np.empty(0, dtype)
        wanted.append(
            codec.encode(own, KEYS[stream], first, origin_ns=origin_ns, stream_id=10 + stream, **place)
        )
    size = sum(len(frame) for frame in wanted if isinstance(frame, bytes))
    room = memoryview(bytearray(b"\xee" * (size + 16)))
    frames = encoders.encode(rows, runs, out=room[offset:] if into else None, **place)
    assert list(frames) == wanted
    assert len(frames) == len(counts)
    assert frames.offsets.tolist() == np.cumsum([0, *(len(frame) for frame in wanted)]).tolist()
    if into:
        assert room[offset + size :].tobytes() == b"\xee" * (16 - offset)  # left alone
        assert room[:offset].tobytes() == b"\xee" * offset
    else:
        assert frames.data == b"".join(wanted)


def test_frames_are_indexed_as_a_sequence() -> None:
    rows, runs = mixed([(0, 1), (1, 2)])
    frames = codec.Encoders(KEYS).encode(rows, runs)
    assert codec.decode(frames[-1]).key == KEYS[1]
    assert frames[-2] == frames[0]
    for wrong in (2, -3):
        with pytest.raises(IndexError, match="of 2"):
            frames[wrong]


def test_the_runs_of_a_strided_array() -> None:
    rows, runs = mixed([(0, 3), (1, 2), (2, 1), (3, 5)])
    encoders = codec.Encoders(KEYS)
    assert list(encoders.encode(rows, runs[::2])) == list(encoders.encode(rows, runs))[::2]


@pytest.mark.parametrize(
    ("run", "why"),
    [
        ((6, 1, 0, 1, 0), "stream 6 of 6"),
        ((2**32 - 1, 1, 0, 1, 0), "stream 4294967295"),
        ((0, 3, 0, 1, 0), "3 rows from byte 0 of 128"),
        ((0, 1, 65, 1, 0), "1 rows from byte 65 of 128"),
        ((0, 0, 129, 1, 0), "from byte 129"),
        ((0, 1, 2**64 - 1, 1, 0), "from byte 18446744073709551615"),
        ((0, 2**32 - 1, 0, 1, 0), "4294967295 rows"),
    ],
)
def test_a_run_that_cannot_be_is_refused_and_nothing_written(run: Any, why: str) -> None:
    runs = np.array([(0, 1, 64, 1, 0), run], RUN)
    room = bytearray(4096)
    with pytest.raises(EncodeError, match=f"run 1 .*{why}"):
        codec.Encoders(KEYS).encode(bytes(128), runs, out=room)
    assert room == bytes(4096)


def test_what_many_streams_are_not_encoded_from() -> None:
    encoders, runs = codec.Encoders(KEYS), np.zeros(1, RUN)
    with pytest.raises(EncodeError, match="rows have dtype"):
        encoders.encode(b"", np.zeros(1, CANDLE))
    with pytest.raises(EncodeError, match="not list"):
        encoders.encode(b"", [(0, 0, 0, 0, 0)])  # type: ignore[arg-type]  # what is refused
    with pytest.raises(EncodeError, match="out has 10 bytes"):
        encoders.encode(b"", runs, out=bytearray(10))
    with pytest.raises(BufferError):
        encoders.encode(b"", runs, out=bytes(1000))
    with pytest.raises(ValueError, match="6 streams"):
        codec.Encoders(KEYS, stream_ids=[1, 2])
    with pytest.raises(EncodeError, match="too long"):
        codec.Encoders([KEYS[0]._replace(symbol="X" * 400)])
    assert len(codec.Encoders([]).encode(b"", runs[:0])) == 0


def test_a_buffer_is_used_again_and_nothing_is_allocated() -> None:
    encoder, rows, room = codec.Encoder(KEYS[0]), sample(CANDLE, 1000), bytearray(70_000)
    for n in (1000, 1, 0, 500):  # a shorter message leaves what lies behind it
        before = bytes(room)
        size = encoder.encode(rows[:n], 5, out=room)
        assert room[:size] == encoder.encode(rows[:n], 5)
        assert room[size:] == before[size:]
    tracemalloc.start()
    for sequence in range(100):
        encoder.encode(rows, sequence, out=room)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4096
    rows_after = codec.decode(memoryview(room)[: encoder.encode(rows, 7, out=room)]).rows
    assert rows_after.tobytes() == rows.tobytes()
