"""The original told from its copies: what a copy or a restore cannot bring back of a data directory's files.

    identity    written over at each start: its inode and its birth time stay
    origin      made once and never touched again: its ctime stays too
    fence       written through mapped memory: its inode and its birth time stay

A tree copied to a new place has other inodes; one removed and copied back may get the old inodes, never the old birth
times; one copied over in place keeps both, and changes the ctime of `origin`. Where the file system knows no birth
time, what remains has to do. A ctime that changed together with the owner, the mode or the number of links was changed
by chown, chmod or a hard link, which copy nothing. A directory renamed within its file system keeps all of this.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from flux.errors import StorageError
from flux.journal.fence import sync_folder

ORIGIN: Final = "origin"
_TEXT: Final = b"flux knows a copy of this directory by the times of this file: leave it as it is.\n"

_AT_FDCWD: Final = -100
_BASIC_AND_BIRTH: Final = 0x7FF | 0x800
_STATX_BYTES: Final = 256
_STATX_BIRTH_MASK: Final = 0x800
_TIME: Final = struct.Struct("<qI")
_BIRTH_AT: Final = 80  # of stx_btime in struct statx


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """A file as its inode describes it; times in ns since 1970, `birth_ns` 0 where nothing knows it."""

    inode: int
    birth_ns: int
    changed_ns: int
    owner: int
    group: int
    mode: int
    links: int


class Marks(msgspec.Struct, frozen=True, array_like=True):
    """The files that say which directory this is; None: not there."""

    identity: Mark | None
    origin: Mark | None
    fence: Mark | None


def marks_of(directory: Path) -> Marks:
    """The three as they are now."""
    return Marks(*(mark_of(directory / name) for name in ("identity", ORIGIN, "fence")))


def mark_of(path: Path) -> Mark | None:
    """What the file system says of a file, None where there is none. Raises StorageError."""
    try:
        found, born = os.stat(path), birth_ns(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError.of(path, error) from error
    return Mark(
        found.st_ino,
        born,
        found.st_ctime_ns,
        found.st_uid,
        found.st_gid,
        found.st_mode,
        found.st_nlink,
    )


def birth_ns(path: Path) -> int:
    """When a file was made, ns since 1970; 0 where the system or the file system does not know."""
    told = getattr(os.stat(path), "st_birthtime_ns", None)
    if told is not None:
        return int(told)
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    statx = _statx()
    if statx is None or statx(_AT_FDCWD, os.fsencode(path), 0, _BASIC_AND_BIRTH, buffer):
        return 0
    if not int.from_bytes(buffer.raw[:4], "little") & _STATX_BIRTH_MASK:
        return 0
    seconds, ns = _TIME.unpack_from(buffer.raw, _BIRTH_AT)
    return int(seconds) * 1_000_000_000 + int(ns)


def _statx() -> Callable[..., Any] | None:
    """libc's; Python has it from 3.15 on."""
    try:
        return ctypes.CDLL(None, use_errno=True).statx
    except (OSError, AttributeError):
        return None


def why_a_copy(recorded: Marks, found: Marks) -> str:
    """What shows that these are other files than those recorded; empty where nothing does."""
    names = ("identity", ORIGIN, "fence")
    for name in names:
        was, now = getattr(recorded, name), getattr(found, name)
        if was is None or (now is None and name == "fence"):
            continue  # a fence that is gone is a loss of its own, and no copy
        if now is None:
            return f"{name} is missing"
        if now.inode != was.inode:
            return f"{name} is another file"
        if was.birth_ns and now.birth_ns and now.birth_ns != was.birth_ns:
            return f"{name} was made at another time"
        if name == ORIGIN and now.changed_ns != was.changed_ns and _same_rights(was, now):
            return f"{name} was written over"
    return ""


def _same_rights(one: Mark, other: Mark) -> bool:
    return (one.owner, one.group, one.mode, one.links) == (other.owner, other.group, other.mode, other.links)


def make_origin(directory: Path) -> None:
    """The file that is never touched again, unless it is there. Raises StorageError."""
    path = directory / ORIGIN
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return
    except OSError as error:
        raise StorageError.of(path, error) from error
    try:
        os.write(fd, _TEXT)
        os.fsync(fd)
        sync_folder(directory)
    except OSError as error:
        raise StorageError.of(path, error) from error
    finally:
        os.close(fd)
