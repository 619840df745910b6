"""Two groups change hands: the loop fills one while the committer commits the other.

    loop ── fill() ──► [ filling ] ── take() ──► committer ── give_back() ──► [ spare ] ──► filling again

Nothing else is shared between the two threads, and there is never a third group: when both are full the loop waits,
and with it the inputs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from flux.journal import Group
from flux.limits import GROUP_BYTES
from flux.server.records import Position, StreamRecord


@dataclass(slots=True, eq=False)
class Filled:
    """A group of records and what they say of sources and streams, for whoever commits them."""

    group: Group
    sources: dict[str, Position] = field(default_factory=dict)
    streams: list[StreamRecord] = field(default_factory=list)

    def clear(self) -> None:
        self.group.clear()
        self.sources = {}
        self.streams = []


class Exchange:
    """The two groups, and the one lock between loop and committer."""

    def __init__(self, capacity: int = GROUP_BYTES) -> None:
        self._capacity = capacity
        self._changed = threading.Condition()
        self._filling = Filled(Group(capacity))
        self._spare: Filled | None = Filled(Group(capacity))
        self._closed = False

    def wait_for_room(self, need: int, timeout: float) -> bool:
        """Whether the group being filled has room for `need` bytes, waiting at most `timeout` seconds for it."""
        with self._changed:
            return self._changed.wait_for(lambda: self._capacity - self._filling.group.used >= need, timeout)

    @contextmanager
    def fill(self) -> Iterator[Filled]:
        """The group to fill, for as long as the context lasts; the committer hears of it at the end."""
        with self._changed:
            yield self._filling
            self._changed.notify_all()

    def take(self, timeout: float) -> Filled | None:
        """What was filled so far, waiting at most `timeout` seconds; None when there is nothing."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._filling.group.count == 0:
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    return None
                self._changed.wait(left)
            assert self._spare is not None, "a group was taken and not given back"
            taken, self._filling, self._spare = self._filling, self._spare, None
            self._changed.notify_all()
            return taken

    def give_back(self, filled: Filled) -> None:
        """The group is committed and sent: it may be filled again."""
        filled.clear()
        with self._changed:
            self._spare = filled

    def close(self) -> None:
        """No more will be filled: `take` no longer waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def empty(self) -> bool:
        """Nothing waits and nothing is being committed."""
        with self._changed:
            return self._filling.group.count == 0 and self._spare is not None
