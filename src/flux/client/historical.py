"""`flux.Historical`: the same rows by request, page by page, as one batch that owns them, or as one batch a page."""

from __future__ import annotations

import math
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Self

from flux.batch import Batch
from flux.client.ranges import NO_HISTORY, Bounds, History, Page, Range
from flux.config import DEFAULT_SOURCE_ID, endpoints, value
from flux.errors import AnswerError, ConfigError, FluxError, RequestTimeout, UnavailableError, VersionError
from flux.limits import ASK_TIMEOUT_MS, MAX_LIST_STREAMS
from flux.model import Cursor, RowKind, StreamKey
from flux.protocol.replies import PageStatus
from flux.protocol.schedule import MS, backoff_ns
from flux.schema import messages
from flux.transport.forked import OfOneProcess, ending
from flux.transport.outbox import answered_rows
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from flux.units import Time, range_ns


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


class Historical(OfOneProcess):
    """Requests to one server (`rep`: default FLUX_CHUNK_REP, else this machine's). Any thread may call, one
    at a time.

    `timeout`: seconds for every call, the repetitions of its requests included: one that the server cannot serve now,
    or that gets no answer, is asked again with growing pauses. Methods raise `RequestTimeout` or `UnavailableError`
    after that, `NotFoundError` for a stream that the server does not know, `VersionError` for a server of
    another major version, `AnswerError` for an answer that cannot be (`FloodError`: for more bytes than any answer has;
    the connection is made again), `FluxError` after `close`, and in a process that was forked since it was made.
    """

    def __init__(self, *, rep: str | None = None, timeout: float = 10.0) -> None:
        self._endpoint = endpoints(None, rep).chunk_rep
        self._timeout = timeout
        self._lock = threading.Lock()
        self._closed = False
        self._random = random.Random()
        self._sockets = Sockets()
        look = weakref.WeakMethod(self._look)  # the thread that calls it keeps nobody alive
        self._requester = Requester(
            self._sockets, self._endpoint, look=lambda: None if (alive := look()) is None else alive()
        )

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
        timeout: float | None = None,
    ) -> Batch:
        """Rows with `start` <= time < `end` (None: no bound; `flux.units` lists what is a time), at most `limit`, as
        one batch. Raises `ConfigError` for what is no time, a start that is not before the end, a negative limit.

        Of candles the latest revision of each, in order of time; `revisions=True`, and trades and quotes always:
        every row in order of sequence. `batch.sequences` is true for every row; the batch's epoch is 0 where its
        rows are of several. `timeout`: seconds for all of it (None: the object's). More than `limits.MAX_RANGE_ROWS`
        rows are a `FluxError`: `iter_range` has no bound. Raises `StorageError` where the server has lost rows in the
        middle of the range, and where it became another store, or lost rows that were fetched already, between two
        pages: ask again then.
        """
        key, bounds = self._wanted(symbol, interval, source, start, end, limit, revisions)
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        wanted = Range(key, bounds)
        with self._open():
            try:
                return wanted.fetch(partial(self._page, deadline))
            except RequestTimeout as error:
                if not wanted.count:
                    raise
                raise RequestTimeout(
                    f"{key}: {wanted.count:,} rows came in time, and there are more: give it a longer timeout, or take "
                    f"them batch by batch with iter_range ({error})"
                ) from error

    def iter_range(
        self,
        symbol: str,
        *,
        interval: str,
        source: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        limit: int | None = None,
    ) -> Iterator[Batch]:
        """Every row with `start` <= time < `end`, at most `limit`, in order of sequence, as batches of up to
        MAX_REPLY_ROWS rows: for ranges that do not fit memory.

        Corrections and late rows come where their sequence is. Each batch has the object's timeout. Raises as
        `get_range`, when the batch is asked for.
        """
        key, bounds = self._wanted(symbol, interval, source, start, end, limit, True)

        return self._batches(Range(key, bounds))

    def _batches(self, wanted: Range) -> Iterator[Batch]:
        deadline = 0.0

        def page(key: StreamKey, after: int, rows: int, bounds: Bounds, history: History) -> Page:
            with self._open():
                return self._page(deadline, key, after, rows, bounds, history)

        batches = wanted.batches(page)
        while True:
            deadline = (
                time.monotonic() + self._timeout
            )  # of a batch, however many pages have none of its rows
            batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def get_status(self, key: StreamKey | str) -> StreamStatus:
        """Where a stream stands on the server."""
        key = _key(key)
        with self._open():
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
        deadline = time.monotonic() + self._timeout
        with self._open():
            while True:
                after = found[-1].stream_id if found else 0
                try:
                    reply = self._ask(
                        messages.stream_list_request,
                        deadline=deadline,
                        answered=bool(found),
                        prefix=prefix,
                        after_stream_id=after,
                        limit=MAX_LIST_STREAMS,
                    )
                except VersionError as error:
                    if "unsupported schema_version" not in str(error):
                        raise
                    raise VersionError(
                        f"{self._endpoint} speaks version 1, which has no list of streams: name one, as "
                        "SOURCE/SYMBOL/INTERVAL"
                    ) from error
                found += [_status(stream) for stream in reply.streams]
                if not reply.has_more:
                    return found
                if not reply.streams:
                    raise AnswerError(
                        f"{self._endpoint} lists no streams after id {after}, and has more to list"
                    )

    @ending
    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        with self._lock:
            self._closed = True
            self._sockets.close()

    def _look(self) -> None:
        """Between two calls: take what came, which nobody waits for."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._closed:
                    self._requester.receive()
            finally:
                self._lock.release()

    @contextmanager
    def _open(self) -> Iterator[None]:
        """One call at a time, and none after `close`."""
        with self._lock:
            if self._closed:
                raise FluxError(f"this Historical of {self._endpoint} is closed")
            yield

    def __enter__(self) -> Self:
        return self

    @ending
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wanted(
        self,
        symbol: str,
        interval: str,
        source: str | None,
        start: Time | None,
        end: Time | None,
        limit: int | None,
        every: bool,
    ) -> tuple[StreamKey, Bounds]:
        key = StreamKey(value(source, "SOURCE_ID", DEFAULT_SOURCE_ID), symbol, interval).checked()
        every = every or key.kind is not RowKind.CANDLE
        first, beyond = range_ns(start, end)
        if limit is not None and limit < 0:
            raise ConfigError(f"limit {limit} is negative")
        return key, Bounds(first, beyond, limit, every)

    def _ask(
        self,
        build: Callable[..., bytes],
        *,
        deadline: float | None = None,
        answered: bool = False,
        **slots: Any,
    ) -> Any:
        """The reply; asked again while the server cannot serve it, until the time is over: the object's, and no
        longer than `deadline` (monotonic s). `answered`: whether it has answered to what this call asked before.
        """
        began = time.monotonic()
        deadline = min(began + self._timeout, math.inf if deadline is None else deadline)
        failures = 0
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise RequestTimeout(f"{self._endpoint}: the time was over before {build.__name__} was sent")
            try:
                return self._requester.ask(
                    build, timeout=max(0.001, min(left, ASK_TIMEOUT_MS / 1_000)), **slots
                )
            except (UnavailableError, RequestTimeout) as error:
                failures += 1
                least = error.retry_after_ms if isinstance(error, UnavailableError) else 0
                pause = backoff_ns(failures, self._random, least) / (1_000 * MS)
                now = time.monotonic()
                if now + pause < deadline:
                    time.sleep(pause)
                    continue
                if isinstance(error, UnavailableError):
                    raise
                advice = "it had answered before: give it more time" if answered else "is a server there?"
                raise RequestTimeout(
                    f"{self._endpoint} did not answer {build.__name__} within {now - began:.1f} s, asked "
                    f"{failures} time{'s' * (failures > 1)}: {advice}"
                ) from error

    def _fall_back(self, error: VersionError) -> None:
        if "unsupported schema_version" not in str(error):
            raise error
        self._requester.version = 1

    def _page(
        self, deadline: float, key: StreamKey, after: int, rows: int, bounds: Bounds, history: History
    ) -> Page:
        if self._requester.version == 2:
            try:
                reply = self._ask(
                    messages.backfill_rows_request,
                    deadline=deadline,
                    answered=after > 0 or history != NO_HISTORY,
                    key=key,
                    from_sequence_exclusive=after,
                    limit=rows,
                    start_ts_ms=bounds.start_ms or 0,
                    end_ts_ms=bounds.end_ms or 0,
                    store_id=history.store_id,
                    epoch=history.epoch,
                    accept_zstd=True,
                )
            except VersionError as error:
                self._fall_back(error)
            else:
                return Page(
                    reply.start_sequence,
                    answered_rows(reply, self._endpoint),
                    reply.has_more,
                    PageStatus(reply.status),
                    reply.first_available_sequence,
                    reply.rows_epoch or reply.epoch,
                    History(reply.store_id, reply.epoch),
                    reply.epoch_end_sequence,
                    reply.watermark_sequence,
                )
        reply = self._ask(
            messages.backfill_candles_request,
            deadline=deadline,
            answered=after > 0,
            key=key,
            has_from_sequence=after > 0,
            from_sequence_exclusive=after,
            limit=rows,
        )
        return Page(reply.start_sequence, reply.rows, reply.has_more)


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
