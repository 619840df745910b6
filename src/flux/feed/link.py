"""A feed's link to its server: the two sockets, and when to say what on them."""

from __future__ import annotations

import time
from typing import Final

from flux import limits
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets

ASK_EVERY_S: Final = 0.02  # while something is pending
STALL_S: Final = 0.5  # a position that stands still this long: send again; doubled up to STALL_MAX_S
STALL_MAX_S: Final = 8.0
ANSWER_S: Final = 1.0  # wait so long for a position: a killed server never answers; doubled for a slow one
ANSWER_MAX_S: Final = limits.ASK_TIMEOUT_MS / 1_000


class Link:
    """The sockets to one server and when to say what on them."""

    def __init__(self, sockets: Sockets, ingest: str, chunk_rep: str) -> None:
        self.pusher = sockets.pusher(ingest)
        self.requester = Requester(sockets, chunk_rep)
        self.asked = False
        self.answer_s = ANSWER_S
        self._ask_at = 0.0
        self._patience = STALL_S
        self._moved_at = time.monotonic()

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
