"""A CSV file as a source: rows in chunks, a position after each, and going on from such a position.

    file   header | row 1 | row 2 | row 3 | ...
    position after row 2 = (2, CRC-32C of all bytes up to and including row 2's line end, there or not)

The position goes into the journal with the rows. A restarted source skips what is after it without parsing,
and the checksum tells whether it is still the same file. With `loop` the row number counts on over the
passes, and the checksum starts again with each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flux.codec import crc32c
from flux.errors import DataError, SourceFileError
from flux.feed.csv_format import Fault, Layout, parse, parse_exactly, read_layout
from flux.limits import CSV_BLOCK_BYTES, CSV_LINE_BYTES, CSV_SAMPLE_ROWS, MAX_FAULTS_LISTED
from flux.model import CANDLE, INTERVALS_MS, RowKind, StreamKey, grid_ms
from flux.named_files import NotRegularError, open_regular

_DAY_MS: Final = 86_400_000
_BEFORE_ALL: Final = -(2**63)


class Position(NamedTuple):
    """`row` rows (lines without the header) are read; `crc` is that of the bytes read in this pass."""

    row: int
    crc: int


class Chunk(NamedTuple):
    """Rows (a CANDLE array of its own) and the position after them."""

    rows: NDArray[np.void]
    position: Position


class CsvSource:
    """The candles of one file, in its order.

    `key` None: `default_source`, the file's stem, and the most frequent step of its times. `skip_bad_rows`
    counts faulty rows (`skipped`, the first in `faults`) instead of raising at the first. `limit`: at most so
    many rows, counted from the file's start. `loop`: after the end from the start again, later by the file's
    span.
    """

    def __init__(
        self,
        path: Path | str,
        key: StreamKey | None = None,
        *,
        default_source: str = "SIM",
        skip_bad_rows: bool = False,
        limit: int | None = None,
        loop: bool = False,
    ) -> None:
        """Open the file and look at its beginning.

        Raises `SourceFileError` (not a CSV we know, a fault at its beginning, no interval to be found) or
        `InvalidNameError` (its stem or `key` is no name).
        """
        self.skipped = 0
        self.faults: list[Fault] = []
        self._path = str(path)
        self._skip_bad_rows = skip_bad_rows
        self._limit = limit
        self._loop = loop
        self._first_ts = _BEFORE_ALL
        self._span = 0
        self._row = 0
        self._file = _opened(self._path)
        try:
            start = self._read_bytes(CSV_BLOCK_BYTES)
            self._layout: Layout = read_layout(self._path, start)
            self._start_pass(0)
            self._fill()
            if self._fault is not None:
                raise SourceFileError(self._path, *self._fault)
            self.key = (key or self._named(default_source)).checked()
            self._compare_step()
            if self.key.kind is not RowKind.CANDLE:
                raise SourceFileError(self._path, 0, 0, f"has candles, not a {self.key.interval} stream")
            self._layout = replace(self._layout, grid_ms=grid_ms(self.key.interval))
            self.skipped, self.faults = 0, []
            self._start_pass(0)  # once more, now that the times of its interval are known
            self._fill()
            if self._fault is not None:
                raise SourceFileError(self._path, *self._fault)
        except BaseException:
            self._file.close()
            raise

    @property
    def path(self) -> str:
        """The file, as it was given."""
        return self._path

    @property
    def name(self) -> str:
        """What the journal calls this source: the same file read for the same stream has the same name."""
        return f"csv:{Path(self._path).name}:{self.key}"

    @property
    def position(self) -> Position:
        """After the last row that `read` gave."""
        return Position(self._row, self._crc)

    def read(self, max_rows: int) -> Chunk | None:
        """Up to `max_rows` next rows, None at the end.

        Raises `SourceFileError` at a faulty row, once the good ones before it were given.
        """
        while True:
            if self._limit is not None and self._row >= self._limit:
                return None
            if self._at < len(self._rows):
                return self._take(max_rows)
            self._finish_block()
            if self._fault is not None:
                raise SourceFileError(self._path, *self._fault)
            if not self._fill() and not self._wrap():
                return None

    def resume(self, row: int, crc: int) -> None:
        """Go on after a position that an earlier run had; for a source that has not been read.

        Raises `DataError` where the part of the file up to there is no longer what it was.
        """
        self.skipped, self.faults = 0, []  # those of the beginning come again if they are after the position
        self._start_pass(0)
        self._skip(row)
        if self._loop and 0 < self._row < row:
            lines = self._row
            self._measure()
            self._start_pass((row - 1) // lines)
            self._row = self._pass * lines
            self._skip(row)
        if self._row != row or self._crc != crc:
            raise DataError(
                f"{self._path} is not the file that was read before: its first {row} rows differ (found"
                f" {self._row} rows, checksum {self._crc:08x} instead of {crc:08x}). Restore the file, or"
                " replay it under another file name or key"
            )

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # A block is some whole lines: `_ends[i]` is the offset after line i. `_rows` are its good rows,
    # `_kept[i]` the line of row i. `_at` rows are given, `_used` lines (`_used_bytes` bytes) are after the
    # position.

    def _start_pass(self, number: int) -> None:
        """Be before the first row, in the `number`-th pass over the file."""
        self._file.seek(0)
        head = self._read_bytes(self._layout.header_bytes)
        self._pass = number
        self._crc = crc32c(head)
        if number == 0:
            self._row = 0
        self._line = self._layout.first_line
        self._last_ts = _BEFORE_ALL
        self._rest = b""
        self._eof = False
        self._fault: Fault | None = None
        self._set_block(b"", np.empty(0, CANDLE), np.empty(0, np.intp))

    def _set_block(self, block: bytes, rows: NDArray[np.void], kept: NDArray[np.intp]) -> None:
        self._block, self._rows, self._kept = block, rows, kept
        self._ends = np.flatnonzero(np.frombuffer(block, np.uint8) == 0x0A) + 1
        self._at = self._used = self._used_bytes = 0

    def _fill(self) -> bool:
        """Parse the next block of whole lines; False at the end of the file."""
        block = self._next_lines()
        if not block:
            return False
        rows, kept, faults = self._parsed(block, self._last_ts)
        if faults and not self._skip_bad_rows:
            self._fault = faults[0]
            good = int(np.searchsorted(kept, faults[0].line - self._line))
            rows, kept = rows[:good], kept[:good]
        elif self._pass == 0:  # each fault is told once, however often the file is read
            self.skipped += len(faults)
            self.faults.extend(faults[: MAX_FAULTS_LISTED - len(self.faults)])
        self._line += block.count(b"\n")
        if len(rows):
            self._last_ts = int(rows["ts_ms"][-1])
            if self._first_ts == _BEFORE_ALL:
                self._first_ts = int(rows["ts_ms"][0])
        self._set_block(block, rows, kept)
        return True

    def _parsed(self, block: bytes, last_ts: int) -> tuple[NDArray[np.void], NDArray[np.intp], list[Fault]]:
        """Its good rows, the line of each, and the faults of the others."""
        rows = parse(self._layout, block, last_ts)
        if rows is None:
            return parse_exactly(self._layout, block, self._line, last_ts)
        return rows, np.arange(len(rows)), []

    def _take(self, max_rows: int) -> Chunk:
        stop = min(self._at + max_rows, len(self._rows))
        if self._limit is not None:
            stop = min(stop, self._at + self._limit - self._row)
        rows = self._rows[self._at : stop].copy()
        if self._pass:
            rows["ts_ms"] += self._pass * self._span
        self._at = stop
        self._consume(int(self._kept[stop - 1]) + 1)
        return Chunk(rows, self.position)

    def _consume(self, lines: int) -> None:
        """Move the position after the block's first `lines` lines."""
        if lines > self._used:
            end = int(self._ends[lines - 1])
            self._crc = crc32c(memoryview(self._block)[self._used_bytes : end], self._crc)
            self._row += lines - self._used
            self._used, self._used_bytes = lines, end

    def _finish_block(self) -> None:
        """Count the faulty lines after the last good one, unless the file ends for us there."""
        if self._fault is None:
            self._consume(len(self._ends))

    def _wrap(self) -> bool:
        """Begin the file again, later by its span; False where that cannot be."""
        if not self._loop or self._last_ts == _BEFORE_ALL:
            return False
        self._measure()
        self._start_pass(self._pass + 1)
        return self._fill()

    def _measure(self) -> None:
        """At the end of a pass: how much later the next one is."""
        step = INTERVALS_MS[self.key.interval] or 31 * _DAY_MS
        self._span = self._last_ts - self._first_ts + step

    def _next_lines(self) -> bytes:
        """Whole lines, the last of the file ended by LF even if it is not there."""
        cut = self._rest.rfind(b"\n") + 1
        if cut:
            text, self._rest = self._rest[:cut], self._rest[cut:]
            return text
        while not self._eof:
            data = self._read_bytes(CSV_BLOCK_BYTES)
            self._eof = len(data) < CSV_BLOCK_BYTES
            text = self._rest + data
            if self._eof and text and not text.endswith(b"\n"):
                text += b"\n"
            cut = text.rfind(b"\n") + 1
            self._rest = text[cut:]
            if len(self._rest) > CSV_LINE_BYTES:
                line = self._line + text.count(b"\n")
                raise SourceFileError(self._path, line, CSV_LINE_BYTES, "the line does not end")
            if cut:
                return text[:cut]
        return b""

    def _read_bytes(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            raise SourceFileError(self._path, 0, 0, f"cannot be read: {error.strerror}") from error

    def _named(self, source: str) -> StreamKey:
        """The key that the file's own name and times give."""
        steps, counts = np.unique(np.diff(self._rows["ts_ms"][:CSV_SAMPLE_ROWS]), return_counts=True)
        if not len(steps):
            reason = "too few rows to tell their interval: give the key (SOURCE/SYMBOL/INTERVAL=FILE)"
            raise SourceFileError(self._path, 0, 0, reason)
        step = int(steps[np.argmax(counts)])
        interval = next((name for name, ms in INTERVALS_MS.items() if ms == step), None)
        if interval is None and 28 * _DAY_MS <= step <= 31 * _DAY_MS:
            interval = "1M"
        if interval is None:
            reason = f"its rows are {step} ms apart, which is no interval: give the key or resample"
            raise SourceFileError(self._path, 0, 0, reason)
        return StreamKey(source, Path(self._path).stem, interval)

    def _compare_step(self) -> None:
        """A file whose rows are another interval than its key says is refused: fewer or more would be lost or made up.

        Rows may be missing, so steps may be longer: not when nine in ten are the length of one other interval.
        """
        length = INTERVALS_MS.get(self.key.interval)
        steps, counts = np.unique(np.diff(self._rows["ts_ms"][:CSV_SAMPLE_ROWS]), return_counts=True)
        if length is None or not len(steps):
            return
        least = 28 * _DAY_MS if not length else length if length < _DAY_MS else length - 2 * 3_600_000  # DST
        step, share = int(steps[np.argmax(counts)]), int(counts.max()) / int(counts.sum())
        other = next((name for name, ms in INTERVALS_MS.items() if ms == step and ms != length), None)
        if steps[0] < least:
            said = f"its rows are {int(steps[0])} ms apart"
        elif other is not None and length and counts.sum() >= 9 and share >= 0.9:
            said = f"its rows are {other} apart"
        else:
            return
        raise SourceFileError(
            self._path, 0, 0, f"{said}, and its key says {self.key.interval}: give the key of its step"
        )

    def _skip(self, row: int) -> None:
        """Move the position to `row`, or to the end of this pass, by counting and checksumming alone."""
        last = b""
        while self._row < row and (block := self._next_lines()):
            lines = block.count(b"\n")
            if self._row + lines > row:
                lines = row - self._row
                cut = int(np.flatnonzero(np.frombuffer(block, np.uint8) == 0x0A)[lines - 1]) + 1
                block, self._rest = block[:cut], block[cut:] + self._rest
            self._crc = crc32c(block, self._crc)
            self._row += lines
            self._line += lines
            last = block
        if last:  # what comes next must be later than the last good row here
            rows = self._parsed(last, _BEFORE_ALL)[0]
            if len(rows):
                self._last_ts = int(rows["ts_ms"][-1])


def _opened(path: str) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        what = {
            IsADirectoryError: "is a directory",
            FileNotFoundError: "no such file",
            PermissionError: "cannot be read: permission denied",
            NotRegularError: "is no regular file",
        }
        raise SourceFileError(
            path, 0, 0, what.get(type(error), f"cannot be read: {error.strerror}")
        ) from error
