"""The journal's files in a data directory: their names, and their bytes mapped. Part of the journal's door."""

from __future__ import annotations

import mmap
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

_NAME: Final = re.compile(r"(\d{8})\.fluxlog")
_SPARE: Final = ".spare"


class JournalEnd(NamedTuple):
    """Where a journal goes on, for the bridge (`ext/bridge.h`), which writes groups there in the committer's stead."""

    fd: int
    file: int
    offset: int
    synced: int
    spoiled: int
    limit: int
    """A group with its COMMIT must end before it."""


class JournalFile(NamedTuple):
    """A file of the journal."""

    number: int
    path: Path


def path_of(directory: Path, file: int) -> Path:
    """The path of journal file `file` of the data directory `directory`."""
    return Path(directory) / "journal" / f"{file:08}.fluxlog"


def files(directory: Path) -> list[JournalFile]:
    """The journal's files in the data directory `directory`, oldest first; none when there is no journal."""
    try:
        names = os.listdir(Path(directory) / "journal")
    except FileNotFoundError:
        return []
    numbers = sorted(int(match[1]) for match in map(_NAME.fullmatch, names) if match)
    return [JournalFile(number, path_of(directory, number)) for number in numbers]


def map_file(path: Path) -> mmap.mmap | bytes:
    """The bytes of a journal file, read-only, mapped (empty files have nothing to map)."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return b""
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


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
