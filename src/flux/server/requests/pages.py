"""Which rows a backfill gets: from memory where they are, from the store where they are not.

    1 ... first ............ ring_first ............... head
          |---- store ------------------- lags -->|
                             |-------- ring --------|

The store has every row that a ring has let go. So what is missing in one is in the other; what is in neither
is a hole. A call without a store that turns out to need it raises `NeedsStore`: the request thread then hands
the whole request to the store's worker, which calls again.

Times choose one contiguous run of sequences: from the first row at or after `start_ms` to the last before
`end_ms`, with whatever lies between (corrections, late rows). Most pages never search for these two: it is
enough to look at the rows at the page's own edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flux.errors import StorageError
from flux.limits import SEARCH_ROWS
from flux.model import ROW_DTYPES, RowKind
from flux.server.requests.view import Rows, ServerView, StoreReader, StreamView


class NeedsStore(Exception):  # noqa: N818  not an error: it says who has to do the work
    """Memory alone cannot answer this."""


class Page(NamedTuple):
    """Rows `first`, first + 1 ...; `more` when later ones lie inside the bounds.

    `resumes` is 0, or: nothing can be given, and what is missing before this sequence will never come.
    """

    first: int
    rows: Rows
    more: bool
    resumes: int = 0


@dataclass(frozen=True, slots=True)
class Pages:
    """Reads one stream out of a server's memory and, where given, its store. Times are epoch ms."""

    view: ServerView
    stream: StreamView
    store: StoreReader | None = None

    def page(
        self, after: int, to: int, limit: int, start_ms: int | None = None, end_ms: int | None = None
    ) -> Page:
        """At most `limit` (>= 1) rows after `after`, up to `to`, with start_ms <= time < end_ms.

        `to` is at most the head, `after` at least the oldest row kept less 1.
        """
        window = self._window(after, to, limit)
        if start_ms is not None and len(window.rows) and self._times(window.rows)[0] < self._unit(start_ms):
            after = max(after, self._first_at(start_ms) - 1)
            window = self._window(after, to, limit)
        if end_ms is None or not len(window.rows) or self._times(window.rows)[-1] < self._unit(end_ms):
            return self._cut(window, limit)
        last = min(self._last_before(end_ms), to)
        # Where a row after the window is inside the bounds, all of the window is.
        rows, behind = window.rows[: max(0, last - after)], last > after + len(window.rows)
        return self._cut(window._replace(rows=rows, more=window.more and behind), limit)

    def is_before(self, sequence: int, end_ms: int) -> bool:
        """Whether the row with this sequence is older than `end_ms`; False where it is lost."""
        first, rows = self._read(sequence - 1, sequence)
        return len(rows) > 0 and first == sequence and bool(self._times(rows)[0] < self._unit(end_ms))

    def any_before(self, end_ms: int, after: int) -> bool:
        """Whether some row after `after` is older than `end_ms`."""
        return self._last_before(end_ms) > after

    def _window(self, after: int, to: int, limit: int) -> Page:
        """One row more than asked for, where there is one: it says whether there are more."""
        last = min(to, after + limit + 1)
        if last <= after:
            return Page(after + 1, self._none(), False)
        first, rows = self._read(after, last)
        if len(rows) and first == after + 1:
            return Page(first, rows, after + len(rows) < last)  # a hole follows: there is more after it
        self._refuse_while_it_lags()
        return Page(after + 1, self._none(), False, resumes=self._resumes(after))

    def _cut(self, window: Page, limit: int) -> Page:
        return window._replace(rows=window.rows[:limit], more=window.more or len(window.rows) > limit)

    def _read(self, after: int, last: int) -> tuple[int, Rows]:
        """Rows after `after` up to `last`, without a hole among them: (first sequence, rows)."""
        stream_id = self.stream.stream_id
        if self.view.ring_first(stream_id) <= after + 1:
            rows = self.view.ring_rows(stream_id, after + 1, last)
            if rows is not None:
                return after + 1, rows
        first, rows = self._stored().read(stream_id, self.stream.key.kind, after, last, last - after)
        have = first + len(rows) - 1
        if len(rows) and have < last:  # the store lags: the rest is still in memory
            rest = self.view.ring_rows(stream_id, have + 1, last)
            if rest is not None:
                rows = np.concatenate([rows, rest])
        return first, rows

    def _resumes(self, after: int) -> int:
        """The first sequence after a hole: the row at `after` + 1 is nowhere."""
        stream_id, head = self.stream.stream_id, self.stream.head
        in_ring = max(after + 2, min(self.view.ring_first(stream_id), head + 1))
        first, rows = self._stored().read(stream_id, self.stream.key.kind, after, head, 1)
        return min(first, in_ring) if len(rows) else in_ring

    def _last_before(self, end_ms: int) -> int:
        """The highest sequence kept with time < end_ms; less than the oldest one kept when there is none."""
        bound, last = self._unit(end_ms), self.stream.head
        oldest = self._oldest_in_ring()
        while last >= oldest:
            first = max(oldest, last - SEARCH_ROWS + 1)
            rows = self.view.ring_rows(self.stream.stream_id, first, last)
            if rows is None:  # overwritten meanwhile, so the store has them
                break
            inside = np.flatnonzero(self._times(rows) < bound)
            if len(inside):
                return first + int(inside[-1])
            last = first - 1
        if last < self.stream.first:
            return last
        found = self._searched(None, end_ms)
        return found[1] if found else 0

    def _first_at(self, start_ms: int) -> int:
        """The lowest sequence kept with time >= start_ms; head + 1 when there is none."""
        bound, first = self._unit(start_ms), self._oldest_in_ring()
        if first > self.stream.first:
            found = self._searched(start_ms, None)
            if found:  # a row that only the ring has is after every row of the store
                return max(found[0], self.stream.first)
        while first <= self.stream.head:
            last = min(self.stream.head, first + SEARCH_ROWS - 1)
            rows = self.view.ring_rows(self.stream.stream_id, first, last)
            if rows is None:  # overwritten meanwhile, so the store has them
                return self._first_at(start_ms)
            inside = np.flatnonzero(self._times(rows) >= bound)
            if len(inside):
                return first + int(inside[0])
            first = last + 1
        return self.stream.head + 1

    def _oldest_in_ring(self) -> int:
        return max(self.view.ring_first(self.stream.stream_id), self.stream.first)

    def _searched(self, start_ms: int | None, end_ms: int | None) -> tuple[int, int] | None:
        store = self._stored()
        self._refuse_while_it_lags()
        return store.sequence_range(self.stream.stream_id, self.stream.key.kind, start_ms, end_ms)

    def _refuse_while_it_lags(self) -> None:
        """What is in neither may still be in the journal, while the store takes no rows."""
        if self.view.store_lags():
            raise StorageError("it is behind the journal, which alone has these rows: ask again later")

    def _stored(self) -> StoreReader:
        if self.store is None:
            raise NeedsStore
        return self.store

    def _times(self, rows: Rows) -> Rows:
        return rows["ts_ms" if self.stream.key.kind is RowKind.CANDLE else "ts_ns"]

    def _unit(self, ms: int) -> int:
        """Epoch ms in the unit of the rows."""
        return ms if self.stream.key.kind is RowKind.CANDLE else ms * 1_000_000

    def _none(self) -> Rows:
        return np.empty(0, ROW_DTYPES[self.stream.key.kind])
