"""A sync that fails is said in health, and no longer once one succeeds (D14, D16); the last one of a stop too."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux.errors import StorageError
from flux.journal import Position
from flux.model import State
from tests.unit.live_server import eventually
from tests.unit.lives import BTC, Life


class Refusing:
    """Stands for a method of the journal that syncs, until `error` is None."""

    def __init__(self, inner: object, error: Exception) -> None:
        self._inner, self.calls = inner, 0
        self.error: Exception | None = error

    def __call__(self, *arguments: object) -> object:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return self._inner(*arguments)  # type: ignore[operator]  # the method that it stands for


@pytest.mark.parametrize("error", [StorageError("no space left"), OSError(24, "Too many open files")])
def test_a_sync_beside_that_fails_is_said_until_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    with Life(tmp_path, disk=False) as life:
        log = life.recovered.journal
        refusing = Refusing(log.sync_beside, error)
        monkeypatch.setattr(log, "sync_beside", refusing)
        reached: Position = life.write(BTC, 3)
        eventually(lambda: life.vitals.state is State.UNHEALTHY)
        assert life.vitals.reason == f"the journal does not sync: {error}"
        before = refusing.calls
        eventually(lambda: refusing.calls > before + 1)  # tried again by itself
        monkeypatch.setattr(refusing, "error", None)
        eventually(lambda: life.vitals.state is State.OK)
        eventually(lambda: life.committer._syncer.reached >= reached)


def test_the_last_sync_of_a_stop_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life = Life(tmp_path)
    life.write(BTC, 3)
    monkeypatch.setattr(life.recovered.journal, "sync", Refusing(None, StorageError("an I/O error")))
    life.stop()
    assert "the journal does not sync: an I/O error" in life.vitals.reason
