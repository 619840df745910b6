"""The committer when the disk refuses: it says so, tries again, and never leaves a group out."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from flux.errors import StorageError
from flux.journal import Group, Position
from flux.model import RowKind, State
from tests.patience import PATIENCE_S
from tests.unit.live_server import eventually
from tests.unit.lives import BTC, Life, rows_of


class Refusing:
    """A journal's `commit` that refuses for as long as it is told to."""

    def __init__(self, life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit = life.recovered.journal.commit
        self.refused = threading.Event()
        self.full = True
        monkeypatch.setattr(life.recovered.journal, "commit", self)

    def __call__(self, group: Group, sync: bool) -> Position:
        if self.full:
            self.refused.set()
            raise StorageError("no space left")
        return self._commit(group, sync)


def test_it_goes_on_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Life(tmp_path) as life:
        before = life.write(BTC, 5)
        disk = Refusing(life, monkeypatch)
        life.fill(BTC, 5)
        assert disk.refused.wait(PATIENCE_S)
        assert life.committer.wait_past(before, 0.05) == before
        eventually(lambda: life.vitals.state is State.UNHEALTHY)
        assert life.vitals.reason == "the journal does not take rows: no space left"
        assert life.streams.kernel.committed(0)[0] == 5, "shown before it was in the journal"
        life.fill(BTC, 5)
        disk.full = False
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
        disk = Refusing(life, monkeypatch)
        life.fill(BTC, 5)
        assert disk.refused.wait(PATIENCE_S)
        life.fill(BTC, 5)
        monkeypatch.setattr(life.committer, "_closing", Closing(disk))
        life.stop()
    with Life(tmp_path) as life:
        assert (life.epoch, life.heads, life.reasons) == (1, {"BTC 1m": 5}, "")
        assert life.recovered.sources == {"file:BTC": (5, 7)}


class Closing(threading.Event):
    """Closed, and the disk has room from the moment that somebody looks."""

    def __init__(self, disk: Refusing) -> None:
        super().__init__()
        self._disk = disk
        self.set()

    def wait(self, timeout: float | None = None) -> bool:
        self._disk.full = False
        return super().wait(timeout)
