"""Subscriptions to every symbol of a source and an interval: the server's list of streams, page by page."""

from __future__ import annotations

from flux.limits import BACKOFF_MIN_MS, MAX_LIST_STREAMS
from flux.protocol.answers import other_version
from flux.protocol.core import Core
from flux.protocol.effects import Ask, AskKind, Join
from flux.protocol.replies import Listing, Refusal, RefusalStatus, Reply
from flux.protocol.schedule import MS, backoff_ns


class _Wildcard:
    """All symbols of a source and an interval; its slot is negative."""

    __slots__ = ("after", "asking", "failures", "interval", "listed", "slot", "source_id", "start")

    def __init__(self, source_id: str, interval: str, start: str | int | None, slot: int) -> None:
        self.source_id = source_id
        self.interval = interval
        self.start = start
        self.slot = slot
        self.after = 0
        self.listed = False
        self.asking = 0
        self.failures = 0


class Wildcards:
    """They take turns as streams do; their slots are negative.

    Without a start nothing has to be listed: a stream begins where it is first seen. One stream is asked for all the
    same, once per link, for only an answer shows which version the server speaks, and so under which topics it
    publishes.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._all: dict[int, _Wildcard] = {}

    def add(self, source_id: str, interval: str, start: str | int | None, now: int) -> None:
        """One more; with a start, the streams that there are already are joined too."""
        slot = -1 - len(self._all)
        self._all[slot] = _Wildcard(source_id, interval, start, slot)
        self._core.schedule.by(slot, now)

    def resume(self, now: int) -> None:
        """The link lives: what is not listed yet can be asked for, and the version of the server behind it."""
        for slot, wildcard in self._all.items():
            if wildcard.start is None:
                wildcard.listed = self._core.version == 1
            self._core.schedule.by(slot, now)

    def turn(self, slot: int, now: int) -> None:
        """Ask for the next page, if there is one."""
        self._list(self._all[slot], now)

    def _list(self, wildcard: _Wildcard, now: int) -> None:
        core = self._core
        if wildcard.listed or wildcard.asking or not core.ready or core.failed:
            return
        if len(core.in_flight) >= core.max_asks:
            core.schedule.at(wildcard.slot, now + BACKOFF_MIN_MS * MS)
            return
        wildcard.asking = core.number()
        core.send(
            Ask(
                wildcard.asking,
                AskKind.LIST,
                core.version,
                wildcard.slot,
                limit=1 if wildcard.start is None else MAX_LIST_STREAMS,
                prefix=f"{wildcard.source_id}/{wildcard.interval}/",
                after_stream_id=wildcard.after,
            )
        )

    def answered(self, ask: Ask, reply: Reply, now: int) -> None:
        """Take the answer to a LIST."""
        core = self._core
        wildcard = self._all[ask.slot]
        wildcard.asking = 0
        if isinstance(reply, Listing):
            wildcard.failures = 0
            if wildcard.start is None:
                wildcard.listed = True
                return
            for status in reply.streams:
                if status.key not in core.slots:
                    core.effects.append(Join(status.key, wildcard.start))
            wildcard.listed = not (reply.has_more and reply.streams)
            if not wildcard.listed:
                wildcard.after = max(status.stream_id for status in reply.streams)
                self._list(wildcard, now)
            return
        if isinstance(reply, Refusal):
            if reply.wrong_version:
                other_version(core, ask, now)
                wildcard.listed = True  # version 1 has no list: streams join when they are first seen
                return
            if reply.status in (RefusalStatus.UNIMPLEMENTED, RefusalStatus.INVALID_ARGUMENT):
                wildcard.listed = True
                return
        wildcard.failures += 1
        core.schedule.at(wildcard.slot, now + backoff_ns(wildcard.failures, core.random))
