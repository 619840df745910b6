"""Topics: what a subscriber filters by. A topic is never parsed; the key comes from the payload.

    v1   candles.SIM.BTCUSDT.1m                      the whole of it, matched by prefix
    v2   v2␟candles␟SIM␟1m␟BTCUSDT␟                  each part *ended* by byte 0x1F

0x1F cannot occur in a name, so no v2 topic is a prefix of another and no v1 subscription matches one. v1 has
no such end: `candles.A.B.1m` is a prefix of `candles.A.B.1m.1m`, whose stream is kept off v1 (`V1Topics`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal

from flux.limits import MAX_SUBSCRIPTIONS, MAX_TOPIC_BYTES
from flux.model import RowKind, StreamKey

TopicKind = Literal["candles", "trades", "quotes", "forming"]

END: Final = b"\x1f"
"""Ends each part of a v2 topic."""

BEAT: Final = b"v2\x1fbeat\x1f"
"""The heartbeat's topic."""

_KINDS: Final[dict[RowKind, TopicKind]] = {
    RowKind.CANDLE: "candles",
    RowKind.TRADE: "trades",
    RowKind.QUOTE: "quotes",
}

assert len("v2 candles ") + 33 + 6 + 65 <= MAX_TOPIC_BYTES, "the longest names still make a topic"


def v1_topic(key: StreamKey) -> bytes:
    """`candles.<source_id>.<symbol>.<interval>`, which a v1 client subscribes to as it stands."""
    return f"candles.{key.source_id}.{key.symbol}.{key.interval}".encode()


def v2_topic(kind: TopicKind, key: StreamKey) -> bytes:
    """The topic of one stream's numbered rows, or of its forming candle."""
    return v2_prefix(kind, key.source_id, key.interval, key.symbol)


def stream_topic(key: StreamKey) -> bytes:
    """The v2 topic of a stream's numbered rows: its kind is told by its interval."""
    return v2_topic(_KINDS[key.kind], key)


def v2_prefix(
    kind: TopicKind, source_id: str | None = None, interval: str | None = None, symbol: str | None = None
) -> bytes:
    """What to subscribe to for all streams of a kind, of a source, of an interval, or for one stream.

    Parts are given from the left; the first None ends the prefix.
    """
    parts = [b"v2", kind.encode()]
    for part in (source_id, interval, symbol):
        if part is None:
            break
        parts.append(part.encode())
    return END.join(parts) + END


class Subscriptions:
    """What subscribers asked for: the set of prefixes that an XPUB socket tells, the empty one included.

    A plain XPUB tells the first subscription and the last unsubscription of each prefix, so a set is enough.
    It is bounded: prefixes too long for any topic are left out, and while there are more than `limit`,
    everything counts as wanted.
    """

    def __init__(self, limit: int = MAX_SUBSCRIPTIONS) -> None:
        self.prefixes: set[bytes] = set()
        self.unlisted = 0  # live subscriptions beyond the limit
        self._limit = limit
        self._lengths: Counter[int] = Counter()

    def apply(self, frame: bytes) -> bytes | None:
        """Take one message of the XPUB socket (0x01 or 0x00, then the prefix).

        Returns the prefix under which `wants` may answer otherwise now: the message's own, the empty one where the
        limit was passed or is kept again, or None when nothing changed.
        """
        prefix = frame[1:]
        if frame[:1] not in (b"\x00", b"\x01") or len(prefix) > MAX_TOPIC_BYTES:
            return None  # what subscribers may send upstream besides subscriptions means nothing here
        if frame[0]:
            return self._add(prefix)
        if prefix in self.prefixes:
            self.prefixes.remove(prefix)
            self._lengths[len(prefix)] -= 1
            return prefix
        if self.unlisted:
            self.unlisted -= 1
            return None if self.unlisted else b""
        return None

    def _add(self, prefix: bytes) -> bytes | None:
        if prefix in self.prefixes:
            return None
        if len(self.prefixes) >= self._limit:
            self.unlisted += 1
            return b"" if self.unlisted == 1 else None
        self.prefixes.add(prefix)
        self._lengths[len(prefix)] += 1
        return prefix

    def wants(self, topic: bytes) -> bool:
        """Whether any subscriber would get a message with this topic."""
        if self.unlisted:
            return True
        return any(
            topic[:length] in self.prefixes
            for length, count in self._lengths.items()
            if count and length <= len(topic)
        )


class V1Topics:
    """Which streams v1 may see, while streams come.

    A v1 client takes whatever its subscription lets through for its own stream. So a stream whose v1 topic
    begins with another stream's *whole* v1 topic is not published in v1. Trades and quotes have no v1 topic.

    `shadowed` maps each stream kept off v1 to the stream whose topic begins its own.
    """

    def __init__(self) -> None:
        self.shadowed: dict[StreamKey, StreamKey] = {}
        self._keys: dict[bytes, StreamKey] = {}
        self._sorted: list[bytes] = []

    def add(self, key: StreamKey) -> list[StreamKey]:
        """Take one more stream; the streams that are kept off v1 from now on: itself, or older ones."""
        topic = v1_topic(key)
        if key.kind is not RowKind.CANDLE or topic in self._keys:
            return []
        self._keys[topic] = key
        insort(self._sorted, topic)
        newly = []
        shorter = next((self._keys[topic[:n]] for n in range(1, len(topic)) if topic[:n] in self._keys), None)
        if shorter is not None:
            self.shadowed[key] = shorter
            newly.append(key)
        # Topics that begin with this one stand directly behind it.
        for at in range(bisect_left(self._sorted, topic) + 1, len(self._sorted)):
            if not self._sorted[at].startswith(topic):
                break
            longer = self._keys[self._sorted[at]]
            if longer not in self.shadowed:
                self.shadowed[longer] = key
                newly.append(longer)
        return newly


def v1_shadowed(keys: Iterable[StreamKey]) -> dict[StreamKey, StreamKey]:
    """Streams that v1 may not see -> the shortest one in their way, whatever the order of `keys`."""
    topics = V1Topics()
    for key in sorted(keys, key=v1_topic):
        topics.add(key)
    return topics.shadowed
