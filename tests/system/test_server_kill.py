"""kill -9 of the server at random points of its progress: nothing lost, repeated, reordered, changed or renumbered."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flux.feed import synth
from tests.system.accounts import check, kept, rebuilt
from tests.system.checker import Account, Case
from tests.system.processes import FluxServer, free_port, wait_until
from tests.system.served_rows import Listener

pytestmark = pytest.mark.system

ROW_BYTES = 64


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_killed_under_load_the_replay_goes_on_behind_its_last_committed_row(
    tmp_path: Path, cycles: int, rng: random.Random, durability: str
) -> None:
    kills = max(1, cycles // 2)  # half of them for each durability
    rows = synth.candles(8_000 * (kills + 1), seed=rng.randrange(2**31))
    file = tmp_path / "SAMPLE.csv"
    synth.write_csv(file, rows)
    data = tmp_path / "data"
    pub = f"tcp://127.0.0.1:{free_port()}"
    replay = ("--replay", file, "--tick", "1ms", "--batch-rows", "64", "--durability", durability)
    with Listener(pub, rows) as listener:
        for kill in range(kills):
            with FluxServer(data, *replay, pub=pub) as server:
                assert server.state == "OK", f"kill {kill}"
                left = (len(rows) - listener.highest) * ROW_BYTES // (kills + 1 - kill)
                target = server.committed().offset + rng.randrange(1, max(2, left))
                wait_until(partial(reached, listener, server, target), f"byte {target}")
                server.kill()
            listener.drain(50)
        with FluxServer(data, *replay, pub=pub) as server:
            assert server.state == "OK"
            # A subscriber may still be connecting when the last rows go out: the server is asked instead.
            wait_until(lambda: listener.drain() and len(rows) in server.heads().values(), "the last row")
            assert server.stop() == 0
        assert listener.epochs == {1}, "a kill of the process is no reason for a new epoch"
        assert listener.seen.max() == 1, "a sequence was published twice"
        shown = listener.account
    check_kept(data, rows, shown, tmp_path / "rebuilt")
    with FluxServer(data, "--replay", file) as server:
        assert server.stop() == 0
    check_kept(data, rows, shown, tmp_path / "rebuilt again")  # the same file again adds no row


def reached(listener: Listener, server: FluxServer, target: int) -> bool:
    done = server.committed().offset >= target or listener.highest == len(listener.seen)
    return listener.drain() and done


def check_kept(data: Path, rows: NDArray[np.void], shown: Account, copy: Path) -> None:
    """The subscriber, the database, the database that the journal alone gives, and the file, as the judge sees them."""
    (database,) = kept(data / "flux.duckdb", "the database").values()
    (journal,) = rebuilt(data, copy).values()
    check([Case(rows, (shown,), (database, journal), complete=True)])
