"""H8: who writes into a frame after it was decoded finds other bytes, never a read outside of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flux import codec
from flux.batch import Batch
from flux.model import CANDLE, StreamKey
from tests.unit.plain_codec import examples, ours

FRAMES = {f"{name}_v{version}": frame for version in (1, 2) for name, frame in examples(version).items()}
SEED = 20_262


def overwritten(size: int) -> list[bytes]:
    rng = np.random.default_rng(SEED)
    return [b"\xff" * size, bytes(size), b"\x80" * size, *(rng.bytes(size) for _ in range(5))]


def looked_at(message: Any) -> None:
    """Everything that can be read of a message."""
    for name in dir(message):
        if not name.startswith(("__arrow", "to_")):
            value = getattr(message, name)
            if isinstance(value, np.ndarray):
                value.tobytes()
            elif not callable(value):
                repr(value)
    if isinstance(message, Batch):
        message.__arrow_c_array__()
        message.to_numpy()
        repr(message)


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_overwritten_after_it_was_decoded(name: str) -> None:
    print("seed", SEED)
    size = len(FRAMES[name])
    for other in overwritten(size):
        frame = bytearray(FRAMES[name])
        message = codec.decode(frame)
        frame[:] = other
        looked_at(message)
        frame[:] = FRAMES[name]
        message = codec.decode(memoryview(frame).toreadonly())
        frame[:] = other
        looked_at(message)


@pytest.mark.parametrize("name", [name for name in FRAMES if "batch" in name])
def test_what_was_verified_is_remembered(name: str) -> None:
    kept = codec.decode(FRAMES[name])
    frame = bytearray(FRAMES[name])
    message = codec.decode(frame)
    frame[:] = b"\xff" * len(frame)
    for what in (
        "start_sequence",
        "epoch",
        "store_id",
        "stream_id",
        "origin_ns",
        "recorded_ns",
        "message_type",
    ):
        assert getattr(message, what) == getattr(kept, what)
    assert len(message) == len(kept)
    assert (message.key is None) == (kept.key is None)


@pytest.mark.parametrize("version", [1, 2])
def test_a_large_frame_of_tables_is_read_at_once(version: int) -> None:
    """Over 64 KiB the check runs without the GIL; what it found holds for what is read."""
    rows = np.zeros(3_000, CANDLE)
    rows["ts_ms"] = np.arange(3_000)
    key = StreamKey("SIM", "BTCUSDT", "1m")
    frame = bytearray(codec.encode_backfill(key, 1, rows, version=version))
    assert len(frame) > 65_536
    message = codec.decode(frame)
    plain = ours(codec.decode(bytes(frame)))
    assert ours(message) == plain
    frame[:] = b"\xff" * len(frame)
    looked_at(message)
