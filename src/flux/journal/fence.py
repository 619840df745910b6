"""The fence: how far the journal had come when rows were last shown. Part of the journal's door, in a file of
its own.

A journal that ends before its fence has lost rows that somebody may have seen.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from flux.errors import StorageError
from flux.kernels import journal as _kernel
from flux.named_files import check_opened, open_regular


def sync_folder(folder: Path) -> None:
    """Wait until names made or changed in `folder` are on the disk. Raises `OSError`."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FenceMark(NamedTuple):
    """How far the journal had come when rows were last shown to somebody."""

    store_id: int
    epoch: int
    file: int
    offset: int


class Fence:
    """`DIR/fence`: the newest mark. Written and not synced it survives a killed process; a power cut may bring an
    older one back, and the rows that were shown since then are on the disk or lost with a machine that went down.

    Written, not stored into mapped memory: a fence cut short, or a disk that fails, would then be a signal that ends
    the process. That costs a system call for every group, about half a microsecond.

    Two slots, a page apart, are written in turn: a slot torn by a kill leaves the other (`ext/append.h` draws them).
    """

    _SLOT: Final = struct.Struct("<QIIQI")
    _CRC: Final = struct.Struct("<I")
    _PAGE: Final = 4096

    def __init__(self, directory: Path, name: str = "fence") -> None:
        """Open or make the file. Raises `StorageError` when the disk refuses."""
        self.path = path = Path(directory) / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o644
            )
            try:
                check_opened(self._fd, path)
                # Allocated, not only long: a full disk must not be in the way of a mark.
                os.posix_fallocate(self._fd, 0, 2 * self._PAGE)
                os.fsync(self._fd)
                sync_folder(path.parent)
                slot, serial, mark = newest_mark(self._fd)
                self._kernel = _kernel.Fence(self._fd, slot, serial, mark or (0, 0, 0, 0))
            except OSError:
                os.close(self._fd)
                raise
        except OSError as error:
            raise StorageError.of(path, error) from error

    def store(self, store_id: int, epoch: int, file: int, offset: int) -> None:
        """Replace the older mark. Raises `StorageError`: the newer one stays as it was."""
        try:
            self._kernel.store(store_id, epoch, file, offset)
        except OSError as error:
            raise StorageError.of(self.path, error) from error

    def load(self) -> FenceMark | None:
        """The newest mark; None when none was ever stored, or both slots are damaged."""
        mark = FenceMark(*self._kernel.mark)
        return mark if mark.epoch else None

    @property
    def _address(self) -> int:
        """Address of the C `flux_fence`, for the bridge, which stores marks too and must keep this object alive."""
        return self._kernel.address()

    def sync(self) -> None:
        """Wait until the marks are on the disk. Raises `StorageError`."""
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise StorageError.of(self.path, error) from error

    def close(self) -> None:
        """Let go of the file; harmless when closed already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def newest_mark(fd: int) -> tuple[int, int, FenceMark | None]:
    """Of a fence's two slots the newer one that reads: its number, its serial, its mark. Raises OSError."""
    newest: tuple[int, int, FenceMark | None] = (1, 0, None)
    for slot in (0, 1):
        fields = os.pread(fd, Fence._SLOT.size + Fence._CRC.size, slot * Fence._PAGE)
        if len(fields) < 32 or fields[28:] != Fence._CRC.pack(_kernel.crc32c(fields[:28])):
            continue
        *mark, serial = Fence._SLOT.unpack(fields[:28])
        if newest[2] is None or (serial - newest[1]) & 0xFFFFFFFF < 2**31:
            newest = (slot, serial, FenceMark(*mark))
    return newest


def fence_mark(directory: Path, name: str = "fence") -> FenceMark | None:
    """The newest mark of a data directory's fence, read by whoever does not write it; None where there is none. Raises
    `StorageError`."""
    path = Path(directory) / name
    try:
        with open_regular(path) as file:
            return newest_mark(file.fileno())[2]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError.of(path, error) from error
