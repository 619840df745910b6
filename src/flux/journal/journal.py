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
from flux.journal.files import make_spare, path_of, read_file
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

    def append_source(self, begins: bytes, position: tuple[int, int]) -> None:
        """Add a SOURCE record: how far a source is after this group. `begins` is `records.source_begins` of its name.
        Raises `BufferError` when the group is full."""
        if not self._kernel.append_source(begins, *position):
            raise BufferError(
                f"a position does not fit a group with {self.used} of {self.capacity} bytes used"
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
        self._file_bytes = file_bytes
        limit = 0 if self._older else file_bytes - CLOSE_BYTES  # with room for a clean end
        self._end = _kernel.End(fd, number, offset, limit)
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
        return path_of(self._directory, self._end.file)

    @property
    def position(self) -> Position:
        """Behind the last committed group."""
        return Position(self._end.file, self._end.offset)

    @property
    def synced(self) -> Position:
        """Behind what is known to be on the disk."""
        return Position(self._end.file, self._end.synced)

    def fits(self, group: Group) -> bool:
        """Whether `group` fits the rest of this file, with room for a clean end; if not, `rotate` first."""
        return self._end.fits(group._kernel)

    def commit(self, group: Group, sync: bool) -> Position:
        """Write all records of `group` and a COMMIT at once, and wait for the disk if `sync`; an empty group
        writes nothing. The group itself is not changed.

        Raises `ValueError` when the group does not fit, `StorageError` as the class says.
        """
        if group.count and not self.fits(group):
            raise ValueError(f"{group.used} bytes do not fit behind {self.position}: rotate first")
        return self._commit(group, sync)

    def sync(self) -> None:
        """Wait until all that is committed is on the disk."""
        with translated(self.path):
            self._sync()

    def sync_beside(self, position: Position) -> bool:
        """Wait until what was committed up to `position` is on the disk; for another thread than the journal's own.
        False when the journal is in another file by then, which is on the disk itself, or closed."""
        with self._syncing:
            if self._end.fd < 0 or self._end.file != position.file:
                return False
            with translated(self.path):
                self._wait_for_disk(position.offset)
                if self._doubtful is not None:
                    # A group that was being written when the sync failed begins where this one ended, at the latest.
                    self._settling -= 1
                    self._doubtful = position.offset if self._settling else None
        return True

    @property
    def _address(self) -> int:
        """Address of the C `flux_end`, for the bridge, which writes groups too and must keep this object alive."""
        return self._end.address()

    @property
    def linked(self) -> bool:
        """Whether its file still has a name, as far as can be seen without waiting; from any thread."""
        if not self._syncing.acquire(blocking=False):
            return True  # a sync is under way
        try:
            return self._end.fd < 0 or os.fstat(self._end.fd).st_nlink > 0
        finally:
            self._syncing.release()

    def synced_to(self, position: Position) -> None:
        """What was committed up to `position` is on the disk."""
        if position.file == self._end.file:
            self._end.synced = max(self._end.synced, position.offset)

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
        with translated(self.path):
            before = last_commit(self._end.fd, self._end.offset)
        again, self._rotating = self._rotating, True
        number = self._end.file + 1
        fd, offset = new_file(self._directory, number, heads, self._file_bytes, before=before, again=again)
        self._rotating = self._older = False
        with self._syncing:
            os.close(self._end.fd)
            self._end.go_on(fd, number, offset, self._file_bytes - CLOSE_BYTES)
        return self.position

    def close(self, clean: bool = True) -> None:
        """Close the file; `clean` adds a CLOSE record and waits for the disk first. Again is harmless."""
        if self._end.fd < 0:
            return
        try:
            if clean and not self._older:
                group = Group(CLOSE_BYTES)
                group.append(CLOSE, b"")
                self._commit(group, sync=True)
        finally:
            with self._syncing:
                os.close(self._end.fd)
                self._end.fd = -1

    def _commit(self, group: Group, sync: bool) -> Position:
        start = self._end.offset
        try:
            if group.count:
                self._end.write(group._kernel)
            if sync:
                self._sync()
        except OSError as error:
            self._end.take_back(start)
            raise StorageError.of(self.path, error) from error
        return self.position

    def _wipe_spoiled(self) -> None:
        # Else a scan of the file left behind could take a group for committed whose commit failed.
        end = self._end
        if end.spoiled > end.offset:
            with translated(self.path):
                write_zeros(end.fd, end.offset, end.spoiled)
                end.synced = min(end.synced, end.offset - 1)  # a sync there must be
                self._sync()
            end.spoiled = end.offset

    def _sync(self) -> None:
        """Nobody writes meanwhile. Raises `OSError`."""
        if self._end.synced < self._end.offset:
            with self._syncing:
                self._wait_for_disk(self._end.offset)
                self._doubtful = None
            self._end.synced = self._end.offset

    def _wait_for_disk(self, end: int) -> None:
        """Sync what is committed up to `end`. After a sync that failed, the system counts what it did not write as
        written: the next sync would pass it over, so it is written again first. Raises `OSError`."""
        if self._doubtful is not None and self._doubtful < end:
            data = read_file(self.path, self._doubtful)
            with memoryview(data) as view, view[:end] as committed:
                if scan(committed, self._doubtful).committed != end:
                    raise OSError(
                        errno.EIO, "it reads otherwise than it was written, after a sync that failed"
                    )
                write(self._end.fd, committed[self._doubtful :], self._doubtful)
        try:
            os.fdatasync(self._end.fd)
        except OSError:
            self._doubtful = self._end.synced if self._doubtful is None else self._doubtful
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
