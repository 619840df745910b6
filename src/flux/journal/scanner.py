"""The journal's bytes read back: what a file holds, as far as its checksums go. Part of the journal's door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from flux.journal.disk import newer_format
from flux.kernels import journal as _kernel

if TYPE_CHECKING:
    from typing_extensions import Buffer

FORMAT: Final[int] = _kernel.FORMAT
"""Of the files that are written; those of format 1 are read, and gone on from in a new file."""

RECORD: Final = np.dtype([("at", "<u8"), ("size", "<u4"), ("kind", "<u4")])
"""A record as a scan finds it: the content is `buffer[at:at + size]`, as it was given to `Group.append`."""


class Scan(NamedTuple):
    """What `scan` found. Offsets are in bytes from the first byte of the buffer."""

    records: npt.NDArray[np.void]
    """`RECORD`s up to the last COMMIT, COMMITs included."""
    committed: int
    """Behind the last COMMIT: where the journal goes on."""
    end: int
    """Where valid records stop; those between `committed` and here were never committed."""
    tail: int
    """Behind the last byte that is not zero; `tail - committed` bytes are to be cut."""
    reason: str
    """Why it stopped: `end` (nothing wrong), `short`, `header`, `body`, `group` or `file` (no journal file).
    """
    resumes: bool
    """The disk once held what is bad or missing here: damage in the middle, not a torn tail."""
    number: int
    """The file's number as its header says it; 0 when the scan began behind the header."""
    version: int
    """Its format, as the header says it, or as the caller did; 0 where the header is none."""
    before: int
    """What the header says of the file before: the CRC that ends its last COMMIT; 0 = unknown."""


def scan(buffer: Buffer, start: int = 0, version: int = FORMAT) -> Scan:
    """Read the records of one journal file's bytes, from its header or from a `start` where a group of format `version`
    begins.

    Believes nothing that a CRC does not cover, and never reads outside `buffer`. Raises `DataError` for a
    format newer than this code, `ValueError` for a `start` outside the buffer.
    """
    size = memoryview(buffer).nbytes
    if not 0 <= start <= size or start % 8:
        raise ValueError(f"no group begins at byte {start} of {size}")
    records, committed, end, tail, stop, resumes, version, number, before = _kernel.scan(
        buffer, start, version
    )
    reason = _kernel.STOPS[stop]
    if reason == "format":
        raise newer_format(version)
    return Scan(
        np.frombuffer(records, RECORD), committed, end, tail, reason, resumes, number, version, before
    )
