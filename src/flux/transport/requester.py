"""The asking side of requests: a DEALER with many requests in flight, matched by correlation id.

`send` never waits and `receive` waits only as long as it is told, so a loop can poll `socket` beside its
others. Each request ends in exactly one `Outcome`: a reply, the server's error translated, or a time-out by
the monotonic clock. A connection on which nothing at all came back in time is taken for dead and made anew,
at growing intervals (libzmq itself reconnects where TCP notices; this is for where it does not, and empties
the queue of what is stale).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from flux import codec
from flux.errors import (
    DecodeError,
    FluxError,
    InvalidArgumentError,
    NotFoundError,
    RequestError,
    RequestTimeout,
    UnavailableError,
    VersionError,
)
from flux.limits import ASK_TIMEOUT_MS, MAX_ASKS, RECONNECT_MAX_MS, RECONNECT_MIN_MS
from flux.transport.sockets import Poller, Socket, Sockets, receive, send

_ASK_TIMEOUT_S: Final = ASK_TIMEOUT_MS / 1_000

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
    what: str  # for messages: the builder's name
    since: float


class Requester:
    """Asks one server; belongs to one thread, as its socket does."""

    def __init__(
        self,
        sockets: Sockets,
        endpoint: str,
        *,
        version: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.version = version
        self.endpoint = endpoint
        self.strays = 0  # replies to what was not asked, or no longer
        self.bad_frames = 0
        self.bytes_received = 0  # payloads
        self.reopened = 0
        self._sockets = sockets
        self._clock = clock
        self._next_id = 1
        self._asked: dict[int, _Asked] = {}
        self._ended: list[Outcome] = []
        self._heard = clock()
        self._silent_rounds = 0
        self._echoes_no_ids = False
        self._reopen_at = 0.0
        self._socket = sockets.dealer(endpoint)

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
        request, self._next_id = self._next_id, self._next_id + 1
        payload = build(correlation_id=str(request), schema_version=version or self.version, **slots)
        now = self._clock()
        if len(self._asked) >= MAX_ASKS or not send(self._socket, [b"", payload]):
            why = f"{self.endpoint}: {len(self._asked)} requests are waiting for their answers already"
            self._ended.append(Outcome(request, None, UnavailableError(why)))
        else:
            self._asked[request] = _Asked(now + timeout, build.__name__, now)
        return request

    def receive(self, timeout: float = 0.0) -> list[Outcome]:
        """What has ended; waits at most `timeout` seconds for the first, and no longer than a deadline.

        What is no outcome (a stray, a bad frame) does not end the wait.
        """
        until = self._clock() + timeout
        self._take_all()
        while not self._ended and (patience := min(until, self.next_deadline()) - self._clock()) > 0:
            if not Poller(self._socket).wait(patience):
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

    def _take_all(self) -> None:
        while (frames := receive(self._socket)) is not None:
            self._take(frames)

    def _take(self, frames: list[bytes]) -> None:
        self._heard = self._clock()
        self._silent_rounds = 0
        self.bytes_received += len(frames[-1])
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
        error = _error_of(reply, asked.what, self.endpoint)
        self._ended.append(Outcome(request, None if error else reply, error))

    def _request_of(self, correlation_id: str | None) -> int | None:
        """The request a reply belongs to; one from a server that echoes no ids is the oldest's."""
        if correlation_id is None:
            self._echoes_no_ids = True
            return next(iter(self._asked), None)
        request = int(correlation_id) if correlation_id.isascii() and correlation_id.isdigit() else None
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
        self._socket = self._sockets.dealer(self.endpoint)
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
    if "schema_version" in message and reply.code == 400:
        return VersionError(f"{endpoint}: {message}")
    kind = _BY_STATUS.get(reply.status, RequestError)
    if reply.status == 0:  # version 1 has only the code
        kind = (
            NotFoundError if reply.code == 404 and "stream" in message else _BY_V1_CODE.get(reply.code, kind)
        )
    return kind(f"{message} ({what} to {endpoint})", reply.status, reply.code, reply.retry_after_ms)
