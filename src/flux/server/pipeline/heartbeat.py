"""The heartbeat: once a second, how things are and which heads moved.

It is put together here, in a thread of its own, and sent by the committer between two groups: so a committer that hangs
is silent, a loop that hangs is named, and no row waits for Python to count its marks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from flux import limits
from flux.model import MARK
from flux.schema import messages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux.server.identity import Identity
    from flux.server.vitals import Vitals
    from flux.transport.bridge import Handover
    from flux.transport.pump import Streams


class Heart:
    """See the module; `run` is the thread's body."""

    def __init__(self, identity: Identity, streams: Streams, vitals: Vitals, handover: Handover) -> None:
        self._identity = identity
        self._streams = streams
        self._vitals = vitals
        self._handover = handover
        self._stopping = threading.Event()
        self.begun = threading.Event()
        """The first heartbeat is before any row: the committer sends what waits before it takes a group."""
        self._number = 0
        self._mark_from = 0

    def run(self, look: Callable[[], None]) -> None:
        """Beat until stopped; `look` is called after each beat."""
        due = time.monotonic()
        while True:
            for frame in self.frames():
                self._handover.leave_beat(frame, limits.HEARTBEAT_MS / 1_000)
            self.begun.set()
            look()
            due = max(due + limits.HEARTBEAT_MS / 1_000, time.monotonic())
            if self._stopping.wait(due - time.monotonic()):
                return

    def stop(self) -> None:
        """End `run` at once."""
        self._stopping.set()

    def frames(self) -> list[bytes]:
        """The messages of one beat."""
        now = time.monotonic_ns()
        marks = self._marks(now)
        made = []
        for begin in range(0, max(1, len(marks)), limits.MAX_MARKS):
            self._number += 1
            made.append(
                messages.heartbeat(
                    store_id=self._identity.store_id,
                    epoch=self._identity.epoch,
                    boot_id=self._identity.boot_id,
                    server_time_ns=time.time_ns(),
                    number=self._number,
                    interval_ms=limits.HEARTBEAT_MS,
                    marks=marks[begin : begin + limits.MAX_MARKS],
                    state=int(self._vitals.state),
                    reason=self._vitals.reason or None,
                    loop_age_ms=self._vitals.loop_age_ms(),
                    parent_store_id=self._identity.parent_store_id,
                )
            )
        return made

    def _marks(self, now: int) -> NDArray[np.void]:
        """Heads that moved in the last 5 s, and a slice of the others, so that all come round every 30 s."""
        heads = self._streams.heads()
        recent = heads["moved_ns"] > now - limits.MARK_RECENT_MS * 1_000_000
        beats_a_round = limits.MARK_ROUND_MS // limits.HEARTBEAT_MS
        size = -(-len(heads) // beats_a_round)
        recent[self._mark_from : self._mark_from + size] = True
        self._mark_from = self._mark_from + size if self._mark_from + size < len(heads) else 0
        chosen = heads[recent]
        marks = np.zeros(len(chosen), MARK)
        for field_name, column in (
            ("latest_sequence", "committed"),
            ("latest_ts_ms", "committed_ts"),
            ("stream_id", "stream_id"),
        ):
            marks[field_name] = chosen[column]
        return marks
