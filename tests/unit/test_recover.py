"""The start, from a directory in any state: what goes on, what begins a new epoch, and what needs a person."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pytest

from flux import journal
from flux.errors import DataError, FluxError, InUseError
from flux.journal import Fence, Group, Journal
from flux.model import RowKind
from flux.server import recover as recovering
from flux.server.directory import DirectoryLock, read_identity, write_identity
from flux.server.records import FORMAT, HeadsRecord, pack
from flux.server.recover import recover
from tests.unit.lives import BTC, ETH, FILE_BYTES, TRADES, Life, overwrite, rows_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def refused(data: Path, why: str) -> FluxError:
    """The error that a start ends with; it must have left the directory free."""
    with pytest.raises(DataError, match=why) as caught:
        recover(data, disk=True, file_bytes=FILE_BYTES)
    assert caught.value.exit_code == 4
    DirectoryLock(data).release()
    return caught.value


def journal_bytes(data: Path) -> dict[str, bytes]:
    return {file.path.name: file.path.read_bytes() for file in journal.files(data)}


class TestGoingOn:
    def test_a_fresh_directory(self, data: Path) -> None:
        with Life(data) as life:
            assert (life.epoch, life.heads, life.reasons) == (1, {}, "")
            names = {path.name for path in data.iterdir()}
            assert names >= {"fence", "flux.duckdb", "identity", "journal", "lock"}
            store_id = life.recovered.identity.store_id
        with Life(data) as life:
            assert (life.epoch, life.heads, life.reasons) == (1, {}, "")
            assert life.recovered.identity.store_id == store_id

    @pytest.mark.parametrize("end", ["die", "stop"])
    @pytest.mark.parametrize("disk", [True, False])
    def test_ended_and_started_again(self, data: Path, end: str, disk: bool) -> None:
        with Life(data, disk=disk) as life:
            life.write(BTC, 100)
            life.write(TRADES, 10)
            life.project()
            life.write(BTC, 50)
            highest = [life.streams.kernel.highest(slot) for slot in (0, 1)]
            getattr(life, end)()
        with Life(data, disk=disk) as life:
            assert (life.epoch, life.reasons) == (1, "")
            assert life.heads == {"BTC 1m": 150, "BTC trade": 10}
            assert [life.streams.kernel.highest(slot) for slot in (0, 1)] == highest
            assert life.recovered.sources == {"file:BTC": (150, 7)}
            assert life.stored(1).tobytes() == rows_of(RowKind.CANDLE, 1, 150).tobytes()
            assert life.stored(2, RowKind.TRADE).tobytes() == rows_of(RowKind.TRADE, 1, 10).tobytes()
            life.write(BTC, 5)
            life.project()
            assert life.stored(1).tobytes() == rows_of(RowKind.CANDLE, 1, 155).tobytes()

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_a_group_that_was_not_finished_is_cut_off(self, data: Path, share: float) -> None:
        with Life(data) as life:
            end = life.write(BTC, 100)
        whole = journal.path_of(data, 1).read_bytes()
        group = whole[journal.FILE_HEADER_BYTES : end.offset]
        torn = group[group.index(b"FLX2") - 64 :][: int(share * 3_000)]
        overwrite(journal.path_of(data, 1), end.offset, torn)
        with Life(data) as life:
            assert (life.epoch, life.reasons, life.heads) == (1, "", {"BTC 1m": 100})
            assert life.recovered.journal.position == end
        assert journal.path_of(data, 1).read_bytes()[end.offset :].strip(b"\0") == b""

    def test_trade_ids_of_64_bits(self, data: Path) -> None:
        rows = rows_of(RowKind.TRADE, 1, 3)
        rows["trade_id"] = [5, 2**64 - 9, 2**63]
        with Life(data) as life:
            life.write(TRADES, 3, rows)
            highest = life.streams.kernel.highest(0)
        with Life(data) as life:
            assert life.streams.kernel.highest(0) == highest == -9
            life.write(TRADES, 1, rows_of(RowKind.TRADE, 1, 1))
        with Life(data) as life:
            assert life.streams.kernel.highest(0) == -9


class TestRotation:
    def write_files(self, life: Life, files: int) -> None:
        life.write(ETH, 3)
        while life.recovered.journal.position.file < files:
            life.write(BTC, 500)

    def test_a_start_reads_the_last_file_alone(self, data: Path) -> None:
        with Life(data) as life:
            self.write_files(life, 4)
            heads = {"BTC 1m": life.streams.kernel.head(1), "ETH 1m": 3}
        assert [file.number for file in journal.files(data)] == [1, 2, 3, 4]
        with Life(data) as life:
            assert (life.heads, life.reasons) == (heads, "")
            assert life.recovered.sources == {"file:ETH": (3, 7), "file:BTC": (heads["BTC 1m"], 7)}
            stored = life.stored(2)
            assert stored.tobytes() == rows_of(RowKind.CANDLE, 1, heads["BTC 1m"]).tobytes()

    def test_a_database_that_is_gone_is_filled_again_from_all_files(self, data: Path) -> None:
        with Life(data) as life:
            self.write_files(life, 3)
            life.project()
            head = life.streams.kernel.head(1)
        (data / "flux.duckdb").unlink()
        with Life(data) as life:
            assert (life.epoch, life.reasons) == (1, "")
            assert life.stored(2).tobytes() == rows_of(RowKind.CANDLE, 1, head).tobytes()
            assert life.recovered.store.streams() == {1: ETH, 2: BTC}

    def test_heads_outlive_the_rows(self, data: Path) -> None:
        """Files and database gone by retention: no sequence begins again."""
        with Life(data) as life:
            self.write_files(life, 3)
            head = life.streams.kernel.head(1)
        for number in (1, 2):
            journal.path_of(data, number).unlink()
        (data / "flux.duckdb").unlink()
        with Life(data) as life:
            assert (life.epoch, life.heads) == (1, {"ETH 1m": 3, "BTC 1m": head})
            life.write(ETH, 1)
            assert life.streams.kernel.head(0) == 4
        with Life(data) as life:
            assert life.heads == {"ETH 1m": 4, "BTC 1m": head}

    def test_damage_in_an_older_file_matters_when_it_is_read(self, data: Path) -> None:
        with Life(data) as life:
            self.write_files(life, 3)
            life.project()
        path = journal.path_of(data, 2)
        records = journal.scan(path.read_bytes()).records
        overwrite(path, int(records[len(records) // 2]["at"]) - 12, b"\xff" * 12)
        with Life(data) as life:
            assert life.reasons == ""
        (data / "flux.duckdb").unlink()
        said = refused(data, r"00000002.fluxlog: damaged behind byte \d+.*flux rebuild .* --cut")
        assert str(data) in str(said)


class TestNewEpoch:
    def check_begun(self, life: Life, why: str, ends: dict[int, int], epoch: int = 2) -> None:
        assert life.epoch == epoch
        assert life.reasons.startswith(f"DEGRADED epoch {epoch} begins: ")
        assert why in life.reasons
        record = life.recovered.identity.epochs[-1]
        assert (record.epoch, record.ends) == (epoch, ends)
        assert why in record.reason

    @pytest.mark.parametrize("projected", [True, False])
    @pytest.mark.parametrize("lost", ["the last row", "a group of no rows", "more", "the file's end"])
    def test_a_journal_that_ends_before_its_fence(self, data: Path, lost: str, projected: bool) -> None:
        with Life(data) as life:
            life.write(ETH, 9)
            kept = life.write(BTC, 100)
            if lost in ("more", "the file's end"):
                life.write(BTC, 200)
            # Without rows it is shorter than the EPOCH record that comes in its place.
            life.write(BTC, 0 if lost == "a group of no rows" else 1)
            if projected:
                life.project()
        if lost == "the file's end":
            os.truncate(journal.path_of(data, 1), kept.offset + 1_000)
        else:
            journal.truncate(data, kept)
        with Life(data) as life:
            self.check_begun(
                life, "were shown" if not projected else "the database had rows from beyond", {1: 9, 2: 100}
            )
            assert life.heads == {"ETH 1m": 9, "BTC 1m": 100}
            assert life.stored(2).tobytes() == rows_of(RowKind.CANDLE, 1, 100).tobytes()
            aside = list(data.glob("flux.duckdb.beyond-1-*"))
            assert len(aside) == projected
            other = rows_of(RowKind.CANDLE, 1_001, 5)
            life.write(BTC, 5, other)
            life.project()
            assert life.streams.kernel.head(1) == 105, "sequences go on behind what survived"
            assert life.stored(2)[100:].tobytes() == other.tobytes()
        with Life(data) as life:
            self.check_begun(
                life, "were shown" if not projected else "the database had rows from beyond", {1: 9, 2: 100}
            )
            life.recovered.losses.acknowledge(2)
            assert life.reasons == "", "said until it is acknowledged"
        with Life(data) as life:
            assert (life.epoch, life.reasons) == (2, "")
            assert life.recovered.identity.epochs[0].ends == {1: 9, 2: 100}, "kept for ever"

    def test_epochs_are_kept_through_rotation_and_further_losses(self, data: Path) -> None:
        with Life(data) as life:
            kept = life.write(BTC, 10)
            life.write(BTC, 10)
        journal.truncate(data, kept)
        with Life(data) as life:
            while life.recovered.journal.position.file < 3:
                life.write(BTC, 500)
            head = life.streams.kernel.head(0)
        journal.path_of(data, 3).unlink()
        with Life(data) as life:
            survived = life.heads["BTC 1m"]
            self.check_begun(life, "file 3", {1: survived}, epoch=3)
            assert 10 < survived < head
            assert [(record.epoch, record.ends) for record in life.recovered.identity.epochs] == [
                (2, {1: 10}),
                (3, {1: survived}),
            ]

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
                self.check_begun(life, f"is a copy or a restore of store {store_id:016x}", {1: 10})
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
            self.check_begun(life, "is a copy", {1: 10})
            assert life.heads == {"BTC 1m": 11}
            assert life.recovered.identity.parent_store_id == store_id
            assert life.recovered.identity.store_id in seen - {store_id}
            while life.recovered.journal.position.file < 4:
                life.write(BTC, 500)
            life.recovered.losses.acknowledge(2)
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
            self.check_begun(life, f"of store {first:016x}", {1: 15}, epoch=3)
            assert life.recovered.identity.parent_store_id == first
            assert [record.ends for record in life.recovered.identity.epochs] == [{1: 10}, {1: 15}]

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
            self.check_begun(life, "were shown", {1: 20}, epoch=3)

    def test_an_older_copy_of_the_journals_file(self, data: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        older = journal_bytes(data)["00000001.fluxlog"]
        with Life(data) as life:
            life.write(BTC, 10)
        journal.path_of(data, 1).write_bytes(older)
        with Life(data) as life:
            self.check_begun(life, "were shown", {1: 10})

    def test_no_identity(self, data: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        (data / "identity").unlink()
        with Life(data) as life:
            self.check_begun(life, "is a copy or a restore", {1: 10})
            found = read_identity(data)
            assert found is not None
            assert (found.said.store_id, found.copy) == (life.recovered.identity.store_id, "")

    def test_no_fence(self, data: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        (data / "fence").unlink()
        with Life(data) as life:
            self.check_begun(life, "the fence is gone", {1: 10})

    @pytest.mark.parametrize(
        ("disk", "clean", "epoch"), [(False, False, 2), (False, True, 1), (True, False, 1)]
    )
    def test_the_machine_went_down(self, data: Path, disk: bool, clean: bool, epoch: int) -> None:
        """Durability "process": what was shown may not have reached the disk, unless the end was clean."""
        with Life(data, disk=disk) as life:
            life.write(BTC, 10)
            life.stop() if clean else life.die()
        found = read_identity(data)
        assert found is not None
        said = msgspec.structs.replace(found.said, machine_boot="another")
        overwrite(data / "identity", 0, msgspec.json.encode(said).ljust(1_024))
        with Life(data, disk=disk) as life:
            assert life.epoch == epoch
            assert ("the machine went down" in life.reasons) == (epoch == 2)


class TestForAPerson:
    def test_a_journal_that_is_gone(self, data: Path, tmp_path: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        (data / "journal").rename(tmp_path / "elsewhere")
        refused(data, "had a journal .epoch 1. and has none now: bring it back")
        (tmp_path / "elsewhere").rename(data / "journal")
        with Life(data) as life:
            assert (life.epoch, life.heads) == (1, {"BTC 1m": 10})

    def test_a_newer_format(self, data: Path) -> None:
        data.mkdir()
        newer = HeadsRecord(FORMAT + 1, 7, 1, [], [], {})
        Journal.create(data, pack(newer), file_bytes=FILE_BYTES).close(clean=False)
        before = journal_bytes(data)
        refused(data, "upgrade flux-marketdata")
        assert journal_bytes(data) == before

    def test_damage_in_the_middle(self, data: Path) -> None:
        with Life(data) as life:
            kept = life.write(BTC, 10)
            for _ in range(3):
                life.write(BTC, 10)
        path = journal.path_of(data, 1)
        overwrite(path, kept.offset + 200, b"\xa5")
        before, fence = journal_bytes(data), Fence(data).load()
        said = str(refused(data, "damaged at byte"))
        lost = "would be lost: at least 3 groups with 30 rows of 1 streams"
        assert f" bytes behind byte {kept.offset} {lost}" in said
        assert f"flux rebuild {data} --cut" in said
        assert (journal_bytes(data), Fence(data).load()) == (before, fence), "nothing was changed"

    def test_a_file_that_is_no_journal(self, data: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        journal.path_of(data, 1).write_bytes(np.random.default_rng(1).bytes(FILE_BYTES))
        refused(data, "damaged at byte 0")

    def test_another_server_has_it(self, data: Path) -> None:
        with Life(data), pytest.raises(InUseError, match=f"process {os.getpid()}"):
            recover(data, disk=True, file_bytes=FILE_BYTES)


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
            life.recovered.losses.acknowledge(0)
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


def test_a_group_bigger_than_what_is_left_of_the_file(data: Path) -> None:
    """The EPOCH record finds no room in the last file: the next one begins with the old epoch's heads."""
    with Life(data) as life:
        life.write(BTC, 100)
        kept = life.recovered.journal.position
    with Life(data) as life:
        life.write(BTC, 1)
    journal.truncate(data, kept)
    filler = Group(FILE_BYTES)
    filler.append(journal.SOURCE, pack_filler(FILE_BYTES - kept.offset - 250))
    log = Journal.open(data, file=1, offset=kept.offset, file_bytes=FILE_BYTES)
    filled = log.commit(filler, sync=True)
    log.close(clean=False)
    fence = Fence(data)
    fence.store(life.recovered.identity.store_id, 1, filled.file, filled.offset + 8)
    fence.close()
    with Life(data) as life:
        assert (life.epoch, life.heads) == (2, {"BTC 1m": 100})
        assert life.recovered.journal.position.file == 2
    with Life(data) as life:
        assert life.epoch == 2
        assert "were shown" in life.reasons


def pack_filler(size: int) -> bytes:
    """A SOURCE record's content of that size."""
    empty = len(msgspec.msgpack.encode(["x" * 70_000, (1, 1)]))
    return msgspec.msgpack.encode(["x" * (70_000 + size - empty), (1, 1)])
