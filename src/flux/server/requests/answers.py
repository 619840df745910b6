"""What a request is answered: bytes in, one reply out, whatever they are. No sockets, no threads, no waiting.

    frames ─► count, size ─► codec.decode ─► version ─► known message ─► names ─► known stream ─► the answer
               400            400             400        404 / 501        400       404

Each arrow that cannot be taken ends in one ErrorResponse. A reply has its request's schema_version (1 where
that could not be read or is not spoken) and its correlation_id. Backfills are returned as work to be done
(`backfill.py`), since they may need the store, and so is a long search among many streams (`listing.py`).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from heapq import nsmallest
from itertools import islice
from operator import eq
from typing import Any, Final

import zstandard  # noqa: F401  the codec loads it at the first large reply: there may be no descriptor left then

from flux import codec
from flux.codec.bounds import beyond_bounds
from flux.errors import DecodeError, InvalidNameError
from flux.limits import (
    MAX_CLAIMS_WAITING,
    MAX_CORRELATION_BYTES,
    MAX_NEAR_NAMES,
    MAX_REQUEST_BYTES,
    MAX_RUNS,
    NEAR_COMPARED_NAMES,
    NEAR_LENGTH,
    NEAR_SEARCH_NAMES,
    NEAR_SEARCHES_PER_S,
)
from flux.model import RowKind, State, StreamKey
from flux.schema import messages
from flux.server.requests.backfill import CandlesBackfill, RowsBackfill
from flux.server.requests.listing import Listing
from flux.server.requests.refusal import INTERNAL, Refusal, Status
from flux.server.requests.view import Claim, ServerView, StreamView
from flux.transport.drops import Seldom

_LOG: Final = logging.getLogger("flux.requests")

CLAIM_RETRY_MS: Final = 20

SCHEMA_VERSIONS: Final = (1, 2)
"""The versions spoken here."""

Later = CandlesBackfill | RowsBackfill | Listing
"""What is not answered at once (`requests.Backfill`)."""


class Answers:
    """Answers requests about one server; `counts` counts them by message, and refusals by status."""

    def __init__(
        self,
        view: ServerView,
        *,
        software: str = "",
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._view = view
        self._software = software
        self._now_ms = now_ms
        self._seldom = Seldom()
        self._near_second = -1
        self._near_left = 0  # searches for near names in this second

    def answer(self, body: Sequence[bytes]) -> bytes | Later:
        """The reply to a request's frames, or what has to be worked out for it. Never raises."""
        try:
            request = _read(body)
        except Refusal as refusal:
            return self._refuse(refusal, 1, None)
        except Exception as error:  # a fault of ours, as below
            return self._fault(error, "unread", 1, None)
        version = request.schema_version if request.schema_version in SCHEMA_VERSIONS else 1
        correlation_id = _echoed(request.correlation_id)
        try:
            if request.schema_version not in SCHEMA_VERSIONS:
                raise Refusal(Status.INVALID_ARGUMENT, "unsupported schema_version")
            name = type(request).__name__
            handler = _HANDLERS[version].get(name)
            if handler is None:
                raise Refusal(Status.UNIMPLEMENTED, "unsupported message_type")
            self.counts[name] += 1
            if version == 2 and (slot := beyond_bounds(request)):
                raise Refusal(Status.INVALID_ARGUMENT, f"{slot} is out of bounds")
            return handler(self, request, {"correlation_id": correlation_id, "schema_version": version})
        except Refusal as refusal:
            return self._refuse(refusal, version, correlation_id)
        except Exception as error:  # a fault of ours must not end the thread that answers everybody else
            return self._fault(error, type(request).__name__, version, correlation_id)

    def _fault(self, error: Exception, what: str, version: int, correlation_id: str | None) -> bytes:
        if self._seldom.due(type(error).__name__):
            _LOG.error("a request (%s) could not be answered", what, exc_info=error)
        return self._refuse(Refusal(Status.INTERNAL, INTERNAL), version, correlation_id)

    def _refuse(self, refusal: Refusal, version: int, correlation_id: str | None) -> bytes:
        self.counts[refusal.status.name] += 1
        return refusal.reply(version, correlation_id)

    # One method per request

    def _health(self, request: Any, head: dict[str, Any]) -> bytes:
        state, reason = self._view.health()
        slots: dict[str, Any] = {
            "ok": state in (State.OK, State.DEGRADED),
            "message": reason or state.name.lower(),
        }
        if head["schema_version"] == 1:
            return messages.health_response(**slots, **head)
        return messages.health_response(
            **slots,
            state=state,
            version=self._software,
            store_id=self._view.store_id,
            epoch=self._view.epoch,
            parent_store_id=self._view.parent_store_id,
            schema_version_max=max(SCHEMA_VERSIONS),
            **head,
        )

    def _cursor(self, request: Any, head: dict[str, Any]) -> bytes:
        stream = self._stream(request)
        return messages.get_cursor_response(
            key=stream.key, cursor=codec.Head(stream.head, stream.latest_ts_ms), **head
        )

    def _subscribe(self, request: Any, head: dict[str, Any]) -> bytes:
        key = _named(request)
        stream = self._view.stream(key)
        after = request.from_sequence_exclusive if request.has_from_sequence else 0
        if stream is None:
            reason = "unknown stream key"
        elif key.kind is not RowKind.CANDLE:
            reason = f"{key.interval} streams are not published in version 1"
        elif not stream.v1:
            reason = "its topic begins with another stream's, so it is not published in version 1"
        elif after and after + 1 < stream.first:
            reason = f"sequence {after} is older than what is kept: the first is {stream.first}"
        else:
            reason = None
        latest = stream.head if stream is not None else 0
        return messages.subscribe_candles_ack(
            accepted=reason is None, reason=reason, key=key, latest_sequence=latest, **head
        )

    def _candles(self, request: Any, head: dict[str, Any]) -> CandlesBackfill:
        stream = self._stream(request)
        if stream.key.kind is not RowKind.CANDLE:
            raise self._unknown(stream.key, head["schema_version"])
        return CandlesBackfill(self._view, stream, request, head["correlation_id"])

    def _rows(self, request: Any, head: dict[str, Any]) -> RowsBackfill:
        return RowsBackfill(self._view, self._stream(request), request, head["correlation_id"])

    def _status(self, request: Any, head: dict[str, Any]) -> bytes:
        stream = None
        if request.key is not None or not request.stream_id:
            stream = self._stream(request)
        else:
            stream = self._view.stream_by_id(request.stream_id)
            if stream is None:
                raise Refusal(Status.NOT_FOUND, "unknown stream key")
        slots = self._status_slots(stream)
        if head["schema_version"] == 1:
            slots["forming"] = None  # never sent to version 1
        return messages.stream_status_response(**slots, **head)

    def _list(self, request: Any, head: dict[str, Any]) -> bytes | Listing:
        after = iter(self._view.streams_after(request.after_stream_id))
        listing = Listing(request, after, self._status_slots, head)
        return listing.from_memory() or listing

    def _position(self, request: Any, head: dict[str, Any]) -> bytes:
        if request.source_id is None:
            raise Refusal(Status.INVALID_ARGUMENT, "missing source_id")
        try:
            StreamKey(request.source_id, "X", "1m").checked()
        except InvalidNameError as error:
            raise Refusal(Status.INVALID_ARGUMENT, str(error)) from error
        if request.claim:
            self._claim(request)
        position = self._view.run_position(request.source_id, request.run, request.refused_after)
        if position is None:
            raise Refusal(Status.NOT_FOUND, f"unknown run: of quiet feeds the last {MAX_RUNS} are remembered")
        return messages.source_position_response(
            source_id=request.source_id, run=request.run, **position._asdict(), **head
        )

    def _claim(self, request: Any) -> None:
        claim = self._view.claim_run(request.source_id, request.run, request.claim)
        if claim is Claim.FORGOTTEN:
            raise Refusal(Status.NOT_FOUND, f"unknown run: the last {MAX_RUNS} durable ones are remembered")
        if claim is Claim.NOT_TAKEN:
            why = f"{MAX_CLAIMS_WAITING} registrations of runs wait already"
            raise Refusal(Status.UNAVAILABLE, why, CLAIM_RETRY_MS)
        if claim is Claim.ON_ITS_WAY:
            why = "the run's registration is on its way into the journal"
            raise Refusal(Status.UNAVAILABLE, why, CLAIM_RETRY_MS)

    # What they share

    def _status_slots(self, stream: StreamView) -> dict[str, Any]:
        return {
            "key": stream.key,
            "latest_sequence": stream.head,
            "latest_ts_ms": stream.latest_ts_ms,
            "server_time_ms": self._now_ms(),
            "first_sequence": stream.first,
            "epoch": self._view.epoch,
            "store_id": self._view.store_id,
            "stream_id": stream.stream_id,
            "forming": stream.forming,
        }

    def _stream(self, request: Any) -> StreamView:
        key = _named(request)
        stream = self._view.stream(key)
        if stream is None:
            raise self._unknown(key, request.schema_version)
        return stream

    def _unknown(self, key: StreamKey, version: int) -> Refusal:
        if version == 1:  # whose text is frozen
            return Refusal(Status.NOT_FOUND, "unknown stream key")
        near = self._near(key)
        guess = f"; did you mean {' or '.join(near)}?" if near else ""
        return Refusal(Status.NOT_FOUND, f"unknown stream key {key}{guess}")

    def _near(self, key: StreamKey) -> list[str]:
        """Streams whose symbols look like this one's, the nearest first, its source and interval before others.

        Only symbols with the same first letter and about as long are compared, and few of those: of very many streams
        not all are looked at. In a second only so many searches are made, of all clients together: they ask again and
        again for a stream that is not there yet, and others wait meanwhile.
        """
        second = self._now_ms() // 1_000
        if second != self._near_second:
            self._near_second, self._near_left = second, NEAR_SEARCHES_PER_S
        if not self._near_left:
            return []
        self._near_left -= 1
        wanted = key.symbol.casefold()
        alike: dict[str, list[StreamKey]] = {}
        for stream in islice(self._view.streams_after(0), NEAR_SEARCH_NAMES):
            symbol = stream.key.symbol.casefold()
            if symbol[0] == wanted[0] and abs(len(symbol) - len(wanted)) <= NEAR_LENGTH:
                alike.setdefault(symbol, []).append(stream.key)
        # Those with the most equal characters in place come first: they are not among those that are left out.
        compared = nsmallest(
            NEAR_COMPARED_NAMES,
            alike,
            key=lambda symbol: (-sum(map(eq, symbol, wanted)), abs(len(symbol) - len(wanted))),
        )
        found = [
            str(other)
            for symbol in get_close_matches(wanted, compared, MAX_NEAR_NAMES, 0.6)
            for other in sorted(alike[symbol], key=lambda o: (o[0] != key[0], o[2] != key[2], o))
        ]
        return found[:MAX_NEAR_NAMES]


def _read(body: Sequence[bytes]) -> Any:
    if len(body) != 1:
        raise Refusal(Status.INVALID_ARGUMENT, f"a request is one frame, not {len(body)}")
    if len(body[0]) > MAX_REQUEST_BYTES:
        why = f"a request has at most {MAX_REQUEST_BYTES} bytes, not {len(body[0])}"
        raise Refusal(Status.INVALID_ARGUMENT, why)
    try:
        return codec.decode(body[0])
    except DecodeError as error:
        raise Refusal(Status.INVALID_ARGUMENT, "invalid flatbuffer envelope") from error


def _echoed(correlation_id: str | None) -> str | None:
    if correlation_id is not None and len(correlation_id.encode()) > MAX_CORRELATION_BYTES:
        return None
    return correlation_id


def _named(request: Any) -> StreamKey:
    """The key of a request, once it is known to be one."""
    if request.key is None:
        raise Refusal(Status.INVALID_ARGUMENT, "missing stream key")
    try:
        return StreamKey(*request.key).checked()
    except InvalidNameError as error:
        if request.schema_version == 1:  # which knows no wrong names: there is no such stream
            raise Refusal(Status.NOT_FOUND, "unknown stream key") from error
        raise Refusal(Status.INVALID_ARGUMENT, str(error)) from error


_Handler = Callable[[Answers, Any, dict[str, Any]], "bytes | Later"]

_BOTH: Final[dict[str, _Handler]] = {
    "HealthRequest": Answers._health,
    "GetCursorRequest": Answers._cursor,
    "SubscribeCandlesRequest": Answers._subscribe,
    "StreamStatusRequest": Answers._status,
}

# GapListRequest is not among them: gaps are not recorded yet, and an empty list would say that there were
# none.
_HANDLERS: Final[dict[int, dict[str, _Handler]]] = {
    1: {**_BOTH, "BackfillCandlesRequest": Answers._candles},
    2: {
        **_BOTH,
        "BackfillRowsRequest": Answers._rows,
        "StreamListRequest": Answers._list,
        "SourcePositionRequest": Answers._position,
    },
}
