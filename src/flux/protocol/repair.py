"""What to ask for: which rows are missing, how many at once, and where a stream begins. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flux.limits import MAX_REPLY_ROWS
from flux.model import Cursor
from flux.protocol.replies import Status

_SPARSE = 64  # rows fetched again for each missing one, at most: a request costs about as much as 5,000 rows
_SLACK = 256


def next_range(
    contiguous: int, top: int, head: int, gaps: NDArray[Any], room: int, capacity: int
) -> tuple[int, int] | None:
    """The rows to ask for next, as (exclusive from, inclusive to), or None.

    Several holes are asked for together while they are not too far apart; what is there already falls out as
    a repeat. None also when the consumer has left too little room for it to be worth a request: its progress
    brings a new turn.
    """
    reach = max(top, head)
    missing = reach - contiguous
    if missing <= 0 or room < min(missing, max(1, capacity // 4)):
        return None
    limit = min(MAX_REPLY_ROWS, room)
    if top == contiguous:
        return contiguous, min(reach, contiguous + limit)
    runs = gaps.astype(np.int64)
    if head > top:  # however far a head is said to be, no more than `limit` of it is asked for
        runs = np.concatenate([runs, np.array([[top + 1, min(head, top + 1 + limit)]], np.int64)])
    spans = runs[:, 1] - contiguous
    lacking = np.cumsum(runs[:, 1] - runs[:, 0] + 1)
    fits = np.flatnonzero((spans <= limit) & (spans <= _SLACK + _SPARSE * lacking))
    last = runs[fits[-1] if len(fits) else 0, 1]
    return contiguous, min(int(last), contiguous + limit)


@dataclass(frozen=True, slots=True)
class Begin:
    """Where a stream begins.

    `aside`: what was kept is of another store; `ended`: of another epoch of this one; `ahead`: beyond this
    server's head; `open_start`: as early as there is anything, so no gap stands before the first row.
    """

    first: int
    aside: bool = False
    ended: bool = False
    ahead: bool = False
    open_start: bool = False


def begin_at(start: str | int | None, cursor: Cursor | None, status: Status) -> Begin:
    """Resolve a subscription's start (C1) against what the server says of the stream."""
    oldest = max(1, status.first_sequence)
    if start == "cache" and cursor is not None:
        if cursor.store_id != status.store_id:
            return Begin(oldest, aside=True, open_start=True)
        ended = cursor.epoch != status.epoch
        return Begin(
            cursor.sequence + 1, ended=ended, ahead=not ended and cursor.sequence > status.latest_sequence
        )
    if start is None:
        return Begin(status.latest_sequence + 1)
    if isinstance(start, int):
        return Begin(start)
    return Begin(oldest, open_start=True)
