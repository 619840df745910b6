"""The journal's files in a data directory: their names, and their bytes. Part of the journal's door."""

from __future__ import annotations

import errno
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from flux.errors import StorageError
from flux.named_files import open_regular

_NAME: Final = re.compile(r"(\d{8})\.fluxlog")
_SPARE: Final = ".spare"


class JournalFile(NamedTuple):
    """A file of the journal."""

    number: int
    path: Path


def path_of(directory: Path, file: int) -> Path:
    """The path of journal file `file` of the data directory `directory`."""
    return Path(directory) / "journal" / f"{file:08}.fluxlog"


def files(directory: Path) -> list[JournalFile]:
    """The journal's files in the data directory `directory`, oldest first; none when there is no journal. Raises
    `StorageError`."""
    folder = Path(directory) / "journal"
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError.of(folder, error) from error
    numbers = sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)
    return [JournalFile(number, path_of(directory, number)) for number in numbers]


def read_file(path: Path, start: int = 0) -> mmap.mmap | bytes:
    """A copy of the bytes of a journal file (empty files have none), zeros before `start`. Raises `StorageError`.

    Not the file mapped: a disk that fails to give a page of it, or a file cut short meanwhile, would then be a signal
    that ends the process. What was never written takes no memory.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return b""
            data = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with memoryview(data) as view:
                for begin, end in _written(file.fileno(), start, size):
                    read_into(file.fileno(), view[begin:end], begin)
            return data
    except OSError as error:
        raise StorageError.of(path, error) from error


def read_part(path: Path, start: int, into: memoryview) -> int:
    """Read the bytes of a journal file from `start` on into `into`: how many there were. Raises `StorageError`."""
    try:
        with open_regular(path) as file:
            return read_into(file.fileno(), into, start)
    except OSError as error:
        raise StorageError.of(path, error) from error


def read_into(fd: int, into: memoryview, at: int) -> int:
    done = 0
    while done < len(into) and (got := os.preadv(fd, [into[done:]], at + done)):
        done += got
    return done


def _written(fd: int, start: int, size: int) -> Iterator[tuple[int, int]]:
    """The stretches of a file that hold data; the others are zeros."""
    while start < size:
        try:
            begin = os.lseek(fd, start, os.SEEK_DATA)
            start = os.lseek(fd, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.EINVAL:  # a file system that does not know
                yield start, size
            elif error.errno != errno.ENXIO:  # nothing but zeros from here on
                raise
            return
        yield begin, min(start, size)


def make_spare(folder: Path, file_bytes: int) -> None:
    """A file of zeros, on the disk, for the journal to go on in; nothing where there is no room for it."""
    made = folder / f"{_SPARE}.new"
    with suppress(OSError):
        if (folder / _SPARE).exists():
            return
        fd = os.open(made, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.posix_fallocate(fd, 0, file_bytes)
            os.fsync(fd)
        except OSError:
            os.unlink(made)
            raise
        finally:
            os.close(fd)
        os.rename(made, folder / _SPARE)


def take_spare(folder: Path, hidden: Path) -> None:
    """Make the spare file `hidden`; else see that nothing is there. Raises OSError."""
    try:
        os.rename(folder / _SPARE, hidden)
    except FileNotFoundError:
        hidden.unlink(missing_ok=True)
