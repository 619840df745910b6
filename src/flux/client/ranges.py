"""A range of one stream, put together from the server's pages: every row keeps its true sequence.

    page ──► inside the times ──► parts (rows, sequences) ──► latest revision of every candle ──► one batch

Everything is done once per page, whatever came before: a range of a million rows costs a hundred times one of ten
thousand. What is superseded (an earlier revision, a candle after the last that the limit has room for) is let go of
whenever it may be half of what is kept, so that no server makes a client keep more than it asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flux.batch import Batch
from flux.client.deliver import BATCHES
from flux.errors import AnswerError, FluxError, StorageError
from flux.limits import MAX_RANGE_ROWS, MAX_REPLY_ROWS, RANGE_SPARE_ROWS
from flux.model import MAX_SEQUENCE, ROW_DTYPES, RowKind, StreamKey
from flux.protocol.replies import PageStatus

Rows: TypeAlias = NDArray[np.void]
Sequences: TypeAlias = NDArray[np.uint64]

_NS_PER_MS: Final = 1_000_000
_OTHER_HISTORY: Final = (PageStatus.EPOCH_ENDED, PageStatus.CURSOR_AHEAD)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is wanted: epoch ns, half-open; at most `limit` rows; `every` row or the latest revision of each candle."""

    start: int | None
    end: int | None
    limit: int | None
    every: bool

    @property
    def start_ms(self) -> int | None:
        """The start as a request has it, whole ms: nothing of the range is before it."""
        return None if self.start is None else self.start // _NS_PER_MS

    @property
    def end_ms(self) -> int | None:
        """The end, too: nothing of the range is at or after it."""
        return None if self.end is None else -(-self.end // _NS_PER_MS)


class History(NamedTuple):
    """What a page's sequences hold in: a server's store and its epoch; zeros ask for, or come from, no matter which."""

    store_id: int = 0
    epoch: int = 0


NO_HISTORY: Final = History()


@dataclass(frozen=True, slots=True)
class Page:
    """Rows `first`, `first + 1` ... of a stream, as a server gave them. `epoch`: the one they were numbered in;
    `history`: what the server is at now; `epoch_end`: of the history that was asked for, where that is over, the last
    sequence that is still right; `watermark`: the last sequence that the server has, 0 where it does not say.
    """

    first: int
    rows: Rows
    has_more: bool
    status: PageStatus = PageStatus.OK
    first_available: int = 0
    epoch: int = 0
    history: History = NO_HISTORY
    epoch_end: int = 0
    watermark: int = 0


PageOf: TypeAlias = Callable[[StreamKey, int, int, Bounds, History], Page]
"""The page after a sequence, of so many rows at most, of what the bounds' times allow, in that history."""


class Range:
    """One range: pages are asked for until it, or the limit, is full."""

    def __init__(self, key: StreamKey, bounds: Bounds) -> None:
        self._key = key
        self._bounds = bounds
        self._end = bounds.end
        self._parts: list[tuple[Rows, Sequences]] = []
        self._count = 0  # rows within the times
        self._kept = 0  # rows among the parts, once what is superseded was let go of
        self._since = 0  # rows among them that came later
        self._newest = np.iinfo(np.int64).min
        self._rising = 0  # rows that were newer than all before them: times that are there for sure
        self._narrowed = False
        self._epoch = 0
        self._history = NO_HISTORY  # of what was fetched so far
        self._epochs: set[int] = set()  # of the rows among the parts

    @property
    def count(self) -> int:
        """Rows that were taken so far."""
        return self._count

    def fetch(self, page_of: PageOf) -> Batch:
        """All of it, as one batch."""
        for page in self._pages(page_of):
            part = self._inside(page)
            self._parts.append(part)
            self._count += len(part[1])
            self._since += len(part[1])
            if self._since > max(self._kept, RANGE_SPARE_ROWS):
                self._let_go()
            if len(part[1]):
                self._epochs.add(page.epoch)
            self._look_at(part[0])
            if self._full():
                break
        return self._batch()

    def batches(self, page_of: PageOf) -> Iterator[Batch]:
        """Every row in order of sequence, as they come: a batch for every page that has some."""
        for page in self._pages(page_of):
            rows, sequences = self._inside(page)
            left = None if self._bounds.limit is None else self._bounds.limit - self._count
            rows, sequences = rows[:left], sequences[:left]
            self._count += len(rows)
            if len(rows):
                yield self._made(rows, sequences)
            if self._bounds.limit is not None and self._count >= self._bounds.limit:
                return

    def _pages(self, page_of: PageOf) -> Iterator[Page]:
        after, some, changed, goal, start = 0, False, False, 0, self._bounds.start
        if self._bounds.limit is not None and self._bounds.limit <= 0:
            return
        while True:
            wanted = Bounds(start, self._end, self._bounds.limit, self._bounds.every)
            page = page_of(self._key, after, self._room(), wanted, self._history)
            changed = self._goes_on(page, after, changed)
            if changed:
                goal = 0  # of the epoch before, which may have had more
                continue
            if page.status is PageStatus.HOLE or page.status is PageStatus.RETENTION_EXCEEDED:
                if page.first_available <= after + 1:
                    raise AnswerError(
                        f"{self._key}: the server has nothing after {after}, and says so wrongly"
                    )
                if some:
                    last = page.first_available - 1
                    raise StorageError(f"{self._key}: the server no longer has {after + 1} to {last}")
                after = page.first_available - 1
                continue
            self._judge(page, after, timed=wanted.start is not None or wanted.end is not None)
            if len(page.rows):
                last = page.first + len(page.rows) - 1
                if not after < page.first <= last <= MAX_SEQUENCE:
                    raise AnswerError(
                        f"{self._key}: the server answers with {page.first} to {last} after {after}"
                    )
                if page.epoch < self._epoch:
                    raise AnswerError(
                        f"{self._key}: the server answers with rows of epoch {page.epoch} after those of {self._epoch}"
                    )
                some, after = True, last
                self._epoch = page.epoch
                yield page
            if not page.has_more:
                goal = self._goal(page, after, goal, some=some, wanted=wanted)
                if after >= goal:
                    return
                start = None  # what is left may be rows before it, which no answer with a start need have

    def _goal(self, page: Page, after: int, goal: int, *, some: bool, wanted: Bounds) -> int:
        """The sequence that a range without an end has to reach before it is whole: the server's last, as it was when
        it said first that there is no more (it may have got rows since it looked). Raises AnswerError where it is asked
        again and gives nothing of what it says it has.
        """
        if wanted.end is not None or not (some or wanted.start is None):
            return 0
        if goal > after and not len(page.rows):
            raise AnswerError(
                f"{self._key}: the server answers with no rows after {after} and none to come, and says that it has "
                f"those up to {goal}"
            )
        return goal or page.watermark

    def _judge(self, page: Page, after: int, *, timed: bool) -> None:
        """Raise AnswerError for a page that leaves out what no time bound leaves out, or promises more after nothing:
        the range would be short, in silence. Version 1 has no status for a hole.
        """
        if page.has_more and not len(page.rows):
            raise AnswerError(
                f"{self._key}: the server answers with no rows after {after}, and with more to come"
            )
        if len(page.rows) and page.first > after + 1 and not timed and page.history != NO_HISTORY:
            raise AnswerError(
                f"{self._key}: the server answers with {page.first} after {after}, and does not say that rows between "
                "are gone"
            )

    def _goes_on(self, page: Page, after: int, changed: bool) -> bool:
        """Whether the server is in a later epoch now, in which all that was fetched is still right: then the page is to
        be asked for again. Raises StorageError where it is not right any more: one range is of one history.
        """
        before, now = self._history, page.history
        if before == NO_HISTORY and not after and page.status in _OTHER_HISTORY:
            raise AnswerError(
                f"{self._key}: the server answers {page.status.name} to a request that names no epoch and no sequence"
            )
        if before in (NO_HISTORY, now) and page.status not in _OTHER_HISTORY:
            self._history = now
            return False
        if before.store_id != now.store_id:
            raise StorageError(
                f"{self._key}: the server became store {now.store_id:016x} while the range was fetched, up to {after} "
                f"of store {before.store_id:016x}: ask for it again"
            )
        if page.status is PageStatus.EPOCH_ENDED and after <= page.epoch_end and before.epoch < now.epoch:
            if changed:
                raise AnswerError(f"{self._key}: the server is in another epoch every time it is asked")
            self._history = now
            return True
        still = f", only what is up to {page.epoch_end}" if page.status is PageStatus.EPOCH_ENDED else ""
        raise StorageError(
            f"{self._key}: the server lost rows while the range was fetched: it no longer has what was fetched, up to "
            f"{after} of epoch {before.epoch}{still}: ask for it again"
        )

    def _room(self) -> int:
        """Rows to ask for at once."""
        if self._bounds.limit is None or not self._bounds.every:
            return MAX_REPLY_ROWS
        if not self._count and (self._bounds.start or 0) % _NS_PER_MS:
            return MAX_REPLY_ROWS  # a request has whole ms: rows before the start may come first
        return max(1, min(MAX_REPLY_ROWS, self._bounds.limit - self._count))

    def _inside(self, page: Page) -> tuple[Rows, Sequences]:
        """Of a page the rows within the times, and their sequences: copies, for the frame may go."""
        times = self._times(page.rows)
        inside = np.ones(len(times), bool)
        if self._bounds.start is not None:
            inside &= times >= self._scaled(self._bounds.start)
        if self._end is not None:
            inside &= times < self._scaled(self._end)
        return page.rows[inside], np.flatnonzero(inside).astype(np.uint64) + np.uint64(page.first)

    def _look_at(self, rows: Rows) -> None:
        """Count the rows that are newer than all before them."""
        times = self._times(rows)
        if len(times) and self._bounds.limit is not None and not self._bounds.every:
            highest = np.maximum.accumulate(times)
            self._rising += int(np.count_nonzero(times[1:] > highest[:-1])) + int(times[0] > self._newest)
            self._newest = max(self._newest, int(highest[-1]))

    def _let_go(self) -> None:
        """Of what is superseded; what is left stands in order of time, before what comes later. Raises FluxError where
        more is left than one batch may have.
        """
        rows, sequences = self._joined()
        if not self._bounds.every:
            rows, sequences = rows[: self._bounds.limit].copy(), sequences[: self._bounds.limit].copy()
        self._parts, self._kept, self._since = [(rows, sequences)], len(rows), 0
        if self._kept > MAX_RANGE_ROWS:
            raise FluxError(
                f"{self._key}: more than {MAX_RANGE_ROWS:,} rows: take them batch by batch with iter_range, or in parts"
            )

    def _full(self) -> bool:
        """Whether no later page matters. Later revisions of what is wanted do: then the end moves closer
        instead, once, when as many candles as wanted are there for sure.
        """
        limit = self._bounds.limit
        if limit is None:
            return False
        if self._bounds.every:
            return self._count >= limit
        if not self._narrowed and self._rising >= limit:
            self._narrowed = True
            newest = nth_time(np.concatenate([self._times(rows) for rows, _ in self._parts]), limit)
            self._end = newest * _NS_PER_MS + 1  # candles alone come here
        return False

    def _joined(self) -> tuple[Rows, Sequences]:
        """The parts as one, which are no longer kept; of candles the latest revisions, unless every row is wanted."""
        empty = np.empty(0, ROW_DTYPES[self._key.kind]), np.empty(0, np.uint64)
        parts, self._parts = [empty, *self._parts], []
        rows = np.concatenate([rows for rows, _ in parts])
        sequences = np.concatenate([sequences for _, sequences in parts])
        if not self._bounds.every:
            chosen = latest_revisions(rows)
            if chosen is not None:
                rows, sequences = rows[chosen], sequences[chosen]
        return rows, sequences

    def _batch(self) -> Batch:
        if len(self._epochs) > 1:
            self._epoch = 0  # a batch has one epoch
        rows, sequences = self._joined()
        if self._bounds.limit is not None and len(rows) > self._bounds.limit:
            rows, sequences = rows[: self._bounds.limit].copy(), sequences[: self._bounds.limit].copy()
        return self._made(rows, sequences)

    def _made(self, rows: Rows, sequences: Sequences) -> Batch:
        first = int(sequences.min()) if len(sequences) else 1
        in_a_row = len(sequences) == 0 or bool((np.diff(sequences) == 1).all())
        return BATCHES[self._key.kind](
            self._key,
            first,
            rows,
            epoch=self._epoch,
            store_id=self._history.store_id,
            sequences=None if in_a_row else sequences,
        )

    def _times(self, rows: Rows) -> NDArray[np.int64]:
        times: NDArray[np.int64] = rows["ts_ms" if self._key.kind is RowKind.CANDLE else "ts_ns"]
        return times

    def _scaled(self, time_ns: int) -> int:
        """A bound in the unit of the rows' times: a whole ms is at or after it where its end is."""
        return -(-time_ns // _NS_PER_MS) if self._key.kind is RowKind.CANDLE else time_ns


def nth_time(times: NDArray[np.int64], n: int) -> int:
    """The n-th (from 1) of the different times there are, in order."""
    ordered = np.sort(times, kind="stable")  # as good as sorted already: np.unique takes ten times as long
    different = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    return int(ordered[0 if n == 1 else different[n - 2]])


def latest_revisions(rows: Rows) -> NDArray[np.intp] | None:
    """Of candles in order of sequence the places of the last of each ts_ms, in order of time; None: all as they are."""
    times = np.ascontiguousarray(rows["ts_ms"])
    if (times[1:] > times[:-1]).all():
        return None
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    last = np.ones(len(order), bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return order[last]
