"""`flux rebuild --salvage`: every group that reads, and what the database has of the others (D12)."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from flux import journal
from flux.model import MAX_SEQUENCE, RowKind
from flux.server.storage.rebuild import Rebuilt, rebuild
from flux.server.storage.scan import missing_between, scan_file
from flux.store.base import Rows
from flux.store.duck import DuckStore
from tests.unit.lives import BTC, ETH, FILE_BYTES, TRADES, Life, overwrite, rows_of

GROUP = 20  # rows in a group
ROOM = FILE_BYTES - 24


def filled(data: Path, *, files: int = 1, projected: bool = True) -> list[tuple[int, int, int]]:
    """Groups of candles and trades in turn: (file, where it begins, where it ends)."""
    groups = []
    with Life(data) as life:
        for turn in range(1_000):
            before = life.recovered.journal.position if turn == 0 else life.committer.committed
            after = life.write(TRADES if turn % 4 == 3 else BTC, GROUP)
            if after.file == before.file:
                groups.append((after.file, before.offset, after.offset))
            if (after.file == files and files > 1 and turn % 4 == 1) or (files == 1 and turn == 20):
                break
        if projected:
            life.project()
        life.stop()
    return groups


def damaged(data: Path, groups: list[tuple[int, int, int]], rng: random.Random) -> None:
    for file, start, end in groups:
        overwrite(journal.path_of(data, file), rng.randrange(start + 12, end - 8), b"\x5a\xa5\x5a")


def heads(data: Path) -> dict[int, int]:
    scanned, damage = scan_file(journal.files(data)[-1])
    assert damage is None
    assert scanned is not None
    return {stream: head.head for stream, head in scanned.streams.items()}


def salvaged(data: Path) -> Rebuilt:
    said: list[str] = []
    done = rebuild(data, cut=False, salvage_all=True, say=said.append)
    print(*said, sep="\n")
    for file in journal.files(data):
        assert scan_file(file)[1] is None, "it reads again"
    assert list(missing_between(journal.files(data), thorough=True)) == []
    return done


def stored(data: Path, stream: int, kind: RowKind) -> tuple[list[int], list[Rows]]:
    """Every run of rows in the database: its first sequence, and the rows."""
    scanned, _ = scan_file(journal.files(data)[-1])
    assert scanned is not None
    store = DuckStore(data / "flux.duckdb", scanned.heads.store_id)
    try:
        firsts, runs, at = [], [], 0
        while True:
            first, rows = store.read(stream, kind, at, MAX_SEQUENCE, 1_000_000)
            if not len(rows):
                return firsts, runs
            firsts.append(first)
            runs.append(rows)
            at = first + len(rows) - 1
    finally:
        store.close()


def check_rows(data: Path, lost: int) -> None:
    """All rows that the database has are true, and `lost` are not there."""
    missing = 0
    for stream, kind in ((1, RowKind.CANDLE), (2, RowKind.TRADE)):
        firsts, runs = stored(data, stream, kind)
        for first, rows in zip(firsts, runs, strict=True):
            assert rows.tobytes() == rows_of(kind, first, len(rows)).tobytes()
        missing += heads(data)[stream] - sum(map(len, runs))
    assert missing == lost


@pytest.mark.parametrize("files", [1, 3])
def test_the_database_has_what_the_journal_lost(tmp_path: Path, files: int, rng: random.Random) -> None:
    groups = filled(tmp_path, files=files)
    before = heads(tmp_path)
    hit = rng.sample(groups[5:-2], 3)
    damaged(tmp_path, hit, rng)
    done = salvaged(tmp_path)
    assert done.from_database == 3 * GROUP
    assert heads(tmp_path) == before
    check_rows(tmp_path, 0)
    with Life(tmp_path) as life:
        assert (life.epoch, life.reasons) == (1, ""), "nothing is lost"
        life.write(BTC, 5)
        life.stop()
    assert rebuild(tmp_path, cut=False, salvage_all=True, say=print).from_database == 3 * GROUP
    check_rows(tmp_path, 0)


def newest(data: Path) -> dict[int, tuple[int, int, int]]:
    """What a start knows of every stream: its head, the time of its last row, and its highest time or id."""
    with Life(data) as life:
        found = {n: (head.head, head.latest_ts, head.highest) for n, head in life.recovered.streams.items()}
        life.stop()
    return found


def test_a_start_knows_how_new_the_rows_are_that_only_the_database_has(
    tmp_path: Path, rng: random.Random
) -> None:
    groups = filled(tmp_path)
    before = newest(tmp_path)
    damaged(tmp_path, groups[-4:], rng)
    salvaged(tmp_path)
    assert newest(tmp_path) == before, "else rows that come again are new"


@pytest.mark.parametrize("gone", [False, True])
def test_a_start_that_cannot_know_how_new_they_are_begins_an_epoch(
    tmp_path: Path, rng: random.Random, gone: bool
) -> None:
    """The database does not read, or was deleted: what comes again of them is numbered again, and said so."""
    groups = filled(tmp_path)
    damaged(tmp_path, groups[-4:], rng)
    salvaged(tmp_path)
    before, database = heads(tmp_path), tmp_path / "flux.duckdb"
    if gone:
        database.unlink()
    else:
        overwrite(database, 0, bytes(4_096))
    for life_number in range(2):
        with Life(tmp_path) as life:
            assert life.epoch == 2, "once"
            assert "only the database had" in life.reasons
            assert "are numbered again" in life.reasons
            assert life.recovered.identity.epochs[-1].ends == before
            if life_number == 0:
                life.write(BTC, 5)
            life.stop()


def test_a_rebuild_after_a_salvage_keeps_what_only_the_database_has(
    tmp_path: Path, rng: random.Random
) -> None:
    groups = filled(tmp_path, files=3)
    damaged(tmp_path, rng.sample(groups[5:-2], 3), rng)
    salvaged(tmp_path)
    assert rebuild(tmp_path, cut=False, say=print).from_database == 3 * GROUP
    check_rows(tmp_path, 0)


def test_without_a_database_the_hole_is_a_gap_and_the_rest_stays(tmp_path: Path, rng: random.Random) -> None:
    groups = filled(tmp_path, files=3)
    before = heads(tmp_path)
    (tmp_path / "flux.duckdb").unlink()
    damaged(tmp_path, [rng.choice([group for group in groups[8:] if group[0] < 3])], rng)
    done = salvaged(tmp_path)
    assert done.from_database == 0
    assert heads(tmp_path) == before
    check_rows(tmp_path, GROUP)
    with Life(tmp_path) as life:
        assert (life.epoch, life.reasons) == (1, ""), "the file behind it says how far the rows went"
        life.write(BTC, 5)
        life.stop()
    assert rebuild(tmp_path, cut=False, say=print).rows == done.rows + 5, "known from now on"


def test_in_the_last_file_nobody_knows_what_more_is_lost(tmp_path: Path, rng: random.Random) -> None:
    groups = filled(tmp_path)
    before = heads(tmp_path)
    (tmp_path / "flux.duckdb").unlink()
    damaged(tmp_path, groups[10:12], rng)  # the second of them is of trades
    salvaged(tmp_path)
    assert heads(tmp_path) == before
    check_rows(tmp_path, 2 * GROUP)
    with Life(tmp_path) as life:
        assert life.epoch == 2
        assert life.recovered.identity.epochs[-1].ends == before


def test_rows_behind_the_end_that_only_the_database_has(tmp_path: Path, rng: random.Random) -> None:
    groups = filled(tmp_path)
    before = heads(tmp_path)
    damaged(tmp_path, groups[-1:], rng)
    journal.truncate(tmp_path, journal.Position(1, groups[-1][2]))  # its CLOSE
    journal.truncate(tmp_path, journal.Position(1, groups[-3][2]))
    done = salvaged(tmp_path)
    assert done.from_database == 2 * GROUP
    assert heads(tmp_path) == before
    check_rows(tmp_path, 0)
    with Life(tmp_path) as life:
        life.write(ETH, 3)
        life.project()
        assert life.heads == {"BTC 1m": before[1], "BTC trade": before[2]}


def test_a_stream_that_got_its_number_where_it_is_damaged(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        life.write(BTC, GROUP)
        start = life.committer.committed.offset
        end = life.write(ETH, GROUP).offset
        life.write(BTC, GROUP)
        life.write(ETH, GROUP)
        life.project()
        life.stop()
    overwrite(journal.path_of(tmp_path, 1), (start + end) // 2, b"\x5a")
    assert salvaged(tmp_path).from_database == GROUP
    assert heads(tmp_path) == {1: 2 * GROUP, 2: 2 * GROUP}
    firsts, runs = stored(tmp_path, 2, RowKind.CANDLE)
    assert firsts == [1]
    assert runs[0].tobytes() == rows_of(RowKind.CANDLE, 1, 2 * GROUP).tobytes()


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    filled(tmp_path, files=3)
    before = heads(tmp_path)
    journal.path_of(tmp_path, 2).unlink()
    done = salvaged(tmp_path)
    assert done.from_database > 500
    assert heads(tmp_path) == before
    check_rows(tmp_path, 0)


def test_random_damage_loses_no_group_that_reads(tmp_path: Path, rng: random.Random) -> None:
    groups = filled(tmp_path, files=2)
    before = heads(tmp_path)
    hit = sorted(rng.sample(groups[4:-1], rng.randrange(1, 12)))
    (tmp_path / "flux.duckdb").unlink()
    damaged(tmp_path, hit, rng)
    salvaged(tmp_path)
    lost = before[1] + before[2] - sum(heads(tmp_path).values())
    check_rows(tmp_path, GROUP * len(hit) - lost)
    assert np.all(np.array(list(before.values())) >= list(heads(tmp_path).values()))
