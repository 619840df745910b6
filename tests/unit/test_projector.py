"""The projector: it has a low priority, goes on where it can, and says what is wrong."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from flux import slices
from flux.errors import DamagedError, FluxError, StorageError
from flux.journal import Position, reader
from flux.limits import PROJECT_MAX_ROWS, SLICE_NS
from flux.model import State
from flux.server.storage import projection as project
from flux.server.storage.projection import Projector
from flux.server.vitals import Vitals
from flux.store.projection import Persisted, Projection
from tests.patience import PATIENCE_S
from tests.unit.lives import BTC, Life


class Steps(Projection):
    """A projection that notes how each of its steps is scheduled, and pretends to have stored `stored` rows."""

    def __init__(self, life: Life) -> None:
        at = life.recovered.projection.position
        super().__init__(life.directory, life.recovered.store, at, at, life.recovered.projected, 1)
        self.scheduled: list[tuple[int, int | None]] = []
        self.stepped = threading.Event()
        self.stored = 1

    def step(self, committed: Position) -> Persisted:
        nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        self.scheduled.append((nice, slices.slice_ns()))
        self.rows += self.stored
        self.position = committed
        self.stepped.set()
        return {}


class Following:
    """A projector over such steps, taken a step at a time."""

    def __init__(self, life: Life) -> None:
        self.steps = Steps(life)
        self.projector = Projector(
            projection=self.steps,
            store=life.recovered.store,
            committer=life.committer,
            vitals=Vitals(),
            persisted=lambda _: None,
        )

    def step(self) -> None:
        assert self.projector._step(Position(1, 64))


def test_its_thread_has_low_priority_and_no_short_slice(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        following = Following(life)
        with slices.short_slices():
            thread = threading.Thread(target=following.projector.run)
            thread.start()
        life.write(BTC, 5)
        assert following.steps.stepped.wait(PATIENCE_S)
        scheduled = list(following.steps.scheduled)  # a stop ends the low priority, where it may
        following.projector.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        assert scheduled
        for nice, slice_ns in scheduled:
            assert nice == slices.NICE
            assert slice_ns != SLICE_NS


def test_who_is_behind_does_not_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "PAUSE_S", 2 * PATIENCE_S)
    with Life(tmp_path) as life:
        following = Following(life)
        following.steps.stored = PROJECT_MAX_ROWS
        began = time.monotonic()
        for _ in range(3):
            following.step()
        assert time.monotonic() - began < PATIENCE_S


def test_a_projector_that_is_stopped_does_not_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S15: what is left may take several steps; a pause before each of them would use up the 5 s of a stop."""
    monkeypatch.setattr(project, "PAUSE_S", 2 * PATIENCE_S)
    with Life(tmp_path) as life:
        following = Following(life)
        following.projector.stop()
        began = time.monotonic()
        for _ in range(3):
            following.step()
        assert time.monotonic() - began < PATIENCE_S


def test_rows_are_projected_by_the_projectors_own_thread(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        stored = threading.Event()
        projector = Projector(
            projection=life.recovered.projection,
            store=life.recovered.store,
            committer=life.committer,
            vitals=life.vitals,
            persisted=lambda _: stored.set(),
        )
        thread = threading.Thread(target=projector.run)
        thread.start()
        life.write(BTC, 5)
        assert stored.wait(PATIENCE_S)
        life.write(BTC, 5)
        projector.stop()
        thread.join()
        assert len(life.stored(1)) == 10


class Refusing(Steps):
    """A projection into a store that refuses `refusals` times."""

    refusals = 3

    def step(self, committed: Position) -> Persisted:
        if self.refusals:
            self.refusals -= 1
            raise self.error
        return super().step(committed)

    error: FluxError = StorageError("a full disk")


@pytest.mark.parametrize("error", [StorageError("a full disk"), DamagedError("a bad block")])
def test_a_store_that_refuses_degrades(error: FluxError, tmp_path: Path) -> None:
    with Life(tmp_path / "d") as life:
        life.write(BTC, 10)
        steps, vitals = Refusing(life), Vitals()
        steps.error = error
        projector = Projector(
            projection=steps,
            store=life.recovered.store,
            committer=life.committer,
            vitals=vitals,
            persisted=lambda _: None,
        )
        assert not projector._step(life.committer.committed)
        assert vitals.state is State.DEGRADED
        assert ("flux rebuild" in vitals.reason) == isinstance(error, DamagedError)
        assert str(error) in vitals.reason
        steps.refusals = 0
        assert projector._step(life.committer.committed)
        assert vitals.state is State.OK


def test_a_store_that_cannot_be_tidied_degrades_and_the_thread_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Life(tmp_path / "d") as life:
        steps, vitals = Steps(life), Vitals()

        def fail() -> bool:
            raise StorageError("no space for a checkpoint")

        monkeypatch.setattr(life.recovered.store, "idle", fail)
        monkeypatch.setattr(project, "RETRY_S", 0.01)
        projector = Projector(
            projection=steps,
            store=life.recovered.store,
            committer=life.committer,
            vitals=vitals,
            persisted=lambda _: None,
        )
        projector._tidy()
        assert vitals.state is State.DEGRADED
        assert "no space for a checkpoint" in vitals.reason


def test_a_journal_that_cannot_be_read_is_not_called_a_database_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No descriptor is left for its file."""
    with Life(tmp_path / "d") as life:
        life.write(BTC, 10)
        projection, vitals = life.recovered.projection, Vitals()
        projector = Projector(
            projection=projection,
            store=life.recovered.store,
            committer=life.committer,
            vitals=vitals,
            persisted=lambda _: None,
        )

        def refuse(path: Path, *_: object) -> int:
            raise StorageError.of(path, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))

        with monkeypatch.context() as without:
            without.setattr(reader, "read_part", refuse)
            assert not projector._step(life.committer.committed)
        assert vitals.state is State.DEGRADED
        assert vitals.reason.startswith("the journal cannot be read")
        assert "Too many open files" in vitals.reason
        assert "the database fails" not in vitals.reason
        assert projector._step(life.committer.committed)
        assert vitals.state is State.OK
