"""Which streams are published in version 1: as brute force says, and no look of the committer goes through them all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flux.limits import SUBSCRIPTIONS_PER_LOOK, V1_STREAMS_PER_LOOK
from flux.model import RowKind, StreamKey
from flux.server.pipeline.v1_publishing import Version1
from flux.transport.sockets import Publisher, Sockets, endpoint_of
from flux.transport.topics import Subscriptions, v1_shadowed, v1_topic
from tests.unit.live_server import eventually


class Table:
    """The committer's view of the streams: keys by slot, and which of them are wanted."""

    def __init__(self) -> None:
        self.keys: list[StreamKey] = []
        self.wanted: set[int] = set()
        self.kernel = SimpleNamespace(want_v1=self._want)

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, slot: int) -> StreamKey:
        return self.keys[slot]

    def _want(self, slot: int, wanted: bool) -> None:
        assert wanted != (slot in self.wanted), "only changes are passed on"
        (self.wanted.add if wanted else self.wanted.discard)(slot)


class Spoken(Publisher):
    """A publisher whose subscribers sent these frames."""

    def __init__(self) -> None:
        self.subscriptions = Subscriptions(limit=3)
        self.frames: list[bytes] = []
        self.more = False
        self.looked_up = 0
        wants = self.subscriptions.wants

        def counted(topic: bytes) -> bool:
            self.looked_up += 1
            return wants(topic)

        setattr(self.subscriptions, "wants", counted)  # noqa: B010  counts each look-up

    def drain(self) -> list[bytes]:
        now, self.frames = self.frames[:SUBSCRIPTIONS_PER_LOOK], self.frames[SUBSCRIPTIONS_PER_LOOK:]
        self.more = bool(self.frames)
        return [prefix for frame in now for prefix in self.hear(frame)]


def made() -> tuple[Table, Spoken, Version1]:
    table, publisher = Table(), Spoken()
    streams: Any = table
    return table, publisher, Version1(streams, publisher)


def settle(version1: Version1) -> None:
    version1.follow()
    while version1.behind:
        version1.follow()


keys = st.builds(
    StreamKey,
    st.sampled_from(["A", "AB"]),
    st.from_regex(r"(B|C)(\.(1m|B)){0,2}", fullmatch=True),
    st.sampled_from(["1m", "1M", "trade"]),
)
prefixes = st.one_of(
    keys.map(v1_topic),
    st.builds(lambda key, n: v1_topic(key)[:n], keys, st.integers(0, 20)),
    st.just(b"v2\x1fcandles\x1f"),
)
steps = st.lists(st.one_of(keys, st.tuples(st.booleans(), prefixes)), max_size=40)


@given(steps)
def test_what_is_published_is_what_somebody_asks_for(some: list[StreamKey | tuple[bool, bytes]]) -> None:
    table, publisher, version1 = made()
    for step in some:
        if isinstance(step, StreamKey):
            if step not in table.keys:
                table.keys.append(step)
        else:
            publisher.frames.append((b"\x01" if step[0] else b"\x00") + step[1])
        version1.follow()
    settle(version1)
    # In the order in which they came: a stream that is in the way keeps off whatever begins with its topic.
    shadowed = v1_shadowed(table.keys)
    assert table.wanted == {
        slot
        for slot, key in enumerate(table.keys)
        if key.kind is RowKind.CANDLE
        and key not in shadowed
        and (
            publisher.subscriptions.unlisted
            or any(v1_topic(key).startswith(prefix) for prefix in publisher.subscriptions.prefixes)
        )
    }


def test_one_topic_costs_one_look_up_however_many_streams_there_are() -> None:
    table, publisher, version1 = made()
    table.keys = [StreamKey("SIM", f"S{number:05}", "1m") for number in range(20_000)]
    settle(version1)
    publisher.looked_up = 0
    for on in (b"\x01", b"\x00") * 10:
        publisher.frames.append(on + b"candles.SIM.S12345.1m")
        publisher.frames.append(on + b"v2\x1fcandles\x1f")
        version1.follow()
        assert not version1.behind
    assert publisher.looked_up == 20


def test_a_prefix_of_all_streams_is_gone_through_in_pieces() -> None:
    table, publisher, version1 = made()
    table.keys = [StreamKey("SIM", f"S{number:05}", "1m") for number in range(1_000)]
    settle(version1)
    publisher.frames.append(b"\x01candles.")
    looks = 0
    while looks == 0 or version1.behind:
        publisher.looked_up = 0
        version1.follow()
        looks += 1
        assert publisher.looked_up <= V1_STREAMS_PER_LOOK
    assert table.wanted == set(range(1_000))
    assert looks <= 1 + 1_000 // V1_STREAMS_PER_LOOK + 1


def test_streams_that_come_in_the_middle_are_not_passed_over() -> None:
    table, publisher, version1 = made()
    table.keys = [StreamKey("SIM", f"S{number:05}", "1m") for number in range(0, 2_000, 2)]
    publisher.frames.append(b"\x01candles.")
    version1.follow()
    assert version1.behind
    table.keys += [StreamKey("SIM", f"S{number:05}", "1m") for number in range(1, 2_000, 2)]
    settle(version1)
    assert table.wanted == set(range(2_000))


def test_a_flood_of_subscriptions_is_taken_in_pieces() -> None:
    with Sockets() as sockets:
        publisher = sockets.publisher("tcp://127.0.0.1:*")
        asked = {b"candles.SIM.S%05d.1m" % number for number in range(3 * SUBSCRIPTIONS_PER_LOOK)}
        sockets.subscriber(endpoint_of(publisher.socket), sorted(asked))
        most = 0

        def all_heard() -> bool:
            nonlocal most
            most = max(most, len(publisher.drain()))
            return publisher.subscriptions.prefixes == asked

        eventually(all_heard, "not every subscription was heard")
        assert 0 < most <= SUBSCRIPTIONS_PER_LOOK
