"""The hand-over from the loop's thread to consumers: bounded, in order, waited for by threads and event
loops.

    loop thread ──offer(batch)──► [ batch batch gap batch ] ──take──► an iterator, an async iterator,
    callbacks
                ◄──── room again: wake ────

When it is full the loop keeps the rows in the rings, which then fill, and so on down to the server: a
consumer that blocks costs bounded memory and loses nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from flux.batch import Batch, Candles, Quotes, Trades
from flux.errors import FluxError
from flux.limits import MAX_DELIVERY_BATCHES, MAX_DELIVERY_ROWS, MAX_NOTICES
from flux.model import MAX_SEQUENCE, Gap, RowKind, StreamKey
from flux.protocol.stream_state import StreamState

Item: TypeAlias = Batch | Gap

BATCHES: Final = {RowKind.CANDLE: Candles, RowKind.TRADE: Trades, RowKind.QUOTE: Quotes}


class Tenure:
    """What holds for a stream's items from one rewind to the next.

    `kept`: batches go into the cache once they are acked. `anew`: none of them has been acked, and they do not
    continue what the cache has. `upto`: rows above it turned out void, late acks included. `consumed`: the consumer
    is done up to here. The loop's thread puts, the consumer's takes note.
    """

    __slots__ = ("_waiting", "anew", "consumed", "kept", "upto")

    def __init__(self, kept: bool, *, anew: bool = False, before: int = 0) -> None:
        self.kept = kept
        self.anew = anew
        self.upto = MAX_SEQUENCE
        self.consumed = before
        self._waiting: deque[tuple[int, int]] = deque()  # last sequence of an item, and when it was put (ns)

    def put(self, last: int, now: int) -> None:
        """An item that ends at `last` waits for the consumer from `now` on."""
        self._waiting.append((last, now))

    def done(self, last: int) -> None:
        """The consumer is done with everything up to `last`."""
        self.consumed = last
        while self._waiting and self._waiting[0][0] <= last:
            self._waiting.popleft()

    def waiting_since(self) -> int | None:
        """When the oldest item was put that the consumer is not done with (monotonic ns); None: there is none."""
        try:
            return self._waiting[0][1]
        except IndexError:  # the consumer took note of it meanwhile
            return None


class Delivery(NamedTuple):
    """An item and what holds for it. `upto`: where the consumer is once it is done with it. `after_gap`: what lies
    between it and the batch before will not come.
    """

    item: Item
    tenure: Tenure
    upto: int
    after_gap: bool = False


class Handover:
    """A queue of at most `limit` batches. One thread offers, any may take.

    A consumer that is slower than rows come gets what waits of a stream in one batch, up to MAX_DELIVERY_ROWS rows,
    rather than message by message.
    """

    def __init__(self, wake: Callable[[], None], limit: int = MAX_DELIVERY_BATCHES) -> None:
        self._wake = wake
        self._limit = limit
        self._items: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._waiters: list[Callable[[], None]] = []
        self._wanted = False  # the loop found it full and wants to hear of room
        self._closed = False
        self._lent = False  # who took the last item is not done with it
        self._taker: int | None = None
        self._error: FluxError | None = None
        self.told = False
        """Whether somebody was given the error that ended it."""

    def room(self) -> bool:
        """Whether a batch would be taken; after False the loop is woken when half of the queue is free."""
        with self._changed:
            if len(self._items) < self._limit:
                return True
            self._wanted = True
            return False

    def put(self, item: Delivery) -> None:
        """Append what `room` said there is room for. A gap needs none: there is at most one per batch."""
        with self._changed:
            self._items.append(item)
            self._changed.notify()
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()

    def take(self, timeout: float | None) -> Delivery | None:
        """The next item; None when there was none in time, or none will come (`closed`). Raises what ended
        it.
        """
        with self._changed:
            self._lent, self._taker = False, threading.get_ident()
            if not self._items and timeout != 0:
                self._changed.wait_for(lambda: self._items or self._closed, timeout)
            if not self._items:
                if self._error is not None:
                    self.told = True
                    raise self._error
                return None
            item, self._lent = self._taken(), True
            wake = self._wanted and len(self._items) <= self._limit // 2
            if wake:
                self._wanted = False
        if wake:
            self._wake()
        return item

    def _taken(self) -> Delivery:
        """The first item, with all that waits of the same stream and fits one batch with it."""
        first = self._items.popleft()
        if not isinstance(first.item, Batch) or not self._items:
            return first
        parts, rest, open_ = [first.item], deque[Delivery](), True
        count = len(first.item)
        for delivery in self._items:
            item = delivery.item
            if delivery.tenure is not first.tenure or not open_:
                rest.append(delivery)
                continue
            open_ = (
                isinstance(item, Batch)
                and not delivery.after_gap
                and item.start_sequence == parts[-1].end_sequence + 1
                and (item.epoch, item.cached) == (first.item.epoch, first.item.cached)
                and count + len(item) <= MAX_DELIVERY_ROWS
            )
            if open_ and isinstance(item, Batch):
                parts.append(item)
                count += len(item)
            else:
                rest.append(delivery)
        if len(parts) == 1:
            return first
        self._items = rest
        return first._replace(item=joined(parts), upto=parts[-1].end_sequence)

    def when_changed(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` once, from whatever thread, when there is an item or the end: at once if that is
        now.
        """
        with self._changed:
            if not self._items and not self._closed:
                self._waiters.append(waiter)
                return
        waiter()

    def taken_here(self) -> bool:
        """Whether the calling thread took the last item, or nobody took one."""
        return self._taker in (None, threading.get_ident())

    def done(self) -> None:
        """Who took the last item is done with it (asking for the next one says so too)."""
        self._lent = False

    def finished(self, *, leaving: bool) -> bool:
        """Whether no item will be taken or be done with any more. `leaving`: the calling thread takes no more, so none
        is where no other thread took the last one."""
        with self._changed:
            if leaving and self.taken_here():
                return self._closed
            return self._closed and not self._items and not self._lent

    @property
    def closed(self) -> bool:
        """Nothing more will be put; what is there can still be taken."""
        return self._closed

    def close(self, error: FluxError | None = None, *, drop: bool = False) -> None:
        """End it: consumers get what is there (unless `drop`), then `error` or the end."""
        with self._changed:
            if drop:
                self._items.clear()
            if not self._closed:
                self._closed = True
                self._error = error
            self._changed.notify_all()
            waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter()


def joined(parts: list[Batch]) -> Batch:
    """Batches of one stream and epoch that follow each other, as one: a copy of their rows."""
    first = parts[0]
    return type(first)(
        first.key,
        first.start_sequence,
        np.concatenate([part.rows for part in parts]),
        epoch=first.epoch,
        store_id=first.store_id,
        cached=first.cached,
    )


def split(batch: Batch, upto: int) -> tuple[Batch, Batch]:
    """The rows up to a sequence, and those after it: views of the same rows."""
    count = upto - batch.start_sequence + 1

    def part(first: int, rows: np.ndarray[Any, np.dtype[np.void]]) -> Batch:
        return type(batch)(
            batch.key, first, rows, epoch=batch.epoch, store_id=batch.store_id, cached=batch.cached
        )

    return part(batch.start_sequence, batch.rows[:count]), part(upto + 1, batch.rows[count:])


@dataclass(frozen=True, slots=True)
class StateChange:
    """A stream's state as callbacks get it; `reason` says why and what to do, where that is known."""

    key: StreamKey
    state: StreamState
    reason: str


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """Where a followed stream stands. Sequences; `head` is the highest known to exist, `delivered` the last
    handed over to wait for the consumer, `consumed` the last that the consumer is done with.

    `lag_s`: seconds (monotonic) for which the oldest row that was received in order has waited for the consumer; 0
    when it is done with all of them.

    The counters are rows: seen again (`duplicates`), seen again with other bytes (`conflicts`, the first are
    kept), too far ahead to be kept when they came (`beyond`, fetched later), older than what is kept
    (`stale`).
    """

    key: StreamKey
    state: StreamState
    reason: str
    store_id: int
    epoch: int
    delivered: int
    contiguous: int
    head: int
    duplicates: int
    conflicts: int
    beyond: int
    stale: int
    consumed: int
    lag_s: float

    @property
    def behind(self) -> int:
        """Rows that are known to exist and not delivered yet."""
        return max(0, self.head - self.delivered)

    @property
    def lag_rows(self) -> int:
        """Rows that are known to exist and that the consumer is not done with: the consumer's own lag."""
        return max(0, self.head - self.consumed)


class Notices:
    """State changes on their way to callbacks, which run in a thread of their own: the loop waits for nobody.

    At most MAX_NOTICES wait; beyond that the oldest are forgotten.
    """

    def __init__(self) -> None:
        self._changes: deque[StateChange] = deque(maxlen=MAX_NOTICES)
        self._changed = threading.Condition()
        self._closed = False

    def put(self, change: StateChange) -> None:
        """Append one; the oldest falls out when nobody takes them."""
        with self._changed:
            self._changes.append(change)
            self._changed.notify()

    def take(self) -> StateChange | None:
        """The next one, waited for; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes or self._closed)
            return self._changes.popleft() if self._changes else None

    def close(self) -> None:
        """No more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
