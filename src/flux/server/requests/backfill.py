"""Backfills: which rows, which status, which frame; in version 1 and in version 2.

A backfill is worked out twice at most: by the request thread from memory, and, when that is not enough, by
the store's worker. Both find the stream as it was when the request was looked at.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from enum import IntEnum
from typing import Any, Final

import numpy as np

from flux import codec
from flux.limits import MAX_REPLY_ROWS, ZSTD_MIN_ROWS
from flux.model import MAX_SEQUENCE, ROW_DTYPES, RowKind
from flux.server.requests.pages import NeedsStore, Page, Pages
from flux.server.requests.refusal import INTERNAL, Refusal, Status
from flux.server.requests.view import ServerView, StoreReader, StreamView
from flux.transport.drops import Seldom

_LOG: Final = logging.getLogger("flux.requests")
_SELDOM: Final = Seldom()

_MAX_TS_MS = 2**63 - 1


class PageStatus(IntEnum):
    """BackfillRowsResponse.status."""

    OK = 0
    RETENTION_EXCEEDED = 1
    CURSOR_AHEAD = 2
    EPOCH_ENDED = 3
    HOLE = 4


class Backfill(ABC):
    """A request for rows of a stream that exists."""

    version: int

    def __init__(
        self, view: ServerView, stream: StreamView, request: Any, correlation_id: str | None
    ) -> None:
        self.view = view
        self.stream = stream
        self.request = request
        self.correlation_id = correlation_id
        self.limit = min(request.limit or MAX_REPLY_ROWS, MAX_REPLY_ROWS)

    def from_memory(self) -> bytes | None:
        """The reply, or None when the store is needed."""
        try:
            return self._reply(None)
        except NeedsStore:
            return None

    def from_store(self, store: StoreReader) -> bytes:
        """The reply; called in the worker's thread. May raise StorageError."""
        return self._reply(store)

    def unavailable(self, why: str, retry_after_ms: int) -> bytes:
        """The reply that says: not now."""
        return Refusal(Status.UNAVAILABLE, why, retry_after_ms).reply(self.version, self.correlation_id)

    def exhausted(self, why: str, retry_after_ms: int) -> bytes:
        """The reply that says: too much at once."""
        return Refusal(Status.RESOURCE_EXHAUSTED, why, retry_after_ms).reply(
            self.version, self.correlation_id
        )

    def internal(self, error: Exception) -> bytes:
        """The reply that says: a fault of the server's, which is logged."""
        if _SELDOM.due(type(error).__name__):
            _LOG.error("a backfill of %s could not be worked out", self.stream.key, exc_info=error)
        return Refusal(Status.INTERNAL, INTERNAL).reply(self.version, self.correlation_id)

    @abstractmethod
    def _reply(self, store: StoreReader | None) -> bytes: ...


class CandlesBackfill(Backfill):
    """Version 1. After an empty success its client would ask again, for ever: so a hole is an error."""

    version = 1

    def _reply(self, store: StoreReader | None) -> bytes:
        request, stream = self.request, self.stream
        after = request.from_sequence_exclusive if request.has_from_sequence else 0
        if after >= stream.head:
            return self._frame(Page(0, np.empty(0, ROW_DTYPES[RowKind.CANDLE]), False))
        if after and after + 1 < stream.first:
            why = f"sequence {after} is older than what is kept: the first is {stream.first}"
            return self._error(Status.NOT_FOUND, why)
        page = self._page(Pages(self.view, stream, store), max(after, stream.first - 1))
        if page.resumes:
            why = f"sequences {page.first} to {page.resumes - 1} are lost"
            return self._error(Status.NOT_FOUND, why)
        return self._frame(page)

    def _page(self, pages: Pages, after: int) -> Page:
        request, head = self.request, self.stream.head
        if not request.has_end_ts_ms or request.end_ts_ms == _MAX_TS_MS:
            return pages.page(after, head, self.limit)
        end_ms = request.end_ts_ms + 1  # theirs is inclusive
        if not request.has_from_sequence or pages.is_before(after + 1, end_ms):
            return pages.page(after, head, self.limit, end_ms=end_ms)
        # That client repairs with the time before its first buffered row as the end. When what it lacks is a
        # correction or a late row, the end shuts it out: an empty answer would make it ask again for ever.
        page = pages.page(after, head, self.limit)
        return page._replace(more=page.more and pages.any_before(end_ms, after + len(page.rows)))

    def _frame(self, page: Page) -> bytes:
        last = page.first + len(page.rows) - 1
        return codec.encode_backfill(
            self.stream.key,
            page.first if len(page.rows) else 0,
            page.rows,
            version=1,
            has_more=page.more,
            next_sequence=last if page.more else 0,
            correlation_id=self.correlation_id,
        )

    def _error(self, status: Status, why: str) -> bytes:
        return Refusal(status, why).reply(1, self.correlation_id)


class RowsBackfill(Backfill):
    """Version 2: what cannot be given is said by a status."""

    version = 2

    def _reply(self, store: StoreReader | None) -> bytes:
        request, stream = self.request, self.stream
        after = request.from_sequence_exclusive
        status, epoch_end = self._status()
        if status is not PageStatus.OK:
            return self._frame(self._empty(after), status, epoch_end)
        to = min(request.to_sequence_inclusive or stream.head, stream.head)
        page = Pages(self.view, stream, store).page(
            max(after, stream.first - 1),
            to,
            self.limit,
            request.start_ts_ms or None,
            request.end_ts_ms or None,
        )
        page, rows_epoch = self._of_one_epoch(page)
        return self._frame(page, PageStatus.HOLE if page.resumes else status, rows_epoch=rows_epoch)

    def _of_one_epoch(self, page: Page) -> tuple[Page, int]:
        """The page up to where the epoch changes in which its rows were numbered, and that epoch; 0 without rows."""
        if not len(page.rows):
            return page, 0
        epoch, last = self.view.rows_epoch(self.stream.stream_id, page.first)
        rows = page.rows[: last - page.first + 1]
        return page._replace(rows=rows, more=page.more or len(rows) < len(page.rows)), epoch

    def _status(self) -> tuple[PageStatus, int]:
        """What stands against giving rows, and the end of the client's epoch where it is over."""
        request, stream, view = self.request, self.stream, self.view
        after = request.from_sequence_exclusive
        if request.store_id not in (0, view.store_id):
            return PageStatus.EPOCH_ENDED, 0  # nothing of another store is right here
        if 0 < request.epoch < view.epoch:
            return PageStatus.EPOCH_ENDED, self._epoch_end(request.epoch)
        if request.epoch > view.epoch or after > stream.head:
            if request.store_id:
                view.cursor_ahead(stream.key, request.epoch, after)
            return PageStatus.CURSOR_AHEAD, 0
        timed = request.start_ts_ms or request.end_ts_ms
        if after + 1 < stream.first and (after or not timed):
            return PageStatus.RETENTION_EXCEEDED, 0
        return PageStatus.OK, 0

    def _epoch_end(self, epoch: int) -> int:
        """The last sequence of `epoch` that is still right: a later epoch may have ended even lower."""
        ends = self.view.epoch_ends(self.stream.stream_id)
        return min((end for of, end in ends.items() if of >= epoch), default=0)

    def _empty(self, after: int) -> Page:
        return Page(min(after + 1, MAX_SEQUENCE), np.empty(0, ROW_DTYPES[self.stream.key.kind]), False)

    def _frame(self, page: Page, status: PageStatus, epoch_end: int = 0, *, rows_epoch: int = 0) -> bytes:
        return codec.encode_backfill(
            self.stream.key,
            page.first,
            page.rows,
            version=2,
            has_more=page.more,
            epoch=self.view.epoch,
            store_id=self.view.store_id,
            first_available_sequence=page.resumes or self.stream.first,
            watermark_sequence=self.stream.head,
            status=status,
            epoch_end_sequence=epoch_end,
            rows_epoch=0 if rows_epoch == self.view.epoch else rows_epoch,
            zstd=self.request.accept_zstd and len(page.rows) >= ZSTD_MIN_ROWS,
            correlation_id=self.correlation_id,
        )
