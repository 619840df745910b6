"""kill -9 of a feed that asks where it stands and goes on there: nothing lost, numbered twice, reordered or changed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.system.accounts import check, kept, rebuilt
from tests.system.checker import Case
from tests.system.feeding import truth_of
from tests.system.processes import FluxServer, wait_until

pytestmark = pytest.mark.system

ROW_BYTES = 60


def test_killed_at_any_row_it_goes_on_behind_what_is_committed(
    tmp_path: Path, cycles: int, rng: random.Random
) -> None:
    kills, seed, data = max(1, cycles // 2), rng.randrange(2**31), tmp_path / "data"
    count = 1_500 * (kills + 1)
    truth = truth_of(count, seed)
    killed = 0
    with FluxServer(data, "--ingest", "tcp://127.0.0.1:*") as server:
        command = [
            sys.executable,
            "-m",
            "tests.system.feed_run",
            server.ingest,
            server.rpc,
            str(seed),
            str(count),
        ]
        for kill in range(kills):
            before = server.committed().offset
            left = (3 * count * ROW_BYTES - before) // (kills + 1 - kill)
            target = before + rng.randrange(1, max(2, left))
            with subprocess.Popen(command) as feed:
                wait_until(
                    lambda target=target, feed=feed: (
                        server.committed().offset >= target or feed.poll() is not None
                    ),
                    f"kill {kill}, byte {target}",
                )
                killed += feed.poll() is None
                feed.kill()
        with subprocess.Popen(command) as feed:
            assert feed.wait(2 * PATIENCE_S) == 0
        assert server.stop() == 0
    assert killed == kills, "a feed had ended before it was killed"
    database, journal = kept(data / "flux.duckdb", "the database"), rebuilt(data, tmp_path / "rebuilt")
    assert database.keys() == journal.keys() == truth.keys()
    check(Case(rows, (), (database[key], journal[key]), complete=True) for key, rows in truth.items())
