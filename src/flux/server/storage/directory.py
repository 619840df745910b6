"""A data directory: who owns it, and whether it is the one it says it is.

.           held (flock) for as long as the server runs
lock        held too; the pid in it is for people
identity    store_id, the machine's boot, and what no copy brings back of three files (`origin.py`)
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from flux.errors import ConfigError, DataError, InUseError, StorageError
from flux.journal.fence import sync_folder
from flux.journal.files import files
from flux.journal.records import FORMAT
from flux.named_files import UNFIT, check_opened, read_regular
from flux.server.storage.origin import Marks, make_origin, mark_of, marks_of, why_a_copy

IDENTITY_BYTES: Final = 1_024

_HELD: Final = re.compile(r"\d+: FLOCK +\w+ +WRITE +(\d+) [0-9a-f]+:[0-9a-f]+:(\d+) ")
"""A line of /proc/locks."""


class DirectoryLock:
    """The right to use a data directory, from the moment this is made until `release` or the end of the process.

    The directory itself is locked, so that a lock file that somebody removes gives nobody the right. DIR/lock is locked
    beside it: flux before format 2 knows only that one, and people read the pid there.
    """

    def __init__(self, directory: Path) -> None:
        self._fds: list[int] = []
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._take(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), directory)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
            fd = os.open(directory / "lock", flags, 0o644)
            self._take(fd, directory)
            check_opened(fd, directory / "lock")
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            self.release()
            raise ConfigError(f"cannot use {directory} as data directory: {error.strerror}") from error
        except InUseError:
            self.release()
            raise

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        while self._fds:
            os.close(self._fds.pop())

    @property
    def fd(self) -> int:
        """Of the directory itself."""
        return self._fds[0]

    def _take(self, fd: int, directory: Path) -> None:
        self._fds.append(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InUseError(f"{directory} is in use by process {_holder(fd, directory)}") from error


def holder(path: Path) -> str:
    """The pid that holds a lock of this file or directory, as the kernel says; "" where none does. Takes no lock."""
    try:
        inode = os.stat(path).st_ino
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            held = _HELD.match(line)
            if held and int(held[2]) == inode and int(held[1]) > 0:
                return held[1]
    except OSError:
        pass
    return ""


def _holder(fd: int, directory: Path) -> str:
    """The pid that holds a lock of this file: as the kernel says, else as DIR/lock does."""
    if held := holder(Path(f"/proc/self/fd/{fd}")):
        return held
    try:
        return (directory / "lock").read_text(encoding="ascii", errors="replace")[:32].strip() or "unknown"
    except OSError:
        return "unknown"


class IdentityFile(msgspec.Struct, frozen=True):
    """What DIR/identity says."""

    format: int
    store_id: int
    inode: int
    machine_boot: str
    shown_before_sync: bool
    """Rows may have been shown before they were on the disk (durability "process")."""
    marks: Marks | None = None
    """The files when this was written; the first release wrote none."""
    began: tuple[int, int] | None = None
    """Where in the journal the last start went on: a clean end that is not beyond that is the end of an earlier life.
    The first release did not write it."""


class Found(NamedTuple):
    """The identity file of a directory, and why the directory is a copy: empty for the original."""

    said: IdentityFile
    copy: str


def machine_boot() -> str:
    """The id that the kernel made when this machine was started. Raises StorageError."""
    path = Path("/proc/sys/kernel/random/boot_id")
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise StorageError.of(path, error) from error


def read_identity(directory: Path) -> Found | None:
    """What the identity file says, and whether this is the original; None where there is none.

    Raises DataError where it does not read, StorageError where the system does not let it be read.
    """
    path = directory / "identity"
    try:
        content = read_regular(path)
        if not content.strip(b"\0") and not files(directory):
            return None  # the first start was cut short
        said = msgspec.json.decode(content, type=IdentityFile)
    except FileNotFoundError:
        return None
    except (*UNFIT, msgspec.MsgspecError) as error:
        raise DataError(
            f"{path} does not read: {error}; without it the directory counts as a copy: move it away"
        ) from error
    except OSError as error:
        raise StorageError.of(path, error) from error
    if said.format > FORMAT:
        raise DataError(
            f"{directory} has format {said.format}, this flux reads {FORMAT}: upgrade flux-marketdata"
        )
    if said.marks is not None:
        return Found(said, why_a_copy(said.marks, marks_of(directory)))
    now = mark_of(path)
    return Found(said, "" if now and said.inode == now.inode else "identity is another file")


def write_identity(
    directory: Path,
    store_id: int,
    *,
    process: bool,
    boot: str | None = None,
    began: tuple[int, int] | None = None,
) -> None:
    """Make this directory the original. The file is written in place: it holds its own inode.

    `boot`: the machine's start that it says, this one where None; `began`: where in the journal this start goes on.
    Raises StorageError.
    """
    path = directory / "identity"
    make_origin(directory)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            said = IdentityFile(
                FORMAT,
                store_id,
                os.fstat(fd).st_ino,
                machine_boot() if boot is None else boot,
                process,
                marks_of(directory),
                began,
            )
            # One write of one size: a kill leaves the old text or the new one. (A disk may take it in two.)
            text = msgspec.json.encode(said).ljust(IDENTITY_BYTES - 1) + b"\n"
            done = 0
            while done < len(text):
                done += os.pwrite(fd, text[done:], done)
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_folder(directory)
    except OSError as error:
        raise StorageError.of(path, error) from error
