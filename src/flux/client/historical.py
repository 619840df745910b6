"""`flux.Historical`: the same rows by request, page by page, as one batch that owns them."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flux.batch import Batch
from flux.client.deliver import BATCHES
from flux.config import DEFAULT_SOURCE_ID, endpoints, value
from flux.errors import ConfigError, FluxError, RequestTimeout, StorageError, UnavailableError, VersionError
from flux.limits import ASK_TIMEOUT_MS, MAX_LIST_STREAMS, MAX_REPLY_ROWS
from flux.model import ROW_DTYPES, Cursor, RowKind, StreamKey
from flux.protocol.replies import PageStatus
from flux.protocol.schedule import MS, backoff_ns
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from flux.units import Time, range_ms

Rows: TypeAlias = NDArray[np.void]
_NS_PER_MS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What a server says of a stream: sequences (0 = none), the latest row's time (epoch ms), store and
    epoch.

    A server of version 1 tells neither the oldest row it keeps nor a store: those are 0 then.
    """

    key: StreamKey
    latest_sequence: int
    latest_ts_ms: int
    first_sequence: int
    store_id: int
    epoch: int
    stream_id: int


class Historical:
    """Requests to one server (`rep`: default FLUX_CHUNK_REP, else this machine's). Any thread may call, one
    at a time.

    `timeout`: seconds for each request with its repetitions: one that the server cannot serve now, or that
    gets no answer, is asked again with growing pauses. Methods raise `RequestTimeout` or `UnavailableError`
    after that, `NotFoundError` for a stream that the server does not know, `VersionError` for a server of
    another major version.
    """

    def __init__(self, *, rep: str | None = None, timeout: float = 10.0) -> None:
        self._endpoint = endpoints(None, rep).chunk_rep
        self._timeout = timeout
        self._lock = threading.Lock()
        self._random = random.Random()
        self._sockets = Sockets()
        self._requester = Requester(self._sockets, self._endpoint)

    def get_range(
        self,
        symbol: str,
        *,
        interval: str,
        source: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        limit: int | None = None,
        revisions: bool = False,
    ) -> Batch:
        """Rows with `start` <= time < `end` (None: no bound; `flux.units` lists what is a time), at most `limit`, as
        one batch. Raises `ConfigError` for what is no time, a start that is not before the end, a negative limit.

        Of candles the latest revision of each, in order of time; `start_sequence` is then that of the
        earliest row that was fetched, and rows have no sequences of their own. `revisions=True`, and trades
        and quotes always: every row in order of sequence. Raises `StorageError` where the server has lost
        rows in the middle of the range.
        """
        key = StreamKey(value(source, "SOURCE_ID", DEFAULT_SOURCE_ID), symbol, interval).checked()
        first, beyond = range_ms(start, end)
        if limit is not None and limit < 0:
            raise ConfigError(f"limit {limit} is negative")
        bounds = _Bounds(first, beyond, limit, revisions or key.kind is not RowKind.CANDLE)
        with self._lock:
            return _Range(key, bounds).fetch(self._page)

    def get_status(self, key: StreamKey | str) -> StreamStatus:
        """Where a stream stands on the server."""
        key = _key(key)
        with self._lock:
            if self._requester.version == 2:
                try:
                    return _status(self._ask(messages.stream_status_request, key=key))
                except VersionError as error:
                    self._fall_back(error)
            reply = self._ask(messages.get_cursor_request, key=key)
            head = reply.cursor
            return StreamStatus(
                key, head.latest_sequence if head else 0, head.latest_ts_ms if head else 0, 0, 0, 0, 0
            )

    def get_cursor(self, key: StreamKey | str) -> Cursor:
        """The stream's head, as a cursor."""
        status = self.get_status(key)
        return Cursor(status.store_id, status.epoch, status.latest_sequence)

    def list_streams(self, prefix: str = "") -> list[StreamStatus]:
        """All streams whose `SOURCE/INTERVAL/SYMBOL` begins with `prefix`, in order of their stream_id."""
        found: list[StreamStatus] = []
        with self._lock:
            while True:
                after = found[-1].stream_id if found else 0
                reply = self._ask(
                    messages.stream_list_request,
                    prefix=prefix,
                    after_stream_id=after,
                    limit=MAX_LIST_STREAMS,
                )
                found += [_status(stream) for stream in reply.streams]
                if not reply.has_more or not reply.streams:
                    return found

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self._lock:
            self._sockets.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, build: Callable[..., bytes], **slots: Any) -> Any:
        """The reply; asked again while the server cannot serve it, until the time is over."""
        deadline = time.monotonic() + self._timeout
        failures = 0
        while True:
            left = deadline - time.monotonic()
            try:
                return self._requester.ask(
                    build, timeout=max(0.001, min(left, ASK_TIMEOUT_MS / 1_000)), **slots
                )
            except (UnavailableError, RequestTimeout) as error:
                failures += 1
                least = error.retry_after_ms if isinstance(error, UnavailableError) else 0
                pause = backoff_ns(failures, self._random, least) / (1_000 * MS)
                if time.monotonic() + pause >= deadline:
                    raise
                time.sleep(pause)

    def _fall_back(self, error: VersionError) -> None:
        if "schema_version" not in str(error):
            raise error
        self._requester.version = 1

    def _page(self, key: StreamKey, after: int, bounds: _Bounds) -> _Page:
        if self._requester.version == 2:
            try:
                reply = self._ask(
                    messages.backfill_rows_request,
                    key=key,
                    from_sequence_exclusive=after,
                    limit=MAX_REPLY_ROWS,
                    start_ts_ms=bounds.start or 0,
                    end_ts_ms=bounds.end or 0,
                    accept_zstd=True,
                )
            except VersionError as error:
                self._fall_back(error)
            else:
                return _Page(
                    reply.start_sequence,
                    reply.rows,
                    reply.has_more,
                    PageStatus(reply.status),
                    reply.first_available_sequence,
                    reply.epoch,
                    reply.store_id,
                )
        reply = self._ask(
            messages.backfill_candles_request,
            key=key,
            has_from_sequence=after > 0,
            from_sequence_exclusive=after,
            limit=MAX_REPLY_ROWS,
        )
        return _Page(reply.start_sequence, reply.rows, reply.has_more)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """What is wanted: epoch ms, half-open; `every` row or the latest revision of each candle."""

    start: int | None
    end: int | None
    limit: int | None
    every: bool


@dataclass(frozen=True, slots=True)
class _Page:
    first: int
    rows: Rows
    has_more: bool
    status: PageStatus = PageStatus.OK
    first_available: int = 0
    epoch: int = 0
    store_id: int = 0


class _Range:
    """One `get_range`: pages are asked for until the range, or the limit, is full."""

    def __init__(self, key: StreamKey, bounds: _Bounds) -> None:
        self._key = key
        self._bounds = bounds
        self._end = bounds.end
        self._parts: list[Rows] = []
        self._first = 0
        self._epoch = 0
        self._store_id = 0

    def fetch(self, page_of: Callable[[StreamKey, int, _Bounds], _Page]) -> Batch:
        """Ask for pages and put them together."""
        after, bounds = 0, self._bounds
        while True:
            page = page_of(self._key, after, _Bounds(bounds.start, self._end, bounds.limit, bounds.every))
            if page.status is PageStatus.HOLE or page.status is PageStatus.RETENTION_EXCEEDED:
                if self._parts and page.first_available > after + 1:
                    last = page.first_available - 1
                    raise StorageError(f"{self._key}: the server no longer has {after + 1} to {last}")
                if page.first_available <= after + 1:
                    raise FluxError(f"{self._key}: the server has nothing after {after}, and says so wrongly")
                after = page.first_available - 1
                continue
            if not len(page.rows):
                break
            self._take(page)
            after = page.first + len(page.rows) - 1
            if not page.has_more or self._full():
                break
        return self._batch()

    def _take(self, page: _Page) -> None:
        self._first = self._first or page.first
        self._epoch, self._store_id = page.epoch, page.store_id
        times = self._times(page.rows)
        inside = np.ones(len(times), bool)
        if self._bounds.start is not None:
            inside &= times >= self._scaled(self._bounds.start)
        if self._bounds.end is not None:
            inside &= times < self._scaled(self._bounds.end)
        self._parts.append(page.rows[inside])  # a copy: the frame may go

    def _full(self) -> bool:
        """Whether no later page matters. Later revisions of what is wanted do: then the end moves closer
        instead.
        """
        limit = self._bounds.limit
        if limit is None:
            return False
        if self._bounds.every:
            return sum(map(len, self._parts)) >= limit
        times = np.unique(np.concatenate([self._times(part) for part in self._parts]))
        if len(times) >= limit > 0:
            self._end = int(times[limit - 1]) + 1
        return limit <= 0

    def _batch(self) -> Batch:
        rows = np.concatenate([np.empty(0, ROW_DTYPES[self._key.kind]), *self._parts])
        if not self._bounds.every:
            rows = latest_revisions(rows)
        if self._bounds.limit is not None:
            rows = rows[: max(0, self._bounds.limit)].copy()
        make = BATCHES[self._key.kind]
        return make(self._key, self._first or 1, rows, epoch=self._epoch, store_id=self._store_id)

    def _times(self, rows: Rows) -> NDArray[np.int64]:
        times: NDArray[np.int64] = rows["ts_ms" if self._key.kind is RowKind.CANDLE else "ts_ns"]
        return times

    def _scaled(self, time_ms: int) -> int:
        return time_ms if self._key.kind is RowKind.CANDLE else time_ms * _NS_PER_MS


def latest_revisions(rows: Rows) -> Rows:
    """Of candles in order of sequence the last of each ts_ms, in order of time: a new array."""
    times = rows["ts_ms"]
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    last = np.ones(len(order), bool)
    last[:-1] = ordered[1:] != ordered[:-1]
    return rows[order[last]]


def _status(reply: Any) -> StreamStatus:
    return StreamStatus(
        reply.key,
        reply.latest_sequence,
        reply.latest_ts_ms,
        reply.first_sequence,
        reply.store_id,
        reply.epoch,
        reply.stream_id,
    )


def _key(key: StreamKey | str) -> StreamKey:
    return StreamKey.parse(key) if isinstance(key, str) else StreamKey(*key).checked()
