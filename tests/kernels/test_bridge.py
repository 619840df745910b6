"""The bridge: numbering against its oracle, heartbeats between groups, SOURCE records as Python writes them."""

from __future__ import annotations

import time

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from flux import codec, journal, limits
from flux.journal import Group
from flux.journal.records import SourceRecord, source_begins, unpack
from flux.kernels import bridge as kernel
from flux.model import ARRIVAL, NO_RUN, ROW_DTYPES, RUN, RowKind, StreamKey
from flux.server.pipeline.exchange import Exchange
from flux.server.pipeline.sessions import Runs
from flux.transport.bridge import Handover, Turned, Turns
from flux.transport.pump import Receiver, Streams
from flux.transport.sockets import Sockets, Wake, endpoint_of, send
from tests.oracle.sequencer import Sequencer
from tests.patience import PATIENCE_S

TURNS = st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5)), max_size=12), max_size=5)


def streams_with(heads: list[int]) -> Streams:
    made = Streams(len(heads))
    for slot, head in enumerate(heads):
        made.add(StreamKey("SIM", f"S{slot}", "1m"), stream_id=slot, ring_rows=64)
        made.kernel.restore(slot, head, 0, 0)
    return made


@given(TURNS, st.lists(st.integers(0, 2**62), min_size=5, max_size=5))
def test_numbering_is_the_oracles(turns: list[list[tuple[int, int]]], heads: list[int]) -> None:
    oracle = Sequencer()
    for head in heads:
        oracle.add(head)
    for turn in turns:
        streams = streams_with([oracle.head(slot) for slot in range(5)])
        arrivals = np.zeros(len(turn), ARRIVAL)
        arrivals["stream"], arrivals["rows"] = [s for s, _ in turn], [n for _, n in turn]
        arrivals["at"], arrivals["origin_ns"] = np.arange(len(turn)) * 1_000, np.arange(len(turn))
        runs = np.zeros(len(turn), RUN)
        made = runs[: kernel.number(streams.kernel.address(), arrivals.view(np.uint8), runs.view(np.uint8))]
        # The kernel's streams come in the order of their first arrival, the oracle's by slot.
        assert np.array_equal(made[np.argsort(made["stream"], kind="stable")], oracle.number(arrivals))


def test_a_slot_that_is_no_streams_is_refused() -> None:
    streams, arrivals = streams_with([0]), np.zeros(1, ARRIVAL)
    arrivals["stream"], arrivals["rows"] = 3, 1
    with pytest.raises(IndexError, match="slot 3 of 1"):
        kernel.number(streams.kernel.address(), arrivals.view(np.uint8), np.zeros(32, np.uint8))


def test_a_heartbeat_waits_for_the_one_before() -> None:
    exchange = Exchange(4_096)
    assert exchange.handover.leave_beat(b"one", 0)
    assert not exchange.handover.leave_beat(b"two", 0), "the committer has not sent the first"
    assert not exchange.handover.kernel.take(round(PATIENCE_S * 1e9)), (
        "it wakes the committer, and is no group"
    )


def test_what_was_recorded_stands_in_the_group() -> None:
    """Rows that were offered are numbered, recorded and counted for their stream by one call."""
    streams = streams_with([7])
    receiver, exchange = Receiver(None, streams, server=True), Exchange(1 << 20)
    turns = Turns(exchange.handover, receiver, None, Wake(), store_id=1, epoch=1)
    streams.ring(0).reset(8)
    rows = np.zeros(3, ROW_DTYPES[RowKind.CANDLE])
    rows["ts_ms"], rows["flags"] = 1_700_000_040_000 + 60_000 * np.arange(3), 1
    receiver.kernel.begin()
    receiver.kernel.offer(0, rows)
    assert receiver.arrivals[0]["run"] == NO_RUN
    with exchange.fill() as filled:
        turns.record()
        entries = filled.group.entries
    assert entries["kind"].tolist() == [journal.BATCH]
    assert (streams.kernel.head(0), entries["label2"].tolist()) == (10, [10])


def test_a_turn_of_refused_rows_waits_for_room_for_its_records() -> None:
    """Every run whose rows were refused moves on and leaves a small record: many of them, hardly any bytes."""
    records = limits.TURN_RECORDS + 2 * limits.MAX_RUNS - 1
    groups = [Group(limits.GROUP_BYTES, records) for _ in range(2)]
    handover = Handover(*groups)
    with Sockets() as sockets:
        streams = streams_with([0])
        puller = sockets.puller("tcp://127.0.0.1:*")
        pusher = sockets.pusher(endpoint_of(puller))
        receiver = Receiver(puller, streams, server=True)
        turns = Turns(handover, receiver, puller, Wake(), store_id=1, epoch=1)
        for run in range(limits.MAX_RUNS):
            receiver.kernel.add_run(b"SIM", run + 1, 0, 0, source_begins(f"feed:SIM:{run}"))
        row = np.zeros(1, ROW_DTYPES[RowKind.CANDLE])
        row["close"] = np.nan
        turned = []
        for number in range(1, 4):
            for run in range(limits.MAX_RUNS):
                frame = codec.encode(row, StreamKey("SIM", "S0", "1m"), number, store_id=run + 1, stream_id=1)
                assert isinstance(frame, bytes)
                assert pusher.poll(PATIENCE_S * 1_000, zmq.POLLOUT)
                assert send(pusher, [frame])
            deadline = time.monotonic() + PATIENCE_S
            turned = [turns.run(0.05)]
            while turned[-1] is Turned.TIME and receiver.counters["messages"] < number * limits.MAX_RUNS:
                assert time.monotonic() < deadline, receiver.counters
                turned.append(turns.run(0.05))
        assert turned[-1] is Turned.NO_ROOM, "the group's records are full, nobody committed them"
        assert groups[0].count <= records - limits.MAX_RUNS


def test_how_a_source_record_begins_is_told_for_any_position() -> None:
    """The kernel puts eight bytes of position behind the name: it reads as the record that Python packs."""
    receiver = Receiver(None, Streams(1), server=True)
    runs = Runs(receiver)
    place, gone = runs.add(b"S" * 32, 2**63 - 1, (5, 3), 1)
    assert (place, gone, runs.taken(place), runs.committed(runs.name(place))) == (0, {}, (5, 3), None)
    assert runs.claim(place) == (5, 4)
    name = runs.name(place)
    group = Group(4_096)
    group.append_source(source_begins(name), (2**40, 2**31))
    body = bytes(group.data[12 : 12 + int(group.entries["size"][0])])
    assert body == (
        b"\x92\xd9" + bytes([len(name)]) + name.encode()
        + b"\x92\xcf" + (2**40).to_bytes(8, "big") + b"\xce" + (2**31).to_bytes(4, "big")
    )  # fmt: skip
    assert unpack(body, SourceRecord) == SourceRecord(name, (2**40, 2**31))
