"""Which streams are also published in version 1: those that somebody asks for and that may be seen there.

Version 1 is encoded only while a subscription is a prefix of a stream's version 1 topic or equal to it.

    subscriber ─► changed prefix ─► streams whose topic begins with it (by bisection) ─► V1_STREAMS_PER_LOOK at a time

The thread that owns the PUB socket does this between two groups. A prefix of many streams (`candles`) is gone through
in pieces, so that whoever subscribes and unsubscribes holds up nobody's rows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

from flux.limits import V1_STREAMS_PER_LOOK
from flux.model import RowKind
from flux.transport.pump import Streams
from flux.transport.sockets import Publisher
from flux.transport.topics import V1Topics, v1_topic


class Version1:
    """Follows the streams there are and what is subscribed to; used by the thread that owns the PUB socket."""

    def __init__(self, streams: Streams, publisher: Publisher) -> None:
        self._streams = streams
        self._publisher = publisher
        self._topics = V1Topics()
        self._slots: dict[bytes, int] = {}  # the streams that version 1 may see, by topic
        self._sorted: list[bytes] = []  # their topics
        self._wanted: set[int] = set()
        self._known = 0
        self._changed: dict[bytes, bytes] = {}  # prefix -> the last topic under it that was looked at

    @property
    def behind(self) -> bool:
        """Whether `follow` has more to look at, and is to be called again soon."""
        return bool(self._changed) or self._publisher.more

    def follow(self, heard: bytes = b"") -> None:
        """Take in new streams and changed subscriptions; between two groups. `heard`: a frame of a subscriber
        that was read already."""
        for prefix in [*(self._publisher.hear(heard) if heard else ()), *self._publisher.drain()]:
            self._changed[prefix] = b""
        for slot in range(self._known, len(self._streams)):
            self._add(slot)
        self._known = len(self._streams)
        budget = V1_STREAMS_PER_LOOK
        while self._changed and budget > 0:
            budget -= self._look_up(budget)

    def _add(self, slot: int) -> None:
        key = self._streams.key(slot)
        for kept_off in self._topics.add(key):
            other = self._slots.pop(v1_topic(kept_off), None)
            if other is not None:
                del self._sorted[bisect_left(self._sorted, v1_topic(kept_off))]
                self._want(other, False)
        if key.kind is RowKind.CANDLE and key not in self._topics.shadowed:
            topic = v1_topic(key)
            insort(self._sorted, topic)
            self._slots[topic] = slot
            self._want(slot, self._publisher.subscriptions.wants(topic))

    def _look_up(self, budget: int) -> int:
        """Look at no more than `budget` topics under one changed prefix; what it cost."""
        prefix, after = next(iter(self._changed.items()))
        at = bisect_right(self._sorted, after) if after else bisect_left(self._sorted, prefix)
        for topic in self._sorted[at : at + budget]:
            if not topic.startswith(prefix):
                break
            self._want(self._slots[topic], self._publisher.subscriptions.wants(topic))
            after = topic
        else:
            if at + budget < len(self._sorted):
                self._changed[prefix] = after
                return budget
        del self._changed[prefix]
        return max(1, bisect_right(self._sorted, after) - at)

    def _want(self, slot: int, wanted: bool) -> None:
        if wanted != (slot in self._wanted):
            self._streams.kernel.want_v1(slot, wanted)
            (self._wanted.add if wanted else self._wanted.discard)(slot)
