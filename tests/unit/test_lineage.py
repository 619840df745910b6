"""Whose a directory is: a copy becomes another store, parts of two are refused, no start forgets what it found."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import pytest

from flux import journal
from flux.errors import InUseError
from flux.model import RowKind
from flux.server.storage import recover as recovering
from flux.server.storage.directory import read_identity, write_identity
from flux.server.storage.rebuild import rebuild
from flux.server.storage.recover import recover
from tests.unit.lives import BTC, FILE_BYTES, Life, overwrite, rows_of
from tests.unit.test_recover import begun, journal_bytes, refused


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


class TestCopies:
    def test_a_clone(self, data: Path, tmp_path: Path) -> None:
        """A copy is another store, and stays that one; the original does not notice."""
        with Life(data) as life:
            life.write(BTC, 10)
            life.project()
            store_id = life.recovered.identity.store_id
        shutil.copytree(data, tmp_path / "clone")
        shutil.copytree(data, tmp_path / "clone2")
        seen = {store_id}
        for clone in ("clone", "clone2"):
            with Life(tmp_path / clone) as life:
                begun(life, f"is a copy or a restore of store {store_id:016x}", {1: 10})
                identity = life.recovered.identity
                assert identity.store_id not in seen, "the same backup restored twice is two stores"
                seen.add(identity.store_id)
                assert (identity.parent_store_id, identity.branch_epoch) == (store_id, 2)
                assert life.recovered.journal.position.file == 2, "older bytes stay"
                assert (
                    journal_bytes(tmp_path / clone)["00000001.fluxlog"]
                    == journal_bytes(data)["00000001.fluxlog"]
                )
                assert life.recovered.store.store_id == identity.store_id, "the database is adopted"
                assert not list((tmp_path / clone).glob("flux.duckdb.b*"))
                life.write(BTC, 1)
                life.project()
                assert life.stored(1).tobytes() == rows_of(RowKind.CANDLE, 1, 11).tobytes()
        with Life(tmp_path / "clone") as life:
            begun(life, "is a copy", {1: 10})
            assert life.heads == {"BTC 1m": 11}
            assert life.recovered.identity.parent_store_id == store_id
            assert life.recovered.identity.store_id in seen - {store_id}
            while life.recovered.journal.position.file < 4:
                life.write(BTC, 500)
            life.recovered.losses.acknowledge(2, life.recovered.identity.store_id)
        with Life(tmp_path / "clone") as life:
            assert (life.epoch, life.reasons) == (2, "")
            assert life.recovered.identity.parent_store_id == store_id, "through rotation"
        with Life(data) as life:
            assert (life.epoch, life.reasons, life.heads) == (1, "", {"BTC 1m": 10})
            assert life.recovered.identity.store_id == store_id

    def test_a_copy_of_a_copy(self, data: Path, tmp_path: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        shutil.copytree(data, tmp_path / "one")
        with Life(tmp_path / "one") as life:
            life.write(BTC, 5)
            first = life.recovered.identity.store_id
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        with Life(tmp_path / "two") as life:
            begun(life, f"of store {first:016x}", {1: 15}, epoch=3)
            assert life.recovered.identity.parent_store_id == first
            assert [record.ends for record in life.recovered.identity.epochs] == [{1: 10}, {1: 15}]

    def test_its_database_is_rebuilt_from_the_files_of_both_stores(self, data: Path, tmp_path: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        shutil.copytree(data, tmp_path / "copy")
        with Life(tmp_path / "copy") as life:
            life.write(BTC, 5)
            store_id = life.recovered.identity.store_id
        told: list[str] = []
        assert rebuild(tmp_path / "copy", cut=False, say=told.append).rows == 15
        assert told == []
        with Life(tmp_path / "copy") as life:
            assert life.recovered.store.store_id == life.recovered.identity.store_id == store_id
            assert life.stored(1).tobytes() == rows_of(RowKind.CANDLE, 1, 15).tobytes()

    def test_no_epoch_is_made_twice(self, data: Path) -> None:
        """A journal of epoch 1 under a fence of epoch 2: what was numbered in 2 was seen."""
        with Life(data) as life:
            kept = life.write(BTC, 10)
            life.write(BTC, 10)
        older = journal_bytes(data)["00000001.fluxlog"]
        journal.truncate(data, kept)
        with Life(data) as life:
            assert life.epoch == 2
            life.write(BTC, 1)
        journal.path_of(data, 1).write_bytes(older)
        with Life(data) as life:
            begun(life, "were shown", {1: 20}, epoch=3)


class Cut(Exception):  # noqa: N818  no error: the power
    """The start ends here."""


def contents(data: Path) -> dict[str, bytes]:
    """All files of a directory but the database's own."""
    files = (path for path in data.rglob("*") if path.is_file() and not path.name.startswith("flux.duckdb"))
    return {str(path.relative_to(data)): path.read_bytes() for path in files}


class TestWhoseItIs:
    """store_id in identity, fence and journal, and what a start leaves behind that does not come to its end."""

    def test_a_journal_removed_is_another_store(self, data: Path) -> None:
        """`rm -rf journal fence`: its sequences begin again, so its name must not."""
        with Life(data) as life:
            life.write(BTC, 10)
            life.project()
            store_id = life.recovered.identity.store_id
        shutil.rmtree(data / "journal")
        (data / "fence").unlink()
        for _ in range(2):
            with Life(data) as life:
                assert (life.epoch, life.heads) == (1, {})
                new = life.recovered.identity.store_id
                assert new != store_id
                assert (
                    f"the journal of store {store_id:016x} is gone, and store {new:016x} was begun"
                    in life.reasons
                )
        assert len(list(data.glob("flux.duckdb.before-*"))) == 1, "its rows are kept"
        with Life(data) as life:
            assert life.recovered.identity.store_id == new
            life.recovered.losses.acknowledge(0, life.recovered.identity.store_id)
        with Life(data) as life:
            assert life.reasons == ""

    def test_making_that_was_cut_short_is_begun_again(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def cut(*_: object, **__: object) -> None:
            raise Cut

        monkeypatch.setattr(recovering, "DuckStore", cut)
        with pytest.raises(Cut):
            recover(data, disk=True, file_bytes=FILE_BYTES)
        monkeypatch.undo()
        with Life(data) as life:
            assert (life.epoch, life.heads, life.reasons) == (1, {}, "")

    @pytest.mark.parametrize("part", ["identity", "fence", "journal"])
    def test_parts_of_two_stores(self, data: Path, tmp_path: Path, part: str) -> None:
        for directory in (data, tmp_path / "other"):
            with Life(directory) as life:
                life.write(BTC, 10)
        if part == "journal":
            shutil.rmtree(data / part)
            shutil.copytree(tmp_path / "other" / part, data / part)
        else:  # in place: what a copy in another file would show, this does not
            (data / part).write_bytes((tmp_path / "other" / part).read_bytes())
        if part == "identity":
            found = read_identity(tmp_path / "other")
            assert found is not None
            write_identity(data, found.said.store_id, process=False)
        before = contents(data)
        refused(data, "holds parts of two stores: its journal is of .* Bring back the one that belongs to it")
        assert contents(data) == before

    def test_a_database_of_another_store(self, data: Path, tmp_path: Path) -> None:
        for directory in (data, tmp_path / "other"):
            with Life(directory) as life:
                life.write(BTC, 10)
                life.project()
        shutil.copy(tmp_path / "other" / "flux.duckdb", data / "flux.duckdb")
        before = contents(data)
        refused(data, "belongs to store")
        assert contents(data) == before

    def test_a_file_under_another_name(self, data: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        journal.path_of(data, 1).rename(journal.path_of(data, 2))
        before = contents(data)
        refused(data, r"00000002.fluxlog says that it is file 1")
        assert contents(data) == before

    def test_a_database_that_somebody_holds(self, data: Path) -> None:
        """A tail that was to be cut is still there after a start that could not begin."""
        with Life(data) as life:
            end = life.write(BTC, 10)
            life.project()
        overwrite(journal.path_of(data, 1), end.offset, b"torn" * 100)
        before = contents(data)
        held = duckdb.connect(str(data / "flux.duckdb"))
        try:
            with pytest.raises(InUseError):
                recover(data, disk=True, file_bytes=FILE_BYTES)
        finally:
            held.close()
        assert contents(data) == before

    @pytest.mark.parametrize("end", ["begin_epoch", "write_identity"])
    @pytest.mark.parametrize("projected", [True, False])
    def test_a_start_that_fails_does_not_forget_the_loss(
        self, data: Path, monkeypatch: pytest.MonkeyPatch, end: str, projected: bool
    ) -> None:
        with Life(data) as life:
            kept = life.write(BTC, 10)
            life.write(BTC, 100)
            if projected:
                life.project()
        journal.truncate(data, kept)

        def cut(*_: object, **__: object) -> None:
            raise Cut

        monkeypatch.setattr(recovering, end, cut)
        for _ in range(2):
            with pytest.raises(Cut):
                recover(data, disk=True, file_bytes=FILE_BYTES)
        monkeypatch.undo()
        with Life(data) as life:
            assert life.epoch == 2, "one loss, one epoch"
            assert life.reasons.startswith("DEGRADED epoch 2 begins: the journal ends at file 1")
            assert life.heads == {"BTC 1m": 10}
            life.write(BTC, 200)
        with Life(data) as life:
            assert life.reasons.startswith("DEGRADED epoch 2 begins"), "until it is acknowledged"

    @pytest.mark.parametrize("end", ["branch", "write_identity"])
    def test_a_copy_whose_start_fails_is_a_store_of_its_own_all_the_same(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
    ) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
            life.project()
            store_id = life.recovered.identity.store_id
        shutil.copytree(data, tmp_path / "copy")

        def cut(*_: object, **__: object) -> None:
            raise Cut

        monkeypatch.setattr(recovering, end, cut)
        for _ in range(2):
            with pytest.raises(Cut):
                recover(tmp_path / "copy", disk=True, file_bytes=FILE_BYTES)
        monkeypatch.undo()
        with Life(tmp_path / "copy") as life:
            assert life.recovered.identity.store_id != store_id
            assert life.recovered.identity.parent_store_id, "a try that nobody saw, or the original"
            assert life.recovered.store.store_id == life.recovered.identity.store_id
            assert life.stored(1).tobytes() == rows_of(RowKind.CANDLE, 1, 10).tobytes()
