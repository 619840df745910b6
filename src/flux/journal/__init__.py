"""The journal's door: groups of records appended to preallocated files, scanned back after any kind of end.

    DIR/journal/00000001.fluxlog      header, groups, zeros (drawn byte by byte in ext/journal.h)
    DIR/fence                         two slots that say how far the journal had come when rows were last
    shown

A commit is one write of a whole group with its COMMIT record last, and where asked an fdatasync. A group
without its COMMIT never happened. A new file gets its name only once it is complete and on the disk, so a
file that has a name and no valid HEADS in front is damaged, never half made.
"""

from __future__ import annotations

from flux.journal.disk import header_of, last_commit_of, write_header
from flux.journal.fence import Fence, FenceMark
from flux.journal.files import JournalFile, files, path_of, read_file, read_part
from flux.journal.journal import (
    BATCH,
    CLOSE,
    COMMIT,
    ENTRY,
    EPOCH,
    FILE_HEADER_BYTES,
    HEADS,
    HOLE,
    SOURCE,
    STREAM,
    Group,
    Journal,
    Position,
    sealed,
    truncate,
)
from flux.journal.scanner import FORMAT, RECORD, Scan, scan

__all__ = [
    "BATCH",
    "CLOSE",
    "COMMIT",
    "ENTRY",
    "EPOCH",
    "FILE_HEADER_BYTES",
    "FORMAT",
    "HEADS",
    "HOLE",
    "RECORD",
    "SOURCE",
    "STREAM",
    "Fence",
    "FenceMark",
    "Group",
    "Journal",
    "JournalFile",
    "Position",
    "Scan",
    "files",
    "header_of",
    "last_commit_of",
    "path_of",
    "read_file",
    "read_part",
    "scan",
    "sealed",
    "truncate",
    "write_header",
]
