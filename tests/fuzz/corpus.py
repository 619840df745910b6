"""Frames to begin with: the golden ones of both versions, and some made here."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flux import codec
from flux.model import ROW_DTYPES, StreamKey
from tests.unit.plain_codec import examples

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "tests" / "fuzz_corpus"
"""Inputs that once made a kernel fail, named TARGET-HASH.bin: kept, and replayed by tests/kernels/test_fuzz.py."""


def made() -> Iterator[bytes]:
    """One of each message in both versions, and row messages and replies of several sizes."""
    for version in (1, 2):
        yield from examples(version).values()
    for interval in ("1m", "trade", "quote"):
        key = StreamKey("SIM", "BTC/USDT", interval)
        for count in (0, 1, 7, 120):
            rows = np.zeros(count, ROW_DTYPES[key.kind])
            rows[rows.dtype.names[0]] = 1_700_000_000_000 + np.arange(count)
            frame = codec.encode(rows, key, 5, epoch=1, store_id=2)
            assert isinstance(frame, bytes)
            yield frame
            for zstd in (False, True):
                yield codec.encode_backfill(key, 5, rows, zstd=zstd, correlation_id="a-b", has_more=True)
            if interval == "1m":
                yield codec.encode_backfill(key, 5, rows, version=1, correlation_id="é")


def frames(folder: Path) -> list[Path]:
    """Writes the corpus as files into `folder`; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted((ROOT / "tests" / "golden").rglob("*.bin"))
    for frame in made():
        paths.append(folder / f"{hashlib.sha256(frame).hexdigest()[:16]}.bin")
        paths[-1].write_bytes(frame)
    return paths
