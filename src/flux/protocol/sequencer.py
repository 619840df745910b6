"""The sequencer: which sequences the admitted rows get. No socket, no clock, no file.

What is ordinary it numbers as runs at head + 1, all streams of a turn in a few array operations; what is not
(a new stream) it decides one by one. Sequences are dense from 1 for the life of a stream; a new epoch goes on
behind the surviving head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flux.errors import InvalidNameError
from flux.limits import MAX_STREAMS
from flux.model import MAX_SEQUENCE, RUN, RowKind, StreamKey

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Sequencer:
    """Heads by slot, and the rule by which they move."""

    def __init__(self) -> None:
        self._heads = np.zeros(64, np.uint64)
        self._count = 0

    def add(self, head: int) -> None:
        """The next slot, whose last sequence is `head` (0 = a stream without rows)."""
        if self._count == len(self._heads):
            self._heads = np.concatenate([self._heads, np.zeros_like(self._heads)])
        self._heads[self._count] = head
        self._count += 1

    def head(self, slot: int) -> int:
        """The last sequence given to a row of this stream."""
        return int(self._heads[slot])

    def number(self, arrivals: NDArray[np.void]) -> NDArray[np.void]:
        """Runs (RUN records sorted by stream, in order of arrival within one) for the arrivals that brought
        rows.
        """
        kept = arrivals[arrivals["rows"] > 0]
        kept = kept[np.argsort(kept["stream"], kind="stable")]
        runs = np.zeros(len(kept), RUN)
        if len(kept) == 0:
            return runs
        for name in ("stream", "rows", "at", "origin_ns"):
            runs[name] = kept[name]
        slots, rows = kept["stream"], kept["rows"].astype(np.uint64)
        begins = np.flatnonzero(np.concatenate([[True], slots[1:] != slots[:-1]]))
        before = np.cumsum(rows) - rows
        within = before - np.repeat(before[begins], np.diff(np.append(begins, len(kept))))
        runs["first"] = self._heads[slots] + 1 + within
        self._heads[slots[begins]] += np.add.reduceat(rows, begins)
        assert int(self._heads[slots[begins]].max()) <= MAX_SEQUENCE
        return runs


def refusal(key: tuple[bytes, bytes, bytes], kind: int, streams: int) -> StreamKey | str:
    """The key of a stream that may be made, or why it may not: one word for a counter, and what was wrong."""
    try:
        made = StreamKey(*(part.decode("ascii") for part in key)).checked()
    except UnicodeDecodeError:
        return "name: not ASCII"
    except InvalidNameError as error:
        return f"name: {error}"
    if made.kind != (RowKind.CANDLE if kind == RowKind.CANDLE_V1 else kind):
        return f"kind: a stream of {made.interval} does not carry {RowKind(kind).name.lower()} rows"
    if streams >= MAX_STREAMS:
        return f"streams: {MAX_STREAMS} is the limit"
    return made
