"""A watch on the server's memory: what peers make libzmq keep has no other bound.

    ACCEPTED, DISCONNECTED of every port ──► connections ──► over the bound: shutdown(2) of who sent most of late

libzmq bounds messages and the size of a part, not the parts of a message, and has no call that ends one connection. Its
monitor gives the descriptor of every one, though, and the system counts the bytes that came by it. Most of late: since
the last drop, or within the last second or two before the first. Where the bytes do not differ (none came, or the
system does not count: ipc) the newest goes.

A drop that did not bring the memory within its bound is followed by the next. An innocent peer that came back meanwhile
is not dropped again before all that were there when the bound was passed, unless the memory still grows fast: then who
sends most is most likely who makes it grow.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from flux import limits
from flux.model import State
from flux.server.descriptors import DescriptorWatch
from flux.transport.connections import Connection, connection_at, end, received_bytes

if TYPE_CHECKING:
    from flux.server.vitals import Vitals

_LOG: Final = logging.getLogger("flux.server")

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
AGAIN_S: Final = 5.0
"""libzmq frees what a connection held in its own time: so long nobody else is dropped for it ..."""
GROWN_BYTES: Final = 64 * limits.MIB
"""... unless the memory grows by so much meanwhile."""
CALM_LOOKS: Final = 20  # looks within the bound before all is well again, and from one mark to the next


class Connections:
    """Who is connected, in the order of coming; `comings` are what every port gives (`Sockets.comings`)."""

    def __init__(self, comings: Sequence[Callable[[], list[tuple[int, bool]]]]) -> None:
        self._comings = comings
        self._open: dict[int, Connection] = {}
        self._leaving: set[int] = set()  # descriptors that may not be closed yet
        self._sent: dict[int, int] = {}  # by descriptor: what each had sent at the last mark
        self._looks = 0

    def follow(self) -> None:
        """Hear who came and who left."""
        self._looks += 1
        for come in self._comings:
            for descriptor, came in come():
                found = connection_at(descriptor)
                if not came:
                    self._leaving.add(descriptor)
                elif found and not self._is(descriptor, found):
                    self._open[descriptor] = found._replace(look=self._looks)
                    self._sent.pop(descriptor, None)
        # Ports do not say it in one order: one may have the descriptor already that another port says was left.
        for descriptor in list(self._leaving):
            if not self._is(descriptor, connection_at(descriptor)):
                self._leaving.discard(descriptor)
                self._open.pop(descriptor, None)

    def _is(self, descriptor: int, found: Connection | None) -> bool:
        held = self._open.get(descriptor)
        return held is not None and held._replace(look=0) == found

    def __len__(self) -> int:
        return len(self._open)

    @property
    def looks(self) -> int:
        """How often it was followed: a time to give to `drop`."""
        return self._looks

    def mark(self) -> None:
        """From here on the bytes count that each sends."""
        self._sent = {descriptor: received_bytes(descriptor) for descriptor in self._open}

    def drop(self, came_by: int | None = None) -> str:
        """End the connection that sent most since the mark, of equals the newest, and mark: who it was, "" if there is
        none. `came_by`: those that came after that many looks are taken only when no other is left.
        """

        def rank(made: Connection) -> tuple[bool, int, int]:
            early = came_by is None or made.look <= came_by
            return early, received_bytes(made.descriptor) - self._sent.get(made.descriptor, 0), made.look

        while self._open:
            worst = max(reversed(self._open.values()), key=rank)  # from the end: the first of equals is taken
            del self._open[worst.descriptor]
            if end(worst):
                self.mark()
                return worst.peer
        return ""

    def drop_newest(self, count: int) -> list[Connection]:
        """End the newest `count` connections, of the address that has most first, of those found in one look those that
        sent least: which were ended."""
        hosts = Counter(_host(made) for made in self._open.values())

        def rank(made: Connection) -> tuple[int, int, int]:
            return -hosts[_host(made)], -made.look, received_bytes(made.descriptor)

        newest = sorted(self._open.values(), key=rank)
        ended = []
        for made in newest[:count]:
            del self._open[made.descriptor]
            if end(made):
                ended.append(made)
        return ended


def _host(made: Connection) -> str:
    return made.peer.rpartition(":")[0]


class MemoryWatch:
    """See the module; `run` is the thread's body."""

    def __init__(self, connections: Connections, vitals: Vitals, streams: Callable[[], int]) -> None:
        self._connections = connections
        self._vitals = vitals
        self._streams = streams
        self._stopping = threading.Event()
        self._statm = open("/proc/self/statm", "rb", buffering=0)  # noqa: SIM115  kept: no descriptor may be left later
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._calm = 0
        self._over_since: int | None = None  # the look at which the memory was found over its bound
        self._again_at = 0.0
        self._grown_at = 0
        self.dropped = 0
        self.descriptors = DescriptorWatch(connections, vitals)
        bounds = limits.server_bytes(streams())
        parts = ", ".join(f"{name} {size // limits.MIB}" for name, size in bounds.items())
        _LOG.info("memory: at most %d MiB with these streams (%s)", sum(bounds.values()) // limits.MIB, parts)

    def run(self) -> None:
        """Look until stopped."""
        while not self._stopping.wait(limits.MEMORY_WATCH_MS / 1_000):
            self.look()
            self.descriptors.look()
        self._statm.close()

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    def look(self) -> None:
        """Drop the connection that sent most of late if the memory is over the sum of its bounds."""
        self._connections.follow()
        bound = sum(limits.server_bytes(self._streams()).values())
        if self._taken() > bound:
            self._give_back()
        taken = self._taken()
        if taken <= bound:
            self._within()
            return
        self._calm = 0
        now = time.monotonic()
        if now < self._again_at and taken < self._grown_at:
            return  # what was dropped last is still being freed
        growing = self._over_since is None or taken >= self._grown_at
        if self._over_since is None:
            self._over_since = self._connections.looks
        self._again_at, self._grown_at = now + AGAIN_S, taken + GROWN_BYTES
        peer = self._connections.drop(None if growing else self._over_since)
        self.dropped += bool(peer)
        said = (
            f"the connection from {peer} was dropped as the likeliest to hold it"
            if peer
            else "no connection is left to drop"
        )
        self._vitals.set(
            "memory", State.DEGRADED, f"the memory is over its bound of {bound // limits.MIB} MiB: {said}"
        )

    def _within(self) -> None:
        """The memory is within its bound; after some looks all is well again."""
        self._calm += 1
        if self._calm % CALM_LOOKS:
            return
        self._connections.mark()
        self._over_since, self._again_at = None, 0.0
        if self._vitals.has("memory"):
            self._vitals.clear("memory")
            self._give_back()

    def _give_back(self) -> None:
        """What was freed counts until the system has it back."""
        if self._trim is not None:
            self._trim(0)

    def _taken(self) -> int:
        """Bytes of this process that are in memory."""
        return int(os.pread(self._statm.fileno(), 128, 0).split()[1]) * _PAGE
