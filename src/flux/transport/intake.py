"""A watch on what a server makes libzmq keep for a client: the mirror of the server's own (`server/memory.py`).

    bytes that came by the connection ── bytes of messages that were taken ──► still open ──► over a bound: dropped

libzmq bounds messages and the size of a part, not the parts of a message: one with MORE for ever grows without end.
A client lives in a process with memory of its own, so what is measured is not the process but the connection: what the
system counted on it, less what libzmq has not read and what the application took. Two bounds (`limits.py`):

    CLIENT_PARTIAL_BYTES   still open, and a look that began after that finds nothing more: it is no whole message. Also
                           of a peer that sent messages of too many parts, and where no message is expected at all
    CLIENT_QUEUE_BYTES     still open, whole messages included

A part of no bytes takes two on the wire and 64 in memory, so a bound may stand for 32 times as much.

A connection that is over a bound is ended, with a warning; libzmq connects again. What libzmq took before the end, it
frees.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from flux import limits
from flux.threads import WatchedThread
from flux.transport.connections import Connection, connection_at, end, received_bytes, unread_bytes
from flux.transport.drops import Seldom

_LOG: Final = logging.getLogger("flux.transport")

_BESIDE_BYTES: Final = limits.MAX_TOPIC_BYTES + 32  # of a message, beside its payload

Comings = Callable[[], list[tuple[int, bool]]]


class Taken:
    """What an application took from a socket so far. It counts before and after it looks, so that a look that found
    nothing is known to have begun after something else.
    """

    __slots__ = ("bytes", "emptied", "looks", "messages", "odd")

    def __init__(self) -> None:
        self.messages = 0  # that are as they should be
        self.bytes = 0  # of their payloads
        self.odd = 0  # messages with too many parts
        self.looks = 0  # begun
        self.emptied = 0  # the number of the last look that found nothing more


class _Open(NamedTuple):
    """What was found to be over the first bound: whether it is one message the next look of the application shows."""

    came: int
    messages: int
    looks: int


class Watched:
    """One connecting socket. `look` asks the application to look at its socket soon, from any thread."""

    def __init__(
        self,
        endpoint: str,
        comings: Comings,
        taken: Callable[[], Taken],
        look: Callable[[], None] | None = None,
        most: int = limits.CLIENT_PARTIAL_BYTES,
    ) -> None:
        self._dropped = 0
        self._ending = threading.Lock()
        self.why = ""
        """A sentence about the last of them."""
        self._endpoint = endpoint
        self._comings = comings
        self._taken = taken
        self._look = look
        self._most = most
        self._made: Connection | None = None
        self._settled = 0  # bytes of this connection that are accounted for
        self._messages, self._bytes, self._odd = 0, 0, 0  # as they were at the last look
        self._found: _Open | None = None
        self._seldom = Seldom()

    @property
    def dropped(self) -> int:
        """Connections that were ended. Whoever sees the end of one finds it counted, however soon that is: else the
        reason would go to the next one."""
        with self._ending:
            return self._dropped

    def look(self) -> None:
        """Follow the connection, and end it when it is over a bound."""
        for descriptor, is_new in self._comings():
            if is_new:
                self._made = connection_at(descriptor)
                self._settled, self._found = 0, None
            elif self._made is not None and self._made.descriptor == descriptor:
                self._made = None
        taken = self._taken()
        messages, size, odd = taken.messages, taken.bytes, taken.odd
        if self._made is not None and connection_at(self._made.descriptor) == self._made:
            came = received_bytes(self._made.descriptor) - unread_bytes(self._made.descriptor)
            beside = _BESIDE_BYTES * (messages - self._messages)
            self._settled = min(came, self._settled + size - self._bytes + beside)
            self._judge(self._made, came, taken, messages)
        self._messages, self._bytes = messages, size
        if self._found is None:
            self._odd = odd

    def _judge(self, made: Connection, came: int, taken: Taken, messages: int) -> None:
        still, found = came - self._settled, self._found
        if still <= limits.CLIENT_PARTIAL_BYTES:
            self._found = None
        elif still > self._most or taken.odd > self._odd:
            self._drop(made, still, "more than may wait for it")
        elif found is None or taken.emptied <= found.looks:
            if found is None:
                self._found = _Open(came, messages, taken.looks)
            if self._look is not None:
                self._look()
        elif messages == found.messages:
            self._drop(made, still, "and no whole message among them")
        else:
            self._found, self._settled = None, max(self._settled, found.came)

    def _drop(self, made: Connection, still: int, why: str) -> None:
        self._made, self._found = None, None
        with self._ending:
            if not end(made):
                return
            self.why = (
                f"{self._endpoint} sent {still / limits.MIB:.1f} MiB, {why}: its connection was dropped"
            )
            self._dropped += 1
        if self._seldom.due("dropped"):
            _LOG.warning("%s (%d since the start)", self.why, self._dropped)


class Intake:
    """Looks at several of them every MEMORY_WATCH_MS, in a thread of its own that begins with the first."""

    def __init__(self) -> None:
        self._all: list[Watched] = []
        self._lock = threading.RLock()  # a look of the application's may make its socket anew
        self._stopping = threading.Event()
        self._thread: WatchedThread | None = None

    def add(self, watched: Watched) -> None:
        """Look at this one too. Raises RuntimeError where the system gives no more threads."""
        with self._lock:
            self._all.append(watched)
            if self._thread is None:
                self._thread = WatchedThread(self._run, name="flux-intake", failed=lambda error: None)
                self._thread.start()

    def remove(self, watched: Watched) -> None:
        """Look at it no longer: it is not being looked at when this returns."""
        with self._lock:
            self._all.remove(watched)

    def stop(self, *, wait: bool = True) -> None:
        """End the thread."""
        self._stopping.set()
        if wait and self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(limits.MEMORY_WATCH_MS / 1_000):
            with self._lock:
                for watched in list(self._all):
                    watched.look()
        self._all.clear()
