"""kill -9 of the client at random bytes of what it has written down: nothing skipped, repeated or changed in
its cache.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flux.client.cache import Cache
from flux.feed import synth
from flux.model import StreamKey
from tests.patience import PATIENCE_S
from tests.system.client_run import RECORD
from tests.system.processes import FluxServer, wait_until

pytestmark = pytest.mark.system

KEY = StreamKey("SIM", "SAMPLE", "1m")


def consumer(server: FluxServer, cache: Path, log: Path, upto: int) -> subprocess.Popen[bytes]:
    arguments = (server.pub, server.rpc, str(cache), str(log), str(KEY), str(upto))
    return subprocess.Popen([sys.executable, "-m", "tests.system.client_run", *arguments])


def size(path: Path) -> int:
    return os.stat(path).st_size if path.exists() else 0


def test_killed_at_any_byte_it_goes_on_behind_what_its_cache_has(
    tmp_path: Path, cycles: int, rng: random.Random
) -> None:
    rows = synth.candles(4_000 * (cycles + 1), seed=rng.randrange(2**31))
    file, cache, log = tmp_path / "SAMPLE.csv", tmp_path / "cache.duckdb", tmp_path / "log"
    synth.write_csv(file, rows)
    replay = ("--replay", file, "--tick", "1ms", "--batch-rows", "8")
    with FluxServer(tmp_path / "data", *replay) as server:
        for kill in range(cycles):
            before = size(log)
            # A run may begin with everything that came while nobody ran, so it is sure to write this much.
            target = before + rng.randrange(1, RECORD.itemsize * 3_000)
            with consumer(server, cache, log, len(rows)) as process:
                wait_until(lambda target=target: size(log) >= target or process.poll() is not None, f"{kill}")
                process.kill()
            # A write that was cut short in the middle of a row.
            os.truncate(log, size(log) // RECORD.itemsize * RECORD.itemsize)
        with consumer(server, cache, log, len(rows)) as process:
            assert process.wait(2 * PATIENCE_S) == 0
        assert server.stop() == 0

    seen = np.fromfile(log, RECORD)
    begins = np.append(np.flatnonzero(seen["sequence"] == 0), len(seen))
    highest = 0
    for begin, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
        run = seen[begin + 1 : end]
        if not len(run):
            continue
        first, last = int(run["sequence"][0]), int(run["sequence"][-1])
        assert run["sequence"].tolist() == list(range(first, last + 1)), "within a run: once, and in order"
        assert first <= highest + 1, "rows were skipped over a kill"
        assert run["row"].tobytes() == rows[first - 1 : last].tobytes()
        highest = max(highest, last)
    assert highest == len(rows)
    check_cache(cache, rows)


def check_cache(path: Path, rows: np.ndarray) -> None:
    """Each row once, without a hole, to the bit; the cursor at the last."""
    cache = Cache(path)
    cursor = cache.cursor(KEY)
    assert cursor is not None
    assert (cursor.epoch, cursor.sequence) == (1, len(rows))
    sequence, parts = 0, []
    while (run := cache.read(KEY, sequence, 50_000)) is not None:
        assert run.first_sequence == sequence + 1
        parts.append(run.rows)
        sequence += len(run.rows)
    cache.close()
    assert np.concatenate(parts).tobytes() == rows.tobytes()
