"""A data directory: who owns it, and whether it is the one it says it is.

lock        held (flock) for as long as the server runs; the pid is for people
identity    store_id, the identity file's own inode, and the machine's boot: tells a copy from the original
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec

from flux.errors import ConfigError, DataError, InUseError
from flux.server.records import FORMAT

IDENTITY_BYTES: Final = 512


class DirectoryLock:
    """The right to use a data directory, from the moment this is made until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigError(f"cannot use {directory} as data directory: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.pread(self._fd, 32, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise InUseError(f"{directory} is in use by process {pid or 'unknown'}") from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class IdentityFile(msgspec.Struct, frozen=True):
    """What DIR/identity says."""

    format: int
    store_id: int
    inode: int
    machine_boot: str
    shown_before_sync: bool
    """Rows may have been shown before they were on the disk (durability "process")."""


def machine_boot() -> str:
    """The id that the kernel made when this machine was started."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def read_identity(directory: Path) -> tuple[IdentityFile, bool] | None:
    """What the identity file says, and whether it is the original; None where there is none."""
    path = directory / "identity"
    try:
        said = msgspec.json.decode(path.read_bytes(), type=IdentityFile)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise DataError(
            f"{path} does not read: {error}; without it the directory counts as a copy: move it away"
        ) from error
    if said.format > FORMAT:
        raise DataError(
            f"{directory} has format {said.format}, this flux reads {FORMAT}: upgrade flux-marketdata"
        )
    return said, said.inode == path.stat().st_ino


def write_identity(directory: Path, store_id: int, *, process: bool) -> None:
    """Make this directory the original. The file is written in place: it holds its own inode."""
    path = directory / "identity"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        said = IdentityFile(FORMAT, store_id, os.fstat(fd).st_ino, machine_boot(), process)
        # One write of one size: a kill leaves the old text or the new one.
        os.pwrite(fd, msgspec.json.encode(said).ljust(IDENTITY_BYTES - 1) + b"\n", 0)
        os.fsync(fd)
    finally:
        os.close(fd)
