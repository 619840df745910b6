"""Two groups change hands: the loop fills one while the committer commits the other.

    loop ── fill() ──► [ filling ] ── taken by ──► committer ── given back ──► filling again

Nothing else is shared between the two threads, and there is never a third group: when both are full the loop waits,
and with it the inputs. They change hands without Python (`ext/exchange.h`); about a group into which Python filled
something, it is asked before that is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flux.journal import Group
from flux.journal.records import Position, StreamRecord
from flux.limits import GROUP_BYTES
from flux.transport.bridge import Handover


@dataclass(slots=True, eq=False)
class Filled:
    """A group of records and what they say of sources and streams, for whoever commits them."""

    group: Group
    sources: dict[str, Position] = field(default_factory=dict)
    streams: list[StreamRecord] = field(default_factory=list)


class Exchange:
    """The two groups, and the one lock between loop and committer."""

    def __init__(self, capacity: int = GROUP_BYTES) -> None:
        self._filled = (Filled(Group(capacity)), Filled(Group(capacity)))
        self.handover = Handover(self._filled[0].group, self._filled[1].group)

    def wait_for_room(self, need: int, records: int, timeout: float) -> bool:
        """Whether the group being filled has room for `need` bytes in `records` records, waiting at most `timeout`
        seconds for it."""
        return self.handover.wait_for_room(need, records, timeout)

    @contextmanager
    def fill(self) -> Iterator[Filled]:
        """The group to fill, for as long as the context lasts; the committer hears of it at the end."""
        kernel = self.handover.kernel
        index = kernel.lock()
        try:
            yield self._filled[index]
        finally:
            kernel.unlock()

    def taken(self) -> Filled:
        """The group that the committer holds, and what was put beside it, which is the caller's from now on."""
        filled = self._filled[self.handover.kernel.taken]
        given = Filled(filled.group, filled.sources, filled.streams)
        filled.sources, filled.streams = {}, []
        return given

    def close(self) -> None:
        """No more will be filled: the committer no longer waits."""
        self.handover.kernel.close()

    @property
    def empty(self) -> bool:
        """Nothing waits and nothing is being committed."""
        return self.handover.kernel.empty
