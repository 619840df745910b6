"""What is on the disk, as far as this process saw to it: a stand-in for the power cut that a test cannot have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


class Disk:
    """Watches the syncs and writes of this process's Python; what stood in a file at its last sync is on the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.durable: dict[int, bytes] = {}  # by inode: files get their names late
        self.folders: set[Path] = set()
        self.writes: list[tuple[Path, int, int]] = []
        """(path, offset, size) of every write, until the file's next sync that holds."""
        self.failing = 0
        """So many of the next syncs fail with EIO."""
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._syncing(getattr(os, name)))
        real_write = os.pwrite

        def pwrite(fd: int, data: bytes, offset: int) -> int:
            written = real_write(fd, data, offset)
            self.writes.append((_path(fd), offset, written))
            return written

        monkeypatch.setattr(os, "pwrite", pwrite)

    def _syncing(self, real: object) -> object:
        def sync(fd: int) -> None:
            path = _path(fd)
            if path.is_dir():
                self.folders.add(path)
                return
            if self.failing:
                self.failing -= 1
                raise OSError(5, "Input/output error")
            self.durable[os.fstat(fd).st_ino] = path.read_bytes()

        return sync

    def has(self, path: Path) -> bool:
        """Whether all that stands in the file now is on the disk."""
        return self.durable.get(path.stat().st_ino) == path.read_bytes()

    def written(self, path: Path, start: int, end: int) -> bool:
        """Whether every byte of that stretch was written."""
        at = start
        for _, offset, size in sorted(w for w in self.writes if w[0] == path):
            if offset <= at:
                at = max(at, offset + size)
        return at >= end


def _path(fd: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{fd}"))
