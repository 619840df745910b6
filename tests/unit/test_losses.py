"""What stays until an operator acknowledges it, and what an operator decides of a data directory: `flux doctor`."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from flux.cli.main import main
from flux.errors import ConfigError, DataError, InUseError
from flux.journal.records import EpochRecord
from flux.server.storage import advice
from flux.server.storage.directory import read_identity, write_identity
from flux.server.storage.losses import Losses
from tests.unit.lives import BTC, Life

STORE = 7


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with ten rows, whose server was killed."""
    with Life(tmp_path / "data") as life:
        life.write(BTC, 10)
    return tmp_path / "data"


def no_descriptor(_: Path) -> bytes:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class TestLosses:
    def test_noted_until_acknowledged_and_noted_again(self, tmp_path: Path) -> None:
        losses = Losses(tmp_path)
        assert losses.open([], STORE) == {}
        losses.note("cursor", "the first")
        losses.note("cursor", "the second")
        losses.note("journal-gone", "another")
        known = Losses(tmp_path).open([], STORE)
        assert known.keys() == {"cursor", "journal-gone"}
        assert known["cursor"] == f"the first (known? `flux doctor --ack-loss {tmp_path}`)"
        losses.acknowledge(0, STORE)
        assert Losses(tmp_path).open([], STORE) == {}
        losses.note("cursor", "the third")
        assert Losses(tmp_path).open([], STORE)["cursor"].startswith("the third")

    def test_what_cannot_be_read_for_now_stays_as_it_was_known(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No descriptor is left: what an operator has acknowledged does not come up again, and the log says so once
        for each time that this begins."""
        losses = Losses(tmp_path)
        losses.acknowledge(3, STORE)
        known = losses.acknowledged()
        assert known.epoch == 3
        for _ in range(2):
            caplog.clear()
            with monkeypatch.context() as without:
                without.setattr("flux.server.storage.losses.read_regular", no_descriptor)
                assert [losses.acknowledged() for _ in range(3)] == [known] * 3
            assert len(caplog.records) == 1
            assert "cannot be read" in caplog.text
            assert "nothing counts" not in caplog.text
            assert losses.acknowledged() == known

    def test_every_epoch_above_the_acknowledged_one(self, tmp_path: Path) -> None:
        losses = Losses(tmp_path)
        epochs = [EpochRecord(2, {}, "one"), EpochRecord(5, {}, "two")]
        assert losses.open(epochs, STORE)["epoch"].startswith("epoch 5 begins: two; and 1 epochs before it")
        losses.acknowledge(2, STORE)
        assert losses.open(epochs, STORE)["epoch"].startswith("epoch 5 begins: two (known?")
        losses.acknowledge(5, STORE)
        assert losses.open(epochs, STORE) == {}

    def test_what_was_acknowledged_of_one_store_says_nothing_of_another(self, tmp_path: Path) -> None:
        """A journal that was taken away and begun anew counts its epochs from 1 again; a copy goes on with its
        parent's."""
        losses = Losses(tmp_path)
        epochs = [EpochRecord(2, {}, "one"), EpochRecord(3, {}, "two")]
        losses.acknowledge(3, STORE)
        assert losses.open(epochs, STORE + 1).keys() == {"epoch"}
        assert losses.open(epochs, STORE + 1, STORE) == {}
        (tmp_path / "acknowledged").write_bytes(b'{"epoch":2,"number":0}')
        assert losses.open(epochs, STORE)["epoch"].startswith("epoch 3 begins: two (known?"), (
            "without a store"
        )

    @pytest.mark.parametrize("content", [b"", b"\0" * 100, b"[{}]", b'{"epoch": -1'])
    def test_files_that_do_not_read(self, tmp_path: Path, content: bytes) -> None:
        """What was lost is not to be guessed; what was acknowledged counts as not."""
        losses = Losses(tmp_path)
        losses.note("cursor", "why")
        (tmp_path / "acknowledged").write_bytes(content)
        assert losses.open([], STORE).keys() == {"cursor"}
        (tmp_path / "losses").write_bytes(content)
        with pytest.raises(DataError, match=r"losses does not read.*look at it, then move it away"):
            losses.open([], STORE)
        with pytest.raises(DataError, match="losses does not read"):
            losses.note("cursor", "again")


class TestAcknowledge:
    def test_it_says_what_it_acknowledges(self, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (data / "fence").unlink()
        with Life(data) as life:
            assert "the fence is gone" in life.reasons
            assert main(["doctor", "--ack-loss", str(data)]) == 0, "under a running server, too"
            assert life.reasons == ""
        said = capsys.readouterr().out
        assert said.startswith("flux doctor: acknowledged: epoch 2 begins: the fence is gone")
        assert main(["doctor", "--ack-loss", str(data)]) == 0
        assert capsys.readouterr().out == "flux doctor: nothing to acknowledge\n"

    def test_a_later_loss_is_open_again(self, data: Path) -> None:
        for epoch in (2, 3):
            (data / "fence").unlink()
            with Life(data) as life:
                assert f"epoch {epoch} begins" in life.reasons
            assert len(advice.acknowledge(data)) == 1

    def test_no_data_directory(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for flag in ("--ack-loss", "--same-store"):
            assert main(["doctor", flag, str(tmp_path)]) == 2
            assert "holds no journal: it is no data directory" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


class TestSameStore:
    def test_a_copy_that_is_the_original_from_now_on(self, data: Path, tmp_path: Path) -> None:
        found = read_identity(data)
        assert found is not None
        store_id = found.said.store_id
        shutil.copytree(data, tmp_path / "moved")
        assert "from now on" in advice.same_store(tmp_path / "moved")
        with Life(tmp_path / "moved") as life:
            assert (life.recovered.identity.store_id, life.epoch, life.reasons) == (store_id, 1, "")
        assert "already" in advice.same_store(tmp_path / "moved")

    def test_one_without_an_identity(self, data: Path) -> None:
        (data / "identity").unlink()
        advice.same_store(data)
        with Life(data) as life:
            assert (life.epoch, life.heads) == (1, {"BTC 1m": 10})

    def test_not_under_a_server_nor_of_parts(self, data: Path) -> None:
        with Life(data), pytest.raises(InUseError):
            advice.same_store(data)
        write_identity(data, 99, process=False)
        with pytest.raises(DataError, match="holds parts of two stores"):
            advice.same_store(data)
        with pytest.raises(ConfigError):
            advice.same_store(data / "nothing")
