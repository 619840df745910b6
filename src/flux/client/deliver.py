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
from typing import Final, NamedTuple, TypeAlias

from flux.batch import Batch, Candles, Quotes, Trades
from flux.errors import FluxError
from flux.limits import MAX_DELIVERY_BATCHES, MAX_NOTICES
from flux.model import MAX_SEQUENCE, Gap, RowKind, StreamKey
from flux.protocol.stream_state import StreamState

Item: TypeAlias = Batch | Gap

BATCHES: Final = {RowKind.CANDLE: Candles, RowKind.TRADE: Trades, RowKind.QUOTE: Quotes}


class Tenure:
    """What holds for a stream's batches from one rewind to the next.

    `kept`: they go into the cache once they are acked. `upto`: rows above it turned out void, late acks
    included.
    """

    __slots__ = ("kept", "upto")

    def __init__(self, kept: bool) -> None:
        self.kept = kept
        self.upto = MAX_SEQUENCE


class Delivery(NamedTuple):
    """An item and what holds for it. `after_gap`: what lies between it and the batch before will not come."""

    item: Item
    tenure: Tenure
    after_gap: bool = False


class Handover:
    """A queue of at most `limit` batches. One thread offers, any may take."""

    def __init__(self, wake: Callable[[], None], limit: int = MAX_DELIVERY_BATCHES) -> None:
        self._wake = wake
        self._limit = limit
        self._items: deque[Delivery] = deque()
        self._changed = threading.Condition()
        self._waiters: list[Callable[[], None]] = []
        self._wanted = False  # the loop found it full and wants to hear of room
        self._closed = False
        self._error: FluxError | None = None

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
            if not self._items and timeout != 0:
                self._changed.wait_for(lambda: self._items or self._closed, timeout)
            if not self._items:
                if self._error is not None:
                    raise self._error
                return None
            item = self._items.popleft()
            wake = self._wanted and len(self._items) <= self._limit // 2
            if wake:
                self._wanted = False
        if wake:
            self._wake()
        return item

    def when_changed(self, waiter: Callable[[], None]) -> None:
        """Call `waiter` once, from whatever thread, when there is an item or the end: at once if that is
        now.
        """
        with self._changed:
            if not self._items and not self._closed:
                self._waiters.append(waiter)
                return
        waiter()

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


@dataclass(frozen=True, slots=True)
class StateChange:
    """A stream's state as callbacks get it; `reason` says why and what to do, where that is known."""

    key: StreamKey
    state: StreamState
    reason: str


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """Where a followed stream stands. Sequences; `head` is the highest known to exist, `delivered` the last
    handed over.

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

    @property
    def behind(self) -> int:
        """Rows that are known to exist and not delivered yet."""
        return max(0, self.head - self.delivered)


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
