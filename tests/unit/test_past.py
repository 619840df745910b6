"""The journal's past: rows of any stream by sequence, whatever files they lie in, as the rows themselves say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flux import journal
from flux.journal import JournalDamageError, Past
from flux.journal import past as module
from flux.model import RowKind, StreamKey
from tests.unit.lives import BTC, ETH, TRADES, Life, overwrite, rows_of

SEED = 11


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    with Life(tmp_path / "d") as made:
        yield made


def past_of(life: Life) -> Past:
    return Past(life.directory, lambda: life.committer.committed)


def fill(life: Life, groups: int, rng: random.Random) -> dict[StreamKey, int]:
    """Groups of three streams, of which one is rare; how many rows each has."""
    counts = dict.fromkeys((BTC, ETH, TRADES), 0)
    for group in range(groups):
        for key in (BTC, ETH, TRADES):
            if key is not ETH or group % 9 == 0:
                n = rng.randrange(1, 150)
                life.write(key, n)
                counts[key] += n
    return counts


def test_every_row_is_found_from_every_file(life: Life) -> None:
    counts = fill(life, 60, random.Random(SEED))
    assert life.committer.committed.file > 2
    past = past_of(life)
    for number, (key, count) in enumerate(counts.items(), 1):
        rows, at = rows_of(key.kind, 1, count), 0
        while at < count:
            first, found = past.read(number, key.kind, at, count, 5_000)
            assert first == at + 1
            np.testing.assert_array_equal(found, rows[at : at + len(found)])
            at += len(found)
        for after in random.Random(SEED).sample(range(count), 20):
            first, found = past.read(number, key.kind, after, after + 7, 5)
            assert (first, len(found)) == (after + 1, min(5, count - after))
            np.testing.assert_array_equal(found, rows[after : after + 5])


def test_what_is_committed_meanwhile_is_found_and_nothing_beyond_it(life: Life) -> None:
    life.write(BTC, 10)
    end = [life.committer.committed]
    past = Past(life.directory, lambda: end[0])
    assert len(past.read(1, RowKind.CANDLE, 0, 99, 99)[1]) == 10
    life.write(BTC, 10)
    assert len(past.read(1, RowKind.CANDLE, 0, 99, 99)[1]) == 10, "it is not said to be committed"
    end[0] = life.committer.committed
    assert len(past.read(1, RowKind.CANDLE, 0, 99, 99)[1]) == 20
    assert past.read(1, RowKind.CANDLE, 20, 99, 99)[0] == 0
    assert past.read(77, RowKind.CANDLE, 0, 99, 99)[0] == 0, "no such stream"
    assert past.read(1, RowKind.TRADE, 0, 99, 99)[0] == 0, "of another kind"


def test_since_a_file_only_what_stands_in_it_and_behind_it(life: Life) -> None:
    count = fill(life, 60, random.Random(SEED))[BTC]
    past, newest = past_of(life), life.committer.committed.file - 1
    begins = int(module._heads(journal.path_of(life.directory, newest))[1])
    assert past.read(1, RowKind.CANDLE, begins, count, count, newest)[0] == begins + 1
    assert past.read(1, RowKind.CANDLE, begins - 1, count, count, newest)[0] == 0
    assert past.read(1, RowKind.CANDLE, begins - 1, count, count, newest - 1)[0] == begins


def test_indexes_are_bounded_and_made_again(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = fill(life, 60, random.Random(SEED))
    monkeypatch.setattr(module, "INDEX_BYTES", 1)
    past = past_of(life)
    for after in (0, counts[BTC] - 1, 0):
        assert past.read(1, RowKind.CANDLE, after, after + 1, 1)[0] == after + 1
        assert len(past._files) == 1


def test_a_page_reads_no_more_than_it_may(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = fill(life, 60, random.Random(SEED))
    monkeypatch.setattr(module, "PAST_READ_BYTES", 1)
    first, found = past_of(life).read(1, RowKind.CANDLE, 0, counts[BTC], 100_000)
    assert first == 1
    assert 0 < len(found) < counts[BTC]


def test_places_are_few_where_streams_are_few(life: Life) -> None:
    for _ in range(40):
        life.write(BTC, 64)
    past = past_of(life)
    past.read(1, RowKind.CANDLE, 0, 1, 1)
    (file,) = past._files.values()
    span = life.committer.committed.offset // journal.journal._kernel.PLACE_SPAN
    assert span <= file._count <= span + 1


def test_rows_that_do_not_verify_are_said_and_no_others_are_given(life: Life) -> None:
    life.write(BTC, 40)
    at = life.write(BTC, 40).offset
    life.write(BTC, 40)
    overwrite(journal.path_of(life.directory, 1), at - 400, b"spoilt")
    past = past_of(life)
    _, found = past.read(1, RowKind.CANDLE, 0, 120, 120)
    np.testing.assert_array_equal(found, rows_of(RowKind.CANDLE, 1, 40))
    with pytest.raises(JournalDamageError, match="do not read"):
        past.read(1, RowKind.CANDLE, 40, 120, 120)


def test_a_header_that_does_not_read_ends_the_index_and_is_said(life: Life) -> None:
    before = life.write(BTC, 40)
    life.write(BTC, 40)
    overwrite(journal.path_of(life.directory, 1), before.offset, b"\1\2\3")
    past = past_of(life)
    assert len(past.read(1, RowKind.CANDLE, 0, 80, 40)[1]) == 40
    with pytest.raises(JournalDamageError):
        past.read(1, RowKind.CANDLE, 40, 80, 40)


def test_a_file_that_is_gone_is_said(life: Life) -> None:
    fill(life, 40, random.Random(SEED))
    past = past_of(life)
    assert past.read(1, RowKind.CANDLE, 0, 9, 9)[0] == 1
    journal.path_of(life.directory, 1).unlink()
    assert past.read(1, RowKind.CANDLE, 0, 9, 9)[0] == 0


def test_a_hole_longer_than_a_page_is_passed_over_also_at_the_end_of_a_file(life: Life) -> None:
    """As a salvage leaves one: the rows after it are the first that are found."""
    life.write(BTC, 40)
    while life.committer.committed.file < 3:
        life.write(BTC, 200)
    count = life.streams.kernel.head(0)
    past = past_of(life)
    second = int(module._heads(journal.path_of(life.directory, 2))[1])
    assert past.read(1, RowKind.CANDLE, 0, count, 1)[0] == 1
    first_file = past._files[1]
    first_file._count = 1  # as if it had rows in its first span alone
    first, found = past.read(1, RowKind.CANDLE, second - 10, count, 5)
    assert (first, len(found)) == (second + 1, 5)
    np.testing.assert_array_equal(found, rows_of(RowKind.CANDLE, second + 1, 5))
