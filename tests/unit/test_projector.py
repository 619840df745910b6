"""When the projection gives way to other threads, and when it does not."""

from __future__ import annotations

import errno
import os
import threading
import time
from pathlib import Path

import pytest

from flux.errors import DamagedError, FluxError, StorageError
from flux.journal import Position, reader
from flux.limits import PROJECT_MAX_ROWS
from flux.model import State
from flux.server.storage import projection as project
from flux.server.storage.gentle import NICE
from flux.server.storage.projection import Persisted, Projection, Projector
from flux.server.vitals import Vitals
from tests.patience import PATIENCE_S
from tests.unit.lives import BTC, Life


class Steps(Projection):
    """A projection that notes how each of its steps is scheduled, and pretends to have stored `stored` rows."""

    def __init__(self, life: Life) -> None:
        at = life.recovered.projection.position
        super().__init__(life.directory, life.recovered.store, at, at, life.recovered.projected, 1)
        self.nices: list[int] = []
        self.stored = 1
        self.takes_s = 0.0

    def step(self, committed: Position) -> Persisted:
        self.nices.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        time.sleep(self.takes_s)
        self.rows += self.stored
        self.position = committed
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

    def step(self) -> int:
        """How the next step is scheduled, beside the thread that asks for it."""
        assert self.projector._step(Position(1, 64))
        return self.steps.nices[-1] - os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "PAUSE_S", 0.0)
    monkeypatch.setattr(project, "GENTLE_S", PATIENCE_S)


@pytest.mark.usefixtures("quick")
def test_an_ordinary_step_gives_way_and_a_hurried_one_does_not(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        following = Following(life)
        assert following.step() > 0
        assert following.steps.nices == [NICE]
        following.projector.stop()
        assert following.step() == 0


@pytest.mark.usefixtures("quick")
def test_a_backlog_is_worked_off_like_anything_else(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        following = Following(life)
        following.steps.stored = PROJECT_MAX_ROWS
        assert following.step() > 0
        following.steps.stored = 1
        assert following.step() == 0, "the step before had more than it could take"
        assert following.step() > 0


@pytest.mark.usefixtures("quick")
def test_who_finds_no_idle_core_stops_giving_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "GENTLE_S", 0.001)
    with Life(tmp_path) as life:
        following = Following(life)
        following.steps.takes_s = 0.01
        assert following.step() > 0
        assert following.step() == 0
        following.projector._hasty_until = time.monotonic()
        assert following.step() > 0


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


def test_rows_are_projected_gently_by_the_projectors_own_thread(tmp_path: Path) -> None:
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
        steps.takes_s = 0.0
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
