"""What a damaged journal file still says, and what cutting it would lose: for the person who has to decide.

HEADS group group ... group  x x x  group  group  zeros
                            ^ kept         after the damage: these still read, but their rows
                                           have no place without those before them
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from flux import journal
from flux.codec import crc32c
from flux.journal import JournalFile
from flux.limits import PROJECT_MAX_ROWS

# A COMMIT as ext/journal.h draws it: length, kind, CRC of these 8; its body begins with the group's start.
_SHAPE: Final = struct.pack("<II", 24, journal.COMMIT)
_COMMIT: Final = _SHAPE + struct.pack("<I", crc32c(_SHAPE))
_COMMIT_BYTES: Final = 40
_START: Final = struct.Struct("<Q")


def decision(directory: Path, found: Damage | Missing | None) -> str:
    """What is wrong with the journal of `directory`, and the commands that go on, with what each keeps."""
    if isinstance(found, Missing):
        return f"{found}. `flux rebuild {directory} --cut` goes on without them"
    if found is not None and not found.kept:
        return f"{found}. `flux rebuild {directory} --cut` does that and keeps all before it"
    return (
        f"{found}. `flux rebuild {directory} --salvage` keeps every group that reads, and what the database has of the "
        f"others; `flux rebuild {directory} --cut` keeps only what is before the damage"
    )


class Damage(NamedTuple):
    """A file that does not read to its end, and what stands after the last good group in it."""

    file: JournalFile
    kept: int  # offset after the last good group; 0: not even the file's first one
    at: int  # where reading stopped
    reason: str
    bytes: int
    groups: int  # that ended there, as far as can be seen
    rows: int  # up to the highest sequences seen after the damage
    streams: int  # that lose rows

    def __str__(self) -> str:
        return f"{self.file.path}: damaged at byte {self.at} ({self.reason}); {self.lost}"

    @property
    def lost(self) -> str:
        """What a cut loses."""
        where = f"after byte {self.kept}" if self.kept else "with it (its first group does not read)"
        return (
            f"{self.bytes} bytes {where} would be lost: at least {self.groups} groups with {self.rows} rows of"
            f" {self.streams} streams"
        )


class Missing(NamedTuple):
    """Two files of which the second does not go on where the first ends."""

    before: JournalFile
    after: JournalFile
    gone: list[int]  # numbers of files that are not there
    rows: int  # up to the heads at which the second begins
    streams: int  # that lose rows

    def __str__(self) -> str:
        if self.gone:
            numbers = ", ".join(map(str, self.gone[:5])) + (", ..." if len(self.gone) > 5 else "")
            what = f"file {numbers} of the journal is missing"
        else:
            what = f"one of {self.before.path.name} and {self.after.path.name} is an older copy"
        return (
            f"{self.after.path} does not go on where {self.before.path.name} ends: {what}, and with it at least "
            f"{self.rows} rows of {self.streams} streams"
        )


def assess(
    file: JournalFile,
    data: mmap.mmap | bytes,
    found: journal.Scan,
    before: Mapping[int, int],
    after: Mapping[int, int],
) -> Damage:
    """Look at what follows the damage that `found` stopped at.

    `before` holds the head of each stream in front of it; `after` what the next file's HEADS say, where there is one.
    """
    groups, seen = _behind(
        data, found.end if found.committed else journal.FILE_HEADER_BYTES, found.version or journal.FORMAT
    )
    highest = {stream: max(seen.get(stream, 0), after.get(stream, 0)) for stream in {*seen, *after}}
    lost = [head - before.get(stream, 0) for stream, head in highest.items()]
    return Damage(
        file=file,
        kept=found.committed if len(found.records) else 0,
        at=found.end,
        reason=found.reason,
        bytes=max(0, found.tail - found.committed),
        groups=groups,
        rows=sum(rows for rows in lost if rows > 0),
        streams=sum(rows > 0 for rows in lost),
    )


def stretches(data: mmap.mmap | bytes, at: int, version: int) -> Iterator[tuple[int, int]]:
    """(start, end) of the groups that read one after another, after `at`."""
    while (commit := data.find(_COMMIT, at)) >= 0 and commit + _COMMIT_BYTES <= len(data):
        (start,) = _START.unpack_from(data, commit + len(_COMMIT))
        good = journal.scan(data, start, version) if at <= start < commit and start % 8 == 0 else None
        if good is None or good.committed == start:
            at = commit + _COMMIT_BYTES
        else:
            yield start, good.committed
            at = good.committed


def _behind(data: mmap.mmap | bytes, at: int, version: int) -> tuple[int, dict[int, int]]:
    """Groups that end after `at`, and the highest sequence of each stream in those that still read."""
    groups, heads = 0, dict[int, int]()
    while (commit := data.find(_COMMIT, at)) >= 0 and commit + _COMMIT_BYTES <= len(data):
        (start,) = _START.unpack_from(data, commit + len(_COMMIT))
        good = journal.scan(data, start, version) if at <= start < commit and start % 8 == 0 else None
        if good is None or good.committed == start:
            groups += 1  # the damaged one itself
            at = commit + _COMMIT_BYTES
            continue
        groups += int(np.count_nonzero(good.records["kind"] == journal.COMMIT))
        at = good.committed
        with memoryview(data) as view, view[:at] as part:
            _heads(part, start, heads)
    return groups, heads


def _heads(data: memoryview, at: int, heads: dict[int, int]) -> None:
    gather = journal.Gatherer(PROJECT_MAX_ROWS)
    while at < len(data):
        gathered = gather(data, at)
        at = gathered.stopped
        batches = gathered.records[gathered.records["kind"] != 0]
        ends = batches["first"] + batches["count"] - 1
        for stream in np.unique(batches["stream_id"]).tolist():
            last = int(ends[batches["stream_id"] == stream].max())
            heads[stream] = max(heads.get(stream, 0), last)
