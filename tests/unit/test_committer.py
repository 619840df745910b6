"""The committer when the disk refuses: it says so, tries again, and never leaves a group out."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import pytest

from flux.model import RowKind, State
from tests.full_disk import descriptor_of, refusing
from tests.unit.live_server import eventually
from tests.unit.lives import BTC, Life, rows_of


def full(life: Life) -> AbstractContextManager[None]:
    return refusing(descriptor_of(life.recovered.journal.path))


def test_it_goes_on_by_itself(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        before = life.write(BTC, 5)
        with full(life):
            life.fill(BTC, 5)
            eventually(lambda: life.committer.counts.commit_failures > 1)
            assert life.committer.wait_past(before, 0.05) == before
            assert life.vitals.state is State.UNHEALTHY
            path = life.recovered.journal.path
            assert life.vitals.reason == f"the journal does not take rows: {path}: No space left on device"
            assert life.streams.kernel.committed(0)[0] == 5, "shown before it was in the journal"
            life.fill(BTC, 5)
        eventually(lambda: life.committer.counts.groups == 3)
        assert life.vitals.state is State.OK
        assert life.committer.source_position("file:BTC") == (15, 7)
        life.project()
        assert life.stored(1).tobytes() == rows_of(RowKind.CANDLE, 1, 15).tobytes()


def test_nothing_is_committed_behind_a_group_that_was_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed while the disk is full, which has room again a moment later: no hole, and no position behind one."""
    with Life(tmp_path) as life:
        life.write(BTC, 5)
        with ExitStack() as disk:
            disk.enter_context(full(life))
            life.fill(BTC, 5)
            eventually(lambda: life.committer.counts.commit_failures > 0)
            life.fill(BTC, 5)
            monkeypatch.setattr(life.committer, "_closing", Closing(disk))
            life.stop()
    with Life(tmp_path) as life:
        assert (life.epoch, life.heads, life.reasons) == (1, {"BTC 1m": 5}, "")
        assert life.recovered.sources == {"file:BTC": (5, 7)}


class Closing(threading.Event):
    """Closed, and the disk has room from the moment that somebody looks."""

    def __init__(self, disk: ExitStack) -> None:
        super().__init__()
        self._disk = disk
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        self._disk.close()
        return super().wait(timeout)
