"""Fence and journal under a disk that fails, and under the hands of others: an error, never a signal (D18)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flux import journal
from flux.config import Durability, ServeConfig
from flux.errors import StorageError
from flux.feed import synth
from flux.feed.push import Feed
from flux.journal.fence import Fence, FenceMark
from flux.model import RowKind, State, StreamKey
from flux.server.service import Server
from tests.fences import mark_of
from tests.full_disk import descriptor_of, refusing
from tests.patience import PATIENCE_S
from tests.system.processes import wait_until
from tests.unit.lives import BTC, ETH, Life, rows_of

LOCAL = "tcp://127.0.0.1:*"
TRUNCATED = """
import os, sys
from pathlib import Path
from tests.unit.lives import BTC, Life
data = Path(sys.argv[1])
with Life(data) as life:
    life.write(BTC, 10)
    for size in (0, 4096):
        os.truncate(data / "fence", size)
        position = life.write(BTC, 10)
    life.project()
    assert len(life.stored(1)) == 30
    life.stop()
print(*position)
"""


def test_a_fence_that_is_cut_short_is_no_signal(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", TRUNCATED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    with Life(tmp_path) as life:
        assert (life.epoch, life.heads, life.reasons) == (1, {"BTC 1m": 30}, "")


def test_no_file_of_the_journal_is_mapped(tmp_path: Path) -> None:
    """A page that the disk does not give would be SIGBUS."""
    with Life(tmp_path) as life:
        life.write(BTC, 10)
        life.project()
        data = journal.read_file(journal.path_of(tmp_path, 1))
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        assert [line for line in maps.splitlines() if "fluxlog" in line or line.endswith("/fence")] == []
        os.truncate(journal.path_of(tmp_path, 1), 100)
        assert journal.scan(data).reason == "end", "it is a copy"
        life.stop()


@pytest.mark.parametrize("disk", [True, False])
@pytest.mark.parametrize("noted", [True, False])
def test_rows_whose_mark_is_refused_are_not_shown_and_written_once(
    tmp_path: Path, disk: bool, noted: bool
) -> None:
    """`noted`: the group holds a new stream, about which Python is asked, as about every group of a `Life`."""
    with Life(tmp_path, disk=disk) as life:
        life.write(BTC, 10)
        before = life.committer.committed
        with refusing(descriptor_of(tmp_path / "fence")):
            life.fill(ETH if noted else BTC, 5)
            wait_until(lambda: life.vitals.state is State.UNHEALTHY, "UNHEALTHY")
            assert "fence: No space left on device" in life.vitals.reason
            assert life.committer.committed == before
            assert life.streams.kernel.committed(0)[0] == 10
        assert life.committer.wait_past(before, 30) > before
        wait_until(lambda: life.vitals.state is State.OK, "OK again")
        life.project()
        assert len(life.stored(2 if noted else 1)) == (5 if noted else 15)
        assert life.stored(1)[:10].tobytes() == rows_of(RowKind.CANDLE, 1, 10).tobytes()
        # The database would pass over rows that it has; every group of a life has one SOURCE.
        records = journal.scan(journal.read_file(journal.path_of(tmp_path, 1))).records
        assert (records["kind"] == journal.SOURCE).sum() == 2, "the group stands in the journal twice"
        life.stop()


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_the_bridge_too_writes_rows_once_whose_mark_is_refused(
    tmp_path: Path, durability: Durability
) -> None:
    """Rows of a feed and of a stream that is known, so that the bridge commits them."""
    rows, key = synth.candles(20), StreamKey("SIM", "X", "1m")
    server = Server(ServeConfig(tmp_path, LOCAL, LOCAL, ingest=LOCAL, durability=durability))
    server.start()
    try:
        assert server.ingest is not None
        with Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
            for at in (0, 5):  # the first of them makes the stream
                feed.send(key.symbol, key.interval, rows[at : at + 5])
                feed.flush(PATIENCE_S)
            with refusing(descriptor_of(tmp_path / "fence")):
                feed.send(key.symbol, key.interval, rows[10:15])
                wait_until(lambda: server.vitals.state is State.UNHEALTHY, "UNHEALTHY")
                assert server.streams.kernel.committed(0)[0] == 10
            feed.flush(PATIENCE_S)
            feed.send(key.symbol, key.interval, rows[15:])
            feed.flush(PATIENCE_S)
    finally:
        server.stop()
    records = journal.scan(journal.read_file(journal.path_of(tmp_path, 1))).records
    assert (records["kind"] == journal.BATCH).sum() == 4, "the group stands in the journal twice"


def test_a_mark_that_is_refused_leaves_the_one_before(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.store(1, 1, 1, 100)
    with (
        refusing(descriptor_of(tmp_path / "fence")),
        pytest.raises(StorageError, match="fence: No space left"),
    ):
        fence.store(1, 1, 1, 200)
    assert fence.load() == mark_of(tmp_path) == FenceMark(1, 1, 1, 100)
    fence.store(1, 1, 1, 300)
    assert mark_of(tmp_path) == FenceMark(1, 1, 1, 300)
