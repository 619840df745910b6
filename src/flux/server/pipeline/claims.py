"""Runs of feeds, and the processes that register them or take them over: asked by requests, carried out by the loop.

    request ── claim ──► due ──► loop: incarnation + 1, its SOURCE record ──► journal ──► request: it is yours

A message of an older incarnation is dropped from the moment the loop has carried a claim out, and the record that says
so follows all rows that came before it. So what is committed once that record is, is where the claimer goes on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from flux.journal.records import feed_name
from flux.limits import CLAIMS_PER_TURN, MAX_CLAIMS_WAITING, MAX_RUNS

_NOT_YET: Final = 0


class Due(NamedTuple):
    """A claim that the loop has still to carry out."""

    source_id: str
    run: int
    token: int


class Claims:
    """Who claimed which run last, at most MAX_RUNS of them: the claims of others are forgotten, not undone. Of those
    still to be carried out MAX_CLAIMS_WAITING wait; the loop is woken once for all that wait."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._claimed: dict[str, tuple[int, int]] = {}  # run -> token, incarnation
        self._due: deque[Due] = deque()

    def claim(self, source_id: str, run: int, token: int) -> int | None:
        """The incarnation that the process with this token has become; 0 while the loop has not got to it. None: too
        many wait, this one does not."""
        name = feed_name(source_id, run)
        with self._lock:
            known, incarnation = self._claimed.get(name, (0, _NOT_YET))
            if known == token:
                return incarnation
            if len(self._due) >= MAX_CLAIMS_WAITING:
                return None
            self._claimed.pop(name, None)
            self._claimed[name] = (token, _NOT_YET)
            if len(self._claimed) > MAX_RUNS:
                del self._claimed[next(iter(self._claimed))]
            self._due.append(Due(source_id, run, token))
            first = len(self._due) == 1
        if first:
            self._wake()
        return _NOT_YET

    @property
    def waiting(self) -> bool:
        """Whether the loop has some to carry out."""
        return bool(self._due)

    def take(self) -> list[Due]:
        """The next claims to carry out, at most CLAIMS_PER_TURN; for the loop."""
        with self._lock:
            return [self._due.popleft() for _ in range(min(len(self._due), CLAIMS_PER_TURN))]

    def done(self, due: Due, incarnation: int) -> None:
        """It was carried out, unless another claim has come meanwhile."""
        name = feed_name(due.source_id, due.run)
        with self._lock:
            if self._claimed.get(name, (0, 0))[0] == due.token:
                self._claimed[name] = (due.token, incarnation)

    def forget(self, source_id: str, run: int, token: int) -> None:
        """The run is no longer recorded as that process's: its next claim is carried out anew."""
        name = feed_name(source_id, run)
        with self._lock:
            known, incarnation = self._claimed.get(name, (0, _NOT_YET))
            if known == token and incarnation != _NOT_YET:
                del self._claimed[name]
