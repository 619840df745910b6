"""A feed of one's own: rows pushed to the server's ingest socket, kept until the server's journal has them.

    send(rows) ─► pending (numbered from 1 for this run) ─► PUSH ─► server ─► journal
                     ▲                                                          │
                     └──────── committed position, asked over ROUTER ◄──────────┘

What is not committed stays pending and is sent again, from the first uncommitted row on, when the position stands
still or the server was away; the server drops what it has. So nothing is lost between feed and server, and nothing
comes twice, kill -9 of the server included.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from flux import limits
from flux.codec import Encoder, decode
from flux.config import DEFAULT_INGEST_PULL, endpoints, value
from flux.errors import (
    AnswerError,
    FluxError,
    InvalidArgumentError,
    NotFoundError,
    RequestTimeout,
    StorageError,
    VersionError,
)
from flux.model import StreamKey
from flux.schema import messages
from flux.tables import Table, rows_of
from flux.threads import WatchedThread
from flux.transport.requester import Requester
from flux.transport.sockets import Poller, Sockets, Wake, send

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG: Final = logging.getLogger("flux.feed")

ASK_EVERY_S: Final = 0.02  # while something is pending
STALL_S: Final = 0.5  # a position that stands still this long: send again; doubled up to STALL_MAX_S
STALL_MAX_S: Final = 8.0
ANSWER_S: Final = 1.0  # wait so long for a position: a killed server never answers; doubled for a slow one
ANSWER_MAX_S: Final = limits.ASK_TIMEOUT_MS / 1_000
IDLE_S: Final = 0.5
CLOSE_S: Final = 5.0


class _Pending(NamedTuple):
    last: int  # the run's number of the message's last row
    frame: bytes


class Feed:
    """Sends rows of source `source` to a server; safe to use from several threads.

    `ingest` and `chunk_rep` are the server's PULL and ROUTER endpoints (default FLUX_INGEST_PULL, FLUX_CHUNK_REP, this
    machine). At most `limits.FEED_PENDING_BYTES` wait for the server; beyond that `send` waits.
    """

    def __init__(self, source: str, *, ingest: str | None = None, chunk_rep: str | None = None) -> None:
        self.source = source
        self.run = secrets.randbits(62) + 1
        self._ingest = value(ingest, "INGEST_PULL", DEFAULT_INGEST_PULL)
        self._chunk_rep = endpoints(chunk_rep=chunk_rep).chunk_rep
        self._changed = threading.Condition()
        self._encoders: dict[StreamKey, tuple[Encoder, int]] = {}
        self._pending: deque[_Pending] = deque()
        self._unsent: deque[_Pending] = deque()
        self._pending_bytes = 0
        self._queued = 0  # rows of this run given to `send`
        self._committed = 0
        self._before = 0  # rows that were committed under runs that the server forgot
        self._failure: FluxError | None = None
        self._closing = False
        self._wake = Wake()
        StreamKey(source, "X", "1m").checked()
        self._thread = WatchedThread(self._work, name=f"flux feed {source}", failed=self._fail)
        self._thread.start()

    def send(
        self, symbol: str, interval: str, rows: NDArray[np.void] | Table, *, timeout: float | None = None
    ) -> None:
        """Queue rows (a 1-d array of the interval's dtype, a batch, or a table: see `flux.tables`; copied) for the
        server.

        Waits while the server is behind: at most `timeout` seconds, then RequestTimeout with nothing queued. Raises
        EncodeError for rows of another dtype, TypeError for what holds no rows, InvalidNameError for names outside the
        grammar.
        """
        key = StreamKey(self.source, symbol, interval).checked()
        rows = rows_of(rows, key.kind)
        for begin in range(0, len(rows), limits.MAX_INGEST_ROWS):
            self._queue(key, rows[begin : begin + limits.MAX_INGEST_ROWS], timeout)

    def flush(self, timeout: float = 2.0) -> None:
        """Wait until all that was sent is committed in the server's journal; RequestTimeout after `timeout` seconds."""
        with self._changed:
            queued = self._queued
            done = self._changed.wait_for(lambda: self._failure or self._committed >= queued, timeout)
            self._raise_failure()
            if not done:
                raise RequestTimeout(
                    f"{self._ingest}: {queued - self._committed} of {queued} rows not committed in {timeout} s"
                )

    @property
    def committed(self) -> int:
        """Rows of this feed that are in the server's journal."""
        return self._committed

    def close(self) -> None:
        """Flush for at most 5 s, then let go. Raises RequestTimeout when rows were left uncommitted."""
        try:
            if not self._closing:
                self.flush(CLOSE_S)
        finally:
            with self._changed:
                self._closing = True
                self._changed.notify_all()
            self._wake.set()
            self._thread.join()

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _queue(self, key: StreamKey, rows: NDArray[np.void], timeout: float | None) -> None:
        with self._changed:
            room = self._changed.wait_for(
                lambda: self._failure or self._closing or self._pending_bytes < limits.FEED_PENDING_BYTES,
                timeout,
            )
            self._raise_failure()
            if not room or self._closing:
                raise RequestTimeout(f"{self._ingest}: the server does not take rows; nothing was queued")
            if key not in self._encoders:
                self._encoders[key] = (Encoder(key), len(self._encoders) + 1)
            encoder, stream_id = self._encoders[key]
            frame = encoder.encode(
                rows,
                self._queued + 1 - self._before,
                store_id=self.run,
                origin_ns=time.time_ns(),
                stream_id=stream_id,
            )
            assert isinstance(frame, bytes)
            self._queued += len(rows)
            self._pending.append(_Pending(self._queued, frame))
            self._unsent.append(self._pending[-1])
            self._pending_bytes += len(frame)
        self._wake.set()

    # ------------------------------------------------------------------ the thread that owns the sockets

    def _work(self) -> None:
        with Sockets() as made:
            link = _Link(made, self._ingest, self._chunk_rep)
            try:
                while not self._closing:
                    self._turn(link)
            except FluxError as error:
                self._fail(error)
        self._wake.close()

    def _fail(self, error: BaseException) -> None:
        """Every caller gets this from now on, those that wait included."""
        with self._changed:
            if self._failure is None:
                self._failure = (
                    error
                    if isinstance(error, FluxError)
                    else FluxError(f"the feed's thread ended: {error!r}")
                )
            self._changed.notify_all()

    def _turn(self, link: _Link) -> None:
        now = time.monotonic()
        while self._unsent and send(link.pusher, [self._unsent[0].frame]):
            link.sent = self._unsent.popleft().last
        if link.due_to_ask(now) and self._committed < self._queued:
            link.ask(self.source, self.run, now)
        for outcome in link.requester.receive():
            self._heard(link, outcome.reply, outcome.error)
        Poller(self._wake, link.requester.socket).wait(
            ASK_EVERY_S if self._committed < self._queued else IDLE_S
        )
        self._wake.clear()

    def _heard(self, link: _Link, reply: Any, error: FluxError | None) -> None:
        link.asked = False
        if isinstance(error, VersionError | AnswerError | InvalidArgumentError):
            raise error  # it will say the same again: whoever waits is to know
        if isinstance(error, NotFoundError):
            if self._committed > self._before:
                self._begin_anew(link)
                return
        elif error is not None:
            link.answer_s = min(2 * link.answer_s, ANSWER_MAX_S)
            return
        link.answer_s = ANSWER_S
        committed = self._before + (0 if error is not None else reply.committed)
        if committed < self._committed:
            raise StorageError(
                f"{self._ingest}: the server's journal lost rows {committed + 1} to {self._committed} of this "
                "feed, which it had committed (an older disk?): they are not here any more; begin a new Feed with them"
            )
        now = time.monotonic()
        moved = committed > self._committed
        with self._changed:
            while self._pending and self._pending[0].last <= committed:
                self._pending_bytes -= len(self._pending.popleft().frame)
            self._committed = max(self._committed, committed)
            self._changed.notify_all()
        if moved or self._committed >= link.sent:
            link.moved(now)
        elif link.stalled(now):
            with self._changed:
                self._unsent = deque(self._pending)

    def _begin_anew(self, link: _Link) -> None:
        """Go on as another run: the server had so many others since it heard of this one that it forgot it. What was
        committed stays so; what was not is numbered from 1 again."""
        _LOG.warning(
            "%s: the server no longer knows this feed's run %d: it goes on as another", self._ingest, self.run
        )
        with self._changed:
            self.run = secrets.randbits(62) + 1
            self._before = self._committed
            self._pending = deque(self._renumbered(pending) for pending in self._pending)
            self._pending_bytes = sum(len(pending.frame) for pending in self._pending)
            self._unsent = deque(self._pending)
        link.sent = self._committed

    def _renumbered(self, pending: _Pending) -> _Pending:
        batch = decode(pending.frame)
        rows = batch.rows[-(pending.last - self._before) :]  # a part of it may be committed
        encoder, stream_id = self._encoders[batch.key]
        first = pending.last - len(rows) + 1 - self._before
        frame = encoder.encode(rows, first, store_id=self.run, origin_ns=batch.origin_ns, stream_id=stream_id)
        assert isinstance(frame, bytes)
        return _Pending(pending.last, frame)


class _Link:
    """The sockets to one server and when to say what on them."""

    def __init__(self, sockets: Sockets, ingest: str, chunk_rep: str) -> None:
        self.pusher = sockets.pusher(ingest)
        self.requester = Requester(sockets, chunk_rep)
        self.sent = 0
        self.asked = False
        self.answer_s = ANSWER_S
        self._ask_at = 0.0
        self._patience = STALL_S
        self._moved_at = time.monotonic()

    def due_to_ask(self, now: float) -> bool:
        return not self.asked and now >= self._ask_at

    def ask(self, source_id: str, run: int, now: float) -> None:
        self.requester.send(
            messages.source_position_request, source_id=source_id, run=run, timeout=self.answer_s
        )
        self.asked = True
        self._ask_at = now + ASK_EVERY_S

    def moved(self, now: float) -> None:
        self._moved_at = now
        self._patience = STALL_S

    def stalled(self, now: float) -> bool:
        """Whether the position stood still so long that everything uncommitted is to be sent again."""
        if now - self._moved_at < self._patience:
            return False
        self._moved_at = now
        self._patience = min(2 * self._patience, STALL_MAX_S)
        return True
