"""The generated sample: the same for its seed, candles any server admits, a CSV that keeps the bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.codec import crc32c
from flux.feed.replay import CsvSource
from flux.feed.synth import FIRST_TS_MS, candles, write_csv
from flux.model import CANDLE, CandleFlag


def test_the_same_seed_gives_the_same_bits() -> None:
    assert candles(1_000, 7).tobytes() == candles(1_000, 7).tobytes()
    assert candles(1_000, 7).tobytes() != candles(1_000, 8).tobytes()
    # Frozen: a demo of today and one of next year show the same candles.
    assert crc32c(candles(1_000, 7, quiet_share=0.1).tobytes()) == 0x10EAB582


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 3_000), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 0.99]))
def test_it_is_a_market(n: int, seed: int, quiet: float) -> None:
    rows = candles(n, seed, interval="5m", quiet_share=quiet)
    assert (rows.dtype, len(rows)) == (CANDLE, n)
    for name in ("open", "close"):
        assert np.all(rows["low"] <= rows[name])
        assert np.all(rows[name] <= rows["high"])
    assert np.array_equal(rows["open"][1:], rows["close"][:-1])
    assert np.all(rows["low"] > 0)
    assert np.all(rows["volume"] > 0)
    assert np.all(np.diff(rows["ts_ms"]) >= 300_000)
    assert np.all(rows["ts_ms"] % 300_000 == 0)
    assert np.all(rows["flags"] == CandleFlag.CLOSED)
    assert n == 0 or rows["ts_ms"][0] == FIRST_TS_MS
    if quiet == 0:
        assert np.all(np.diff(rows["ts_ms"]) == 300_000)


def test_it_moves_as_much_as_a_market_does() -> None:
    rows = candles(20_000, 3)
    returns = np.diff(np.log(rows["close"]))
    assert 0.0002 < returns.std() < 0.002
    assert abs(returns.mean()) < 5 * returns.std() / np.sqrt(len(returns))
    assert np.count_nonzero(rows["high"] > rows["low"]) > 19_900


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    rows = candles(10_000, 11, quiet_share=0.05)
    rows["volume"][:3] = (0.1 + 0.2, 5e-324, 1.7976931348623157e308)
    path = tmp_path / "SAMPLE.csv"
    write_csv(path, rows)
    source = CsvSource(path)
    assert source.key == ("SIM", "SAMPLE", "1m")
    chunk = source.read(3)
    assert chunk is not None
    found = [chunk.rows]
    while (chunk := source.read(4_096)) is not None:
        found.append(chunk.rows)
    assert np.concatenate(found).tobytes() == rows.tobytes()


def test_what_cannot_be_generated() -> None:
    with pytest.raises(ValueError, match="1M"):
        candles(10, interval="1M")
    with pytest.raises(ValueError, match="quiet"):
        candles(10, quiet_share=1.0)
