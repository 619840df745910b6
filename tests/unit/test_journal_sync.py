"""A sync that failed: what the journal does before it calls anything synced again."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux import journal
from flux.errors import StorageError
from flux.journal import Journal
from tests.unit.disk import Disk
from tests.unit.test_journal import FILE_BYTES, filled


class TestASyncThatFailed:
    """D14: the next one that holds proves nothing of what was written before."""

    @pytest.fixture
    def seen(self, monkeypatch: pytest.MonkeyPatch) -> Disk:
        return Disk(monkeypatch)

    def failed(self, tmp_path: Path, seen: Disk) -> Journal:
        """A journal whose sync beside it has failed, with a group that was being written meanwhile."""
        log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
        position = log.commit(filled(b"one"), sync=False)
        log.commit(filled(b"two"), sync=False)
        seen.failing = 1
        with pytest.raises(StorageError, match="Input/output error"):
            log.sync_beside(position)
        assert log.synced < position
        return log

    def test_beside_the_journal(self, tmp_path: Path, seen: Disk) -> None:
        log = self.failed(tmp_path, seen)
        path = journal.path_of(tmp_path, 1)
        first = log.position
        third = log.commit(filled(b"three"), sync=False)
        for position in (first, third):
            assert log.sync_beside(position)
            assert seen.has(path, position.offset)
        seen.writes.clear()
        assert log.sync_beside(log.commit(filled(b"four"), sync=False))
        assert len(seen.writes) == 1, "what is on the disk is not written for ever"
        assert seen.has(path)

    def test_a_group_that_was_being_written_when_it_failed(self, tmp_path: Path, seen: Disk) -> None:
        log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
        one = log.commit(filled(b"one"), sync=False)
        two = log.commit(filled(b"two"), sync=False)
        seen.failing = 1
        with pytest.raises(StorageError):
            log.sync_beside(one)
        for position in (one, two):
            assert log.sync_beside(position)
            assert seen.has(journal.path_of(tmp_path, 1), position.offset)

    @pytest.mark.parametrize("how", ["sync", "rotate", "close", "commit"])
    def test_by_the_journals_own_thread(self, tmp_path: Path, seen: Disk, how: str) -> None:
        log = self.failed(tmp_path, seen)
        if how == "rotate":
            log.rotate(b"two")
        elif how == "commit":
            assert log.commit(filled(b"three"), sync=True) == log.synced
        else:
            getattr(log, how)()
        assert seen.has(journal.path_of(tmp_path, 1))

    def test_what_reads_otherwise_than_it_was_written_is_never_called_synced(
        self, tmp_path: Path, seen: Disk
    ) -> None:
        log = self.failed(tmp_path, seen)
        path, end = journal.path_of(tmp_path, 1), log.position
        whole = path.read_bytes()
        path.write_bytes(whole[: end.offset - 100] + bytes(FILE_BYTES - end.offset + 100))
        for _ in range(2):
            with pytest.raises(StorageError, match="reads otherwise than it was written"):
                log.sync_beside(end)
        assert log.synced < end
        path.write_bytes(whole)
        assert log.sync_beside(end)
        assert seen.has(path)

    def test_a_file_left_behind_is_no_business_of_the_syncer(self, tmp_path: Path) -> None:
        log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
        position = log.commit(filled(b"one"), sync=False)
        log.rotate(b"two")
        assert not log.sync_beside(position)
        log.close()
        assert not log.sync_beside(log.position)
