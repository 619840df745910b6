"""The database anew from the journal, and a damaged journal cut back to what reads.

    flux.duckdb.new   filled beside the old one; a crash leaves it behind, and the next rebuild begins it again
    flux.duckdb       the old one is set aside only once the new one is complete

A cut in the last file takes rows away that were shown: the fence stays ahead of the journal, so the next start begins
a new epoch. A cut in an older file leaves a hole: what the later files hold stays where it is, and whoever asks for the
rows between is told that they will not come.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from flux import journal
from flux.errors import ConfigError, DamagedError, DataError, StorageError
from flux.journal import JournalFile, Position, Projected
from flux.server.storage.damage import Damage, decision
from flux.server.storage.directory import DirectoryLock, read_identity
from flux.server.storage.salvage import fill, go_on_from, has_holes, holes, open_old, salvage
from flux.server.storage.scan import missing_between, scan_file
from flux.store.duck import DuckStore
from flux.store.projection import Projection

DATABASE: Final = "flux.duckdb"
SAY_S: Final = 1.0


class Rebuilt(NamedTuple):
    """What a rebuild did. `aside` is where the old database is, if there was one."""

    rows: int
    aside: Path | None
    first_file: int
    from_database: int = 0
    """Rows that only the old database had."""


def rebuild(directory: Path, *, cut: bool, say: Callable[[str], None], salvage_all: bool = False) -> Rebuilt:
    """Fill the database of a data directory that no server uses; `say` is told of losses and of progress.

    `cut` drops what stands after damage in its file, `salvage_all` keeps every group that reads, and of the rest what
    the old database has. Raises ConfigError (no data directory), InUseError, StorageError, and DataError where the
    journal is damaged and neither was asked for, or where nothing would be left.
    """
    if not directory.is_dir():
        raise ConfigError(f"{directory} is no directory")
    if not journal.files(directory):
        raise ConfigError(
            f"{directory} holds no journal: it is no data directory, or nothing was ever kept in it"
        )
    lock = DirectoryLock(directory)
    try:
        read_identity(directory)  # a newer format is refused before anything is touched
        old = _mend(directory, cut, salvage_all, say)
        try:
            return _fill(directory, say, old, said=not salvage_all)
        finally:
            if old is not None:
                old.close()
    finally:
        lock.release()


def _mend(directory: Path, cut: bool, salvage_all: bool, say: Callable[[str], None]) -> DuckStore | None:
    """Cut or salvage what is damaged; the old database, where its rows are to be kept."""
    old = None
    for damage in _damages(directory):
        if not cut and not salvage_all:
            raise DataError(decision(directory, damage))
        if salvage_all and damage.kept:
            _salvage(directory, damage, say)
        else:
            say(f"{damage}: cut")
            _cut(directory, damage)
    for missing in missing_between(journal.files(directory), thorough=True):
        if not cut and not salvage_all:
            raise DataError(decision(directory, missing))
        say(f"{missing}: gone on without")
        _join(missing.before, missing.after)
    if salvage_all:
        scanned, _ = scan_file(journal.files(directory)[-1])
        assert scanned is not None, "what does not read was cut"
        old = open_old(directory / DATABASE, scanned)
        if old is None:
            say("there is no database that opens: what the journal lacks is lost")
        else:
            go_on_from(directory, old)
    elif has_holes(journal.files(directory)):
        scanned, _ = scan_file(journal.files(directory)[-1])
        assert scanned is not None, "what does not read was cut"
        old = open_old(directory / DATABASE, scanned)
        if old is None:
            say("no database opens: what a salvage found in it alone is lost")
    return old


def _salvage(directory: Path, damage: Damage, say: Callable[[str], None]) -> None:
    files = journal.files(directory)
    later = [file for file in files if file.number > damage.file.number]
    scanned, _ = scan_file(damage.file)
    assert scanned is not None, "its first group reads"
    old = open_old(directory / DATABASE, scanned)
    try:
        groups = salvage(damage, scanned, later[0] if later else None, old)
    finally:
        if old is not None:
            old.close()
    if later:
        _join(damage.file, later[0])
    say(f"{damage}: {groups} groups after it are kept")


def _damages(directory: Path) -> list[Damage]:
    """Every file's, the newest first: a cut that is interrupted then leaves what a second one would find."""
    files = journal.files(directory)
    found = [scan_file(file, following)[1] for file, following in zip(files, [*files[1:], None], strict=True)]
    if not any(damage is None or damage.kept for damage in found):
        raise DataError(
            f"{found[0]}. Nothing of the journal reads, so a cut would keep nothing: restore {files[0].path}, or move "
            f"{directory} away to begin a new store"
        )
    return [damage for damage in reversed(found) if damage is not None]


def _cut(directory: Path, damage: Damage) -> None:
    files = journal.files(directory)
    earlier = [file for file in files if file.number < damage.file.number]
    later = [file for file in files if file.number > damage.file.number]
    path = damage.file.path
    if damage.kept:
        journal.truncate(directory, Position(damage.file.number, damage.kept))
        if later:
            _join(damage.file, later[0])
        return
    if later and earlier:
        _join(earlier[-1], later[0])
    try:
        path.rename(path.with_name(path.name + ".damaged"))
    except OSError as error:
        raise StorageError.of(path, error) from error


def _join(before: JournalFile, after: JournalFile) -> None:
    """What is missing between two files is known from now on: the second goes on from the end of the first."""
    header = journal.header_of(after.path)
    if header is not None:
        journal.write_header(after.path, header._replace(before=journal.last_commit_of(before.path)))


def _fill(directory: Path, say: Callable[[str], None], old: DuckStore | None, *, said: bool) -> Rebuilt:
    """`said`: of the old database only what a HOLE of the journal names is taken."""
    files = journal.files(directory)
    scanned, _ = scan_file(files[-1])
    assert scanned is not None, "what does not read was cut"
    path = directory / DATABASE
    fresh = path.with_name(f"{DATABASE}.new")
    for leftover in (fresh, _log_of(fresh)):
        leftover.unlink(missing_ok=True)
    store, mark = DuckStore(fresh, scanned.heads.store_id), Projected(directory)
    try:
        first = Position(files[0].number, journal.FILE_HEADER_BYTES)
        projection = Projection(directory, store, first, scanned.end, mark, scanned.epoch)
        from_database = 0
        if old is not None:
            for hole in holes(files, said=said):
                if hole.at is not None:
                    _project(projection, hole.at, files, say)
                try:
                    from_database += fill(store, old, hole)
                except (StorageError, DamagedError) as error:
                    say(f"rows that only the database had do not read, and are lost: {error}")
                projection.position = hole.after
        _project(projection, scanned.end, files, say)
    finally:
        mark.close()
        store.close()
    if old is not None:
        old.close()
    aside = _set_aside(path)
    fresh.rename(path)
    return Rebuilt(projection.rows, aside, files[0].number, from_database)


def _project(
    projection: Projection, end: Position, files: list[JournalFile], say: Callable[[str], None]
) -> None:
    due = time.monotonic() + SAY_S
    while projection.position < end:
        projection.step(end)
        if time.monotonic() >= due:
            due += SAY_S
            say(f"{projection.rows} rows, file {projection.position.file} of {files[-1].number}")


def _set_aside(path: Path) -> Path | None:
    if not path.exists():
        return None
    number = 1
    while (aside := path.with_name(f"{path.name}.old-{number}")).exists():
        number += 1
    # Its write-ahead log goes first: alone it harms nothing, beside the new database it would.
    if _log_of(path).exists():
        _log_of(path).rename(_log_of(aside))
    return path.rename(aside)


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}.wal")
