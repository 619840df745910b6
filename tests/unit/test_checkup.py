"""`flux doctor --data DIR`: what is wrong with the data, each with the command to type, and nothing changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from flux import journal
from flux.cli.main import main
from flux.errors import DataError
from flux.server.storage.checkup import troubles
from flux.server.storage.losses import Losses
from flux.server.storage.rebuild import rebuild
from flux.server.storage.recover import recover
from tests.unit.lives import BTC, FILE_BYTES, Life


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with Life(tmp_path / "data") as life:
        for _ in range(4):
            life.write(BTC, 10)
        life.stop()
    return tmp_path / "data"


def doctor(data: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """The exit code, and what is said of the data; no file is touched."""
    before = {path: path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()}
    code = main(["doctor", "--data", str(data)])
    assert {path: path.read_bytes() for path in sorted(data.rglob("*")) if path.is_file()} == before
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split()[1] == "data")
    return code, lines[at + 1 :]


def spoil(data: Path) -> None:
    """A byte in the midst of the journal."""
    path = journal.files(data)[-1].path
    content = bytearray(path.read_bytes())
    commits = journal.scan(bytes(content)).records
    commits = commits[commits["kind"] == journal.COMMIT]
    content[int(commits["at"][2]) - 40] ^= 0xFF
    path.write_bytes(content)


def test_nothing_is_wrong(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(data, capsys) == (0, [])


def test_losses_that_nobody_acknowledged(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Losses(data).note("cursor", "a client was ahead")
    code, (said,) = doctor(data, capsys)
    assert code == 0, "a server starts, DEGRADED"
    assert said.startswith("WARN    losses")
    assert said.endswith(f"a client was ahead (known? `flux doctor --ack-loss {data}`)")


def test_a_copy_that_was_not_started(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(data, tmp_path / "copy")
    code, (said,) = doctor(tmp_path / "copy", capsys)
    assert code == 0
    assert said.startswith("WARN    copy")
    assert f"`flux doctor --same-store {tmp_path / 'copy'}`" in said


def test_a_damaged_journal_is_said_by_everybody_in_the_same_words(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Salvage first, since it keeps more; what a start, a rebuild and the doctor say is one sentence."""
    spoil(data)
    code, (said,) = doctor(data, capsys)
    assert code == 1
    assert said.startswith("FAILED  journal")
    assert said.index(f"`flux rebuild {data} --salvage` keeps every group") < said.index(
        f"`flux rebuild {data} --cut` keeps only"
    )
    for start in (
        lambda: recover(data, disk=True, file_bytes=FILE_BYTES),
        lambda: rebuild(data, cut=False, say=print),
    ):
        with pytest.raises(DataError) as caught:
            start()
        assert said.endswith(str(caught.value))


@pytest.mark.parametrize("fifo", [False, True])
def test_a_database_that_does_not_open(data: Path, capsys: pytest.CaptureFixture[str], fifo: bool) -> None:
    path = data / "flux.duckdb"
    path.unlink()
    if fifo:
        os.mkfifo(path)
    else:
        path.write_bytes(b"no database" * 4_096)
    code, (said,) = doctor(data, capsys)
    assert code == 1
    assert said.startswith("FAILED  database")
    assert f"`flux rebuild {data}`" in said


def test_beside_a_running_server_only_its_losses_are_looked_at(tmp_path: Path) -> None:
    with Life(tmp_path / "data") as life:
        life.write(BTC, 10)
        Losses(tmp_path / "data").note("cursor", "a client was ahead")
        assert [trouble.name for trouble in troubles(tmp_path / "data")] == ["losses"]
        life.write(BTC, 10)
