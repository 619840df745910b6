"""A watch on the server's memory: what peers make libzmq keep has no other bound.

    ACCEPTED, DISCONNECTED of every port ──► connections in order ──► over the bound: shutdown(2) of the newest

libzmq bounds messages and the size of a part, not the parts of a message, and has no call that ends one connection. Its
monitor gives the descriptor of each, though. What was connected before, and keeps within its bounds, stays.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from flux import limits
from flux.model import State

if TYPE_CHECKING:
    from flux.server.vitals import Vitals

_LOG: Final = logging.getLogger("flux.server")

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
CALM_LOOKS: Final = 20  # looks within the bound before all is well again


class Connection(NamedTuple):
    """A peer of one of the ports. The inode tells its socket from another that got the number since."""

    descriptor: int
    inode: int
    peer: str


class Connections:
    """Who is connected, in the order of coming; `comings` are what each port gives (`Sockets.comings`)."""

    def __init__(self, comings: Sequence[Callable[[], list[tuple[int, bool]]]]) -> None:
        self._comings = comings
        self._open: dict[int, Connection] = {}

    def follow(self) -> None:
        """Hear who came and who left."""
        for come in self._comings:
            for descriptor, came in come():
                self._open.pop(descriptor, None)
                if came and (found := _connection(descriptor)):
                    self._open[descriptor] = found

    def __len__(self) -> int:
        return len(self._open)

    def drop_last(self) -> str:
        """End the connection that was made last; who it was, "" when there is none."""
        while self._open:
            _, last = self._open.popitem()
            if _connection(last.descriptor) == last:
                held = socket.socket(fileno=os.dup(last.descriptor))
                with held:
                    try:
                        held.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        continue  # it left meanwhile
                return last.peer
        return ""


def _connection(descriptor: int) -> Connection | None:
    """What a descriptor is now, if it is a connection."""
    try:
        inode = os.fstat(descriptor).st_ino
        with socket.socket(fileno=os.dup(descriptor)) as held:
            name = held.getpeername()
    except OSError:
        return None
    return Connection(
        descriptor, inode, ":".join(map(str, name[:2])) if isinstance(name, tuple) else str(name)
    )


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
        self.dropped = 0
        bounds = limits.server_bytes(streams())
        parts = ", ".join(f"{name} {size // limits.MIB}" for name, size in bounds.items())
        _LOG.info("memory: at most %d MiB with these streams (%s)", sum(bounds.values()) // limits.MIB, parts)

    def run(self) -> None:
        """Look until stopped."""
        while not self._stopping.wait(limits.MEMORY_WATCH_MS / 1_000):
            self.look()
        self._statm.close()

    def stop(self) -> None:
        """End `run`."""
        self._stopping.set()

    def look(self) -> None:
        """Drop the newest connection if the memory is over the sum of its bounds."""
        self._connections.follow()
        bound = sum(limits.server_bytes(self._streams()).values())
        if self._taken() > bound and self._trim is not None:
            self._trim(0)  # what was freed counts until then
        taken = self._taken()
        if taken <= bound:
            self._calm += 1
            if self._calm == CALM_LOOKS:
                self._vitals.clear("memory")
            return
        self._calm = 0
        peer = self._connections.drop_last()
        self.dropped += bool(peer)
        said = (
            f"the connection from {peer}, made last, was dropped" if peer else "no connection is left to drop"
        )
        self._vitals.set(
            "memory", State.DEGRADED, f"the memory is over its bound of {bound // limits.MIB} MiB: {said}"
        )

    def _taken(self) -> int:
        """Bytes of this process that are in memory."""
        return int(os.pread(self._statm.fileno(), 128, 0).split()[1]) * _PAGE
