"""Following a journal read-only, also from another process than the one that writes it. Part of the journal's door.

    DIR/fence ──► how far the journal is committed        (`fence_mark`: both slots, the newer one that reads)
    files     ──► records and rows up to there, step by step, over the ends of files

A whole group may stand in a file before its sync, and before anybody was shown it. So nothing is read past the fence,
or past what the writer itself says is committed.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from flux.errors import DataError, StorageError
from flux.journal.files import files, path_of, read_file, read_part
from flux.journal.gather import Gathered, Gatherer
from flux.journal.journal import FILE_HEADER_BYTES, Position
from flux.journal.scanner import scan
from flux.limits import KIB, MAX_RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP_BYTES: Final = MAX_RECORD_BYTES + 64 * KIB
"""Read in one step: the longest record, and its header."""

_NO_END: Final = 2**63


class JournalReadError(StorageError):
    """The journal could not be read now: no fault of whatever its rows go into."""


class JournalDamageError(DataError):
    """The journal does not read: no fault of whatever its rows go into."""


@contextlib.contextmanager
def of_the_journal() -> Iterator[None]:
    """A StorageError in here is a JournalReadError."""
    try:
        yield
    except StorageError as error:
        raise JournalReadError(str(error)) from error


class Step(NamedTuple):
    """What one step read; lent until the next one."""

    gathered: Gathered
    data: memoryview
    """What the places of records that are no batches point into."""
    after: Position
    """Behind the last record taken; where the step began when there is none."""


class Reader:
    """Reads the journal of the data directory `directory` in steps of at most `max_rows` rows of each kind.

    It keeps no place of its own and no file open: each step says where it begins.
    """

    def __init__(self, directory: Path, max_rows: int, ready: int = 0) -> None:
        self.directory = directory
        self._bytes = bytearray(STEP_BYTES)
        self._whole = (0, 0)  # a file, and where its groups stop reading
        self._gather = Gatherer(max_rows, ready)

    def step(self, position: Position, committed: Position) -> Step:
        """The next records from `position` on, none of them past `committed`.

        Raises JournalReadError (try again) and JournalDamageError (the bytes there do not read).
        """
        part = self._read(position, committed)
        try:
            gathered = self._gather(part, 0)
        except ValueError as error:
            raise self._damaged(position) from error
        after = Position(position.file, position.offset + gathered.stopped)
        if after == position:
            after = self._behind(position, committed)
        return Step(gathered, part, after)

    def _read(self, position: Position, committed: Position) -> memoryview:
        """The next bytes of the journal, as many as a step may need. Borrowed until the next call."""
        if position.file == committed.file:
            # Followed while it was written: not read once more when it is left.
            self._whole = (position.file, _NO_END)
            end = committed.offset
        else:
            end = self._whole_until(position.file)
        size = max(0, min(len(self._bytes), end - position.offset))
        whole = memoryview(self._bytes)[:size]
        with of_the_journal():
            return whole[: read_part(path_of(self.directory, position.file), position.offset, whole)]

    def _whole_until(self, number: int) -> int:
        """Where the groups of an older file stop reading: a batch says nothing of its topic and of its neighbours."""
        if self._whole[0] != number:
            with of_the_journal():
                data = read_file(path_of(self.directory, number))
            self._whole = number, scan(data).committed
        return self._whole[1]

    def _behind(self, position: Position, committed: Position) -> Position:
        """Where reading goes on when no record begins at `position`: in the next file, if this one ends here."""
        if position >= committed:
            return position
        with of_the_journal():
            rest = read_file(path_of(self.directory, position.file), position.offset)
        if position.file == committed.file or scan(rest, position.offset).tail > position.offset:
            raise self._damaged(position)
        # Not simply one more: `flux rebuild --cut` sets aside a file of which nothing reads.
        with of_the_journal():
            number = min(file.number for file in files(self.directory) if file.number > position.file)
        return Position(number, FILE_HEADER_BYTES)

    def _damaged(self, at: Position) -> DataError:
        return JournalDamageError(
            f"{path_of(self.directory, at.file)}: damaged after byte {at.offset}. The rows there cannot be "
            f"read; `flux rebuild {self.directory}` says what that loses, and what `--salvage` and `--cut` keep"
        )
