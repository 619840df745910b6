"""Admission against its oracle: the three functions of the kernel, then whole streams through the server's receiver."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.journal import Group
from flux.kernels import admit as kernel
from flux.model import ROW_DTYPES, CandleFlag, RowKind, StreamKey
from flux.transport.pump import Receiver, Streams, record
from tests.numbered import number
from tests.oracle import admit as oracle

KINDS = st.sampled_from([oracle.CANDLE, oracle.TRADE, oracle.QUOTE])
INTERVAL = {oracle.CANDLE: "1m", oracle.TRADE: "trade", oracle.QUOTE: "quote"}
NOW_MS = 1_700_000_000_000
PRICES = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, -1.0, 1e308, 5e-324])
BAD = st.sampled_from([math.nan, math.inf, -math.inf])
EDGES_MS = (
    oracle.FIRST_MS - 1,
    oracle.FIRST_MS,
    oracle.END_MS - 1,
    oracle.END_MS,
    0,
    -1,
    2**63 - 1,
    -(2**63),
)


@st.composite
def rows(draw: st.DrawFn, kind: int, times: int = 4) -> bytes:
    """A row out of few times and few values, so that they meet; now and then a fault."""
    ms = draw(st.integers(NOW_MS, NOW_MS + times))
    if draw(st.integers(0, 19)) == 0:
        ms = draw(st.sampled_from(EDGES_MS))
    numbers = sorted(draw(st.lists(PRICES, min_size=4, max_size=4)))
    if draw(st.integers(0, 9)) == 0:
        numbers = draw(st.permutations(numbers))
    if draw(st.integers(0, 19)) == 0:
        numbers[draw(st.integers(0, 3))] = draw(BAD)
    flags = draw(st.sampled_from([0, 1, 2, 16, 32, 63, 64, 2**32 - 1]))
    if kind == oracle.CANDLE:
        low, open_, close, high = numbers
        volume = draw(st.sampled_from([0.0, 1.0, math.nan])) if draw(st.integers(0, 19)) == 0 else 1.0
        return struct.pack("<q6dII", ms, open_, high, low, close, volume, 0.0, draw(st.integers(0, 1)), flags)
    ns = max(-(2**63), min(2**63 - 1, ms * 1_000_000 + draw(st.integers(-1, 1))))
    if kind == oracle.QUOTE:
        return struct.pack("<q4d", ns, *numbers)
    trade_id = draw(st.sampled_from([0, 0, 1, 2, 3, 4, 2**63 - 1, 2**63, 2**64 - 1]))
    return struct.pack("<qddQII", ns, numbers[0], numbers[1], trade_id, draw(st.integers(0, 1)), 0)


@settings(max_examples=600, deadline=None)
@given(KINDS.flatmap(lambda kind: st.tuples(st.just(kind), rows(kind))))
def test_faults(case: tuple[int, bytes]) -> None:
    kind, row = case
    assert kernel.fault(kind, row) == oracle.fault(kind, row)


@settings(max_examples=300, deadline=None)
@given(KINDS.flatmap(lambda kind: st.tuples(st.just(kind), rows(kind), st.lists(rows(kind), max_size=8))))
def test_looking_back(case: tuple[int, bytes, list[bytes]]) -> None:
    kind, row, earlier = case
    assert kernel.look_back(kind, row, b"".join(earlier)) == oracle.look_back(kind, row, earlier)


@given(st.integers(0, 2**32 - 1), st.integers(0, len(kernel.OUTCOMES) - 1))
def test_flags(given_flags: int, outcome: int) -> None:
    assert kernel.flags(given_flags, outcome) == oracle.flags(given_flags, outcome)


def test_a_row_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        kernel.fault(oracle.CANDLE, bytes(40))
    with pytest.raises(ValueError, match="40 bytes"):
        kernel.look_back(oracle.TRADE, bytes(64), b"")


class Pair:
    """One stream of a server and its oracle: the same rows, the same outcomes, the same bytes."""

    def __init__(self, kind: int, capacity: int) -> None:
        self.kind = kind
        self.streams = Streams(1)
        self.slot = self.streams.add(StreamKey("S", "X", INTERVAL[kind]), ring_rows=capacity)
        self.receiver = Receiver(None, self.streams, server=True)
        self.group = Group(1 << 20)
        self.oracle = oracle.Stream(kind, capacity)
        self.counts = [0] * len(kernel.OUTCOMES)

    def offer(self, given_rows: list[bytes]) -> None:
        for row in given_rows:
            self.counts[self.oracle.admit(row)] += 1
        self.receiver.kernel.offer(self.slot, b"".join(given_rows))
        counters = list(self.receiver.counters.values())
        assert counters[-len(self.counts) :] == self.counts
        size = sum(map(len, self.oracle.turn))
        assert self.receiver.inbox[:size].tobytes() == b"".join(self.oracle.turn)

    def end_turn(self) -> None:
        arrivals = self.receiver.arrivals[: self.receiver.kernel.arrival_count]
        runs = number(self.streams, arrivals)
        self.group.clear()
        record(self.streams, self.group, self.receiver.inbox, runs, store_id=1, epoch=1)
        self.receiver.kernel.begin()
        self.streams.kernel.persisted(self.slot, self.streams.kernel.head(self.slot))
        self.oracle.record()
        ring = self.streams.ring(self.slot)
        assert ring.window(ring.first, ring.contiguous).tobytes() == b"".join(self.oracle.ring)


TURNS = KINDS.flatmap(
    lambda kind: st.tuples(
        st.just(kind), st.lists(st.lists(st.lists(rows(kind, 12), max_size=5), max_size=3), max_size=6)
    )
)


@settings(max_examples=150, deadline=None)
@given(TURNS, st.sampled_from([16, 64]))
def test_streams_through_the_receiver(case: tuple[int, list[list[list[bytes]]]], capacity: int) -> None:
    """Turns of chunks of rows; a ring of 16 forgets, so what is late or a repeat depends on what it still holds."""
    kind, turns = case
    pair = Pair(kind, capacity)
    for chunks in turns:
        for chunk in chunks:
            pair.offer(chunk)
        pair.end_turn()


def candle(ms: int, close: float = 1.5) -> np.void:
    row = np.zeros(1, ROW_DTYPES[RowKind.CANDLE])[0]
    row["ts_ms"], row["open"], row["high"], row["low"], row["close"] = ms, 1.5, 2.0, 1.0, close
    return row


def test_a_story_in_one_screen() -> None:
    """New, repeat, correction, its repeat, late, its repeat: three rows more, with the flags that say why."""
    pair = Pair(oracle.CANDLE, 16)
    story = [(0, 1.5), (2, 1.5), (2, 1.5), (2, 1.75), (2, 1.75), (1, 1.5), (1, 1.5), (3, 1.5)]
    pair.offer([candle(NOW_MS + ms, close).tobytes() for ms, close in story])
    pair.end_turn()
    pair.offer([candle(NOW_MS + 1).tobytes(), candle(NOW_MS + 2).tobytes()])
    pair.end_turn()
    kept = pair.streams.ring(0).window(1, 16)
    closed = CandleFlag.CLOSED
    assert (kept["ts_ms"] - NOW_MS).tolist() == [0, 2, 2, 1, 3]
    assert kept["flags"].tolist() == [
        closed,
        closed,
        closed | CandleFlag.CORRECTION,
        closed | CandleFlag.LATE,
        closed,
    ]


def test_only_so_many_rows_are_looked_back_over() -> None:
    """The search is bounded: a repeat from further back counts as late, and costs the same."""
    pair = Pair(oracle.CANDLE, 8_192)
    many = np.zeros(oracle.SEARCH_ROWS + 1, ROW_DTYPES[RowKind.CANDLE])
    many[:] = candle(NOW_MS)
    many["ts_ms"] += np.arange(len(many))
    pair.receiver.kernel.offer(pair.slot, many)
    arrivals = pair.receiver.arrivals[: pair.receiver.kernel.arrival_count]
    record(pair.streams, pair.group, pair.receiver.inbox, number(pair.streams, arrivals), store_id=1, epoch=1)
    pair.receiver.kernel.begin()
    pair.receiver.kernel.offer(pair.slot, many[:2])
    counters = pair.receiver.counters
    assert (counters["late"], counters["repeats"]) == (1, 1)
