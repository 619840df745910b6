"""Which rows a backfill gets: from memory where they are, else from the journal, else from the store.

    1 ... first ............ ring_first ............... head
                             |-------- ring --------|
                    |---- journal at hand ----------|      what the store may lack, and a little more
          |---- store ------------- lags -->|
          |---- journal ----------------------------|      all that it keeps: where the store fails

A ring lets go only of what the journal has, and the journal at hand begins before the store ends. So what is missing in
one is in the other; what is in none is a hole. A call without a store that turns out to need more than memory raises
`NeedsStore`: the request thread then hands the whole request to the store's worker, which calls again.

Times choose one contiguous run of sequences: from the first row at or after `start_ms` to the last before
`end_ms`, with whatever lies between (corrections, late rows). Most pages never search for these two: it is
enough to look at the rows at the page's own edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from flux.errors import DataError, StorageError
from flux.limits import PAST_SEARCH_ROWS, SEARCH_ROWS
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
            return Page(first, rows, after + len(rows) < last)  # a hole follows, or reading on takes long
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
        first, rows = self._kept(self._stored(), after, last)
        have = first + len(rows) - 1
        if len(rows) and have < last:  # the store lags: the rest is nearer
            rest = self.view.ring_rows(stream_id, have + 1, last)
            if rest is None:
                behind, rest = self.view.journal_rows(stream_id, self.stream.key.kind, have, last)
                rest = rest if behind == have + 1 else None
            if rest is not None:
                rows = np.concatenate([rows, rest])
        return first, rows

    def _kept(self, store: StoreReader, after: int, last: int) -> tuple[int, Rows]:
        """The first rows after `after` up to `last` that journal or store have."""
        stream_id, kind = self.stream.stream_id, self.stream.key.kind
        near = self.view.journal_rows(stream_id, kind, after, last)
        if near[0] == after + 1:
            return near
        try:
            far = store.read(stream_id, kind, after, last, last - after)
        except (StorageError, DataError):
            far = self.view.journal_rows(stream_id, kind, after, last, all_files=True)
            if far[0] != after + 1:
                raise  # truly the store's alone
        return far if len(far[1]) and (far[0] <= near[0] or not len(near[1])) else near

    def _resumes(self, after: int) -> int:
        """The first sequence after a hole: the row at `after` + 1 is nowhere."""
        stream_id, head = self.stream.stream_id, self.stream.head
        in_ring = max(after + 2, min(self.view.ring_first(stream_id), head + 1))
        first, rows = self._kept(self._stored(), after, head)
        return min(first, in_ring) if len(rows) else in_ring

    def _last_before(self, end_ms: int) -> int:
        """The highest sequence kept with time < end_ms; less than the oldest one kept when there is none."""
        bound, last = self._unit(end_ms), self.stream.head
        oldest = self._oldest_in_ring()
        while last >= oldest:
            first = max(oldest, last - SEARCH_ROWS + 1)
            rows = self.view.ring_rows(self.stream.stream_id, first, last)
            if rows is None:  # overwritten meanwhile, so the journal has them
                break
            inside = np.flatnonzero(self._times(rows) < bound)
            if len(inside):
                return first + int(inside[-1])
            last = first - 1
        if last < self.stream.first:
            return last
        store = self._stored()
        for first, between in self._between(last, newest_first=True):
            inside = np.flatnonzero(self._times(between) < bound)
            if len(inside):
                return first + int(inside[-1])
        found = store.sequence_range(self.stream.stream_id, self.stream.key.kind, None, end_ms)
        return found[1] if found else 0

    def _first_at(self, start_ms: int) -> int:
        """The lowest sequence kept with time >= start_ms; head + 1 when there is none."""
        bound, first = self._unit(start_ms), self._oldest_in_ring()
        if first > self.stream.first:
            found = self._stored().sequence_range(self.stream.stream_id, self.stream.key.kind, start_ms, None)
            if found:  # a row that the store lacks is after every row of the store
                return max(found[0], self.stream.first)
            for sequence, between in self._between(first - 1):
                inside = np.flatnonzero(self._times(between) >= bound)
                if len(inside):
                    return sequence + int(inside[0])
        while first <= self.stream.head:
            last = min(self.stream.head, first + SEARCH_ROWS - 1)
            rows = self.view.ring_rows(self.stream.stream_id, first, last)
            if rows is None:  # overwritten meanwhile, so the journal has them
                return self._first_at(start_ms)
            inside = np.flatnonzero(self._times(rows) >= bound)
            if len(inside):
                return first + int(inside[0])
            first = last + 1
        return self.stream.head + 1

    def _oldest_in_ring(self) -> int:
        return max(self.view.ring_first(self.stream.stream_id), self.stream.first)

    def _between(self, last: int, *, newest_first: bool = False) -> Iterator[tuple[int, Rows]]:
        """The rows up to `last` that the store does not have yet, out of the journal, some at a time."""
        begin = max(self.view.stored(self.stream.stream_id) + 1, self.stream.first)
        if last - begin + 1 > PAST_SEARCH_ROWS:
            raise StorageError(
                f"{last - begin + 1} rows are in the journal alone, too many to look for a time in"
            )
        pieces = range(begin, last + 1, SEARCH_ROWS)
        for piece in reversed(pieces) if newest_first else pieces:
            found, after, end = [], piece - 1, min(last, piece + SEARCH_ROWS - 1)
            while after < end and len((run := self._read(after, end))[1]):
                found.append(run)
                after = run[0] + len(run[1]) - 1
            yield from reversed(found) if newest_first else found

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
