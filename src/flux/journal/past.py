"""The journal's past: rows of one stream by sequence, by an index of where they lie. Part of the journal's door.

    sequence ─► file      by the heads that each file begins with
             ─► place     by that file's index: at most one place of a stream in 32 KiB (drawn in ext/past.h)
             ─► rows      by pread, each batch verified

A file is looked through when it is first asked for, without the GIL: 256 MiB take some 0.1 s. In the newest one each
look goes on where the last one ended. So a start reads nothing for it, and committing rows costs nothing.

What the indexes take is bounded (`limits.INDEX_BYTES`): the one that was not used for longest goes first, and is made
again when it is asked for.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from flux.errors import DataError, StorageError
from flux.journal.files import files, path_of, read_into
from flux.journal.journal import FILE_HEADER_BYTES, Position
from flux.journal.reader import JournalDamageError, JournalReadError
from flux.journal.records import HeadsRecord, unpack
from flux.kernels import journal as _kernel
from flux.limits import INDEX_BYTES, MAX_RECORD_BYTES, MAX_STREAMS, MIB, PAST_READ_BYTES
from flux.model import ROW_DTYPES, RowKind
from flux.named_files import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLACE: Final = np.dtype([("first", "<u8"), ("at", "<u4"), ("stream_id", "<u4")])
"""Where rows of a stream begin in a file; `at` in units of 8 bytes (`ext/past.h`): 16 bytes."""

_LOOK_BYTES: Final = MIB
_LOOK_PLACES: Final = 65_536
_HEADER_BYTES: Final = 12  # of a record, as ext/journal.h draws it


class _File:
    """One file's index, as far as the file was looked through."""

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.heads = _heads(path)
        self._walked = FILE_HEADER_BYTES
        self._latest: NDArray[np.uint32] | None = None
        self._count = 0
        self._first = np.empty(0, np.uint64)
        self._at = np.empty(0, np.uint32)
        self._ids = np.empty(0, np.uint32)
        self._end = FILE_HEADER_BYTES  # what may be read
        self._complete = False
        self._damaged = ""

    @property
    def taken(self) -> int:
        """Bytes that it takes."""
        latest = 0 if self._latest is None else self._latest.nbytes
        return self.heads.nbytes + self._first.nbytes + self._at.nbytes + self._ids.nbytes + latest

    def head(self, stream_id: int) -> int:
        """The stream's last sequence before this file."""
        return int(self.heads[stream_id]) if stream_id < len(self.heads) else 0

    def look(self, end: int | None, room: NDArray[np.uint8], places: NDArray[np.void]) -> None:
        """Look through what was not looked through yet, up to `end` (None: the file is written no more)."""
        if self._complete or self._walked == end:
            return
        if self._latest is None:
            self._latest = np.zeros(MAX_STREAMS + 1, np.uint32)
        with open_regular(self.path) as file:
            self._end = upto = os.fstat(file.fileno()).st_size if end is None else end
            while self._walked < upto:
                part = memoryview(room)[: min(len(room), upto - self._walked)]  # type: ignore[arg-type]  # a buffer
                have = read_into(file.fileno(), part, self._walked)
                count, stopped = _kernel.places(
                    room, have, upto - self._walked, self._walked, self._latest, places.view(np.uint8)
                )
                if stopped == 0:
                    self._stopped(end, bytes(part[:_HEADER_BYTES]))
                    break
                self._keep(places[:count])
                self._walked += stopped
        if end is None:
            self._complete, self._latest = True, None

    def _stopped(self, end: int | None, head: bytes) -> None:
        """No record begins here: an older file is over, or something is damaged."""
        if end is not None or head.strip(b"\0"):
            self._damaged = f"{self.path}: no record reads at byte {self._walked}"

    def _keep(self, places: NDArray[np.void]) -> None:
        need = self._count + len(places)
        if need > len(self._ids):
            size = max(1_024, need + need // 2)
            for name in ("_first", "_at", "_ids"):
                grown = np.empty(size, getattr(self, name).dtype)
                grown[: self._count] = getattr(self, name)[: self._count]
                setattr(self, name, grown)
        span = slice(self._count, need)
        self._first[span], self._at[span], self._ids[span] = (
            places["first"],
            places["at"],
            places["stream_id"],
        )
        self._count = need

    def read(
        self, stream_id: int, kind: RowKind, first: int, last: int, out: NDArray[Any], room: NDArray[np.uint8]
    ) -> tuple[int, int, int]:
        """The first run of rows within `first` to `last` into `out`: (its first sequence, rows, bytes read)."""
        mine = np.flatnonzero(self._ids[: self._count] == stream_id)
        begin = int(np.searchsorted(self._first[mine], np.uint64(first), "right")) - 1
        places = self._at[mine[max(0, begin) :]]
        with open_regular(self.path) as file:
            found, count, read, broken = _kernel.past_read(
                file.fileno(), self._end, places, stream_id, int(kind), first, last,
                out.view(np.uint8), out.dtype.itemsize, room, PAST_READ_BYTES,
            )  # fmt: skip
        if broken > 0:
            raise OSError(broken, os.strerror(broken))
        if not count and (broken or self._damaged):
            raise JournalDamageError(
                self._damaged or f"{self.path}: rows of sequence {first} and up do not read"
            )
        return found, count, read


class Past:
    """Rows out of the journal of `directory`, up to where `committed` says that it is committed. From any thread."""

    def __init__(self, directory: Path, committed: Callable[[], Position]) -> None:
        self._directory = directory
        self._committed = committed
        self._looking = threading.Lock()
        self._files: OrderedDict[int, _File] = OrderedDict()
        self._room = np.zeros(max(_LOOK_BYTES, _kernel.SCRATCH_SIZE), np.uint8)
        self._places = np.zeros(_LOOK_PLACES, PLACE)

    @property
    def taken(self) -> int:
        """Bytes that the indexes take."""
        return sum(file.taken for file in list(self._files.values()))

    def read(
        self, stream_id: int, kind: RowKind, after: int, last: int, limit: int, since: int = 0
    ) -> tuple[int, NDArray[Any]]:
        """The first run of rows after `after` up to `last`, at most `limit`, without a hole among them: (its first
        sequence, rows), and (0, none) where there is none in the files numbered `since` and up, or where the row behind
        `after` would stand in an older one.

        Fewer than there are where reading more would take long. Raises JournalReadError (try again) and
        JournalDamageError.
        """
        out = np.empty(max(0, min(limit, last - after)), ROW_DTYPES[kind])
        begin, count, read = 0, 0, 0
        with self._looking:
            try:
                for file in self._from(stream_id, after + 1, since):
                    while count < len(out) and read < PAST_READ_BYTES:
                        first = begin + count if count else after + 1
                        if first > last:
                            return begin, out[:count]
                        found, more, size = file.read(stream_id, kind, first, last, out[count:], self._room)
                        if not more:
                            break  # the next file goes on
                        if count and found != first:
                            return begin, out[:count]
                        begin = begin or found
                        count, read = count + more, read + size
                    else:
                        break
            except (OSError, StorageError) as error:
                raise JournalReadError(f"the journal cannot be read: {error}") from error
            except JournalDamageError:
                if not count:
                    raise
        return begin, out[:count]

    def _from(self, stream_id: int, sequence: int, since: int) -> Iterator[_File]:
        """The file that must hold this row and those after it, looked through; none where that is one below `since`."""
        committed = self._committed()
        numbers = [file.number for file in files(self._directory) if file.number <= committed.file]
        low, high = 0, len(numbers)  # the last file whose streams begin below the row: most often the newest
        while low < high:
            middle = high - 1 if high == len(numbers) else (low + high) // 2
            if self._file(numbers[middle]).head(stream_id) < sequence:
                low = middle + 1
            else:
                high = middle
        if low == 0 or numbers[low - 1] < since:
            return
        for number in numbers[low - 1 :]:
            file = self._file(number)
            file.look(committed.offset if number == committed.file else None, self._room, self._places)
            self._let_go()
            yield file

    def _file(self, number: int) -> _File:
        file = self._files.get(number)
        if file is None:
            file = self._files[number] = _File(path_of(self._directory, number), number)
        self._files.move_to_end(number)
        return file

    def _let_go(self) -> None:
        while len(self._files) > 1 and self.taken > INDEX_BYTES:
            self._files.popitem(last=False)


def _heads(path: Path) -> NDArray[np.uint64]:
    """By stream_id the head of each stream where a file begins. Raises OSError, and JournalDamageError."""
    with open_regular(path) as file:
        head = os.pread(file.fileno(), _HEADER_BYTES, FILE_HEADER_BYTES)
        length = int.from_bytes(head[:4], "little")
        body = os.pread(file.fileno(), min(length, MAX_RECORD_BYTES), FILE_HEADER_BYTES + _HEADER_BYTES)
    content = body[:-4]
    if (
        len(head) < _HEADER_BYTES
        or len(body) != length
        or _kernel.crc32c(content) != int.from_bytes(body[-4:], "little")
    ):
        raise JournalDamageError(f"{path}: its first record does not read")
    try:
        streams = unpack(content, HeadsRecord).streams
    except StorageError:
        raise
    except DataError as error:
        raise JournalDamageError(str(error)) from error
    found = np.zeros(1 + max((head.stream.stream_id for head in streams), default=0), np.uint64)
    for stream in streams:
        found[stream.stream.stream_id] = stream.head
    return found
