"""What is wrong with a data directory, for `flux doctor --data`: read, nothing changed, no lock of the directory taken.

While a server runs there, only what it writes whole is believed: the losses. Its journal's last file is in the midst of
being written, and its database is its own.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import duckdb

from flux import journal
from flux.errors import FluxError, StorageError
from flux.named_files import check_regular
from flux.server.storage.damage import decision
from flux.server.storage.directory import holder, read_identity
from flux.server.storage.losses import Losses
from flux.server.storage.scan import missing_between, scan_file

DATABASE: Final = "flux.duckdb"

_OF_THE_SYSTEM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EACCES)
"""These say nothing of the file: another one would not open either."""


class Trouble(NamedTuple):
    """One thing that is wrong. `fatal`: a server does not start, or does not serve all of it."""

    name: str
    fatal: bool
    text: str


def troubles(directory: Path) -> Iterator[Trouble]:
    """All that shows of a data directory, each with the command to type; none where there is no journal yet."""
    try:
        files = journal.files(directory)
    except StorageError as error:
        yield Trouble("journal", True, str(error))
        return
    if not files:
        return
    running = holder(directory)
    try:
        scanned, damage = scan_file(files[-1])
        if not running:
            for found in (damage, *missing_between(files)):
                if found is not None:
                    yield Trouble("journal", True, decision(directory, found))
        if scanned is not None:
            heads = scanned.heads
            for reason in (
                Losses(directory).open(scanned.epochs, heads.store_id, heads.parent_store_id).values()
            ):
                yield Trouble("losses", False, reason)
    except FluxError as error:
        yield Trouble("journal", True, str(error))
    if not running:
        yield from _copy(directory)
        yield from _database(directory / DATABASE)


def _copy(directory: Path) -> Iterator[Trouble]:
    try:
        found = read_identity(directory)
    except FluxError as error:
        yield Trouble("identity", True, str(error))
        return
    why = found.copy if found else "identity is missing"
    if why:
        yield Trouble(
            "copy",
            False,
            f"{directory} is a copy or a restore ({why}): the next start makes another store of it. If the original is "
            f"gone for good and no other copy goes on, `flux doctor --same-store {directory}` before that start",
        )


def _database(path: Path) -> Iterator[Trouble]:
    if not path.exists():
        return  # it is filled from the journal at the next start
    try:
        check_regular(path)
        with duckdb.connect(str(path), read_only=True) as connection:
            connection.execute("SELECT store_id FROM meta").fetchall()
    except (OSError, duckdb.Error) as error:
        said = str(error).splitlines()[0]
        of_the_system = any(os.strerror(number) in said for number in _OF_THE_SYSTEM)
        advice = "" if of_the_system else f". `flux rebuild {path.parent}` fills it anew from the journal"
        yield Trouble("database", True, f"{path} does not open: {said}{advice}")
