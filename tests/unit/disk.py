"""What is on the disk, as far as this process saw to it: a stand-in for the power cut that a test cannot have.

As Linux has it, a sync that fails is reported once, and what it did not write counts as written from then on.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flux.kernels import journal as kernel


class Disk:
    """Watches the syncs and writes that this process's Python asks for. What stood in a file before counts as not yet
    synced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folders: set[Path] = set()
        self.writes: list[tuple[Path, int, int]] = []
        """(path, offset, size) of every write."""
        self.failing = 0
        """So many of the next syncs of a file fail with EIO."""
        self._durable: dict[int, bytearray] = {}  # by inode: a file may get its name late
        self._dirty: dict[int, list[tuple[int, int]]] = {}
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._sync)
        self._write = os.pwrite
        monkeypatch.setattr(os, "pwrite", self._pwrite)
        disk = self

        class End(kernel.End):
            def write(self, group: kernel.Group) -> None:
                dirty, start = disk._dirty_of(self.fd), self.offset
                super().write(group)
                disk._wrote(dirty, self.fd, start, self.offset - start)

        class Fence(kernel.Fence):
            def __init__(self, fd: int, *newest: object) -> None:
                self._fd = fd

            def store(self, *mark: int) -> None:
                dirty = disk._dirty_of(self._fd)
                super().store(*mark)
                disk._wrote(dirty, self._fd, 0, os.fstat(self._fd).st_size)

        monkeypatch.setattr(kernel, "End", End)
        monkeypatch.setattr(kernel, "Fence", Fence)

    def _pwrite(self, fd: int, data: bytes, offset: int) -> int:
        dirty = self._dirty_of(fd)
        written = self._write(fd, data, offset)
        self._wrote(dirty, fd, offset, written)
        return written

    def _wrote(self, dirty: list[tuple[int, int]], fd: int, offset: int, size: int) -> None:
        dirty.append((offset, offset + size))
        self.writes.append((_path(fd), offset, size))

    def _sync(self, fd: int) -> None:
        path = _path(fd)
        if path.is_dir():
            self.folders.add(path)
            return
        dirty, data = self._dirty_of(fd), path.read_bytes()
        durable = self._durable[os.fstat(fd).st_ino]
        durable.extend(bytes(len(data) - len(durable)))
        stretches = dirty[:]
        dirty.clear()
        if self.failing:
            self.failing -= 1
            raise OSError(5, "Input/output error")
        for start, end in stretches:
            durable[start:end] = data[start:end]

    def _dirty_of(self, fd: int) -> list[tuple[int, int]]:
        said = os.fstat(fd)
        if said.st_ino not in self._dirty:
            self._durable[said.st_ino] = bytearray(said.st_size)
            self._dirty[said.st_ino] = [(0, said.st_size)]
        return self._dirty[said.st_ino]

    def has(self, path: Path, end: int | None = None) -> bool:
        """Whether all that stands in the file now, or before `end`, is on the disk."""
        return self._durable.get(path.stat().st_ino, b"")[:end] == path.read_bytes()[:end]

    def written(self, path: Path, start: int, end: int) -> bool:
        """Whether every byte of that stretch was written."""
        at = start
        for _, offset, size in sorted(write for write in self.writes if write[0] == path):
            if offset <= at:
                at = max(at, offset + size)
        return at >= end


def _path(fd: int) -> Path:
    return Path(os.readlink(f"/proc/self/fd/{fd}"))
