"""A watch on the process's descriptors: where none is left, libzmq's listener asks for one without a pause.

Every connection takes one, and libzmq has no bound on connections. So some are kept free: above that the newest
connections are ended, of the address that has most of them first. Who was there before is served, files can be opened,
and no core is spent on accepting what cannot be accepted.
"""

from __future__ import annotations

import contextlib
import os
import resource
from typing import TYPE_CHECKING, Final

from flux import limits
from flux.model import State

if TYPE_CHECKING:
    from flux.server.memory import Connections
    from flux.server.vitals import Vitals
    from flux.transport.connections import Connection

CALM_LOOKS: Final = 20  # in a row with enough free ones before all is well again
_OPEN: Final = "/proc/self/fd"


def allow_many() -> None:
    """Let this process open as many descriptors as the system allows, at most MAX_DESCRIPTORS."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, limits.MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def count_open() -> int:
    """Descriptors that this process has open; 0 where the system does not count them."""
    try:
        size = os.stat(_OPEN).st_size  # Linux 6.2 and later, and needs no descriptor itself
        return size or len(os.listdir(_OPEN))
    except OSError:
        return 0


class DescriptorWatch:
    """See the module; `look` is called by one thread, after the connections were followed."""

    def __init__(self, connections: Connections, vitals: Vitals) -> None:
        self._connections = connections
        self._vitals = vitals
        self._ended: list[Connection] = []  # libzmq closes them in its own time
        self._calm = CALM_LOOKS
        self.dropped = 0

    def look(self) -> None:
        """End the newest connections if too few descriptors are free."""
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if most == resource.RLIM_INFINITY:
            return
        wanted = min(limits.FREE_DESCRIPTORS, most // 8)
        self._ended = [ended for ended in self._ended if _is_open(ended)]
        taken = count_open() - len(self._ended)
        if taken <= most - wanted:
            self._calm += 1
            if self._calm == CALM_LOOKS:
                self._vitals.clear("descriptors")
            return
        self._calm = 0
        # Where files alone leave fewer than that, half of what they leave is for connections: an end of all is no help.
        others = taken - len(self._connections)
        ended = self._connections.drop_newest(max(0, taken - most + min(wanted, (most - others) // 2)))
        self._ended += ended
        self.dropped += len(ended)
        if ended:
            why = f"not enough for all who connect, and {wanted} are to be free: the newest connections are dropped"
        elif not self._vitals.has("descriptors"):
            why = f"too few: files take them, fewer than {wanted} are free, and no connection is dropped for that"
        else:
            return
        self._vitals.set("descriptors", State.DEGRADED, f"{most} descriptors (ulimit -n) are {why}")


def _is_open(ended: Connection) -> bool:
    try:
        return os.fstat(ended.descriptor).st_ino == ended.inode
    except OSError:
        return False
