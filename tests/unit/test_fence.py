"""Fence and journal under a disk that fails, and under the hands of others: an error, never a signal (D18)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flux import journal
from flux.errors import StorageError
from flux.fence import Fence, FenceMark
from flux.model import RowKind, State
from tests.system.processes import wait_until
from tests.unit.lives import BTC, ETH, Life, rows_of

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
    """`noted`: the group holds a new stream, so that Python commits it and not the bridge."""
    with Life(tmp_path, disk=disk) as life:
        life.write(BTC, 10)
        before = life.committer.committed
        (fence, *_), full = life.recovered.fence.slots, os.open("/dev/full", os.O_RDWR)
        kept = os.dup(fence)
        os.dup2(full, fence)
        life.fill(ETH if noted else BTC, 5)
        wait_until(lambda: life.vitals.state is State.UNHEALTHY, "UNHEALTHY")
        assert "fence: No space left on device" in life.vitals.reason
        assert life.committer.committed == before
        assert life.streams.kernel.committed(0)[0] == 10
        os.dup2(kept, fence)
        for descriptor in (kept, full):
            os.close(descriptor)
        assert life.committer.wait_past(before, 30) > before
        wait_until(lambda: life.vitals.state is State.OK, "OK again")
        life.project()
        assert len(life.stored(2 if noted else 1)) == (5 if noted else 15)
        assert life.stored(1)[:10].tobytes() == rows_of(RowKind.CANDLE, 1, 10).tobytes()
        # The database would pass over rows that it has; every group of a life has one SOURCE.
        records = journal.scan(journal.read_file(journal.path_of(tmp_path, 1))).records
        assert (records["kind"] == journal.SOURCE).sum() == 2, "the group stands in the journal twice"
        life.stop()


def test_a_mark_that_is_refused_leaves_the_one_before(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence.store(1, 1, 1, 100)
    (descriptor, *_), full = fence.slots, os.open("/dev/full", os.O_RDWR)
    kept = os.dup(descriptor)
    os.dup2(full, descriptor)
    with pytest.raises(StorageError, match="No space left"):
        fence.store(1, 1, 1, 200)
    os.dup2(kept, descriptor)
    for each in (kept, full):
        os.close(each)
    assert fence.load() == Fence(tmp_path).load() == FenceMark(1, 1, 1, 100)
    fence.store(1, 1, 1, 300)
    assert Fence(tmp_path).load() == FenceMark(1, 1, 1, 300)
