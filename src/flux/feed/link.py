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
QUIET_S: Final = (
    1.0  # rows sent less than this ago are not taken, and their run forgotten again, before one answer
)
UNKNOWN_S: Final = (
    8.0  # for so long rows that were sent may be on their way to a server that does not know their run
)


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
        self.asked = False
        self.answer_s = ANSWER_S
        self._ask_at = 0.0
        self._patience = STALL_S
        self._moved_at = self._rest_at = self._still_since = time.monotonic()
        self._unknown_since: float | None = None

    def due_to_ask(self, now: float) -> bool:
        return not self.asked and now >= self._ask_at

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
        self._ask_at = now + ASK_EVERY_S

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
        """Why nothing is committed, to be put behind a sentence; "" when that is not known."""
        ingest = self._intake.why if self._intake.dropped > self._drops else ""
        return "".join(f"; {why}" for why in (ingest, self.requester.flood) if why) or self._unwell

    def rested(self, now: float) -> None:
        """Nothing was sent at this time that is not committed."""
        self._rest_at = self._still_since = now

    def known(self) -> None:
        """The server knows the run."""
        self._unknown_since = None

    def unknown_too_long(self, now: float) -> bool:
        """Hear that the server does not know the run; whether it has said so for UNKNOWN_S."""
        if self._unknown_since is None:
            self._unknown_since = now
        return now - self._unknown_since >= UNKNOWN_S

    def was_quiet(self, now: float) -> bool:
        """Whether all that is not committed was sent so lately that the server cannot have had and forgotten it."""
        return now - self._rest_at < QUIET_S

    def is_answer_fresh(self, now: float) -> bool:
        """Whether the last question was asked lately: what a process finds that was stopped for long says nothing."""
        return now - self._ask_at <= self.answer_s

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
