"""Keeps the cache: batches that consumers are done with go into it, late by CACHE_FLUSH_MS at most, in one
thread.

    ack ──► [ batch batch drop_above batch ] ── every 250 ms ──► Cache: rows and cursors in one transaction

So the cache's cursor is that of the last acked batch, and its rows are exactly those up to it: what was
delivered but not acked comes again after a restart, nothing is skipped.

A disk that is full for a while only makes the cache late. A cache that is damaged while it is used, or whose file loses
its name (a look every CACHE_FLUSH_MS), ends the client with a `DataError`, for a consumer that relies on it would begin
at the wrong place; one that asked to go on without (`on_cache_error="without"`) does so, and that is logged once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias, TypeVar

from flux.batch import Batch
from flux.client.cache import Cache, CacheBatch
from flux.client.deliver import BATCHES, Delivery
from flux.client.warmup import Past
from flux.errors import ConfigError, DataError, FluxError, InUseError, StorageError
from flux.limits import CACHE_FLUSH_MS, CACHE_PENDING_ROWS, LOG_REPEAT_NS, MAX_DELIVERY_ROWS
from flux.model import Cursor, StreamKey
from flux.store.base import Rows
from flux.threads import WatchedThread

_LOG: Final = logging.getLogger("flux.client")

T = TypeVar("T")

_Step: TypeAlias = CacheBatch | Callable[[], None]


class Keeper:
    """`ack` and the others may come from any thread; they return at once unless far too much waits."""

    def __init__(self, cache: Cache, *, without: bool = False) -> None:
        self._cache = cache
        self._without = without
        self._on_break: Callable[[FluxError], None] = _ignore
        self._steps: deque[_Step] = deque()
        self._pending = 0  # rows among the steps
        self._changed = threading.Condition()
        self._closing = False
        self._broken = False
        self.failure: FluxError | None = None
        """Why the cache can be used no longer."""
        self._log_next_ns = 0
        self._thread = WatchedThread(self._run, name="flux cache", failed=self._failed)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, *, without: bool = False) -> Keeper | None:
        """The keeper of the cache in `path`. Raises what `Cache` raises; `without`: None then, and a warning."""
        try:
            return cls(Cache(path), without=without)
        except (ConfigError, InUseError, DataError, StorageError) as error:
            if not without:
                raise
            _LOG.warning("going on without the cache: %s", error)
            return None

    def when_broken(self, report: Callable[[FluxError], None]) -> None:
        """Have `report` called once, from whatever thread, when the cache can be used no longer."""
        self._on_break = report

    def cursor(self, key: StreamKey) -> Cursor | None:
        """How far the consumer of an earlier run had come."""
        return self._read(lambda: self._cache.cursor(key), None)

    def last_row(self, key: StreamKey, cursor: Cursor) -> Rows | None:
        """An array of the row at the cursor; None where it is not here."""
        run = self._read(lambda: self._cache.read(key, cursor.sequence - 1, 1), None)
        return run.rows if run is not None and run.first_sequence == cursor.sequence else None

    def kept(self) -> list[StreamKey]:
        """The streams that earlier runs kept."""
        return self._read(self._cache.keys, [])

    def pages(self, key: StreamKey, cursor: Cursor, past: Past) -> Iterator[Batch]:
        """As much as is asked for of the rows that earlier runs kept of a stream, in order, up to the cursor."""
        sequence = self._read(lambda: self._cache.begin_of(key, past), cursor.sequence + 1) - 1
        while sequence < cursor.sequence:
            run = self._read(lambda: self._cache.read(key, sequence, MAX_DELIVERY_ROWS), None)  # noqa: B023  called at once
            if run is None:
                return
            sequence = run.first_sequence + len(run.rows) - 1
            yield BATCHES[key.kind](
                key, run.first_sequence, run.rows, epoch=run.epoch, store_id=cursor.store_id, cached=True
            )

    def _read(self, read: Callable[[], T], otherwise: T) -> T:
        """What `read` finds; a cache that cannot be read is an error, or to be done without."""
        if self._broken:
            return otherwise
        try:
            return read()
        except (StorageError, DataError) as error:
            if not self._without:
                raise
            self._break(error)
            return otherwise

    def ack(self, delivery: Delivery) -> None:
        """A consumer is done with a batch."""
        batch, tenure = delivery.item, delivery.tenure
        if not isinstance(batch, Batch) or batch.cached or batch.key is None or not tenure.kept:
            return
        rows = batch.rows[: max(0, tenure.upto - batch.start_sequence + 1)]
        if len(rows):
            last = batch.start_sequence + len(rows) - 1
            anew, tenure.anew = tenure.anew, False
            if anew:
                self.begin_anew(batch.key, batch.store_id, batch.epoch, batch.start_sequence)
            self._add(
                CacheBatch(
                    batch.key,
                    batch.store_id,
                    batch.epoch,
                    batch.start_sequence,
                    rows,
                    last,
                    delivery.after_gap or anew,
                )
            )

    def begin_anew(self, key: StreamKey, store_id: int, epoch: int, first: int) -> None:
        """What is kept from `first` on comes again, from a run that does not go on at the cursor."""
        self._add(lambda: self._cache.begin_anew(key, store_id, epoch, first))

    def drop_above(self, key: StreamKey, sequence: int) -> None:
        """Rows above `sequence` are void."""
        self._add(lambda: self._cache.drop_above(key, sequence))

    def set_aside(self, key: StreamKey) -> None:
        """What is kept of this stream is of another store."""
        self._add(lambda: self._cache.set_aside(key))

    def forget(self, key: StreamKey) -> None:
        """What is kept of this stream is no longer wanted."""
        self._add(lambda: self._cache.forget(key))

    def close(self) -> None:
        """Write what is still to be written and close the file; a second call does nothing."""
        self.leave()
        self._thread.join()

    @property
    def closing(self) -> bool:
        """Whether no ack comes into the file any more."""
        return self._closing

    def leave(self) -> None:
        """`close`, without waiting for it."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _add(self, step: _Step) -> None:
        with self._changed:
            if isinstance(step, CacheBatch):
                # Only when the disk cannot follow for long does a consumer wait here; the loop never does.
                self._changed.wait_for(
                    lambda: self._pending < CACHE_PENDING_ROWS or self._closing or self._broken
                )
                self._pending += len(step.rows)
            if self._broken or self._closing:
                return
            self._steps.append(step)
            if self._pending >= CACHE_PENDING_ROWS:
                self._changed.notify_all()

    def _run(self) -> None:
        try:
            self._follow()
        finally:
            self._cache.close()

    def _follow(self) -> None:
        while not self._broken:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or self._pending >= CACHE_PENDING_ROWS, CACHE_FLUSH_MS / 1_000
                )
                steps = list(self._steps)
                closing = self._closing
            done = self._write(steps)
            if gone := self._cache.gone():
                self._break(DataError(gone))
            with self._changed:
                for _ in range(0 if self._broken else done):
                    step = self._steps.popleft()
                    self._pending -= len(step.rows) if isinstance(step, CacheBatch) else 0
                self._changed.notify_all()
                if closing and (done < len(steps) or not self._steps):
                    return
            if not steps:
                self._rest()

    def _write(self, steps: list[_Step]) -> int:
        """Carry out steps in order; how many came through."""
        done = 0
        try:
            while done < len(steps):
                batches: list[CacheBatch] = []
                for step in steps[done:]:
                    if not isinstance(step, CacheBatch):
                        break
                    batches.append(step)
                if batches:
                    self._cache.commit(batches)
                    done += len(batches)
                else:
                    following = steps[done]
                    assert not isinstance(following, CacheBatch)
                    following()
                    done += 1
        except StorageError as error:
            self._log_late(error)
        except DataError as error:
            self._break(error)
        except ValueError as error:
            self._break(DataError(f"the cache does not fit what was received: {error}"))
        return done

    def _log_late(self, error: StorageError) -> None:
        """At most once in LOG_REPEAT_NS: it is tried again far more often."""
        now = time.monotonic_ns()
        if now >= self._log_next_ns:
            self._log_next_ns = now + LOG_REPEAT_NS
            _LOG.warning("the cache is late, and tries again: %s", error)

    def _rest(self) -> None:
        try:
            self._cache.idle()
        except (StorageError, DataError) as error:
            _LOG.warning("the cache could not be tidied up: %s", error)

    def _failed(self, error: BaseException) -> None:
        self._break(FluxError(f"the cache's thread ended by an error of its own: {error!r}"))

    def _break(self, error: FluxError) -> None:
        """The cache ends at the last batch that came through; whether the client does too was its user's choice."""
        with self._changed:
            if self._broken:
                return
            self._broken, self.failure = True, error
            self._steps.clear()
            self._pending = 0
            self._changed.notify_all()
        if self._without:
            _LOG.error("going on without the cache: %s", error)
        else:
            self._on_break(error)


def _ignore(_: FluxError) -> None:
    """Nobody wants to know yet."""
