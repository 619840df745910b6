"""A journal's files go on from each other: one that is missing, or an older copy of one, is a loss with a name (D7)."""

from __future__ import annotations

import random
import re
from pathlib import Path

import numpy as np
import pytest

from flux import journal
from flux.errors import DataError
from flux.journal import Group, Journal
from flux.server.storage.rebuild import rebuild
from flux.server.storage.recover import recover
from flux.server.storage.scan import missing_between, scan_file
from flux.store.duck import DuckStore
from tests.oracle import journal as oracle
from tests.unit.lives import BTC, ETH, FILE_BYTES, Life

STEP = 300


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A store of four journal files, all of it in the database."""
    with Life(tmp_path) as life:
        life.write(ETH, 3)
        while life.recovered.journal.position.file < 4:
            life.write(BTC, STEP)
        life.project()
        life.stop()
    return tmp_path


def head(data: Path) -> int:
    scanned, _ = scan_file(journal.files(data)[-1])
    assert scanned is not None
    return scanned.streams[2].head


def refused(data: Path, why: str) -> int:
    """A start and a rebuild refuse, change nothing, and say how many rows are lost."""
    before = {file.path.name: file.path.read_bytes() for file in journal.files(data)}
    with pytest.raises(DataError, match=why) as start:
        recover(data, disk=True, file_bytes=FILE_BYTES)
    with pytest.raises(DataError, match=why) as rebuilding:
        rebuild(data, cut=False, say=print)
    assert {file.path.name: file.path.read_bytes() for file in journal.files(data)} == before
    for error in (start.value, rebuilding.value):
        assert error.exit_code == 4
        assert f"`flux rebuild {data} --cut`" in str(error)
    lost = re.search(r"at least (\d+) rows of (\d) streams", str(start.value))
    assert lost is not None
    return int(lost[1])


def cut(data: Path, lost: int) -> None:
    """With `--cut` it goes on without the rows, for good; the head stays where it was."""
    last, said = head(data), list[str]()
    done = rebuild(data, cut=True, say=said.append)
    assert done.rows == last + 3 - lost
    assert said[0].endswith(": gone on without")
    with Life(data) as life:
        assert (life.epoch, life.reasons, life.heads["BTC 1m"]) == (1, "", last)
        life.write(BTC, 5)
        life.stop()
    assert rebuild(data, cut=False, say=print).rows == done.rows + 5
    scanned, _ = scan_file(journal.files(data)[-1])
    assert scanned is not None
    store = DuckStore(data / "flux.duckdb", scanned.heads.store_id)
    first, rows = store.read(2, BTC.kind, 0, 0, 1_000_000)
    store.close()
    assert first == 1
    assert len(rows) < last


@pytest.mark.parametrize("number", [2, 3])
def test_a_file_that_is_missing(data: Path, number: int) -> None:
    journal.path_of(data, number).unlink()
    cut(data, refused(data, f"file {number} of the journal is missing"))


def test_two_that_are_missing(data: Path) -> None:
    for number in (2, 3):
        journal.path_of(data, number).unlink()
    cut(data, refused(data, "file 2, 3 of the journal is missing"))


def test_an_older_copy_of_a_file_in_the_middle(data: Path) -> None:
    path = journal.path_of(data, 2)
    whole = path.read_bytes()
    records = journal.scan(whole).records
    commits = records["at"][records["kind"] == journal.COMMIT]
    end = int(commits[len(commits) // 2]) + 28
    path.write_bytes(whole[:end] + bytes(len(whole) - end))
    cut(data, refused(data, "one of 00000002.fluxlog and 00000003.fluxlog is an older copy"))


def test_files_that_retention_took_are_no_loss(data: Path) -> None:
    for number in (1, 2):
        journal.path_of(data, number).unlink()
    with Life(data) as life:
        assert (life.epoch, life.reasons) == (1, "")


def test_format_1_names_not_what_it_goes_on_from(data: Path) -> None:
    """There the numbers speak, and, when all is read, the heads."""
    for file in journal.files(data):
        header = journal.header_of(file.path)
        assert header is not None
        journal.write_header(file.path, header._replace(before=0))
    files = journal.files(data)
    assert list(missing_between(files, thorough=True)) == []
    assert [found.gone for found in missing_between([files[0], *files[2:]])] == [[2]]
    files[1].path.rename(files[1].path.with_name("00000002.fluxlog.damaged"))
    assert list(missing_between([files[0], *files[2:]])) == [], "somebody has decided about that one"
    files[1].path.with_name("00000002.fluxlog.damaged").rename(files[1].path)
    journal.truncate(data, journal.Position(2, journal.scan(files[1].path.read_bytes()[:60_000]).committed))
    (found,) = missing_between(files, thorough=True)
    assert (found.before.number, found.after.number, found.gone) == (2, 3, [])
    assert found.rows > 0


def test_a_sequence_that_does_not_follow_is_damage(tmp_path: Path, rng: random.Random) -> None:
    """D15: groups whose checksums hold, and whose rows have not the sequence that comes next."""
    with Life(tmp_path) as life:
        positions = [life.write(BTC, 10) for _ in range(6)]
        ends = [position.offset for position in positions]
    path = journal.path_of(tmp_path, 1)
    whole = path.read_bytes()
    again = rng.randrange(1, 5)  # this group stands there twice, valid in both places
    start, end = ends[again - 1], ends[again]
    records = whole[start : end - 40]
    sizes, at = [], 0
    while at < len(records):
        size = -(-(12 + oracle.u32(records, at)) // 8) * 8
        sizes.append(records[at : at + size])
        at += size
    more = oracle.group(ends[-1], ends[-1], sizes)
    path.write_bytes(whole[: ends[-1]] + more + whole[ends[-1] + len(more) :])
    assert journal.scan(path.read_bytes()).committed == ends[-1] + len(more)
    with pytest.raises(DataError, match=rf"damaged at byte {ends[-1]} \(sequence\).*--cut"):
        recover(tmp_path, disk=True, file_bytes=FILE_BYTES)
    rebuild(tmp_path, cut=True, say=print)
    with Life(tmp_path) as life:
        assert (life.epoch, life.heads["BTC 1m"]) == (1, 60)


def test_a_batch_of_a_stream_that_nobody_named_is_damage(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        life.write(BTC, 10)
    path = journal.path_of(tmp_path, 1)
    found = journal.scan(path.read_bytes())
    kinds, whole = found.records["kind"].tolist(), path.read_bytes()
    stream = int(found.records["at"][kinds.index(journal.STREAM)]) - 12
    group = Group(FILE_BYTES)
    for record in found.records[kinds.index(journal.STREAM) + 1 : -1]:
        group.append(int(record["kind"]), whole[int(record["at"]) :][: int(record["size"])])
    journal.truncate(tmp_path, journal.Position(1, stream))
    log = Journal.open(tmp_path, file=1, offset=stream, file_bytes=FILE_BYTES)
    log.commit(group, sync=True)
    log.close(clean=False)
    with pytest.raises(DataError, match=rf"damaged at byte {stream} \(sequence\)"):
        recover(tmp_path, disk=True, file_bytes=FILE_BYTES)


def test_rows_of_many_groups_are_followed(tmp_path: Path) -> None:
    """Nothing wrong in a file of many streams and groups, more than one step of the walk holds."""
    with Life(tmp_path) as life:
        for _ in range(20):
            life.write(BTC, 7)
            life.write(ETH, 1)
        heads = {"BTC 1m": 140, "ETH 1m": 20}
    scanned, damage = scan_file(journal.files(tmp_path)[0])
    assert damage is None
    assert scanned is not None
    assert np.array_equal([head.head for head in scanned.streams.values()], list(heads.values()))
    assert scanned.sources["file:BTC"] == (140, 7)
