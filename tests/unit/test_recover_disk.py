"""The start and the disk: what is shown is on it, and what it lost is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux import journal
from flux.errors import StorageError
from flux.journal import Fence
from flux.model import RowKind
from flux.server.storage.recover import Recovered, recover
from tests.fences import mark_of
from tests.unit.disk import Disk
from tests.unit.lives import BTC, FILE_BYTES, Life, overwrite


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def release(recovered: Recovered) -> None:
    """What the server does at its end."""
    recovered.journal.close(clean=False)
    recovered.fence.close()
    recovered.projected.close()
    recovered.store.close()
    recovered.lock.release()


@pytest.mark.parametrize("disk", [True, False])
def test_nothing_is_shown_before_it_is_on_the_disk(
    data: Path, disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D1: a process that was killed may have left all of it in memory, or with a sync that failed."""
    with Life(data, disk=False) as life:
        before = life.write(BTC, 1)
        end = life.write(BTC, 100)
    seen = Disk(monkeypatch)
    recovered = recover(data, disk=disk, file_bytes=FILE_BYTES)
    try:
        path = journal.path_of(data, 1)
        assert seen.has(path)
        assert seen.has(data / "fence")
        assert seen.has(data / "identity")
        assert seen.folders >= {data, data / "journal"}
        assert seen.written(path, before.offset, end.offset), "a failed sync is told once: to the one killed"
        assert recovered.journal.synced == recovered.journal.position
    finally:
        release(recovered)


def test_a_fresh_store_is_on_the_disk_before_it_is_shown(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Disk(monkeypatch)
    release(recover(data, disk=False, file_bytes=FILE_BYTES))
    assert seen.has(journal.path_of(data, 1))
    assert seen.has(data / "fence")
    assert seen.folders >= {data, data / "journal"}


def test_a_disk_that_does_not_sync_is_no_start(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Life(data, disk=False) as life:
        life.write(BTC, 100)
    fence = mark_of(data)
    with monkeypatch.context() as patch:
        seen = Disk(patch)
        seen.failing = 100
        with pytest.raises(StorageError, match="Input/output error"):
            recover(data, disk=True, file_bytes=FILE_BYTES)
    assert mark_of(data) == fence
    with Life(data) as life:
        assert (life.epoch, life.heads, life.reasons) == (1, {"BTC 1m": 100}, "")


def test_a_database_that_another_store_left_proves_no_loss(data: Path) -> None:
    """Set aside at the very place where this store's journal ends, by one that was in the directory before."""
    with Life(data) as life:
        end, store_id = life.write(BTC, 10), life.recovered.identity.store_id
    for of in (f"{store_id + 1:016x}-", ""):
        (data / f"flux.duckdb.beyond-{of}{end.file}-{end.offset}").write_bytes(b"")
    with Life(data) as life:
        assert (life.epoch, life.reasons, life.heads) == (1, "", {"BTC 1m": 10})


@pytest.mark.parametrize("failing", [False, True])
def test_a_database_that_was_filled_beyond_the_journals_end(
    data: Path, failing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D2: it proves that rows are lost that somebody may have seen, whatever the fence says."""
    with Life(data) as life:
        kept = life.write(BTC, 100)
        store_id = life.recovered.identity.store_id
        life.write(BTC, 50)
        life.project()
    journal.truncate(data, kept)
    fence = Fence(data)
    for _ in range(2):
        fence.store(store_id, 1, *kept)
    fence.close()
    if failing:  # between the database's being set aside and the EPOCH record

        def full(*_: object) -> None:
            raise StorageError("no space")

        with monkeypatch.context() as patch:
            patch.setattr("flux.server.storage.recover.begin_epoch", full)
            with pytest.raises(StorageError, match="no space"):
                recover(data, disk=True, file_bytes=FILE_BYTES)
    with Life(data) as life:
        aside = f"flux.duckdb.beyond-{store_id:016x}-1-{kept.offset}"
        assert life.epoch == 2
        assert f"DEGRADED epoch 2 begins: the journal ends at file 1 byte {kept.offset}" in life.reasons
        assert f"the database had rows from beyond that: {aside}" in life.reasons
        assert life.recovered.identity.epochs[-1].ends == {1: 100}
        assert (data / aside).exists()
        assert life.heads == {"BTC 1m": 100}
        life.write(BTC, 1)
    with Life(data) as life:
        assert (life.epoch, life.heads) == (2, {"BTC 1m": 101})


@pytest.mark.parametrize("copied", [False, True])
def test_where_an_epoch_ends_a_database_that_does_not_open_is_set_aside(data: Path, copied: bool) -> None:
    """It may have rows of the epoch before that the journal lost: nobody may be given them once it opens."""
    with Life(data) as life:
        kept = life.write(BTC, 100)
        life.write(BTC, 50)
        life.project()
    if copied:
        (data / "identity").unlink()
    journal.truncate(data, kept)
    database = data / "flux.duckdb"
    was = database.read_bytes()[:4_096]
    overwrite(database, 0, bytes(4_096))
    with Life(data) as life:
        assert life.epoch == 2
        if database.stat().st_size and not any(data.glob("flux.duckdb.unread-*")):
            overwrite(database, 0, was)  # it opens again: what is in it then must not be given to anybody
        life.write(BTC, 60)
        life.project()
        store = life.recovered.store
        first, rows = store.read(1, RowKind.CANDLE, 0, 160, 1_000)
        assert (first, len(rows), store.highest_epoch()) == (1, 160, 2)
        life.stop()
    assert len(list(data.glob("flux.duckdb.unread-*"))) == 1
    with Life(data) as life:
        assert (life.epoch, life.heads) == (2, {"BTC 1m": 160})
