"""A feed's link to its server: the two sockets, and when to say what on them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Final

import numpy as np

from flux import limits
from flux.codec import HealthResponse, SourcePositionResponse
from flux.errors import AnswerError, StorageError
from flux.model import State
from flux.schema import messages
from flux.transport.requester import Outcome, Requester
from flux.transport.sockets import Sockets

ASK_EVERY_S: Final = 0.02  # while something is pending
STALL_S: Final = 0.5  # a position that stands still this long: send again; doubled up to STALL_MAX_S
STALL_MAX_S: Final = 8.0
ANSWER_S: Final = 1.0  # wait so long for a position: a killed server never answers; doubled for a slow one
ANSWER_MAX_S: Final = limits.ASK_TIMEOUT_MS / 1_000
UNWELL_S: Final = 0.2  # a position that stands still this long: ask how the server is
HEALTH_EVERY_S: Final = 0.5
KEEP_S: Final = 2.0  # while nothing is pending: whom a server has not heard of for long it may forget


class Link:
    """The sockets to one server and when to say what on them."""

    def __init__(
        self, sockets: Sockets, ingest: str, chunk_rep: str, look: Callable[[], None] | None = None
    ) -> None:
        self.pusher, self._intake = sockets.watched_pusher(ingest)
        self.requester = Requester(sockets, chunk_rep, look=look)
        self._drops = 0  # when the position moved last
        self._health = 0  # the request for it that is not answered yet
        self._health_at = 0.0
        self._unwell = ""  # what the server's health said last, unless it was well
        self.unavailable = ""
        """Why the server did not answer the last question, where it said so."""
        self.asked = False
        self.answer_s = ANSWER_S
        self._asked_at = float("-inf")
        self._patience = STALL_S
        self._moved_at = self._still_since = time.monotonic()

    def due_to_ask(self, now: float, pending: bool) -> bool:
        return not self.asked and now - self._asked_at >= (ASK_EVERY_S if pending else KEEP_S)

    def ask(self, source_id: str, run: int, now: float, claim: int, refused_after: int) -> None:
        self.requester.send(
            messages.source_position_request,
            source_id=source_id,
            run=run,
            claim=claim,
            refused_after=refused_after,
            timeout=self.answer_s,
        )
        self.asked = True
        self._asked_at = now

    def answered(self, *, at_once: bool) -> None:
        """The question has ended; whether another one is due at once."""
        self.asked = False
        if at_once:
            self._asked_at = float("-inf")

    def ask_health(self, now: float) -> None:
        """Ask how the server is, when the position has stood still for a while."""
        if now - self._still_since < UNWELL_S:
            self._unwell = ""
        elif not self._health and now >= self._health_at:
            self._health = self.requester.send(messages.health_request, timeout=self.answer_s)
            self._health_at = now + HEALTH_EVERY_S

    def heard_health(self, outcome: Outcome) -> bool:
        """Take the answer to that; False when the outcome is another's."""
        if outcome.id != self._health:
            return False
        self._health = 0
        said = outcome.reply
        if isinstance(said, HealthResponse):
            well = said.ok and said.state == State.OK
            self._unwell = "" if well else f"; the server reports: {said.message}"
        return True

    def trouble(self) -> str:
        """Why nothing is committed, to be put after a sentence; "" when that is not known."""
        ingest = self._intake.why if self._intake.dropped > self._drops else ""
        whys = (ingest, self.requester.flood, self.unavailable)
        return "".join(f"; {why}" for why in whys if why) or self._unwell

    def rested(self, now: float) -> None:
        """Nothing was sent at this time that is not committed."""
        self._still_since = now

    def is_answer_fresh(self, now: float) -> bool:
        """Whether the last question was asked lately: what a process finds that was stopped for long says nothing."""
        return now - self._asked_at <= ASK_EVERY_S + self.answer_s

    def moved(self, now: float) -> None:
        self._moved_at = self._still_since = now
        self._drops = self._intake.dropped
        self._patience = STALL_S

    def stalled(self, now: float) -> bool:
        """Whether the position stood still so long that everything uncommitted is to be sent again."""
        if now - self._moved_at < self._patience:
            return False
        self._moved_at = now
        self._patience = min(2 * self._patience, STALL_MAX_S)
        return True


def judge(position: SourcePositionResponse, sent: int, endpoint: str) -> None:
    """AnswerError for a position that no server can have of a run of which `sent` rows were sent."""
    committed, numbers = position.committed, position.refused["row"]
    if committed > sent:
        raise AnswerError(
            f"{endpoint} says that {committed} rows of this run are committed; {sent} were sent"
        )
    if len(numbers) > limits.MAX_REFUSED_LISTED or (numbers > np.uint64(committed)).any():
        raise AnswerError(f"{endpoint} lists {len(numbers)} refused rows that cannot be")
    if (numbers[1:] <= numbers[:-1]).any():
        raise AnswerError(f"{endpoint} lists refused rows out of order")


def forgotten(endpoint: str, first: int, last: int) -> StorageError:
    """What is said of rows that were sent under a run that the server may have committed and forgotten."""
    return StorageError(
        f"{endpoint}: the server does not know this feed's run (it remembers the last {limits.MAX_RUNS}); rows "
        f"{first} to {last} may be committed or lost, and would be there twice if sent again: compare with "
        "Feed.position, and begin a new Feed with what is missing"
    )


def run_of(name: str) -> int:
    """The number of a durable run."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) >> 2 | 1
