"""The journal on a real file system: commits, torn tails, kills, a full disk, rotation, the fence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flux import journal
from flux.errors import DataError, StorageError
from flux.journal import Fence, FenceMark, Group, Journal, Position
from flux.journal import disk as journal_disk
from flux.kernels import journal as _kernel
from tests.fences import mark_of
from tests.full_disk import refusing
from tests.oracle import journal as oracle

FILE_BYTES = 64 * 1024


def filled(*contents: bytes, kind: int = journal.SOURCE) -> Group:
    group = Group(32 * 1024)
    for content in contents:
        group.append(kind, content)
    return group


def contents(directory: Path, file: int = 1, kind: int = journal.SOURCE) -> list[bytes]:
    data = bytes(journal.read_file(journal.path_of(directory, file)))
    records = journal.scan(data).records
    return [data[r["at"] : r["at"] + r["size"]] for r in records if r["kind"] == kind]


def reopened(directory: Path, file: int = 1) -> Journal:
    found = journal.scan(journal.read_file(journal.path_of(directory, file)))
    return Journal.open(directory, file=file, offset=found.committed, file_bytes=FILE_BYTES)


def test_create_commit_close_and_scan(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    first = log.position
    group = Group(4096)
    group.append(journal.BATCH, b"\x01\x00t" + oracle.sealed(b"payload"), label=3, label2=4)
    group.append(journal.STREAM, b"stream")
    second = log.commit(group, sync=True)
    assert first < second == log.position == log.synced
    assert group.count == 2
    log.close()
    log.close()
    assert journal.files(tmp_path) == [(1, journal.path_of(tmp_path, 1))]
    assert journal.path_of(tmp_path, 1).stat().st_size == FILE_BYTES
    found = journal.scan(journal.read_file(journal.path_of(tmp_path, 1)))
    J = journal  # noqa: N806  a table of names reads better short
    kinds = [J.HEADS, J.COMMIT, J.BATCH, J.STREAM, J.COMMIT, J.CLOSE, J.COMMIT]
    assert found.records["kind"].tolist() == kinds
    assert (found.reason, found.number, found.resumes) == ("end", 1, False)
    assert contents(tmp_path, kind=journal.STREAM) == [b"stream"]
    assert group.entries[["kind", "label", "label2"]].tolist() == [(1, 3, 4), (2, 0, 0)]
    assert bytes(group.data[12:15]) == b"\x01\x00t"


def test_empty_group_writes_nothing_but_syncs(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"", file_bytes=FILE_BYTES)
    log.commit(filled(b"a"), sync=False)
    assert log.synced < log.position
    before = log.position
    assert log.commit(Group(4096), sync=True) == before == log.synced


def test_torn_last_group_at_every_byte_is_cut_and_the_journal_goes_on(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    start = log.commit(filled(b"kept"), sync=True).offset
    end = log.commit(filled(b"torn", b"tail"), sync=True).offset
    log.close(clean=False)
    path = journal.path_of(tmp_path, 1)
    whole = path.read_bytes()
    for cut in range(start, end - 4):  # the last four bytes are the COMMIT's padding
        path.write_bytes(whole[:cut] + bytes(FILE_BYTES - cut))
        log = reopened(tmp_path)
        assert log.position == Position(1, start)
        assert path.read_bytes() == whole[:start] + bytes(FILE_BYTES - start)
        log.commit(filled(b"new"), sync=False)
        log.close(clean=False)
        assert contents(tmp_path) == [b"kept", b"new"]


def test_file_shorter_than_its_preallocation_is_preallocated_again(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    end = log.commit(filled(b"kept"), sync=True).offset
    log.close(clean=False)
    os.truncate(journal.path_of(tmp_path, 1), end)
    log = reopened(tmp_path)
    assert journal.path_of(tmp_path, 1).stat().st_size == FILE_BYTES
    log.commit(filled(b"new"), sync=True)
    assert contents(tmp_path) == [b"kept", b"new"]


def test_truncate_counts_what_it_cut_and_keeps_the_length(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    keep = log.commit(filled(b"kept"), sync=True)
    log.commit(filled(b"cut" * 10), sync=True)
    log.close(clean=False)
    assert journal.truncate(tmp_path, keep) > 40
    assert journal.truncate(tmp_path, keep) == 0
    assert contents(tmp_path) == [b"kept"]
    assert journal.path_of(tmp_path, 1).stat().st_size == FILE_BYTES


def test_older_copy_ends_before_what_was_shown(tmp_path: Path) -> None:
    """The journal cannot know that a file was put back; its position against the fence can."""
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    path = journal.path_of(tmp_path, 1)
    fence = Fence(tmp_path)
    fence.store(1, 1, *log.commit(filled(b"old"), sync=True))
    copy = path.read_bytes()
    fence.store(1, 1, *log.commit(filled(b"shown"), sync=True))
    log.close(clean=False)
    path.write_bytes(copy)
    found = journal.scan(journal.read_file(path))
    mark = mark_of(tmp_path)
    assert mark is not None
    assert (found.number, found.committed) < (mark.file, mark.offset)


def test_open_refuses_what_is_no_journal_file(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    offset = log.position.offset
    log.close(clean=False)
    path = journal.path_of(tmp_path, 1)
    whole = path.read_bytes()
    for data in (b"", bytes(FILE_BYTES), b"\x7fELF" + whole[4:], whole[: offset - 1]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"00000001\.fluxlog"):
            Journal.open(tmp_path, file=1, offset=offset, file_bytes=FILE_BYTES)
        assert path.read_bytes() == data
    path.write_bytes(oracle.file_header(1, version=3) + whole[24:])
    for attempt in (
        lambda: Journal.open(tmp_path, file=1, offset=offset, file_bytes=FILE_BYTES),
        lambda: journal.scan(path.read_bytes()),
    ):
        with pytest.raises(DataError, match="format 3, this flux reads 2: install a newer"):
            attempt()
    with pytest.raises(StorageError, match="No such file"):
        Journal.open(tmp_path, file=2, offset=24, file_bytes=FILE_BYTES)


def test_rotation_begins_with_heads_and_leaves_a_whole_file(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"one", file_bytes=FILE_BYTES)
    group = filled(bytes(20_000))
    while log.fits(group):
        log.commit(group, sync=False)
    with pytest.raises(ValueError, match="rotate first"):
        log.commit(group, sync=False)
    last = log.position
    assert last < log.rotate(b"two") == log.position == log.synced
    assert log.fits(group)
    log.commit(filled(b"next"), sync=True)
    log.close()
    assert [number for number, _ in journal.files(tmp_path)] == [1, 2]
    assert journal.scan(journal.read_file(journal.path_of(tmp_path, 1)))[1:4] == (last.offset,) * 3
    assert contents(tmp_path, 2, journal.HEADS) == [b"two"]
    assert contents(tmp_path, 2) == [b"next"]
    with pytest.raises(DataError, match="exists already"):
        Journal.create(tmp_path, b"", file=2, file_bytes=FILE_BYTES)
    with pytest.raises(ValueError, match="HEADS"):
        Journal.create(tmp_path, bytes(FILE_BYTES), file=3, file_bytes=FILE_BYTES)


def test_half_made_file_of_a_killed_rotation_is_no_file(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"one", file_bytes=FILE_BYTES)
    (tmp_path / "journal" / ".00000002.fluxlog.new").write_bytes(b"half")
    assert [number for number, _ in journal.files(tmp_path)] == [1]
    log.rotate(b"two")
    assert sorted(os.listdir(tmp_path / "journal")) == ["00000001.fluxlog", "00000002.fluxlog"]


@pytest.mark.parametrize("failing", ["write", "fdatasync"])
def test_failed_commit_is_no_commit_and_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    before = log.commit(filled(b"kept"), sync=True)

    def refuse(fd: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, refusing(log._end.fd, failing == "write"):
        patch.setattr(os, "fdatasync", refuse)
        with pytest.raises(StorageError, match="No space left on device"):
            log.commit(filled(b"lost", b"lost"), sync=True)
        assert log.position == log.synced == before
    log.commit(filled(b"other"), sync=True)
    assert contents(tmp_path) == [b"kept", b"other"]


def test_failed_commit_is_wiped_before_its_file_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)

    def refuse(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        with pytest.raises(StorageError, match="Input/output error"):
            log.commit(filled(b"never"), sync=True)
    assert contents(tmp_path) == [b"never"], "all of it was written: only its sync failed"
    log.rotate(b"two")
    assert contents(tmp_path, 1) == []


def test_a_rotation_whose_leftover_could_not_be_removed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk failed behind the rename: the next file has its name already, and it is nobody's."""
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    log.commit(filled(b"one"), sync=True)

    real = os.unlink

    def refuse(name: os.PathLike[str]) -> None:
        if Path(name).name.startswith("."):
            real(name)
            return
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(journal_disk, "sync_folder", refuse)
        patch.setattr(os, "unlink", refuse)
        for _ in range(2):
            with pytest.raises(StorageError, match="Input/output error"):
                log.rotate(b"two")
    assert journal.path_of(tmp_path, 2).exists()
    log.rotate(b"two")
    log.commit(filled(b"behind"), sync=True)
    assert (contents(tmp_path, 1), contents(tmp_path, 2)) == ([b"one"], [b"behind"])
    with pytest.raises(DataError, match="exists already"):
        Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)


FULL_DISK = """
import resource, sys
from pathlib import Path
from flux.errors import StorageError
from flux.journal import Group, Journal
limit, size = 100_000, 64 * 1024
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
log = Journal.create(Path(sys.argv[1]), b"heads", file_bytes=size)
log._file_bytes = 2 * limit  # the next file does not fit
group = Group(4096)
group.append(3, b"kept")
log.commit(group, sync=True)
try:
    log.rotate(b"two")
except StorageError as error:
    print("refused:", error)
log.commit(group, sync=True)
log.close()
"""


def test_full_disk_is_met_at_rotation_and_the_old_file_goes_on(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "refused:" in run.stdout
    assert "File too large" in run.stdout
    assert os.listdir(tmp_path / "journal") == ["00000001.fluxlog"]
    assert contents(tmp_path) == [b"kept", b"kept"]
    assert len(contents(tmp_path, kind=journal.CLOSE)) == 1


KILLED = """
import sys
from pathlib import Path
from flux.journal import Fence, Group, Journal
directory = Path(sys.argv[1])
log = Journal.create(directory, b"heads")
fence = Fence(directory)
group = Group(1 << 20)
number = 0
while True:
    group.clear()
    for _ in range(1 + number % 40):
        number += 1
        group.append(3, number.to_bytes(8, "little"))
    mark = log.commit(group, sync=number % 3 == 0)
    fence.store(9, 1, *mark)
    print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 7, 40, 150])
def test_killed_process_loses_nothing_it_said(tmp_path: Path, lines: int) -> None:
    """kill -9 after a number of groups: every record that was announced is there, in order, and the fence
    holds.
    """
    with subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(lines):
            said = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        said = max([said, *(int(line) for line in process.stdout if line.endswith(b"\n"))])
    data = journal.read_file(journal.path_of(tmp_path, 1))
    found = journal.scan(data)
    numbers = [
        int.from_bytes(data[r["at"] : r["at"] + r["size"]], "little") for r in found.records if r["kind"] == 3
    ]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) >= said
    assert not found.resumes
    mark = mark_of(tmp_path)
    assert mark is not None
    assert (mark.file, mark.offset) <= (found.number, found.committed)


def test_fence_alternates_and_survives_a_torn_slot(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    assert fence.load() is None
    fence.store(2**64 - 1, 1, 1, 100)
    fence.store(2**64 - 1, 1, 2, 24)
    assert fence.load() == FenceMark(2**64 - 1, 1, 2, 24)
    fence.sync()
    fence.close()
    fence.close()
    path = tmp_path / "fence"
    whole = path.read_bytes()
    newer, older = FenceMark(2**64 - 1, 1, 2, 24), FenceMark(2**64 - 1, 1, 1, 100)
    slots = [slot for slot in (0, 4096) if whole[slot + 16 : slot + 24] == (24).to_bytes(8, "little")]
    for at in range(slots[0], slots[0] + 32):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        torn = Fence(tmp_path)
        assert torn.load() == older
        torn.store(*newer)  # goes into the torn slot: the older one is untouched
        torn.close()
        assert mark_of(tmp_path) == newer
    path.write_bytes(b"")
    assert mark_of(tmp_path) is None


def test_fence_knows_the_newer_slot_when_its_serial_wraps(tmp_path: Path) -> None:
    fence = Fence(tmp_path)
    fence._kernel = _kernel.Fence(fence._fd, 1, 2**32 - 2, (0, 0, 0, 0))
    for offset in (8, 16, 24):
        fence.store(1, 1, 1, offset)
        assert mark_of(tmp_path) == FenceMark(1, 1, 1, offset)


def test_group_says_what_is_wrong() -> None:
    group = Group(200)
    with pytest.raises(ValueError, match="kind 6"):
        group.append(journal.COMMIT, b"")
    with pytest.raises(ValueError, match="kind 0"):
        group.append(0, b"")
    with pytest.raises(BufferError, match="do not fit"):
        group.append(journal.STREAM, bytes(200))
    assert (group.count, group.used, group.capacity) == (0, 0, 200)
    with pytest.raises(ValueError, match="no room"):
        Group(8)
    with pytest.raises(ValueError, match="no group begins"):
        journal.scan(b"", 8)
    with pytest.raises(ValueError, match="no group begins"):
        journal.scan(bytes(64), 12)


def test_records_are_one_array(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"heads")
    group = Group(8 << 20)
    for i in range(5_000):
        group.append(journal.SOURCE, i.to_bytes(4, "little"))
    log.commit(group, sync=False)
    data = journal.read_file(journal.path_of(tmp_path, 1))
    records = journal.scan(data).records
    assert records.dtype == journal.RECORD
    sources = records[records["kind"] == journal.SOURCE]
    starts = sources["at"].astype(np.int64)[:, None] + np.arange(4)
    values = np.frombuffer(data, np.uint8)[starts].view("<u4").ravel()
    np.testing.assert_array_equal(values, np.arange(5_000))


def test_the_next_file_is_made_ahead_once_half_of_this_one_is_used(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    spare = tmp_path / "journal" / ".spare"
    log.prepare(Position(1, FILE_BYTES // 2))
    assert not spare.exists()
    log.prepare(Position(1, FILE_BYTES // 2 + 8))
    assert spare.stat().st_size == FILE_BYTES
    log.rotate(b"heads")
    assert not spare.exists()
    assert [file.number for file in journal.files(tmp_path)] == [1, 2]
    assert journal.scan(journal.read_file(journal.path_of(tmp_path, 2))).reason == "end"
    log.close()


def test_a_spare_file_of_another_length_is_not_trusted(tmp_path: Path) -> None:
    log = Journal.create(tmp_path, b"heads", file_bytes=FILE_BYTES)
    (tmp_path / "journal" / ".spare").write_bytes(b"x" * 100)
    log.rotate(b"heads")
    assert journal.path_of(tmp_path, 2).stat().st_size == FILE_BYTES
    assert journal.scan(journal.read_file(journal.path_of(tmp_path, 2))).tail == log.position.offset
    log.close()
