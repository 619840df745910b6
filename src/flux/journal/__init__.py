"""The journal's door: groups of records appended to preallocated files, scanned back after any kind of end.

    DIR/journal/00000001.fluxlog      header, groups, zeros (drawn byte by byte in ext/journal.h)
    DIR/fence                         two slots that say how far the journal had come when rows were last
    shown
    DIR/projected                     the same of how far it may be in the database

A commit is one write of a whole group with its COMMIT record last, and where asked an fdatasync. A group
without its COMMIT never happened. A new file gets its name only once it is complete and on the disk, so a
file that has a name and no valid HEADS in front is damaged, never half made.
"""

from __future__ import annotations

from flux.journal.disk import header_of, last_commit_of, write_header
from flux.journal.fence import Fence, FenceMark, fence_mark
from flux.journal.files import JournalFile, files, path_of, read_file, read_part
from flux.journal.gather import Gathered, Gatherer
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
from flux.journal.past import Past
from flux.journal.projected import Projected, projected_mark
from flux.journal.reader import JournalDamageError, JournalReadError, Reader, Step
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
    "Gathered",
    "Gatherer",
    "Group",
    "Journal",
    "JournalDamageError",
    "JournalFile",
    "JournalReadError",
    "Past",
    "Position",
    "Projected",
    "Reader",
    "Scan",
    "Step",
    "fence_mark",
    "files",
    "header_of",
    "last_commit_of",
    "path_of",
    "projected_mark",
    "read_file",
    "read_part",
    "scan",
    "sealed",
    "truncate",
    "write_header",
]
