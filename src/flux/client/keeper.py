"""Keeps the cache: batches that consumers are done with go into it, late by CACHE_FLUSH_MS at most, in one
thread.

    ack ──► [ batch batch drop_above batch ] ── each 250 ms ──► Cache: rows and cursors in one transaction

So the cache's cursor is that of the last acked batch, and its rows are exactly those up to it: what was
delivered but not acked comes again after a restart, nothing is skipped.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from flux.batch import Batch
from flux.client.cache import Cache, CacheBatch
from flux.client.deliver import BATCHES, Delivery
from flux.errors import DataError, StorageError
from flux.limits import CACHE_FLUSH_MS, CACHE_PENDING_ROWS, MAX_DELIVERY_ROWS
from flux.model import Cursor, StreamKey
from flux.threads import WatchedThread

_LOG: Final = logging.getLogger("flux.client")

_Step: TypeAlias = CacheBatch | Callable[[], None]


class Keeper:
    """`ack` and the others may come from any thread; they return at once unless far too much waits."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._steps: deque[_Step] = deque()
        self._pending = 0  # rows among the steps
        self._changed = threading.Condition()
        self._closing = False
        self._broken = False
        self._thread = WatchedThread(self._run, name="flux cache", failed=self._break)
        self._thread.start()

    @classmethod
    def open(cls, path: Path) -> Keeper | None:
        """The keeper of the cache in `path`; None, with a message, where a client must do without."""
        cache, message = Cache.open(path)
        if message:
            _LOG.warning("%s", message)
        return None if cache is None else cls(cache)

    def cursor(self, key: StreamKey) -> Cursor | None:
        """How far the consumer of an earlier run had come."""
        try:
            return self._cache.cursor(key)
        except (StorageError, DataError) as error:
            self._break(error)
            return None

    def kept(self) -> list[StreamKey]:
        """The streams that earlier runs kept."""
        try:
            return self._cache.keys()
        except (StorageError, DataError) as error:
            self._break(error)
            return []

    def pages(self, key: StreamKey, cursor: Cursor) -> Iterator[Batch]:
        """The rows that earlier runs kept of a stream, in order, up to the cursor."""
        sequence = 0
        while sequence < cursor.sequence:
            try:
                run = self._cache.read(key, sequence, MAX_DELIVERY_ROWS)
            except (StorageError, DataError) as error:
                self._break(error)
                return
            if run is None:
                return
            sequence = run.first_sequence + len(run.rows) - 1
            yield BATCHES[key.kind](
                key, run.first_sequence, run.rows, epoch=run.epoch, store_id=cursor.store_id, cached=True
            )

    def ack(self, delivery: Delivery) -> None:
        """A consumer is done with a batch."""
        batch, tenure = delivery.item, delivery.tenure
        if not isinstance(batch, Batch) or batch.cached or batch.key is None or not tenure.kept:
            return
        rows = batch.rows[: max(0, tenure.upto - batch.start_sequence + 1)]
        if len(rows):
            last = batch.start_sequence + len(rows) - 1
            self._add(
                CacheBatch(
                    batch.key,
                    batch.store_id,
                    batch.epoch,
                    batch.start_sequence,
                    rows,
                    last,
                    delivery.after_gap,
                )
            )

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
        """Write what is still to be written and close the file."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()
        self._cache.close()

    def _add(self, step: _Step) -> None:
        with self._changed:
            if isinstance(step, CacheBatch):
                # Only when the disk cannot follow for long does a consumer wait here; the loop never does.
                self._changed.wait_for(
                    lambda: self._pending < CACHE_PENDING_ROWS or self._closing or self._broken
                )
                self._pending += len(step.rows)
            if self._broken:
                return
            self._steps.append(step)
            if self._pending >= CACHE_PENDING_ROWS:
                self._changed.notify_all()

    def _run(self) -> None:
        while not self._broken:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closing or self._pending >= CACHE_PENDING_ROWS, CACHE_FLUSH_MS / 1_000
                )
                steps = list(self._steps)
                closing = self._closing
            done = self._write(steps)
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
            _LOG.warning("the cache is behind, and tries again: %s", error)
        except (DataError, ValueError) as error:
            self._break(error)
        return done

    def _rest(self) -> None:
        try:
            self._cache.idle()
        except (StorageError, DataError) as error:
            _LOG.warning("the cache could not be tidied up: %s", error)

    def _break(self, error: BaseException) -> None:
        """Go on without the cache: it ends at the last batch that came through."""
        _LOG.error("going on without the cache: %s", error)
        with self._changed:
            self._broken = True
            self._steps.clear()
            self._pending = 0
            self._changed.notify_all()
