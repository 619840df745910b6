"""Which streams are also published in version 1: those that somebody asks for and that may be seen there.

Version 1 is encoded only while a subscription is a prefix of a stream's version 1 topic or equal to it.
"""

from __future__ import annotations

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
        self._by_topic: dict[int, bytes] = {}
        self._wanted: set[int] = set()
        self._known = 0

    def follow(self, heard: bytes = b"") -> None:
        """Take in new streams and changed subscriptions; before each group is sent. `heard`: a frame of a subscriber
        that was read already."""
        changed = bool(heard and self._publisher.hear(heard))
        changed = bool(self._publisher.drain()) or changed
        newcomers = range(self._known, len(self._streams))
        self._known = newcomers.stop
        for slot in newcomers:
            key = self._streams.key(slot)
            for kept_off in self._topics.add(key):
                other = self._streams.slot(kept_off)
                assert other is not None
                self._by_topic.pop(other, None)
                self._want(other, False)
            if key.kind is RowKind.CANDLE and key not in self._topics.shadowed:
                self._by_topic[slot] = v1_topic(key)
        for slot in list(self._by_topic) if changed else newcomers:
            topic = self._by_topic.get(slot)
            if topic is not None:
                self._want(slot, self._publisher.subscriptions.wants(topic))

    def _want(self, slot: int, wanted: bool) -> None:
        if wanted != (slot in self._wanted):
            self._streams.kernel.want_v1(slot, wanted)
            (self._wanted.add if wanted else self._wanted.discard)(slot)
