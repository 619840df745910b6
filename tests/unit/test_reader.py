"""Following a journal from elsewhere: never past the fence, and over the ends of files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flux import journal
from flux.errors import StorageError
from flux.journal import JournalDamageError, JournalReadError, Position, Reader, fence_mark
from flux.model import RowKind
from tests.unit.lives import BTC, TRADES, Life, overwrite, rows_of

BEGIN = Position(1, journal.FILE_HEADER_BYTES)

ELSEWHERE = """
import json, sys
from pathlib import Path
from flux.journal import FILE_HEADER_BYTES, Position, Reader, fence_mark
directory = Path(sys.argv[1])
mark = fence_mark(directory)
reader, at, closes = Reader(directory, 1_000), Position(1, FILE_HEADER_BYTES), []
while at < (mark.file, mark.offset):
    step = reader.step(at, Position(mark.file, mark.offset))
    closes += step.gathered.rows[1]["close"].tolist()
    at = step.after
print(json.dumps(closes))
"""


def test_another_process_reads_what_is_committed(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        while life.committer.committed.file < 3:
            life.write(BTC, 200)
            life.write(TRADES, 50)
        said = subprocess.run(
            [sys.executable, "-c", ELSEWHERE, str(tmp_path)], capture_output=True, text=True, check=True
        )
        count = life.streams.kernel.head(0)
    assert json.loads(said.stdout) == rows_of(RowKind.CANDLE, 1, count)["close"].tolist()


def test_the_fence_is_read_from_both_slots(tmp_path: Path) -> None:
    assert fence_mark(tmp_path) is None
    with Life(tmp_path) as life:
        for _ in range(2):
            life.write(BTC, 1)
            mark = fence_mark(tmp_path)
            assert mark is not None
            assert (mark.file, mark.offset) == life.committer.committed
        slots = (tmp_path / "fence").read_bytes()
        serials = [int.from_bytes(slots[at + 24 : at + 28], "little") for at in (0, 4_096)]
        newer = serials.index(max(serials))
        before = life.recovered.fence.load()
        overwrite(tmp_path / "fence", newer * 4_096, b"torn")
        older = fence_mark(tmp_path)
        assert older is not None
        assert before is not None
        assert older.offset < before.offset, "the older slot is what is left of a torn one"


def test_no_further_than_told_and_from_where_told(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        middle = life.write(BTC, 10)
        end = life.write(BTC, 10)
        reader = Reader(tmp_path, 1_000)
        first = reader.step(BEGIN, middle)
        assert first.after == middle
        np.testing.assert_array_equal(first.gathered.rows[RowKind.CANDLE], rows_of(RowKind.CANDLE, 1, 10))
        assert reader.step(middle, middle).after == middle, "nothing is there"
        second = reader.step(middle, end)
        np.testing.assert_array_equal(second.gathered.rows[RowKind.CANDLE], rows_of(RowKind.CANDLE, 11, 10))


def test_what_cannot_be_read_and_what_is_damaged_are_two_things(tmp_path: Path) -> None:
    with Life(tmp_path) as life:
        middle = life.write(BTC, 10)
        end = life.write(BTC, 10)
        overwrite(journal.path_of(tmp_path, 1), end.offset - 300, b"spoilt")
        reader = Reader(tmp_path, 1_000)
        with pytest.raises(JournalDamageError, match="flux rebuild"):
            reader.step(middle, end)
        journal.path_of(tmp_path, 1).rename(tmp_path / "aside")
        with pytest.raises(JournalReadError) as caught:
            reader.step(BEGIN, end)
        assert isinstance(caught.value, StorageError)
        (tmp_path / "aside").rename(journal.path_of(tmp_path, 1))
