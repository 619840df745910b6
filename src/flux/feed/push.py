"""A feed of one's own: rows pushed to the server's ingest socket, kept until the server's journal has them.

    send(rows) ─► sound? ─► outbox (numbered from 1 for this run) ─► PUSH ─► server ─► journal
                              ▲                                                          │
                              └──── position: committed, refused; asked over ROUTER ◄────┘

What is not committed stays in the outbox and is sent again, from the first uncommitted row on, when the position stands
still or the server was away; the server drops what it has. So nothing is lost between feed and server, and nothing
comes twice, kill -9 of the server included. A durable run (`run="name"`) goes on when the feed itself is started again.
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
from flux.config import DEFAULT_INGEST_PULL, endpoints, value
from flux.errors import (
    AnswerError,
    BadRowsError,
    FloodError,
    FluxError,
    InUseError,
    InvalidArgumentError,
    NotFoundError,
    RequestTimeout,
    StorageError,
    UnavailableError,
    VersionError,
)
from flux.feed.link import (
    ANSWER_MAX_S,
    ANSWER_S,
    ASK_EVERY_S,
    Link,
    forgotten,
    judge,
    run_of,
)
from flux.feed.position import FeedPosition as FeedPosition
from flux.feed.position import last_committed
from flux.model import StreamKey
from flux.tables import Table, rows_of
from flux.threads import WatchedThread
from flux.transport.outbox import NO_ROOM, QUEUED, WOKEN, Outbox, faults, reason
from flux.transport.sockets import Poller, Sockets, Wake

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG: Final = logging.getLogger("flux.feed")

UNSENT_S: Final = 0.005  # until the socket is tried again that did not take all
IDLE_S: Final = 0.5
CLOSE_S: Final = 5.0


class Refused(NamedTuple):
    """A row that is not kept, and why (a word such as `not_finite`); `number` is its number in the run, 0 when it was
    found bad before it was sent. Key and row are None where the feed no longer has them."""

    key: StreamKey | None
    row: Any
    reason: str
    number: int = 0


class Feed:
    """Sends rows of source `source` to a server; safe to use from several threads.

    `run`: the name of a durable run. The process that makes a Feed with it last has it, `committed` begins where the
    one before ended, and that one's next call raises InUseError. Without a name every Feed is a run of its own.

    `ingest` and `chunk_rep` are the server's PULL and ROUTER endpoints (default FLUX_INGEST_PULL, FLUX_CHUNK_REP, this
    machine). At most `limits.FEED_PENDING_BYTES` wait for the server; beyond that `send` waits.
    """

    def __init__(
        self, source: str, *, run: str | None = None, ingest: str | None = None, chunk_rep: str | None = None
    ) -> None:
        StreamKey(source, "X", "1m").checked()
        self.source = source
        self.run = secrets.randbits(62) + 1 if run is None else run_of(run)
        self._name = run
        self._token = 0 if run is None else secrets.randbits(63) + 1
        self._incarnation = 0
        self._ingest = value(ingest, "INGEST_PULL", DEFAULT_INGEST_PULL)
        self._chunk_rep = endpoints(chunk_rep=chunk_rep).chunk_rep
        self._changed = threading.Condition()
        self._outbox = Outbox(self.run)
        self._put = self._outbox.send
        self._begun = False
        self._committed = 0
        self._refused: deque[Refused] = deque(maxlen=limits.MAX_FEED_REFUSED)
        self._refused_upto = 0  # the run's number of the last one that the server told of
        self._before = 0  # rows that were committed under runs that the server forgot
        self._trouble = ""  # why nothing is committed, as far as it is known
        self._failure: FluxError | None = None
        self._closing = False  # no more rows are taken
        self._ended = False  # nor waited for
        self._wake = Wake()
        if run is None:
            self._begin(0, 0)
        self._thread = WatchedThread(self._work, name=f"flux feed {source}", failed=self._fail)
        self._thread.start()

    def send(
        self,
        symbol: str,
        interval: str,
        rows: NDArray[np.void] | Table,
        *,
        timeout: float | None = None,
        skip_bad: bool = False,
    ) -> None:
        """Queue rows (a 1-d array of the interval's dtype, a batch, or a table: see `flux.tables`; copied) for the
        server: all of them or none.

        Raises BadRowsError where the server would not keep some of them, a candle that is not CLOSED among them; with
        `skip_bad` the others are queued and those stand in `refused`. Waits while the server is behind: at most
        `timeout` seconds, then RequestTimeout, whose `queued` says how many rows were taken: none, unless the array is
        larger than all that may wait (`limits.FEED_PENDING_BYTES`). Raises EncodeError for rows of another dtype,
        TypeError for what holds no rows, InvalidNameError for names outside the grammar, FluxError from `close` on.
        """
        if self._begun:
            status = self._put(symbol, interval, rows)
            if status == QUEUED:
                return
            if status == WOKEN:
                self._wake.set()
                return
        self._send(symbol, interval, rows, timeout, skip_bad)

    def position(self, key: StreamKey | str, timeout: float = 2.0) -> FeedPosition | None:
        """The last row of `key` that the server has committed, whoever sent it; None when there is none.

        Where a feed goes on after a restart: with the row after it. What is sent again all the same is recognised.
        A durable run is claimed first, so that nothing of the process before follows. Raises RequestTimeout, and
        FluxError from `close` on.
        """
        key = StreamKey.parse(key) if isinstance(key, str) else key.checked()
        with self._changed:
            if not self._changed.wait_for(lambda: self._failure or self._closing or self._begun, timeout):
                raise RequestTimeout(f"{self._chunk_rep}: no answer within {timeout} s{self._trouble}")
            self._raise_failure()
            if self._closing:
                raise self._closed_error()
        return last_committed(self._chunk_rep, key, timeout)

    @property
    def refused(self) -> list[Refused]:
        """Rows that were not kept: skipped by `send(skip_bad=True)`, or refused by the server. The last
        `limits.MAX_FEED_REFUSED`; of very many in a short time the server tells only the last 256."""
        return list(self._refused)

    def flush(self, timeout: float = 2.0) -> None:
        """Wait until all that was sent is committed in the server's journal; RequestTimeout after `timeout` seconds,
        and at once after `close`, when nothing more can come.
        """
        with self._changed:
            queued = self._outbox.kernel.queued

            def all_in() -> bool:
                return self._begun and self._committed >= queued

            self._changed.wait_for(lambda: self._failure or self._ended or all_in(), timeout)
            self._raise_failure()
            if not all_in():
                raise RequestTimeout(
                    f"{self._ingest}: {queued - self._committed} of {queued} rows not committed in {timeout} s"
                    + self._trouble
                )

    @property
    def committed(self) -> int:
        """Rows of this feed that are in the server's journal."""
        return self._committed

    def close(self) -> None:
        """Take no more rows, flush for at most 5 s, then let go. Raises RequestTimeout when rows were left uncommitted,
        a second call too.

        So what a `send` took is committed once a `close` has returned, from whichever thread either came: a `send`
        that comes later, or that waits for room meanwhile, raises.
        """
        with self._changed:
            self._closing = True
            self._outbox.kernel.close()  # under its lock, beside every `send`: what is queued is final
            self._changed.notify_all()
        try:
            self.flush(CLOSE_S)
        finally:
            with self._changed:
                self._ended = True
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

    def _closed_error(self) -> FluxError:
        return FluxError(f"this Feed of {self.source} is closed")

    def _send(
        self,
        symbol: str,
        interval: str,
        rows: NDArray[np.void] | Table,
        timeout: float | None,
        skip_bad: bool,
    ) -> None:
        """The long way: a new stream, rows that are not as they should be, or no room."""
        if self._closing:
            raise self._failure or self._closed_error()
        key = StreamKey(self.source, symbol, interval).checked()
        rows = rows_of(rows, key.kind)
        found = faults(key, rows)
        bad = np.flatnonzero(found)
        if len(bad) and not skip_bad:
            raise BadRowsError(key, tuple(bad.tolist()), tuple(map(reason, found[bad].tolist())))
        self._refused.extend(Refused(key, rows[i].copy(), reason(int(found[i]))) for i in bad.tolist())
        rows = np.ascontiguousarray(rows[found == 0] if len(bad) else rows)
        with self._changed:
            self._outbox.add(key)
        most = self._outbox.kernel.most_at_once(symbol, interval)
        deadline = None if timeout is None else time.monotonic() + timeout
        for begin in range(0, len(rows), most):
            self._wait_and_put(key, rows[begin : begin + most], deadline, begin, len(rows))

    def _wait_and_put(
        self, key: StreamKey, rows: NDArray[np.void], deadline: float | None, before: int, of: int
    ) -> None:
        with self._changed:
            while True:
                self._raise_failure()
                status = self._put(key.symbol, key.interval, rows) if self._begun else NO_ROOM
                if status in (QUEUED, WOKEN):
                    break
                queued = f"{before} of {of} rows were queued" if before else "nothing was queued"
                if self._closing:
                    raise FluxError(f"{self._closed_error()}; {queued}")
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    error = RequestTimeout(
                        f"{self._ingest}: the server does not take rows; {queued}{self._trouble}"
                    )
                    error.queued = before
                    raise error
                self._changed.wait(left)
        self._wake.set()

    # ------------------------------------------------------------------ the thread that owns the sockets

    def _work(self) -> None:
        with Sockets() as made:
            link = Link(made, self._ingest, self._chunk_rep, self._wake.set)
            self._outbox.connect(link.pusher)
            try:
                while not self._ended:
                    self._turn(link)
            except FluxError as error:
                self._fail(error)
            finally:
                self._outbox.connect(None)
        self._wake.close()

    def _begin(self, incarnation: int, committed: int) -> None:
        self._outbox.begin(incarnation, committed)
        self._incarnation, self._committed = incarnation, committed
        self._refused_upto = committed
        self._begun = True

    def _fail(self, error: BaseException) -> None:
        """Every caller gets this from now on, those that wait included."""
        with self._changed:
            self._begun = False  # so that no call goes on without looking at the failure
            if self._failure is None:
                self._failure = (
                    error
                    if isinstance(error, FluxError)
                    else FluxError(f"the feed's thread ended: {error!r}")
                )
            self._changed.notify_all()

    def _turn(self, link: Link) -> None:
        now = time.monotonic()
        if self._outbox.kernel.sent <= self._committed:
            link.rested(now)
        unsent = self._begun and self._outbox.resend(everything=False)
        asking = not self._begun or self._committed < self._outbox.kernel.queued
        if link.due_to_ask(now) and asking:
            link.ask(
                self.source,
                self.run,
                now,
                0 if self._begun else self._token,
                self._refused_upto - self._before,
            )
        for outcome in link.requester.receive():
            if not link.heard_health(outcome):
                self._heard(link, outcome.reply, outcome.error)
        link.ask_health(now)
        self._trouble = link.trouble()
        asking = asking or self._committed < self._outbox.kernel.queued
        Poller(self._wake, link.requester.socket).wait(
            UNSENT_S if unsent else ASK_EVERY_S if asking else IDLE_S
        )
        self._wake.clear()

    def _heard(self, link: Link, reply: Any, error: FluxError | None) -> None:
        link.asked = False
        if isinstance(error, FloodError):
            return  # the connection is made again, and its rows are here
        if isinstance(error, VersionError | AnswerError | InvalidArgumentError):
            raise error  # it will say the same again: whoever waits is to know
        if isinstance(error, NotFoundError):
            self._unknown(link)
        elif isinstance(error, UnavailableError):
            link.answer_s = ANSWER_S
        elif error is not None:
            link.answer_s = min(2 * link.answer_s, ANSWER_MAX_S)
        else:
            link.answer_s = ANSWER_S
            if not self._begun:
                self._begin(reply.incarnation, reply.committed)
            elif self._token and reply.incarnation > self._incarnation:
                raise InUseError(f"run {self._name!a} of {self.source} was taken over by another process")
            link.known()
            judge(reply, self._outbox.kernel.sent - self._before, self._chunk_rep)
            self._note_refused(reply.refused)
            self._advance(link, self._before + reply.committed)

    def _unknown(self, link: Link) -> None:
        """The server may have had this run and forgotten it. Rows that it may have committed are never sent again: a
        trade without an id would be taken twice."""
        now = time.monotonic()
        sent = self._outbox.kernel.sent
        if not self._begun or (
            self._committed > self._before and (sent <= self._committed or link.was_quiet(now))
        ):
            self._begin_anew()
            link.known()
            link.rested(now)
        elif sent > self._committed and link.unknown_too_long(now):
            raise forgotten(self._chunk_rep, self._committed + 1, sent)

    def _advance(self, link: Link, committed: int) -> None:
        """Let go of what is committed."""
        if committed < self._committed:
            raise StorageError(
                f"{self._ingest}: the server's journal lost rows {committed + 1} to {self._committed} of this "
                "feed, which it had committed (an older disk?): they are not here any more; begin a new Feed with them"
            )
        now = time.monotonic()
        moved = committed > self._committed
        self._outbox.kernel.commit(committed)
        with self._changed:
            self._committed = max(self._committed, committed)
            self._changed.notify_all()
        if moved or self._committed >= self._outbox.kernel.sent:
            link.moved(now)
        elif link.is_answer_fresh(now) and link.stalled(now):
            self._outbox.resend(everything=True)

    def _note_refused(self, refused: NDArray[np.void]) -> None:
        """Remember what the server refused; the rows themselves are still in the outbox."""
        new = refused[refused["row"] + np.uint64(self._before) > self._refused_upto].copy()
        if not len(new):
            return
        new["row"] += np.uint64(self._before)
        self._refused_upto = int(new["row"][-1])
        for told, row in zip(new, self._outbox.find(new), strict=True):
            key = None if row is None else StreamKey(self.source, row[0], row[1])
            why, number = reason(int(told["reason"])), int(told["row"])
            self._refused.append(Refused(key, None if row is None else row[2], why, number))
        last = self._refused[-1]
        _LOG.warning(
            "%s: the server refused %d rows, the last of %s: %s", self.source, len(new), last.key, last.reason
        )

    def _begin_anew(self) -> None:
        """Go on as another run: the server had so many others since it heard of this one that it forgot it. What was
        committed stays so; what was not is numbered from 1 again."""
        if self._token:
            raise StorageError(
                f"{self._chunk_rep}: the server no longer knows run {self._name!a}: it has had more than "
                f"{limits.MAX_RUNS} durable ones since"
            )
        _LOG.warning(
            "%s: the server no longer knows this feed's run %d: it goes on as another", self._ingest, self.run
        )
        self.run = secrets.randbits(62) + 1
        self._before = self._refused_upto = self._committed
        self._outbox.kernel.begin_anew(self.run)
