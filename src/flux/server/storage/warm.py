"""Rings at a start: the last rows of every stream, out of the journal's newest files.

Without them a feed that begins again with rows it sent before would have them numbered a second time, as late ones.
The database is not asked: it may be away, and it may lag.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from flux import journal
from flux.errors import StorageError
from flux.journal import Position
from flux.journal.files import read_into
from flux.limits import MIB, WARM_FILES, WARM_ROWS
from flux.model import MAX_SEQUENCE
from flux.named_files import open_regular
from flux.transport.pump import NO_SLOT, Streams, refill

if TYPE_CHECKING:
    from flux.journal.records import StreamHead
    from flux.ring import Ring

_LOG = logging.getLogger("flux.server")

_ROOM_BYTES: Final = 4 * MIB


def warm(directory: Path, end: Position, streams: Streams, heads: Mapping[int, StreamHead]) -> None:
    """Fill the rings of these streams, which are in the table, with their last rows from before `end`: at most
    WARM_ROWS of each, as far as the newest WARM_FILES files have them. One that gets none begins after its head.

    A file that does not read leaves rings colder, and is logged.
    """
    slots = np.full(max(heads, default=0) + 1, NO_SLOT, np.uint32)
    rings: list[tuple[Ring, int]] = []
    for number, head in heads.items():
        slot = streams.slot(head.stream.key)
        assert slot is not None
        ring, rows = streams.ring(slot), min(streams.ring(slot).capacity, WARM_ROWS, head.head)
        ring.reset(min(head.head - rows + 1, MAX_SEQUENCE))
        if rows:
            slots[number] = slot
            rings.append((ring, head.head))
    newest = [file for file in journal.files(directory) if file.number <= end.file][-WARM_FILES:]
    for file in reversed(newest):
        if all(ring.contiguous == reached for ring, reached in rings):
            break
        upto = end.offset if file.number == end.file else None
        try:
            _refill(file.path, upto, streams, slots)
        except (OSError, StorageError) as error:
            _LOG.warning("the rings begin without the rows of %s: %s", file.path, error)
    for ring, reached in rings:
        _settle(ring, reached)


def _refill(
    path: Path, upto: int | None, streams: Streams, slots: np.ndarray[tuple[int], np.dtype[np.uint32]]
) -> None:
    room = np.empty(_ROOM_BYTES, np.uint8)
    with open_regular(path) as file:
        at, end = journal.FILE_HEADER_BYTES, os.fstat(file.fileno()).st_size if upto is None else upto
        while at < end:
            have = read_into(file.fileno(), memoryview(room)[: end - at], at)  # type: ignore[arg-type]  # a buffer
            walked, broken = refill(streams, room, have, end - at, slots)
            if broken:
                raise StorageError(f"rows after byte {at + walked} do not verify")
            if walked == 0:
                return  # zeros: the file ends here
            at += walked


def _settle(ring: Ring, head: int) -> None:
    """Give up what lies before a hole: what stays reaches the head without one."""
    if ring.top != head:
        ring.reset(min(head + 1, MAX_SEQUENCE))
    while len(gaps := ring.gaps()):
        ring.skip(int(gaps[-1][1]) + 1)
