"""`DIR/projected` says before every transaction where it will end; a start takes it for proof of what was shown
(D2, D11)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from flux import journal
from flux.errors import StorageError
from flux.journal import Position, Projected, projected_mark
from flux.server.storage import recover
from flux.store.database import Database
from flux.store.duck import DuckStore
from tests.unit.disk import Disk
from tests.unit.lives import BTC, Life

FILES = ("fence", "journal/00000001.fluxlog")


def test_the_mark_is_on_the_disk_before_the_transaction_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Life(tmp_path) as life:
        end = life.write(BTC, 10)
        disk, seen = Disk(monkeypatch), []
        real = life.recovered.store.commit

        def commit(*arguments: object) -> None:
            mark = projected_mark(tmp_path)
            assert mark is not None
            seen.append((mark.epoch, mark.file, mark.offset, disk.has(tmp_path / "projected")))
            real(*arguments)

        monkeypatch.setattr(life.recovered.store, "commit", commit)
        life.project()
        assert seen == [(1, *end, True)]


def test_a_mark_that_cannot_be_written_is_no_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Life(tmp_path) as life:
        life.write(BTC, 10)
        disk = Disk(monkeypatch)
        disk.failing = 1
        with pytest.raises(StorageError):
            life.project()
        assert len(life.stored(1)) == 0
        life.project()
        assert len(life.stored(1)) == 10


def test_it_never_goes_back_within_an_epoch(tmp_path: Path) -> None:
    mark = Projected(tmp_path)
    mark.ahead(7, 2, Position(3, 400))
    mark.ahead(7, 2, Position(2, 900))
    mark.ahead(7, 1, Position(9, 900))
    found = projected_mark(tmp_path)
    assert found == (7, 2, 3, 400)
    mark.ahead(7, 3, Position(1, 64))
    assert projected_mark(tmp_path) == (7, 3, 1, 64)
    mark.ahead(8, 1, Position(1, 24))  # another store's
    assert projected_mark(tmp_path) == (8, 1, 1, 24)
    mark.close()


def lost_its_end(directory: Path) -> None:
    """A directory whose journal and fence are older than what was projected."""
    aside = directory.with_name("older")
    with Life(directory) as life:
        life.write(BTC, 10)
        life.project()
    shutil.copytree(directory, aside)
    with Life(directory) as life:
        life.write(BTC, 10)
        life.project()
    for name in FILES:  # in place: the inodes stay, so it is no copy
        (directory / name).write_bytes((aside / name).read_bytes())


@pytest.mark.parametrize("database", ["as it is", "gone", "damaged"])
def test_a_journal_that_ends_before_the_mark_begins_an_epoch_whatever_the_database_says(
    tmp_path: Path, database: str
) -> None:
    directory = tmp_path / "d"
    lost_its_end(directory)
    if database == "gone":
        (directory / "flux.duckdb").unlink()
    elif database == "damaged":
        (directory / "flux.duckdb").write_bytes(b"no database at all" * 1_000)
    with Life(directory) as life:
        assert life.epoch == 2
        assert life.heads == {"BTC 1m": 10}
        life.write(BTC, 5)
        life.project()
        mark = projected_mark(directory)
        assert mark is not None
        assert (mark.epoch, Position(mark.file, mark.offset)) == (2, life.committer.committed)
    with Life(directory) as life:
        assert life.epoch == 2, "the loss was told once"


def test_a_start_that_fails_before_the_epoch_is_written_does_not_take_the_proof_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "d"
    lost_its_end(directory)
    (directory / "flux.duckdb").unlink()

    def fail(*_: object) -> None:
        raise StorageError("no space for an epoch")

    with monkeypatch.context() as without:
        without.setattr(recover, "begin_epoch", fail)
        with pytest.raises(StorageError):
            recover.recover(directory, disk=True, file_bytes=1 << 18)
    with Life(directory) as life:
        assert life.epoch == 2


def test_without_a_mark_the_database_is_asked(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    lost_its_end(directory)
    (directory / "projected").unlink()
    with Life(directory) as life:
        assert life.epoch == 2
        assert "the database had rows" in life.reasons


def test_a_mark_of_another_store_says_nothing(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        life.write(BTC, 10)
        life.recovered.projected.ahead(99, 9, Position(9, 9_000))
    with Life(tmp_path) as life:
        assert life.epoch == 1
        assert life.committer.committed > Position(1, journal.FILE_HEADER_BYTES)


def fails_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, at: int) -> None:
    """Call number `at` of a method fails as it does where the system has no descriptor left; the others do not."""
    real, calls = getattr(owner, name), 0

    def call(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == at:
            raise StorageError("flux.duckdb: IO Error: Too many open files")
        return real(*arguments)

    monkeypatch.setattr(owner, name, call)


@pytest.mark.parametrize("at", [1, 2])
def test_a_database_that_is_read_at_the_second_try_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """An epoch ends, the first open fails and the next one finds it fine: it was set aside all the same."""
    with Life(tmp_path) as life:
        life.write(BTC, 10)
        life.project()
    (tmp_path / "fence").unlink()
    if at == 1:
        fails_once(monkeypatch, Database, "_connect", 1)
    else:  # within the constructor
        fails_once(monkeypatch, DuckStore, "position", 1)
    with Life(tmp_path) as life:
        assert life.recovered.identity.epoch == 2
        assert len(life.stored(1)) == 10
        assert life.recovered.store.fault is None
    assert not list(tmp_path.glob("flux.duckdb.*-*"))


def test_a_database_that_cannot_be_asked_is_set_aside_where_an_epoch_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It opened, and did not say how far it was: kept, with rows of the ended epoch, it began a second loss at the next
    start."""
    data = tmp_path / "data"
    lost_its_end(data)
    fails_once(monkeypatch, DuckStore, "position", 2)
    with Life(data) as life:
        assert life.recovered.identity.epoch == 2
        end = life.write(BTC, 5)
        life.project()
        assert life.recovered.store.position() == end
    assert len(list(data.glob("flux.duckdb.unread-*"))) == 1
    with Life(data) as life:
        assert life.recovered.identity.epoch == 2, "the loss was said once"
