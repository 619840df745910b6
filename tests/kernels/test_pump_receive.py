"""The client's side of the pump: frames from a real SUB socket into rings, and every broken one counted."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux import codec, limits
from flux.model import MAX_SEQUENCE, Outcome, RowKind, StreamKey
from flux.schema import messages
from flux.transport.pump import Drained
from tests.kernels.pumped import (
    KEY,
    QUOTES,
    STORE,
    TRADES,
    Pumped,
    frame_of,
    of_version,
    resealed,
    rows_of,
)
from tests.oracle import ring as oracle
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.usefixtures("both_ways")


@pytest.fixture
def client() -> Iterator[Pumped]:
    with Pumped() as made:
        yield made


def test_rows_lie_in_the_ring_and_the_arrival_says_where(client: Pumped) -> None:
    slot = client.add()
    client.send(frame_of(KEY, 1, 3, origin_ns=5, recorded_ns=9), frame_of(KEY, 4, 1))
    arrivals, status = client.receive()
    assert status is Drained.EMPTY
    assert client.streams.ring(slot).window(1, 99).tobytes() == rows_of(RowKind.CANDLE, 1, 4).tobytes()
    first = {name: int(arrivals[0][name]) for name in arrivals.dtype.names or ()}
    assert first == {
        "stream": slot, "rows": 3, "start": 1, "at": 0, "store_id": STORE, "epoch": 1, "outcome": 0, "kind": 1,
        "tag": 13, "count": 3, "run": 2**32 - 1, "origin_ns": 5, "recorded_ns": 9,
    }  # fmt: skip
    assert arrivals["start"].tolist() == [1, 4]


def test_every_kind_of_rows_in_one_call(client: Pumped) -> None:
    slots = {key: client.add(key) for key in (KEY, TRADES, QUOTES)}
    for first in range(1, 40, 3):
        client.send(*(frame_of(key, first, 3, stream_id=slot) for key, slot in slots.items()))
    client.receive()
    for key, slot in slots.items():
        assert client.streams.ring(slot).window(1, 99).tobytes() == rows_of(key.kind, 1, 39).tobytes()
    assert client.counted == {}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 20), st.booleans()), max_size=20))
def test_any_order_as_the_ring_oracle_has_it(sent: list[tuple[int, int, bool]]) -> None:
    """Repeats, overlaps, gaps, rows that contradict, rows beyond the window: ring and outcomes as the oracle's."""
    with Pumped(tcp=False) as client:
        slot = client.add(rows=16)
        ring, expected = oracle.Ring(16), []
        client.streams.ring(slot).keep = ring.keep = 10
        for start, count, lie in sent:
            rows = rows_of(RowKind.CANDLE, start + (100 if lie else 0), count)
            client.send(frame_of(KEY, start, rows))
            placed, _, conflicts, beyond, _ = ring.place(start, [row.tobytes() for row in rows])
            outcome = Outcome.CONFLICT if conflicts else Outcome.BEYOND if beyond else Outcome.PLACED
            expected.append((placed, count, outcome))
        arrivals, _ = client.receive()
        assert arrivals[["rows", "count", "outcome"]].tolist() == expected
        ours = client.streams.ring(slot)
        assert [tuple(pair) for pair in ours.gaps().tolist()] == ring.gaps()
        assert [row.tobytes() for row in ours.window(ring.first, 2**62)] == ring.window(ring.first, 2**62)


def test_another_epoch_or_store_is_told_and_not_placed(client: Pumped) -> None:
    slot = client.add()
    client.send(frame_of(KEY, 1, 2), frame_of(KEY, 3, 2, epoch=2), frame_of(KEY, 3, 2, store_id=9))
    arrivals, _ = client.receive()
    assert arrivals[["outcome", "rows", "epoch", "store_id"]].tolist() == [
        (Outcome.PLACED, 2, 1, STORE),
        (Outcome.OTHER_EPOCH, 0, 2, STORE),
        (Outcome.OTHER_EPOCH, 0, 1, 9),
    ]
    client.streams.expect(slot, STORE, 2)
    client.send(frame_of(KEY, 3, 1, epoch=2), frame_of(KEY, 4, 1))
    assert client.receive()[0]["outcome"].tolist() == [Outcome.PLACED, Outcome.OTHER_EPOCH]
    assert client.streams.ring(slot).contiguous == 3


def test_an_unknown_stream_is_held_until_it_is_decided(client: Pumped) -> None:
    other = StreamKey("SIM", "ETH", "1m")
    client.send(frame_of(KEY, 5, 2), frame_of(other, 1, 1, stream_id=8), frame_of(KEY, 7, 1))
    assert client.receive()[1] is Drained.UNKNOWN_STREAM
    unknown = client.receiver.unknown
    assert unknown is not None
    assert unknown == ((b"SIM", b"BTC/USDT", b"1m"), RowKind.CANDLE, STORE, 1, 7, 5, 2, None)
    assert client.receive()[1] is Drained.UNKNOWN_STREAM, "it stays until it is decided"
    slot = client.add(first=5)
    arrivals, status = client.receive()
    assert (arrivals["rows"].tolist(), status) == ([2], Drained.UNKNOWN_STREAM)
    client.receiver.discard()
    client.receive()
    assert client.receiver.unknown is None
    assert client.streams.ring(slot).contiguous == 7
    assert client.counted == {"refused_stream": 1}


def test_version_1_batches_become_rows(client: Pumped) -> None:
    slot = client.add()
    client.streams.expect(slot, 0, 0)
    rows = rows_of(RowKind.CANDLE, 1, 30)
    for first in (1, 11, 21):
        made = codec.encode(rows[first - 1 : first + 9], KEY, first, version=1)
        assert isinstance(made, bytes)
        client.send(made)
    arrivals, _ = client.receive()
    expected = rows.copy()
    expected["turnover"], expected["trade_count"] = 0, 0
    assert client.streams.ring(slot).window(1, 99).tobytes() == expected.tobytes()
    assert arrivals[["kind", "tag", "rows"]].tolist() == [(RowKind.CANDLE_V1, 7, 10)] * 3


def test_more_messages_than_a_turn_takes(client: Pumped) -> None:
    slot, many = client.add(rows=8_192), limits.MAX_ARRIVALS + 100
    client.send(*(frame_of(KEY, first, 1) for first in range(1, many + 1)))
    while client.sink.poll(PATIENCE_S * 1_000):
        arrivals, status = client.receiver.receive()
        assert len(arrivals) <= limits.MAX_ARRIVALS
        assert (status is Drained.FULL) == (len(arrivals) == limits.MAX_ARRIVALS)
        if client.looked_at == many:
            break
    assert client.streams.ring(slot).contiguous == many


def test_what_carries_no_rows_is_handed_over_whole(client: Pumped) -> None:
    client.add()
    beats = [messages.heartbeat(**BEAT | {"number": number, "reason": "x" * number}) for number in (1, 2_000)]
    unknown = of_version(frame_of(KEY, 1, 1), 99)
    client.send(beats[0], frame_of(KEY, 1, 1), beats[1], unknown)
    got: list[bytes] = []
    while client.looked_at < client.sent:
        assert client.sink.poll(PATIENCE_S * 1_000)
        client.receiver.receive()
        got += client.receiver.others
    assert got == [*beats, unknown]
    assert client.counted == {"version": 1}
    assert client.streams.ring(0).contiguous == 1


def test_others_wait_for_the_next_call_when_there_is_no_more_room(client: Pumped) -> None:
    big = messages.heartbeat(**BEAT | {"reason": "x" * 3_000_000})
    client.send(big, big, big, big)
    got = 0
    while got < 4:
        client.sink.poll(PATIENCE_S * 1_000)
        client.receiver.receive()
        assert set(client.receiver.others) <= {big}
        got += len(client.receiver.others)
    assert client.counted == {}


BEAT = {
    "store_id": STORE, "epoch": 1, "boot_id": 1, "server_time_ns": 1, "number": 1, "interval_ms": 1_000,
    "marks": None, "state": 0, "reason": None, "loop_age_ms": 0,
}  # fmt: skip

GOOD = frame_of(KEY, 1, 4)
FULL_OF_ROWS = np.zeros(limits.MAX_REPLY_ROWS + 1, rows_of(RowKind.CANDLE, 1, 0).dtype)


def flipped(bit: int) -> bytes:
    spoilt = bytearray(GOOD)
    spoilt[bit // 8] ^= 1 << bit % 8
    return bytes(spoilt)


def version_1() -> bytes:
    made = codec.encode(rows_of(RowKind.CANDLE, 1, 2), KEY, version=1)
    assert isinstance(made, bytes)
    return made


BROKEN: dict[str, Callable[[], bytes]] = {
    "short-0": lambda: b"",
    "short-3": lambda: GOOD[:3],
    "short-7": lambda: GOOD[:7],
    "checksum-first": lambda: flipped(0),
    "checksum-identifier": lambda: flipped(33),
    "checksum-last": lambda: flipped(8 * len(GOOD) - 1),
    "checksum-truncated": lambda: GOOD[:-1],
    "checksum-half": lambda: GOOD[: len(GOOD) // 2],
    "checksum-longer": lambda: GOOD + b"\0",
    "verify-outside": lambda: struct.pack("<I", 0xFFFFFFF0) + version_1()[4:],
    "verify-truncated": lambda: version_1()[:-16],
    "verify-resealed": lambda: resealed(GOOD, 0, struct.pack("<I", 0xFFFFFFF0)),
    "sequence-0": lambda: frame_of(KEY, 0, rows_of(RowKind.CANDLE, 1, 1)),
    "sequence-over": lambda: frame_of(KEY, MAX_SEQUENCE, rows_of(RowKind.CANDLE, 1, 2)),
    "sequence-past": lambda: frame_of(KEY, MAX_SEQUENCE + 1, rows_of(RowKind.CANDLE, 1, 1)),
    "rows-many": lambda: frame_of(KEY, 1, FULL_OF_ROWS),
    "kind-trades": lambda: trades_named_as_candles(),
    "key-null": lambda: without_key(),
}


def trades_named_as_candles() -> bytes:
    """A TradeRowBatch that names the stream of candles: the interval has 2 letters, as in `1m` and `5m`."""
    made = bytearray(frame_of(StreamKey("SIM", "BTC/USDT", "trade"), 1, 1))
    at = made.index(b"trade") - 4
    return resealed(bytes(made), at, struct.pack("<I", 2) + b"1m\0")


def without_key() -> bytes:
    """The batch with the key's slot taken out of its table."""
    root = struct.unpack_from("<I", GOOD)[0]
    envelope = root - struct.unpack_from("<i", GOOD, root)[0]
    field = root + struct.unpack_from("<H", GOOD, envelope + 4 + 2 * 4)[0]
    table = field + struct.unpack_from("<I", GOOD, field)[0]
    vtable = table - struct.unpack_from("<i", GOOD, table)[0]
    return resealed(GOOD, vtable + 4, b"\0\0")


@pytest.mark.parametrize("known", [True, False], ids=["known-head", "first-frame"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_frame_is_counted_by_reason_and_the_stream_goes_on(name: str, known: bool) -> None:
    with Pumped(tcp=False) as client:
        slot = client.add()
        if known:
            client.send(GOOD)
        client.send(BROKEN[name](), frame_of(KEY, 5, 1))
        if not known:
            client.send(GOOD)
        _, status = client.receive()
        assert status is Drained.EMPTY
        assert client.counted == {name.partition("-")[0]: 1}
        assert client.receiver.others == []
        assert client.streams.ring(slot).window(1, 99).tobytes() == rows_of(RowKind.CANDLE, 1, 5).tobytes()


def test_a_frame_over_the_limit_is_counted() -> None:
    with Pumped(tcp=False) as client:
        client.add()
        client.send(bytes(limits.MAX_FRAME_BYTES + 1), GOOD)
        client.receive()
        assert client.counted == {"size": 1}
        assert client.streams.ring(0).contiguous == 4


def test_every_single_bit_of_a_frame(client: Pumped) -> None:
    """Sent behind a good frame, so that the head is known; not one of them gets through."""
    client.add()
    client.send(GOOD, *(flipped(bit) for bit in range(8 * len(GOOD))))
    arrivals, _ = client.receive()
    assert len(arrivals) == 1
    assert client.counted == {"checksum": 8 * len(GOOD)}


def test_a_wrong_number_of_frames_is_passed_over_whole(client: Pumped) -> None:
    client.add()
    client.send_frames(GOOD)
    client.send_frames(b"topic", GOOD, b"more")
    client.send_frames(*[b"x"] * 20)
    client.send(GOOD)
    client.receive()
    assert client.counted == {"frames": 3}
    assert client.streams.ring(0).contiguous == 4


@st.composite
def hostile(draw: st.DrawFn) -> bytes:
    """Random bytes, or a valid frame with some of its bytes changed, cut or doubled, resealed more often than not."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=400))
    good = draw(st.sampled_from([GOOD, version_1(), frame_of(TRADES, 1, 2), messages.heartbeat(**BEAT)]))
    frame = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(frame) - 1))
        word = draw(
            st.sampled_from([0, 1, 4, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, draw(st.integers(0, 2**32 - 1))])
        )
        data = struct.pack("<I", word)[: draw(st.integers(1, 4))]
        frame[at : at + len(data)] = data
    cut = bytes(frame[: draw(st.integers(0, len(frame)))]) if draw(st.integers(0, 4)) == 0 else bytes(frame)
    return resealed(cut, 0, cut[:1]) if draw(st.booleans()) and len(cut) > 4 else cut


@settings(max_examples=250, deadline=None)
@given(st.lists(hostile(), min_size=1, max_size=8))
def test_hostile_frames_end_in_exactly_one_place_each(frames: list[bytes]) -> None:
    """Each is counted for one reason, handed over, held as unknown, or an arrival; the next good frame is placed."""
    with Pumped(tcp=False) as client:
        slot = client.add()
        client.add(TRADES)
        client.send(*frames)
        places = 0
        while client.looked_at < client.sent or client.receiver.unknown is not None:
            arrivals, status = client.receive()
            places += len(arrivals) + len(client.receiver.others)
            if status is Drained.UNKNOWN_STREAM:
                client.receiver.discard()
        counted = client.counted
        counted.pop("version", 0)  # counted and handed over
        assert places + sum(counted.values()) == len(frames)
        client.send(frame_of(KEY, client.streams.ring(slot).contiguous + 1, 1))
        assert client.receive()[0]["rows"].tolist() == [1]
