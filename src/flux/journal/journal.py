"""The open journal of one process: groups in, commits, rotations; the one that holds its files."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from flux.errors import StorageError
from flux.journal.disk import (
    CLOSE_BYTES,
    cut,
    header_of,
    known_synced,
    last_commit,
    new_file,
    translated,
    write,
    write_again,
    write_zeros,
)
from flux.journal.fence import sync_folder
from flux.journal.files import (
    JournalEnd,
    make_spare,
    path_of,
    read_file,
)
from flux.journal.scanner import FORMAT, scan
from flux.kernels import journal as _kernel
from flux.limits import JOURNAL_FILE_BYTES, MAX_RECORD_BYTES

if TYPE_CHECKING:
    from typing_extensions import Buffer

BATCH: Final[int] = _kernel.BATCH
STREAM: Final[int] = _kernel.STREAM
SOURCE: Final[int] = _kernel.SOURCE
HEADS: Final[int] = _kernel.HEADS
EPOCH: Final[int] = _kernel.EPOCH
COMMIT: Final[int] = _kernel.COMMIT
CLOSE: Final[int] = _kernel.CLOSE
HOLE: Final[int] = _kernel.HOLE

FILE_HEADER_BYTES: Final[int] = _kernel.FILE_HEADER_SIZE
"""Where the first group of a file begins."""

ENTRY: Final = np.dtype(
    [("at", "<u8"), ("size", "<u4"), ("kind", "<u4"), ("label", "<u8"), ("label2", "<u8")]
)
"""A record in a group, with the labels of whoever appended it."""


class Position(NamedTuple):
    """A place between two groups: file number, and offset from that file's first byte."""

    file: int
    offset: int


class Group:
    """Records gathered in memory until one commit writes them: at most `capacity` bytes, the COMMIT included.

    One thread fills it, then one thread commits it. It owns its memory; `clear` makes it empty again.
    """

    def __init__(self, capacity: int, records: int | None = None) -> None:
        """`records` bounds their number (default: one for each 128 bytes of capacity)."""
        if capacity < _kernel.COMMIT_SIZE:
            raise ValueError(f"a group of {capacity} bytes has no room for its COMMIT")
        self._kernel = _kernel.Group(capacity, max(64, capacity // 128) if records is None else records)

    def append(self, kind: int, content: Buffer, label: int = 0, label2: int = 0) -> None:
        """Add a record holding a copy of `content` (a buffer). A BATCH must end in its payload's checksum,
        other kinds get theirs here.

        Raises `BufferError` when the group is full (nothing was added), `ValueError` for a COMMIT or a
        content of more than `limits.MAX_RECORD_BYTES`.
        """
        size = memoryview(content).nbytes
        if kind == COMMIT or not 0 < kind < 2**32 or size > MAX_RECORD_BYTES:
            raise ValueError(f"no record of kind {kind} and {size} bytes")
        if not self._kernel.append(kind, content, label, label2):
            raise BufferError(
                f"{size} bytes do not fit a group with {self.used} of {self.capacity} bytes used"
            )

    def clear(self) -> None:
        """Empty it."""
        self._kernel.clear()

    @property
    def used(self) -> int:
        """Bytes of the records so far, without a COMMIT."""
        return self._kernel.used

    @property
    def count(self) -> int:
        """Records so far."""
        return self._kernel.count

    @property
    def capacity(self) -> int:
        """Bytes."""
        return self._kernel.capacity

    @property
    def entries(self) -> npt.NDArray[np.void]:
        """The records so far as `ENTRY`s, a copy; `at` counts from the group's first byte."""
        return np.frombuffer(self._kernel.entries(), ENTRY)

    @property
    def data(self) -> memoryview:
        """The bytes of the records so far, lent: valid until the next change."""
        return memoryview(self._kernel)[: self.used]

    @property
    def _address(self) -> int:
        """Address of the C `flux_group`, for the pump, which must keep this object alive."""
        return self._kernel.address()


class Journal:
    """The file being appended to. Used by one thread; the GIL is released while the disk works.

    When a method raises `StorageError`, nothing it was asked to add counts as added, and it may be called
    again: a commit then writes to the same place.
    """

    def __init__(
        self, directory: Path, number: int, fd: int, offset: int, file_bytes: int, file_format: int = FORMAT
    ) -> None:
        """Use `create` or `open`. Takes over `fd`, whose bytes before `offset` are on the disk."""
        self._older = file_format != FORMAT
        self._directory = directory
        self._number = number
        self._fd = fd
        self._offset = offset
        self._synced = offset
        self._spoiled = offset  # behind the last byte that a failed commit may have left
        self._file_bytes = file_bytes
        self._syncing = threading.Lock()  # held for a sync, and to change the descriptor
        self._doubtful: int | None = None  # from here on a sync that failed may have dropped what was written
        self._settling = 0  # syncs that must still hold before nothing is doubtful
        self._rotating = False  # the last rotation failed: the next file may have its name already
        self._prepared = 0  # the file after this one was seen to

    @classmethod
    def create(
        cls, directory: Path, heads: Buffer, *, file: int = 1, file_bytes: int = JOURNAL_FILE_BYTES
    ) -> Journal:
        """Begin file `file` in `directory`/journal, preallocated, with HEADS and COMMIT, on the disk.

        Raises `StorageError` (disk full, say: nothing is left behind), `DataError` when that file exists.
        """
        fd, offset = new_file(directory, file, heads, file_bytes, before=0)
        return cls(directory, file, fd, offset, file_bytes)

    @classmethod
    def open(
        cls, directory: Path, *, file: int, offset: int, file_bytes: int = JOURNAL_FILE_BYTES
    ) -> Journal:
        """Go on in `file` at `offset`, the `Scan.committed` of that file; what stands behind it is cut.

        What stands before it is on the disk afterwards, whoever wrote it: a process that was killed may have left
        it in memory alone, and a sync that failed is reported once, to that process. So what no COMMIT calls synced
        is written again. A file that is shorter than `file_bytes` is preallocated again. In a file of an older format
        nothing fits: `rotate` first.

        Raises `DataError` for a file that is none of this format's or ends before `offset`, `StorageError` when the
        disk refuses.
        """
        path = path_of(directory, file)
        cut(path, offset)
        header = header_of(path)
        assert header is not None, "what is none was refused"
        with translated(path):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                if os.fstat(fd).st_size < file_bytes:
                    os.posix_fallocate(fd, 0, file_bytes)
                write_again(fd, known_synced(fd, offset), offset)
                os.fsync(fd)
                sync_folder(path.parent)
                sync_folder(path.parent.parent)
            except OSError:
                os.close(fd)
                raise
        return cls(directory, file, fd, offset, file_bytes, header.format)

    @property
    def path(self) -> Path:
        """The file that is appended to now."""
        return path_of(self._directory, self._number)

    @property
    def position(self) -> Position:
        """Behind the last committed group."""
        return Position(self._number, self._offset)

    @property
    def synced(self) -> Position:
        """Behind what is known to be on the disk."""
        return Position(self._number, self._synced)

    def fits(self, group: Group) -> bool:
        """Whether `group` fits the rest of this file, with room for a clean end; if not, `rotate` first."""
        return (
            not self._older
            and self._offset + group.used + _kernel.COMMIT_SIZE <= self._file_bytes - CLOSE_BYTES
        )

    def commit(self, group: Group, sync: bool) -> Position:
        """Write all records of `group` and a COMMIT at once, and wait for the disk if `sync`; an empty group
        writes nothing. The group itself is not changed.

        Raises `ValueError` when the group does not fit, `StorageError` as the class says.
        """
        if group.count and not self.fits(group):
            raise ValueError(f"{group.used} bytes do not fit behind {self.position}: rotate first")
        return self._commit(group, sync)

    def take_back(self, position: Position) -> None:
        """What was committed behind `position` in this file counts as a commit that failed: it was shown to nobody."""
        self._offset, self._synced = position.offset, min(self._synced, position.offset)

    def sync(self) -> None:
        """Wait until all that is committed is on the disk."""
        with translated(path_of(self._directory, self._number)):
            self._sync()

    def sync_beside(self, position: Position) -> bool:
        """Wait until what was committed up to `position` is on the disk; for another thread than the journal's own.
        False when the journal is in another file by then, which is on the disk itself, or closed."""
        with self._syncing:
            if self._fd < 0 or self._number != position.file:
                return False
            with translated(path_of(self._directory, position.file)):
                self._wait_for_disk(position.offset)
                if self._doubtful is not None:
                    # A group that was being written when the sync failed begins where this one ended, at the latest.
                    self._settling -= 1
                    self._doubtful = position.offset if self._settling else None
        return True

    @property
    def end(self) -> JournalEnd:
        """What the bridge is lent; it gives it back through `went_on`."""
        limit = 0 if self._older else self._file_bytes - CLOSE_BYTES
        return JournalEnd(self._fd, self._number, self._offset, self._synced, self._spoiled, limit)

    def went_on(self, offset: int, synced: int, spoiled: int) -> None:
        """The bridge wrote groups up to `offset`, and may have left behind what a failed one began up to `spoiled`."""
        self._offset, self._spoiled = offset, spoiled
        self._synced = max(self._synced, synced)

    @property
    def linked(self) -> bool:
        """Whether its file still has a name, as far as can be seen without waiting; from any thread."""
        if not self._syncing.acquire(blocking=False):
            return True  # a sync is under way
        try:
            return self._fd < 0 or os.fstat(self._fd).st_nlink > 0
        finally:
            self._syncing.release()

    def synced_to(self, position: Position) -> None:
        """What was committed up to `position` is on the disk."""
        if position.file == self._number and position.offset > self._synced:
            self._synced = position.offset

    def prepare(self, position: Position) -> None:
        """Preallocate the file after that of `position` once half of that is used, so that `rotate` need not. From one
        thread, any; a disk that has no room for it is `rotate`'s to meet."""
        if 2 * position.offset > self._file_bytes and self._prepared != position.file:
            self._prepared = position.file
            make_spare(path_of(self._directory, position.file).parent, self._file_bytes)

    def rotate(self, heads: Buffer) -> Position:
        """Go on in the next file, which begins with `heads` and is preallocated: a full disk is met here.

        The file left behind is on the disk before the new one has a name. Raises as the class says.
        """
        self._wipe_spoiled()
        self.sync()
        with translated(path_of(self._directory, self._number)):
            before = last_commit(self._fd, self._offset)
        again, self._rotating = self._rotating, True
        fd, offset = new_file(
            self._directory, self._number + 1, heads, self._file_bytes, before=before, again=again
        )
        self._rotating = False
        with self._syncing:
            os.close(self._fd)
            self._fd, self._number = fd, self._number + 1
        self._offset = self._synced = self._spoiled = offset
        self._older = False
        return self.position

    def close(self, clean: bool = True) -> None:
        """Close the file; `clean` adds a CLOSE record and waits for the disk first. Again is harmless."""
        if self._fd < 0:
            return
        try:
            if clean and not self._older:
                group = Group(CLOSE_BYTES)
                group.append(CLOSE, b"")
                self._commit(group, sync=True)
        finally:
            with self._syncing:
                os.close(self._fd)
                self._fd = -1

    def _commit(self, group: Group, sync: bool) -> Position:
        start = self._offset
        try:
            if group.count:
                size = group._kernel.seal(start, self._synced)
                self._spoiled = max(self._spoiled, start + size)
                with memoryview(group._kernel) as data:
                    write(self._fd, data[:size], start)
                self._offset = start + size
            if sync:
                self._sync()
        except OSError as error:
            self._offset = start
            raise StorageError.of(path_of(self._directory, self._number), error) from error
        return self.position

    def _wipe_spoiled(self) -> None:
        # Else a scan of the file left behind could take a group for committed whose commit failed.
        if self._spoiled > self._offset:
            with translated(path_of(self._directory, self._number)):
                write_zeros(self._fd, self._offset, self._spoiled)
                self._synced = min(self._synced, self._offset - 1)  # a sync there must be
                self._sync()
            self._spoiled = self._offset

    def _sync(self) -> None:
        """Nobody writes meanwhile. Raises `OSError`."""
        if self._synced < self._offset:
            with self._syncing:
                self._wait_for_disk(self._offset)
                self._doubtful = None
            self._synced = self._offset

    def _wait_for_disk(self, end: int) -> None:
        """Sync what is committed up to `end`. After a sync that failed, the system counts what it did not write as
        written: the next sync would pass it over, so it is written again first. Raises `OSError`."""
        path = path_of(self._directory, self._number)
        if self._doubtful is not None and self._doubtful < end:
            data = read_file(path, self._doubtful)
            with memoryview(data) as view, view[:end] as committed:
                if scan(committed, self._doubtful).committed != end:
                    raise OSError(
                        errno.EIO, "it reads otherwise than it was written, after a sync that failed"
                    )
                write(self._fd, committed[self._doubtful :], self._doubtful)
        try:
            os.fdatasync(self._fd)
        except OSError:
            self._doubtful = self._synced if self._doubtful is None else self._doubtful
            self._settling = 2
            raise


def sealed(group: Group, start: int, synced: int, version: int) -> bytes:
    """The bytes of a group and its COMMIT, as they stand at `start` in a file of format `version`."""
    size = group._kernel.seal(start, synced)
    with memoryview(group._kernel) as data:
        made = bytearray(data[:size])
    if version == 1:
        body = group.used + 12
        made[body + 16 : body + 20] = _kernel.crc32c(made[: group.used]).to_bytes(4, "little")
        made[body + 20 : body + 24] = _kernel.crc32c(made[body : body + 20]).to_bytes(4, "little")
    return bytes(made)


def truncate(directory: Path, position: Position) -> int:
    """Zero all that stands behind `position` in its file, which keeps its length, and wait for the disk.

    How many bytes there were, up to the last that was not zero. Raises as `Journal.open` does.
    """
    return cut(path_of(directory, position.file), position.offset)
