"""The list of streams, in pieces: a prefix that few of 100,000 streams have is looked for between other requests."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from flux.limits import LIST_STREAMS_PER_TURN, MAX_LIST_STREAMS
from flux.model import StreamKey
from flux.schema import messages
from flux.server.requests.refusal import INTERNAL, Refusal, Status
from flux.server.requests.view import StoreReader, StreamView
from flux.transport.drops import Seldom

AGAIN: Final = b""
"""What `from_memory` returns when it is not finished and is to be called again after the other requests."""

_LOG: Final = logging.getLogger("flux.requests")
_SELDOM: Final = Seldom()


class Listing:
    """A StreamListRequest on its way (`requests.Backfill`); it reads no store.

    `after` yields the streams after the request's cursor, `slots` makes one entry of the reply, `head` goes into it.
    """

    def __init__(
        self,
        request: Any,
        after: Iterator[StreamView],
        slots: Callable[[StreamView], dict[str, Any]],
        head: dict[str, Any],
    ) -> None:
        self._limit = min(request.limit or MAX_LIST_STREAMS, MAX_LIST_STREAMS)
        self._prefix: str = request.prefix or ""
        self._after = after
        self._slots = slots
        self._head = head
        self._found: list[StreamView] = []

    def from_memory(self) -> bytes:
        """The reply, or `AGAIN` after `LIST_STREAMS_PER_TURN` streams."""
        seen = 0
        for stream in islice(self._after, LIST_STREAMS_PER_TURN):
            seen += 1
            if _listed(stream.key).startswith(self._prefix):
                self._found.append(stream)
                if len(self._found) > self._limit:
                    return self._reply()
        return self._reply() if seen < LIST_STREAMS_PER_TURN else AGAIN

    def from_store(self, store: StoreReader) -> bytes:
        """Never needed: all streams are in memory."""
        raise AssertionError("a list of streams needs no store")

    def unavailable(self, why: str, retry_after_ms: int) -> bytes:
        """The reply that says: not now."""
        return self._refused(Refusal(Status.UNAVAILABLE, why, retry_after_ms))

    def exhausted(self, why: str, retry_after_ms: int) -> bytes:
        """The reply that says: too much at once."""
        return self._refused(Refusal(Status.RESOURCE_EXHAUSTED, why, retry_after_ms))

    def internal(self, error: Exception) -> bytes:
        """The reply that says: a fault of the server's, which is logged."""
        if _SELDOM.due(type(error).__name__):
            _LOG.error("the list of streams could not be made", exc_info=error)
        return self._refused(Refusal(Status.INTERNAL, INTERNAL))

    def _reply(self) -> bytes:
        return messages.stream_list_response(
            streams=[self._slots(stream) for stream in self._found[: self._limit]],
            has_more=len(self._found) > self._limit,
            **self._head,
        )

    def _refused(self, refusal: Refusal) -> bytes:
        return refusal.reply(2, self._head["correlation_id"])


def _listed(key: StreamKey) -> str:
    return f"{key.source_id}/{key.interval}/{key.symbol}"
