"""The journal's files in a data directory: their names, and their bytes mapped. Part of the journal's door."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

_NAME: Final = re.compile(r"(\d{8})\.fluxlog")


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
