"""What the journal does to its files: made, cut, written, written again. Part of the journal's door."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from flux.errors import DataError, StorageError
from flux.journal.fence import sync_folder
from flux.journal.files import path_of, read_file, take_spare
from flux.kernels import journal as _kernel
from flux.limits import MIB
from flux.named_files import open_regular

if TYPE_CHECKING:
    from typing_extensions import Buffer

CLOSE_BYTES: Final = 16 + _kernel.COMMIT_SIZE
"""An empty CLOSE record and its COMMIT."""


def cut(path: Path, offset: int) -> int:
    """Zero what stands behind `offset`, and wait for the disk: how many bytes that were. Raises as `Journal.open`."""
    with translated(path):
        data = read_file(path, offset)
        if header_of(path) is None or not _kernel.FILE_HEADER_SIZE <= offset <= len(data) or offset % 8:
            raise DataError(f"{path}: {len(data)} bytes, no journal file with a group's end at byte {offset}")
        tail = _kernel.last_byte(data, offset)
        if tail > offset:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                write_zeros(fd, offset, tail)
                os.fdatasync(fd)
            finally:
                os.close(fd)
    return tail - offset


def new_file(
    directory: Path, number: int, heads: Buffer, file_bytes: int, *, before: int, again: bool = False
) -> tuple[int, int]:
    """A complete new file on the disk: its descriptor, and the offset behind its first group. `before` is the
    `last_commit` of the file that it goes on from; `again`: one that an attempt that failed has left is replaced."""
    path = path_of(directory, number)
    size = memoryview(heads).nbytes
    group = _kernel.Group(size + _kernel.COMMIT_SIZE + 32, 1)
    group.append(_kernel.HEADS, heads, 0, 0)
    start = _kernel.FILE_HEADER_SIZE
    end = start + group.used + _kernel.COMMIT_SIZE
    if end + CLOSE_BYTES > file_bytes:
        raise ValueError(f"HEADS of {size} bytes do not fit a file of {file_bytes}")
    # The name comes last, so what the COMMIT says holds for every file that has one: it is on the disk.
    group.seal(start, end)
    hidden = path.with_name(f".{path.name}.new")
    with translated(path):
        if path.exists():
            if not again:
                raise DataError(f"{path} exists already")
            os.unlink(path)
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            sync_folder(path.parent.parent)
        take_spare(path.parent, hidden)
        fd = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if os.fstat(fd).st_size != file_bytes:
                os.ftruncate(fd, 0)
                os.posix_fallocate(fd, 0, file_bytes)
            write(fd, memoryview(_kernel.file_header(number, before, _kernel.FORMAT) + bytes(group)), 0)
            os.fsync(fd)
            os.rename(hidden, path)
            sync_folder(path.parent)
        except OSError:
            os.close(fd)
            for name in (hidden, path):
                with suppress(OSError):
                    os.unlink(name)
            raise
    return fd, end


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """What the operating system says about `path` becomes a StorageError."""
    try:
        yield
    except OSError as error:
        raise StorageError.of(path, error) from error


def write(fd: int, data: memoryview, offset: int) -> None:
    """Write all of it. Raises `OSError`."""
    while len(data):
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


def newer_format(found: int) -> DataError:
    """What is said of a journal that a newer flux wrote."""
    return DataError(
        f"the journal has format {found}, this flux reads {_kernel.FORMAT}: install a newer flux"
    )


class Header(NamedTuple):
    """The first bytes of a journal file."""

    format: int
    number: int
    before: int
    """The CRC that ends the last COMMIT of the file before; 0 = unknown."""


def header_of(path: Path) -> Header | None:
    """What a journal file says of itself; None for one that is none. Raises `DataError` for a newer format,
    `StorageError`."""
    with translated(path), open_regular(path) as file:
        *_, stop, _, found, number, before = _kernel.scan(file.read(_kernel.FILE_HEADER_SIZE), 0, 0)
    if _kernel.STOPS[stop] == "format":
        raise newer_format(found)
    return None if _kernel.STOPS[stop] == "file" else Header(found, number, before)


def write_header(path: Path, header: Header) -> None:
    """Replace what a journal file says of itself, and wait for the disk. Raises `StorageError`."""
    with translated(path):
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            write(fd, memoryview(_kernel.file_header(header.number, header.before, header.format)), 0)
            os.fdatasync(fd)
        finally:
            os.close(fd)


def last_commit(fd: int, offset: int) -> int:
    """The CRC that ends the COMMIT that ends at `offset`. Raises `OSError`."""
    return int.from_bytes(os.pread(fd, 4, offset - 8), "little")


def last_commit_of(path: Path) -> int:
    """The CRC that ends the last COMMIT of a file that ends in one; of another, whatever stands there. Raises
    `StorageError`."""
    with translated(path), open_regular(path) as file:
        end = os.fstat(file.fileno()).st_size
        while end > 0:
            start = max(0, end - MIB)
            data = os.pread(file.fileno(), end - start, start).rstrip(b"\0")
            if data:
                return last_commit(file.fileno(), -(-(start + len(data)) // 8) * 8)
            end = start
    return 0


def known_synced(fd: int, offset: int) -> int:
    """Up to where the COMMIT that ends at `offset` calls the file synced."""
    commit = os.pread(fd, _kernel.COMMIT_SIZE, max(0, offset - _kernel.COMMIT_SIZE))
    synced = int.from_bytes(commit[20:28], "little")
    return min(max(synced, _kernel.FILE_HEADER_SIZE), offset)


def write_again(fd: int, start: int, end: int) -> None:
    """Write what stands there once more: after a sync that failed, the next one passes it over otherwise."""
    while start < end:
        data = os.pread(fd, min(MIB, end - start), start)
        if not data:
            raise OSError(errno.EIO, "the file ends before what was written to it")
        write(fd, memoryview(data), start)
        start += len(data)


def write_zeros(fd: int, start: int, end: int) -> None:
    """Zeros from `start` to `end`. Raises `OSError`."""
    zeros = memoryview(bytes(min(MIB, end - start)))
    for at in range(start, end, MIB):
        write(fd, zeros[: end - at], at)
