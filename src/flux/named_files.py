"""Files that a user names: a FIFO, a socket or a device in the place of one is refused before anything waits on it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final


def no_name(path: Path | str) -> str:
    """A sentence where a file of this name is not taken, by DuckDB or into the journal, else ""."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"{name!a} is no name for a file here: it is not UTF-8"
    return f"{name!a} is no name for a file here: it holds a NUL" if "\0" in name else ""


def no_database_name(path: Path | str) -> str:
    """A sentence where DuckDB cannot keep a database under this name, else ""."""
    options = f"{os.fspath(path)!a} is no name for a database: DuckDB takes what follows a ? for options"
    return no_name(path) or (options if "?" in os.fspath(path) else "")


def plain(path: Path | str) -> str:
    """The same file, under a name in which DuckDB sees no scheme (`s3:`, `file:`) and no `:memory:`."""
    return os.path.join(os.curdir, path)


class NotRegularError(OSError):
    """What stands there is no regular file; `strerror` says so."""


UNFIT: Final = (NotRegularError, IsADirectoryError)
"""Of all that an open or a read may raise what says something of the file: the rest is the system's, and may be over
at the next try (no descriptor, no memory, a disk that fails), so it is never called damage."""


def open_regular(path: Path | str) -> BinaryIO:
    """The regular file at `path`, open to be read. Raises `NotRegularError`, and OSError as `open` does."""
    # Without O_NONBLOCK the open of a FIFO that nobody writes waits for ever, and a signal does not end that.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        check_opened(fd, path)
        return os.fdopen(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_regular(path: Path | str) -> bytes:
    """All of a regular file. Raises as `open_regular` does."""
    with open_regular(path) as file:
        return file.read()


def check_regular(path: Path | str) -> None:
    """For a file that somebody else opens by its name: nothing, or a regular file. Raises as `open_regular` does."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    _check(mode, path)


def check_opened(fd: int, path: Path | str) -> None:
    """For a file that was opened, with O_NONBLOCK: nothing if it is regular. Raises as `open_regular` does."""
    _check(os.fstat(fd).st_mode, path)


def _check(mode: int, path: Path | str) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise NotRegularError(errno.EINVAL, "is no regular file", str(path))
