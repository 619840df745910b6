"""S4: no row is in the database twice, and none is passed over, whatever file the database has become meanwhile."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from flux.errors import DamagedError, StorageError
from flux.journal import FILE_HEADER_BYTES, Position
from flux.model import RowKind
from flux.store.base import StoreBatch
from flux.store.duck import DuckStore
from flux.store.projection import Projection
from tests.unit.lives import BTC, Life, rows_of


def batch(first: int, count: int) -> StoreBatch:
    return StoreBatch(
        kind=RowKind.CANDLE,
        stream_ids=np.full(count, 1, np.uint32),
        sequences=np.arange(first, first + count, dtype=np.uint64),
        epochs=np.full(count, 1, np.uint32),
        rows=rows_of(RowKind.CANDLE, first, count),
    )


def sequences(store: DuckStore) -> list[int]:
    with store._database.reading() as cursor:
        return [row[0] for row in cursor.execute("SELECT sequence FROM candles ORDER BY sequence").fetchall()]


@pytest.mark.parametrize("became", ["gone", "older", "newer"])
def test_a_file_that_is_opened_anew_and_is_another_takes_nothing_unasked(became: str, tmp_path: Path) -> None:
    """A reader meets a fatal error, and the writer's next commit opens the file again: another one by now."""
    path, others = tmp_path / "flux.duckdb", {}
    store = DuckStore(path, 7)
    for step in (1, 2, 3):
        store.append(batch(10 * step - 9, 10), (1, 100 * step))
        store.close()
        others[step] = shutil.copy(path, tmp_path / f"{step}")
        store = DuckStore(path, 7)
    store.close()
    os.replace(others[2], path)
    store = DuckStore(path, 7)
    if became == "gone":
        path.unlink()
    else:
        os.replace(others[1 if became == "older" else 3], path)
    store._database._invalid = True
    with pytest.raises(StorageError, match="another file"):
        store.append(batch(21, 10), (1, 300))
    found = {"gone": None, "older": (1, 100), "newer": (1, 300)}[became]
    assert store.position() == found
    rows = 0 if found is None else found[1] // 10
    assert sequences(store) == list(range(1, rows + 1)), "nothing of the commit went in"
    store.append(batch(rows + 1, 5), (1, 400))
    assert sequences(store) == list(range(1, rows + 6))
    store.close()


def test_two_projections_into_one_file_store_each_row_once(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        life.write(BTC, 30)
        store, end = life.recovered.store, life.committer.committed
        first = Position(1, FILE_HEADER_BYTES)
        one, other = (Projection(tmp_path, store, first, end, life.recovered.projected, 1) for _ in range(2))
        store._projected = None  # as in a second process
        one.step(end)
        store._projected = None
        with pytest.raises(StorageError):
            other.step(end)
        while other.position < end:
            other.step(end)
        assert sequences(store) == list(range(1, 31))


def test_a_database_that_opens_late_and_is_ahead_is_never_gone_on_with(tmp_path: Path) -> None:
    """The journal lost its end while the database did not open: by the time it does, the journal may be longer than
    what the database calls its place, which is that of other rows."""
    with Life(tmp_path / "d") as life:
        life.write(BTC, 10)
        store, end = life.recovered.store, life.committer.committed
        store.commit([], {}, (end.file, end.offset + 64))
        life.write(BTC, 500)
        projection = Projection(
            tmp_path / "d", store, Position(1, FILE_HEADER_BYTES), end, life.recovered.projected, 1
        )
        assert life.committer.committed.offset > end.offset + 64
        for _ in range(2):
            with pytest.raises(DamagedError, match="beyond the end"):
                projection.step(life.committer.committed)
        assert sequences(store) == []


def test_rows_that_the_journal_no_longer_has_are_never_joined_by_others_of_their_sequences(
    tmp_path: Path,
) -> None:
    """The journal lost its end while the database did not open, and has grown past the place that the database calls
    its own before the next start: nothing about the place is odd by then, only the sequences are."""
    with Life(tmp_path / "d") as life:
        life.write(BTC, 30)
        store, between = life.recovered.store, life.committer.committed
        end = life.write(BTC, 20)
        one = Projection(
            tmp_path / "d", store, Position(1, FILE_HEADER_BYTES), end, life.recovered.projected, 1
        )
        while one.position < between:
            one.step(between)
        store.append(batch(31, 5), (between.file, between.offset + 1))
        store.commit([], {}, between)
        for _ in range(2):
            with pytest.raises(DamagedError, match="rows of these sequences"):
                one.step(end)
        assert sequences(store) == list(range(1, 36))
        assert store.position() == between
