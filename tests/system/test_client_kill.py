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
from tests.system.accounts import check, kept
from tests.system.checker import Account, Case
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

    (database,) = kept(tmp_path / "data" / "flux.duckdb", "the server's database").values()
    (copy,) = kept(cache, "the client's cache").values()
    check([Case(rows, (consumed(log),), (database, copy), complete=True)])
    check_cursor(cache, len(rows))


def consumed(log: Path) -> Account:
    """What the consumer was given, run by run, as it wrote it down; its cache is not in it."""
    records = np.fromfile(log, RECORD)
    marks = np.flatnonzero(records["sequence"] == 0)
    seen = records[records["sequence"] > 0]
    begins = marks - np.arange(len(marks))  # each mark before it is gone
    return Account(
        "the consumer",
        seen["epoch"].astype(np.uint32),
        seen["sequence"].astype(np.uint64),
        seen["row"].copy(),
        runs=[at for at in begins.tolist() if 0 < at < len(seen)],
    )


def check_cursor(path: Path, last: int) -> None:
    """The cache's cursor is at the last row."""
    cache = Cache(path)
    cursor = cache.cursor(KEY)
    cache.close()
    assert cursor is not None
    assert (cursor.epoch, cursor.sequence) == (1, last)
