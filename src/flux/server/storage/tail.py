"""The last rows of each stream out of the journal alone: they warm the rings where the database does not read.

Without them a feed that begins again with rows it sent before would have them numbered a second time, as late ones.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from flux import journal
from flux.limits import PROJECT_MAX_ROWS
from flux.transport.pump import Gatherer

if TYPE_CHECKING:
    from pathlib import Path

    from flux.journal import Position
    from flux.store.base import Rows


class Span(NamedTuple):
    """Rows without a hole among them, `last` being the sequence of the last."""

    last: int
    rows: Rows


def last_rows(directory: Path, end: Position, wanted: Mapping[int, int]) -> dict[int, Span]:
    """Of each stream_id in `wanted` at most so many rows, the last ones in the journal's file that ends at `end`."""
    parts: dict[int, deque[Span]] = {number: deque() for number in wanted}
    held = dict.fromkeys(wanted, 0)
    gather, at = Gatherer(PROJECT_MAX_ROWS), journal.FILE_HEADER_BYTES
    data = journal.read_file(journal.path_of(directory, end.file))
    with memoryview(data) as whole, whole[: end.offset] as committed:
        while at < len(committed):
            gathered = gather(committed, at)
            if gathered.stopped == at:
                break
            at = gathered.stopped
            for kind, rows in gathered.rows.items():
                begin = 0
                for record in gathered.records[gathered.records["kind"] == kind]:
                    number, count = int(record["stream_id"]), int(record["count"])
                    if number in parts:
                        last = int(record["first"]) + count - 1
                        parts[number].append(Span(last, rows[begin : begin + count].copy()))
                        held[number] += count
                        while held[number] - len(parts[number][0].rows) >= wanted[number]:
                            held[number] -= len(parts[number].popleft().rows)
                    begin += count
    return {number: _joined(found, wanted[number]) for number, found in parts.items() if found}


def _joined(parts: deque[Span], most: int) -> Span:
    """The newest of these that stand after one another."""
    run = [parts[-1]]
    for part in reversed(list(parts)[:-1]):
        if part.last != run[-1].last - len(run[-1].rows):
            break
        run.append(part)
    rows = np.concatenate([part.rows for part in reversed(run)])
    return Span(parts[-1].last, rows[-most:])
