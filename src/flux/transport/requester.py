"""The asking side of requests: a DEALER with many requests in flight, matched by correlation id.

`send` never waits and `receive` waits only as long as it is told, so a loop can poll `socket` beside its
others. Each request ends in exactly one `Outcome`: a reply, the server's error translated, or a time-out by
the monotonic clock. What was asked over a connection that was dropped because too much came by it (`intake.py`) ends
as FloodError. A connection on which nothing at all came back in time is taken for dead and made anew,
at growing intervals (libzmq itself reconnects where TCP notices; this is for where it does not, and empties
the queue of what is stale).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from flux import codec
from flux.codec.bounds import beyond_bounds
from flux.errors import (
    AnswerError,
    DecodeError,
    FloodError,
    FluxError,
    InvalidArgumentError,
    NotFoundError,
    RequestError,
    RequestTimeout,
    UnavailableError,
    VersionError,
)
from flux.limits import (
    ANSWER_LOOK_MS,
    ANSWERS_PER_LOOK,
    ASK_TIMEOUT_MS,
    MAX_ASKS,
    MAX_RETRY_AFTER_MS,
    RECONNECT_MAX_MS,
    RECONNECT_MIN_MS,
)
from flux.schema import messages
from flux.transport.intake import Taken
from flux.transport.sockets import Poller, Socket, Sockets, receive_some, send

_ASK_TIMEOUT_S: Final = ASK_TIMEOUT_MS / 1_000

_FRAMES: Final = 2  # of an answer: an empty one, which some servers leave out, and the payload
_MAX_ID_DIGITS: Final = (
    20  # ours are numbers from 1; Python refuses to read thousands of digits, by an exception
)

_ANSWERS: Final[dict[Callable[..., bytes], type[codec.Message]]] = {
    messages.health_request: codec.HealthResponse,
    messages.get_cursor_request: codec.GetCursorResponse,
    messages.subscribe_candles_request: codec.SubscribeCandlesAck,
    messages.backfill_candles_request: codec.BackfillCandlesResponse,
    messages.stream_status_request: codec.StreamStatusResponse,
    messages.backfill_rows_request: codec.BackfillRowsResponse,
    messages.stream_list_request: codec.StreamListResponse,
    messages.gap_list_request: codec.GapListResponse,
    messages.source_position_request: codec.SourcePositionResponse,
}
_ECHOED: Final = ("key", "source_id", "run")

_NOT_FOUND, _UNIMPLEMENTED = 2, 3  # ErrorResponse.status
_BY_STATUS: Final[dict[int, type[RequestError]]] = {
    1: InvalidArgumentError,
    2: NotFoundError,
    4: UnavailableError,
    5: UnavailableError,
}
_BY_V1_CODE: Final[dict[int, type[RequestError]]] = {400: InvalidArgumentError, 503: UnavailableError}


class Outcome(NamedTuple):
    """How one request ended: with a decoded `reply`, or with an `error`."""

    id: int
    reply: Any
    error: FluxError | None


@dataclass(slots=True)
class _Asked:
    deadline: float
    build: Callable[..., bytes]
    slots: dict[str, Any]
    since: float

    @property
    def what(self) -> str:
        """For people: the builder's name."""
        return self.build.__name__


class Requester:
    """Asks one server; belongs to one thread, as its socket does."""

    def __init__(
        self,
        sockets: Sockets,
        endpoint: str,
        *,
        version: int = 2,
        clock: Callable[[], float] = time.monotonic,
        look: Callable[[], None] | None = None,
    ) -> None:
        """`look` has `receive` called soon, by whoever may: it is called by another thread, when much came and nobody
        looked. Without it that is noticed by a `receive` that waits, or by the next one.
        """
        self.version = version
        self.endpoint = endpoint
        self.strays = 0  # replies to what was not asked, or no longer
        self.bad_frames = 0
        self.reopened = 0
        self.flood = ""  # why the connection was dropped, until an answer comes
        self._sockets = sockets
        self._clock = clock
        self._next_id = 1
        self._asked: dict[int, _Asked] = {}
        self._ended: list[Outcome] = []
        self._heard = clock()
        self._silent_rounds = 0
        self._echoes_no_ids = False
        self._reopen_at = 0.0
        self._taken = Taken()
        self._look = look
        self._drops = 0
        self._socket, self._watched = sockets.watched_dealer(endpoint, self._taken, look)

    @property
    def bytes_received(self) -> int:
        """Bytes of all payloads so far."""
        return self._taken.bytes

    @property
    def socket(self) -> Socket:
        """What to poll; another one after `reopened` has moved."""
        return self._socket

    @property
    def in_flight(self) -> int:
        """Requests that have not ended."""
        return len(self._asked) + len(self._ended)

    def send(
        self, build: Callable[..., bytes], *, timeout: float = _ASK_TIMEOUT_S, version: int = 0, **slots: Any
    ) -> int:
        """Ask, without waiting: `build` is a function of `flux.schema.messages`, `slots` its arguments.

        Returns the id that the `Outcome` will carry. More than MAX_ASKS at once, or a peer that takes
        nothing, end at once as UnavailableError.
        """
        self._sockets.check()
        request, self._next_id = self._next_id, self._next_id + 1
        payload = build(correlation_id=str(request), schema_version=version or self.version, **slots)
        now = self._clock()
        if len(self._asked) >= MAX_ASKS or not send(self._socket, [b"", payload]):
            why = f"{self.endpoint}: {len(self._asked)} requests are waiting for their answers already"
            self._ended.append(Outcome(request, None, UnavailableError(why)))
        else:
            self._asked[request] = _Asked(now + timeout, build, slots, now)
        return request

    def receive(self, timeout: float = 0.0) -> list[Outcome]:
        """What has ended; waits at most `timeout` seconds for the first, and no longer than a deadline.

        What is no outcome (a stray, a bad frame) does not end the wait.
        """
        self._sockets.check()
        until = self._clock() + timeout
        self._take_all()
        while not self._ended and (patience := min(until, self.next_deadline()) - self._clock()) > 0:
            if not self._wait(patience):
                break
            self._take_all()
        self._expire()
        ended, self._ended = self._ended, []
        return ended

    def next_deadline(self) -> float:
        """When `receive` must be called at the latest, by this requester's clock; infinity: no need."""
        return min((asked.deadline for asked in self._asked.values()), default=float("inf"))

    def ask(
        self, build: Callable[..., bytes], *, timeout: float = _ASK_TIMEOUT_S, version: int = 0, **slots: Any
    ) -> Any:
        """Ask and wait for the reply, decoded.

        Raises RequestTimeout, VersionError or one of the RequestError family. Not to be mixed with requests
        that `send` has in flight: their outcomes would be dropped.
        """
        request = self.send(build, timeout=timeout, version=version, **slots)
        while True:
            for outcome in self.receive(timeout):
                if outcome.id == request:
                    if outcome.error is not None:
                        raise outcome.error
                    return outcome.reply

    def close(self) -> None:
        """Forget what is in flight and close the socket."""
        self._asked.clear()
        self._ended.clear()
        self._sockets.discard(self._socket)

    def _wait(self, patience: float) -> bool:
        """Whether something came, or ended, within `patience` seconds."""
        poller = Poller(self._socket)
        while patience > 0:
            step = min(patience, ANSWER_LOOK_MS / 1_000)
            if poller.wait(step):
                return True
            self._take_all()  # there is nothing: the watch on what comes is to know
            if self._ended:
                return True
            patience -= step
        return False

    def _take_all(self) -> None:
        """At most ANSWERS_PER_LOOK: who sends without end is not to hold the caller past its deadlines."""
        self._taken.looks += 1
        found = 0
        for frames in receive_some(self._socket, ANSWERS_PER_LOOK):
            found += 1
            self._take(frames)
        if found < ANSWERS_PER_LOOK:
            self._taken.emptied = self._taken.looks
        drops = self._watched.dropped
        if self._drops != drops:
            self._drops = drops
            asked, self._asked = self._asked, {}
            self.flood = self._watched.why
            self._ended += [Outcome(request, None, FloodError(self.flood)) for request in asked]

    def _take(self, frames: list[bytes]) -> None:
        self._heard = self._clock()
        self._silent_rounds = 0
        if len(frames) > _FRAMES:
            self._taken.odd += 1
        else:
            self._taken.messages += 1
            self._taken.bytes += len(frames[-1])
        try:
            reply = codec.decode(frames[-1])
        except DecodeError:
            self.bad_frames += 1  # whose reply it was is not known: its request times out
            return
        request = self._request_of(reply.correlation_id)
        if request is None:
            self.strays += 1
            return
        asked = self._asked.pop(request)
        self.flood = ""
        error = _error_of(reply, asked.what, self.endpoint) or _mismatch(reply, asked, self.endpoint)
        self._ended.append(Outcome(request, None if error else reply, error))

    def _request_of(self, correlation_id: str | None) -> int | None:
        """The request a reply belongs to; one from a server that echoes no ids is the oldest's."""
        if correlation_id is None:
            self._echoes_no_ids = True
            return next(iter(self._asked), None)
        ours = len(correlation_id) <= _MAX_ID_DIGITS and correlation_id.isascii() and correlation_id.isdigit()
        request = int(correlation_id) if ours else None
        return request if request in self._asked else None

    def _expire(self) -> None:
        now = self._clock()
        late = [(request, asked) for request, asked in self._asked.items() if asked.deadline <= now]
        if not late:
            return
        dead = any(self._heard <= asked.since for _, asked in late) and now >= self._reopen_at
        # Without ids a late reply would be taken for the next request's: it must not arrive at all.
        if dead or self._echoes_no_ids:
            self._reopen(now)
            late = list(
                self._asked.items()
            )  # what was sent on the old connection is not answered on the new one
        for request, asked in late:
            self._asked.pop(request)
            waited = now - asked.since
            why = f"{self.endpoint} did not answer {asked.what} within {waited:.1f} s"
            self._ended.append(Outcome(request, None, RequestTimeout(why)))

    def _reopen(self, now: float) -> None:
        self._sockets.discard(self._socket)
        self._socket, self._watched = self._sockets.watched_dealer(self.endpoint, self._taken, self._look)
        self._drops = 0
        self.reopened += 1
        pause = min(RECONNECT_MAX_MS, RECONNECT_MIN_MS << min(self._silent_rounds, 10)) / 1_000
        self._silent_rounds += 1
        self._reopen_at = now + pause * random.uniform(0.5, 1.0)


def _error_of(reply: Any, what: str, endpoint: str) -> FluxError | None:
    """The error that a reply stands for, None where it is an answer."""
    if not isinstance(reply, codec.ErrorResponse):
        if reply.schema_version not in (1, 2):
            return VersionError(
                f"{endpoint} speaks schema {reply.schema_version}, this client 2: upgrade flux"
            )
        return None
    message = reply.message or f"error {reply.code} without a text"
    status, kind = reply.status, _BY_STATUS.get(reply.status, RequestError)
    if (
        status == 0
    ):  # version 1 has a code, and some of its servers send the same one for everything: the text counts
        text = message.strip().lower()
        if text.startswith("unsupported schema_version"):
            return VersionError(f"{endpoint}: {message}")
        kind = _BY_V1_CODE.get(reply.code, kind)
        if text.startswith("unknown stream") or (reply.code == 404 and "stream" in text):
            status, kind = _NOT_FOUND, NotFoundError
        elif text.startswith("unsupported message"):
            status, kind = _UNIMPLEMENTED, RequestError
    retry_after_ms = min(reply.retry_after_ms, MAX_RETRY_AFTER_MS)
    return kind(f"{message} ({what} to {endpoint})", status, reply.code, retry_after_ms)


def _mismatch(reply: Any, asked: _Asked, endpoint: str) -> AnswerError | None:
    """What makes a reply no answer to what was asked; None where it is one."""
    wanted = _ANSWERS.get(asked.build)
    if wanted is None:
        return None
    if not isinstance(reply, wanted):
        return AnswerError(f"{endpoint} answered {asked.what} with {type(reply).__name__}")
    if slot := beyond_bounds(reply):
        return AnswerError(f"{endpoint} answered {asked.what} with a {slot} that cannot be")
    for name in _ECHOED:
        asked_for, said = asked.slots.get(name), getattr(reply, name, None)
        if asked_for is not None and said is not None and said != asked_for:
            return AnswerError(
                f"{endpoint} answered {asked.what} for {asked_for} with that for {said!a:.200}"
            )
    if not _goes_on(reply, asked.slots):
        return AnswerError(f"{endpoint} answered {asked.what} with what was had already")
    return None


def _goes_on(reply: Any, slots: dict[str, Any]) -> bool:
    """Whether a page begins behind what it was asked behind: else paging would never end."""
    if isinstance(reply, codec.StreamListResponse):
        ids = [slots.get("after_stream_id", 0), *(stream.stream_id for stream in reply.streams)]
        return all(one < other for one, other in pairwise(ids))
    if isinstance(reply, codec.BackfillRowsResponse | codec.BackfillCandlesResponse):
        return reply.start_sequence > slots.get("from_sequence_exclusive", 0) or not _row_count(reply)
    return True


def _row_count(reply: codec.BackfillRowsResponse | codec.BackfillCandlesResponse) -> int:
    if isinstance(reply, codec.BackfillRowsResponse) and reply.zstd is not None:
        return reply.row_count
    return len(reply.rows)
