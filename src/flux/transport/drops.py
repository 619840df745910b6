"""Says what a receiver dropped and why: each reason at most once a second, however hostile the sender."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Final, Protocol

from flux.limits import LOG_REPEAT_NS
from flux.model import StreamKey

_LOG: Final = logging.getLogger("flux.transport")

NOT_DROPS: Final = frozenset(("messages", "bytes", "admitted", "corrections", "late", "repeats", "resent"))
"""Counters of what is in order: taken, or seen before."""


class Seldom:
    """Whether a reason may be logged now: each at most once in LOG_REPEAT_NS."""

    def __init__(self) -> None:
        self._due_ns: dict[str, int] = {}

    def due(self, reason: str) -> bool:
        """True when the reason was not due within the last second. Reasons are few: words of ours, no peer's."""
        now = time.monotonic_ns()
        if now < self._due_ns.get(reason, 0):
            return False
        self._due_ns[reason] = now + LOG_REPEAT_NS
        return True


class Counting(Protocol):
    """What counts by reason: a receiver, or what has one."""

    @property
    def counters(self) -> Mapping[str, int]:
        """All of them, since the beginning."""

    def last_refused(self) -> Mapping[str, tuple[StreamKey, int] | str]:
        """Of each reason that rows were refused for the last stream, and how many rows of it, or a place in words."""


def _where(last: tuple[StreamKey, int] | str) -> str:
    if isinstance(last, str):
        return f", the last at {last}"
    return ", the last of {}, of which {} rows were refused".format(*last)


class DropLog:
    """Looks at a receiver's counters and logs those that grew."""

    def __init__(self, receiver: Counting, what: str) -> None:
        self._receiver = receiver
        self._what = what
        self._said: dict[str, int] = {}
        self._due_ns = 0

    def look(self) -> None:
        """Once a turn: does nothing until a second has gone by since the last look."""
        now = time.monotonic_ns()
        if now < self._due_ns:
            return
        self._due_ns = now + LOG_REPEAT_NS
        of = self._receiver.last_refused()
        for reason, count in self._receiver.counters.items():
            new = count - self._said.get(reason, 0)
            if new and reason == "shared":
                _LOG.warning("%s: %s is written by two live runs of feeds", self._what, of[reason][0])
            elif new and reason not in NOT_DROPS:
                where = _where(of[reason]) if reason in of else ""
                _LOG.warning(
                    "%s: dropped %d: %s (%d since the start)%s", self._what, new, reason, count, where
                )
            self._said[reason] = count
