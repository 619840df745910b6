"""The start, from a directory in any state: what goes on, what begins a new epoch, and what needs a person."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flux import journal
from flux.errors import DataError, FluxError, InUseError
from flux.journal import Fence, Group, Journal
from flux.journal.records import FORMAT, HeadsRecord, pack
from flux.model import RowKind
from flux.server.storage.directory import DirectoryLock, read_identity
from flux.server.storage.recover import recover
from tests.fences import mark_of
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


def begun(life: Life, why: str, ends: dict[int, int], epoch: int = 2) -> None:
    assert life.epoch == epoch
    assert life.reasons.startswith(f"DEGRADED epoch {epoch} begins: ")
    assert why in life.reasons
    record = life.recovered.identity.epochs[-1]
    assert (record.epoch, record.ends) == (epoch, ends)
    assert why in record.reason


def another_boot(data: Path) -> None:
    """As if the machine had been started anew."""
    found = read_identity(data)
    assert found is not None
    said = msgspec.structs.replace(found.said, machine_boot="another")
    overwrite(data / "identity", 0, msgspec.json.encode(said).ljust(1_024))


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
            without_id = rows_of(RowKind.TRADE, 1, 1)
            without_id["trade_id"] = 0
            life.write(TRADES, 1, without_id)
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
        said = refused(
            data, r"00000002.fluxlog: damaged after byte \d+.*flux rebuild .*--salvage.* and .*--cut"
        )
        assert str(data) in str(said)

    def test_what_only_the_groups_checksum_covers_in_an_older_file(self, data: Path) -> None:
        with Life(data) as life:
            self.write_files(life, 3)
        path = journal.path_of(data, 2)
        records = journal.scan(path.read_bytes()).records
        batch = records[records["kind"] == journal.BATCH][1]
        overwrite(path, int(batch["at"]) + 4, b"\x7e")  # of its topic
        (data / "flux.duckdb").unlink()
        refused(data, r"00000002.fluxlog: damaged after byte \d+.*flux rebuild .*--salvage.* and .*--cut")


class TestNewEpoch:
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
            begun(
                life, "were shown" if not projected else "the database had rows from beyond", {1: 9, 2: 100}
            )
            assert life.heads == {"ETH 1m": 9, "BTC 1m": 100}
            assert life.stored(2).tobytes() == rows_of(RowKind.CANDLE, 1, 100).tobytes()
            aside = list(data.glob("flux.duckdb.beyond-*-1-*"))
            assert len(aside) == projected
            other = rows_of(RowKind.CANDLE, 1_001, 5)
            life.write(BTC, 5, other)
            life.project()
            assert life.streams.kernel.head(1) == 105, "sequences go on behind what survived"
            assert life.stored(2)[100:].tobytes() == other.tobytes()
        with Life(data) as life:
            begun(
                life, "were shown" if not projected else "the database had rows from beyond", {1: 9, 2: 100}
            )
            life.recovered.losses.acknowledge(2, life.recovered.identity.store_id)
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
            begun(life, "file 3", {1: survived}, epoch=3)
            assert 10 < survived < head
            assert [(record.epoch, record.ends) for record in life.recovered.identity.epochs] == [
                (2, {1: 10}),
                (3, {1: survived}),
            ]

    def test_an_older_copy_of_the_journals_file(self, data: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        older = journal_bytes(data)["00000001.fluxlog"]
        with Life(data) as life:
            life.write(BTC, 10)
        journal.path_of(data, 1).write_bytes(older)
        with Life(data) as life:
            begun(life, "were shown", {1: 10})

    def test_no_identity(self, data: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        (data / "identity").unlink()
        with Life(data) as life:
            begun(life, "is a copy or a restore", {1: 10})
            found = read_identity(data)
            assert found is not None
            assert (found.said.store_id, found.copy) == (life.recovered.identity.store_id, "")

    def test_no_fence(self, data: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        (data / "fence").unlink()
        with Life(data) as life:
            begun(life, "the fence is gone", {1: 10})

    @pytest.mark.parametrize(
        ("disk", "clean", "epoch"), [(False, False, 2), (False, True, 1), (True, False, 1)]
    )
    def test_the_machine_went_down(self, data: Path, disk: bool, clean: bool, epoch: int) -> None:
        """Durability "process": what was shown may not have reached the disk, unless the end was clean."""
        with Life(data, disk=disk) as life:
            life.write(BTC, 10)
            life.stop() if clean else life.die()
        another_boot(data)
        with Life(data, disk=disk) as life:
            assert life.epoch == epoch
            assert ("the machine went down" in life.reasons) == (epoch == 2)

    def test_the_machine_went_down_in_a_life_behind_a_clean_end(self, data: Path) -> None:
        """Nothing of that life reached the disk but that it began: the clean end is none of its own."""
        with Life(data, disk=False) as life:
            life.write(BTC, 10)
            life.stop()
        journal_of_the_first, fence = journal_bytes(data), (data / "fence").read_bytes()
        with Life(data, disk=False) as life:
            life.write(BTC, 5)
            life.die()
        for name, content in journal_of_the_first.items():
            overwrite(data / "journal" / name, 0, content)
        overwrite(data / "fence", 0, fence)
        another_boot(data)
        with Life(data, disk=False) as life:
            begun(life, "the machine went down", {1: 10})


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
        before, fence = journal_bytes(data), mark_of(data)
        said = str(refused(data, "damaged at byte"))
        lost = "would be lost: at least 3 groups with 30 rows of 1 streams"
        assert f" bytes after byte {kept.offset} {lost}" in said
        assert said.index(f"`flux rebuild {data} --salvage`") < said.index(f"`flux rebuild {data} --cut`")
        assert (journal_bytes(data), mark_of(data)) == (before, fence), "nothing was changed"

    def test_a_file_that_is_no_journal(self, data: Path) -> None:
        with Life(data) as life:
            life.write(BTC, 10)
        journal.path_of(data, 1).write_bytes(np.random.default_rng(1).bytes(FILE_BYTES))
        refused(data, "damaged at byte 0")

    def test_another_server_has_it(self, data: Path) -> None:
        with Life(data), pytest.raises(InUseError, match=f"process {os.getpid()}"):
            recover(data, disk=True, file_bytes=FILE_BYTES)


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
