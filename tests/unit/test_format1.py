"""A data directory that the first release wrote (format 1) is read, and goes on in a new file of today's format."""

from __future__ import annotations

import tarfile
from pathlib import Path

import msgspec
import numpy as np
import pytest

from flux import journal
from flux.journal.records import FORMAT
from flux.model import CANDLE, RowKind
from flux.server.storage.directory import read_identity
from flux.store.base import Rows
from tests.unit.lives import BTC, ETH, Life, rows_of

FROZEN = Path(__file__).resolve().parents[1] / "golden" / "format1.tar.xz"
HEADS = {"ETH 1m": 7, "BTC trade": 20}  # and BTC 1m


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The directory as if it had always been where it is: its identity names its own inode."""
    with tarfile.open(FROZEN) as frozen:
        frozen.extractall(tmp_path / "data", filter="data")
    path = tmp_path / "data" / "identity"
    said = msgspec.json.decode(path.read_bytes())
    assert said["format"] == 1
    with open(path, "r+b") as file:
        file.write(msgspec.json.encode({**said, "inode": path.stat().st_ino}).ljust(511) + b"\n")
    return tmp_path / "data"


def frozen_candles(count: int) -> Rows:
    """The rows that its streams were given."""
    rows, n = np.zeros(count, CANDLE), np.arange(1, count + 1)
    rows["ts_ms"], rows["flags"] = 1_700_000_000_000 + n, 1
    for name in ("open", "high", "low", "close", "volume"):
        rows[name] = n
    return rows


def versions(data: Path) -> list[int]:
    return [journal.scan(journal.read_file(file.path)).version for file in journal.files(data)]


@pytest.mark.parametrize("database", [True, False])
def test_it_is_read_and_goes_on_in_a_new_file(data: Path, database: bool) -> None:
    if not database:
        (data / "flux.duckdb").unlink()
    before = {file.number: file.path.read_bytes() for file in journal.files(data)}
    with Life(data) as life:
        assert (life.epoch, life.reasons) == (1, "")
        rows = life.heads["BTC 1m"]
        assert life.heads == {**HEADS, "BTC 1m": rows}
        assert rows > 2_000
        assert life.recovered.sources == {"file:ETH": (7, 7), "file:BTC": (rows, 7)}
        life.write(BTC, 3)
        life.write(ETH, 1)
        life.project()
        for number, kept, written in ((3, rows, 3), (1, 7, 1)):
            found = life.stored(number)
            assert found[:kept].tobytes() == frozen_candles(kept).tobytes()
            assert found[kept:].tobytes() == rows_of(RowKind.CANDLE, kept + 1, written).tobytes()
        trades = life.stored(2, RowKind.TRADE)
        assert trades["trade_id"].tolist() == trades["price"].tolist() == list(range(1, 21))
    assert versions(data) == [1, 1, FORMAT]
    for number, old in before.items():
        assert journal.path_of(data, number).read_bytes().startswith(old.rstrip(b"\0"))
    identity = read_identity(data)
    assert identity is not None
    assert identity[0].format == FORMAT, "the first release refuses it from now on"
    with Life(data) as life:
        assert (life.epoch, life.reasons, life.heads["BTC 1m"]) == (1, "", rows + 3)
        life.stop()
    assert versions(data) == [1, 1, FORMAT]


def test_started_and_stopped_it_stays_as_it_was(data: Path) -> None:
    for _ in range(2):
        with Life(data) as life:
            heads = life.heads
            life.stop()
    assert heads.items() >= HEADS.items()
    assert versions(data) == [1, 1]


def test_rows_that_it_lost_begin_an_epoch_in_a_new_file(data: Path) -> None:
    path = journal.path_of(data, 2)
    records = journal.scan(journal.read_file(path)).records
    commits = records["at"][records["kind"] == journal.COMMIT]
    journal.truncate(data, journal.Position(2, int(commits[-2]) + 28))
    with Life(data) as life:
        assert life.epoch == 2
        assert life.heads["ETH 1m"] < HEADS["ETH 1m"]
        life.write(ETH, 1)
    assert versions(data) == [1, 1, FORMAT]
    with Life(data) as life:
        assert (life.epoch, life.heads["ETH 1m"]) == (2, 4)


@pytest.mark.parametrize("version", [1, journal.FORMAT])
@pytest.mark.parametrize("broken", [None, *range(0, 120, 8)])
def test_a_group_that_is_sealed_reads_as_its_format(version: int, broken: int | None) -> None:
    """`broken`: a byte of it that is another on the disk."""
    group, start = journal.Group(4_096), 64
    group.append(journal.SOURCE, bytes(range(40)))
    made = bytearray(journal.sealed(group, start, start, version))
    if broken is not None:
        made[broken % len(made)] ^= 1
    scanned = journal.scan(bytes(start) + bytes(made), start, version)
    assert scanned.committed == (start + len(made) if broken is None else start)


@pytest.mark.parametrize("version", [1, journal.FORMAT])
def test_a_group_that_was_written_for_another_place_is_none_here(version: int) -> None:
    """What a file held before may stand after its end: sound, and not of this place."""
    group = journal.Group(4_096)
    group.append(journal.SOURCE, bytes(40))
    made = journal.sealed(group, 64, 64, version)
    for start in (0, 56, 72, 128):
        scanned = journal.scan(bytes(start) + made, start, version)
        assert scanned.committed == start
