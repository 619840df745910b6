"""A file through server and client: what was seen, what both sides kept and the file are the same, to the bit."""

from __future__ import annotations

import csv
import random
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flux.client.cache import Cache
from flux.client.live import Live
from flux.feed import synth
from flux.model import CANDLE, StreamKey
from tests.system.processes import FluxServer
from tests.system.served_rows import stored

pytestmark = pytest.mark.system


def read_plainly(path: Path) -> NDArray[np.void]:
    """The file as Python's csv, datetime and float read it."""
    with path.open(encoding="ascii", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = np.zeros(len(lines), CANDLE)
    if "ts_ms" in lines[0]:
        rows["ts_ms"] = [int(line["ts_ms"]) for line in lines]
    else:
        times = (datetime.fromisoformat(line["timestamp"]).replace(tzinfo=UTC) for line in lines)
        rows["ts_ms"] = [round(time.timestamp() * 1_000) for time in times]
    for name in ("open", "high", "low", "close", "volume"):
        rows[name] = [float(line[name]) for line in lines]
    rows["flags"] = 1
    return rows


def cached(path: Path, key: StreamKey) -> NDArray[np.void]:
    cache = Cache(path)
    found = cache.load(key, 1_000_000)
    cache.close()
    assert found is not None
    assert found.first_sequence == 1
    return found.rows


def consume(live: Live, key: StreamKey, upto: int) -> NDArray[np.void]:
    """All rows up to a sequence: each must follow the one before; gaps are failures."""
    gaps: list[object] = []
    live.add_gap_callback(gaps.append)
    live.subscribe(key.symbol, interval=key.interval, source=key.source_id, start="cache")
    parts, expected = [], 1
    for batch in live:
        assert batch.start_sequence == expected
        assert batch.epoch == 1
        expected = batch.end_sequence + 1
        parts.append(batch.to_numpy())
        if batch.end_sequence >= upto:
            break
    assert not gaps
    return np.concatenate(parts)


def check_all_the_same(
    file: Path, folder: Path, key: StreamKey, *arguments: str, faulty: bool = False
) -> str:
    """Through server and client; what the server said at its end."""
    truth = read_plainly(file)
    with FluxServer(folder / "data", "--replay", file, *arguments, faulty=faulty) as server:
        with Live(cache=folder / "cache.duckdb", pub=server.pub, rep=server.rpc) as live:
            seen = consume(live, key, len(truth))
        assert server.stop() == 0
        assert server.process.stdout is not None
        said = server.process.stdout.read().decode()
    assert seen.tobytes() == truth.tobytes(), "the consumer's rows are not the file's"
    sequences, kept = stored(folder / "data" / "flux.duckdb")
    assert np.array_equal(sequences, np.arange(1, len(truth) + 1, dtype=np.uint64))
    assert kept.tobytes() == truth.tobytes(), "the server's rows are not the file's"
    assert cached(folder / "cache.duckdb", key).tobytes() == truth.tobytes(), (
        "the cache's rows are not the file's"
    )
    return said


def test_the_real_month(tmp_path: Path, real_month: Path) -> None:
    check_all_the_same(real_month, tmp_path, StreamKey("SIM", "btc_perp_1m", "1m"))


def test_a_generated_sample(tmp_path: Path, rng: random.Random) -> None:
    file = tmp_path / "SAMPLE.csv"
    synth.write_csv(file, synth.candles(30_000, seed=rng.randrange(2**31)))
    check_all_the_same(file, tmp_path, StreamKey("SIM", "SAMPLE", "1m"))


@pytest.mark.parametrize(
    "dials",
    [
        ("--drop", "0.05"),
        ("--drop", "0.05", "--duplicate", "0.05", "--reorder", "0.05", "--corrupt", "0.02"),
    ],
    ids=["drop", "all"],
)
def test_faults_on_the_wire_are_repaired_in_order(
    tmp_path: Path, rng: random.Random, dials: tuple[str, ...]
) -> None:
    file = tmp_path / "SAMPLE.csv"
    synth.write_csv(file, synth.candles(30_000, seed=rng.randrange(2**31)))
    pace = ("--tick-ms", "1", "--batch-rows", "16", "--seed", str(rng.randrange(2**31)))
    said = check_all_the_same(file, tmp_path, StreamKey("SIM", "SAMPLE", "1m"), *dials, *pace, faulty=True)
    lost = int(said.split(":")[-1])
    assert lost > 20, f"only {lost} messages were lost: nothing was tested"
