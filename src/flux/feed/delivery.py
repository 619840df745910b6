"""The delivery of a feed's rows: the thread that owns the sockets, from the outbox to what the server has committed.

    probe ─► register ─► rows ─► position? ─► let go of what is committed, send again what is not
      ▲          │         │
      └──────────┴─────────┴── the server does not know the run any more, and nothing of it was on its way

A server remembers a bounded number of runs. So a run is registered before its first row is sent: what the server then
does not know it has forgotten, and takes no row of. Of rows that were on their way nobody can say whether they were
taken, and they are never sent again: that is the feed's error.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from flux import limits
from flux.errors import (
    AnswerError,
    FloodError,
    FluxError,
    InUseError,
    InvalidArgumentError,
    NotFoundError,
    StorageError,
    UnavailableError,
    VersionError,
)
from flux.feed.link import ANSWER_MAX_S, ANSWER_S, ASK_EVERY_S, Link, forgotten, judge, run_of
from flux.model import StreamKey
from flux.threads import WatchedThread
from flux.transport.outbox import Outbox, reason
from flux.transport.sockets import Poller, Sockets, Wake

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LOG: Final = logging.getLogger("flux.feed")

UNSENT_S: Final = 0.005  # until the socket is tried again that did not take all
IDLE_S: Final = 0.5


class Refused(NamedTuple):
    """A row that is not kept, and why (a word such as `not_finite`); `number` is its number in the run, 0 when it was
    found bad before it was sent. Key and row are None where the feed no longer has them."""

    key: StreamKey | None
    row: Any
    reason: str
    number: int = 0


class Delivery:
    """One feed's; its attributes are read under `changed`, or by who can do with what was true a moment ago."""

    def __init__(self, source: str, name: str | None, ingest: str, chunk_rep: str) -> None:
        self.source = source
        self.ingest = ingest
        self.chunk_rep = chunk_rep
        self.run = _new_run() if name is None else run_of(name)
        self.outbox = Outbox(self.run)
        self.changed = threading.Condition()
        self.wake = Wake()
        self.begun = False
        """Whether rows can be put into the outbox: a durable run's number from what is committed on."""
        self.committed = 0
        self.refused: deque[Refused] = deque(maxlen=limits.MAX_FEED_REFUSED)
        self.failure: FluxError | None = None
        self.trouble = ""
        """Why nothing is committed, as far as it is known, to be put after a sentence."""
        self.ended = False
        """Nobody waits any more."""
        self.durable = name is not None
        """A later process may go on with this run."""
        self._name = name
        self._token = secrets.randbits(63) + 1
        self._incarnation = 0
        self._registered = False  # the server knows the run
        self._answers = False  # it answered the last question
        self._refused_upto = 0  # the run's number of the last one that the server reported
        self._before = 0  # rows that were committed under runs that the server forgot
        if name is None:
            self.outbox.begin(0, 0)
            self.begun = True
        self.thread = WatchedThread(self._work, name=f"flux feed {source}", failed=self._fail)
        self.thread.start()

    def end(self) -> None:
        """Let go of the sockets, with what waits."""
        with self.changed:
            self.ended = True
            self.changed.notify_all()
        self.wake.set()
        self.thread.join()

    def raise_failure(self) -> None:
        """What every call of the feed raises once the delivery has failed."""
        if self.failure is not None:
            raise self.failure

    # ------------------------------------------------------------------ the thread

    def _work(self) -> None:
        with Sockets() as made:
            link = Link(made, self.ingest, self.chunk_rep, self.wake.set)
            try:
                while not self.ended:
                    self.turn(link)
            except FluxError as error:
                self._fail(error)
            finally:
                self.outbox.connect(None)
        self.wake.close()

    def _fail(self, error: BaseException) -> None:
        """Every caller gets this from now on, those that wait included."""
        with self.changed:
            self.begun = False  # so that no call goes on without looking at the failure
            if self.failure is None:
                self.failure = (
                    error
                    if isinstance(error, FluxError)
                    else FluxError(f"the feed's thread ended: {error!r}")
                )
            self.changed.notify_all()

    def turn(self, link: Link) -> None:
        """Send, ask and listen once, then wait until there is more to do."""
        unsent = self._registered and self.outbox.resend(everything=False)
        pending = not self._registered or self.committed < self.outbox.kernel.queued
        now = time.monotonic()
        if self.committed >= (self.outbox.kernel.sent if self._registered else self.outbox.kernel.queued):
            link.rested(now)
        if link.due_to_ask(now, pending):
            claim = 0 if self._registered or (self._name is None and not self._answers) else self._token
            link.ask(self.source, self.run, now, claim, self._refused_upto - self._before)
        for outcome in link.requester.receive():
            if not link.heard_health(outcome):
                self._heard(link, outcome.reply, outcome.error)
        link.ask_health(now)
        self.trouble = link.trouble()
        pending = pending or self.committed < self.outbox.kernel.queued
        Poller(self.wake, link.requester.socket).wait(
            UNSENT_S if unsent else ASK_EVERY_S if pending else IDLE_S
        )
        self.wake.clear()

    def _heard(self, link: Link, reply: Any, error: FluxError | None) -> None:
        probed = self._name is None and not self._registered and not self._answers
        link.answered(at_once=probed)
        link.unavailable = str(error) if isinstance(error, UnavailableError) else ""
        if isinstance(error, FloodError):
            self._unanswered()  # the connection is made again, and its rows are here
            return
        if isinstance(error, VersionError | AnswerError | InvalidArgumentError):
            raise error  # it will say the same again: whoever waits is to know
        if isinstance(error, NotFoundError | UnavailableError) or error is None:
            link.answer_s = ANSWER_S
            self._answers = True
        if isinstance(error, NotFoundError):
            self._unknown(link)
        elif error is None:
            self._position(link, reply, probed)
        elif not isinstance(error, UnavailableError):
            link.answer_s = min(2 * link.answer_s, ANSWER_MAX_S)
            self._unanswered()

    def _unanswered(self) -> None:
        """A registration that was not answered may be carried out at any later time, also after the run was had and
        forgotten: its number is not used."""
        if self._name is None and not self._registered:
            self._answers = False
            self.run = _new_run()

    def _position(self, link: Link, reply: Any, probed: bool) -> None:
        if not self._registered and not probed:
            self._begin(link, reply.incarnation, reply.committed)
        elif reply.incarnation > self._incarnation and self._registered:
            raise InUseError(
                f"run {self._name or self.run!a} of {self.source} was taken over by another process"
            )
        judge(reply, self.outbox.kernel.sent - self._before, self.chunk_rep)
        if self._registered:
            self._note_refused(reply.refused)
            self._advance(link, self._before + reply.committed)

    def _begin(self, link: Link, incarnation: int, committed: int) -> None:
        """The server knows the run: rows go to it from now on."""
        self._incarnation = incarnation
        if self._name is None:
            self.outbox.begin_anew(self.run, incarnation)
            self._before = self._refused_upto = self.committed
        else:
            self.outbox.begin(incarnation, committed)
            self.committed = self._refused_upto = committed
        self.outbox.connect(link.pusher)
        self._registered = self.begun = True

    def _unknown(self, link: Link) -> None:
        """The server has had so many other runs since it heard of this one that it forgot it. It goes on as another
        where nothing of it can have been taken: a trade without an id would be taken twice."""
        if self._name is not None:
            raise StorageError(
                f"{self.chunk_rep}: the server no longer knows run {self._name!a}: it has had more than "
                f"{limits.MAX_RUNS} durable ones since"
            )
        if not self._registered:
            return
        self.outbox.connect(None)  # what was put in until now is sent or is not
        sent = self.outbox.kernel.sent
        if sent > self.committed:
            raise forgotten(self.chunk_rep, self.committed + 1, sent)
        _LOG.warning(
            "%s: the server no longer knows this feed's run %d: it goes on as another", self.ingest, self.run
        )
        self._registered = False
        self.run = _new_run()

    def _advance(self, link: Link, committed: int) -> None:
        """Let go of what is committed."""
        if committed < self.committed:
            raise StorageError(
                f"{self.ingest}: the server's journal lost rows {committed + 1} to {self.committed} of this "
                "feed, which it had committed (an older disk?): they are not here any more; begin a new Feed with them"
            )
        now = time.monotonic()
        moved = committed > self.committed
        self.outbox.kernel.commit(committed)
        with self.changed:
            self.committed = max(self.committed, committed)
            self.changed.notify_all()
        if moved or self.committed >= self.outbox.kernel.sent:
            link.moved(now)
        elif link.is_answer_fresh(now) and link.stalled(now):
            self.outbox.resend(everything=True)

    def _note_refused(self, refused: NDArray[np.void]) -> None:
        """Remember what the server refused; the rows themselves are still in the outbox."""
        new = refused[refused["row"] + np.uint64(self._before) > self._refused_upto].copy()
        if not len(new):
            return
        new["row"] += self._before
        self._refused_upto = int(new["row"][-1])
        for told, row in zip(new, self.outbox.find(new), strict=True):
            key = None if row is None else StreamKey(self.source, row[0], row[1])
            why, number = reason(int(told["reason"])), int(told["row"])
            self.refused.append(Refused(key, None if row is None else row[2], why, number))
        last = self.refused[-1]
        _LOG.warning(
            "%s: the server refused %d rows, the last of %s: %s", self.source, len(new), last.key, last.reason
        )


def _new_run() -> int:
    """The number of a run that ends with its feed."""
    return limits.ONE_LIFE_RUNS + secrets.randbits(61)
