"""Admission against its oracle: the three functions of the kernel, then whole streams through the server's receiver."""

from __future__ import annotations

import math
import random
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.journal import Group
from flux.kernels import admit as kernel
from flux.model import ROW_DTYPES, CandleFlag, RowKind, StreamKey
from flux.store.base import Rows
from flux.transport.pump import Receiver, Streams, record
from tests.numbered import number
from tests.oracle import admit as oracle

KINDS = st.sampled_from([oracle.CANDLE, oracle.TRADE, oracle.QUOTE])
INTERVAL = {oracle.CANDLE: "1m", oracle.TRADE: "trade", oracle.QUOTE: "quote"}
NOW_MS = 1_700_000_040_000  # a whole minute
STEP_MS = 60_000
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
    ms = NOW_MS + STEP_MS * draw(st.integers(0, times))
    if draw(st.integers(0, 19)) == 0:
        ms = draw(st.sampled_from((*EDGES_MS, NOW_MS + 1, NOW_MS + STEP_MS // 2)))
    numbers = sorted(draw(st.lists(PRICES, min_size=4, max_size=4)))
    if draw(st.integers(0, 9)) == 0:
        numbers = draw(st.permutations(numbers))
    if draw(st.integers(0, 19)) == 0:
        numbers[draw(st.integers(0, 3))] = draw(BAD)
    flags = draw(st.sampled_from([0, 1, 1, 1, 3, 17, 33, 63, 65, 129, 2**32 - 1]))
    if kind == oracle.CANDLE:
        low, open_, close, high = numbers
        volume = draw(st.sampled_from([0.0, -0.0, -1.0, math.nan])) if draw(st.integers(0, 19)) == 0 else 1.0
        return struct.pack("<q6dII", ms, open_, high, low, close, volume, 0.0, draw(st.integers(0, 1)), flags)
    ns = max(-(2**63), min(2**63 - 1, ms * 1_000_000 + draw(st.integers(-1, 1))))
    if kind == oracle.QUOTE:
        return struct.pack("<q4d", ns, *numbers)
    trade_id = draw(st.sampled_from([0, 0, 1, 2, 3, 4, 2**63 - 1, 2**63, 2**64 - 1]))
    side = draw(st.sampled_from([0, 1, 2, 16, 64, 2**32 - 1]))
    return struct.pack("<qddQII", ns, numbers[0], abs(numbers[1]), trade_id, side, 0)


@settings(max_examples=600, deadline=None)
@given(KINDS.flatmap(lambda kind: st.tuples(st.just(kind), rows(kind))))
def test_faults(case: tuple[int, bytes]) -> None:
    kind, row = case
    assert kernel.fault(kind, row) == oracle.fault(kind, row)


@settings(max_examples=300, deadline=None)
@given(
    KINDS.flatmap(lambda kind: st.tuples(st.just(kind), st.lists(rows(kind), max_size=8))),
    st.sampled_from([0, *oracle.GRIDS.values()]),
    st.sampled_from([*EDGES_MS, NOW_MS, NOW_MS + STEP_MS - 1]),
)
def test_faults_of_many_in_a_stream(case: tuple[int, list[bytes]], grid_ms: int, latest_ms: int) -> None:
    kind, given_rows = case
    found = np.full(len(given_rows), 99, np.uint8)
    unsound = kernel.faults(kind, b"".join(given_rows), found, grid_ms, latest_ms)
    expected = [oracle.fault(kind, row, grid_ms, latest_ms) for row in given_rows]
    assert (found.tolist(), unsound) == (expected, len(expected) - expected.count(oracle.NEW))


@pytest.mark.parametrize(("interval", "grid_ms"), oracle.GRIDS.items())
def test_the_grid_of_an_interval(interval: str, grid_ms: int) -> None:
    assert kernel.grid(oracle.CANDLE, interval.encode()) == grid_ms
    assert kernel.grid(oracle.TRADE, b"trade") == kernel.grid(oracle.QUOTE, b"quote") == 0


@settings(max_examples=300, deadline=None)
@given(KINDS.flatmap(lambda kind: st.tuples(st.just(kind), rows(kind), st.lists(rows(kind), max_size=8))))
def test_looking_back(case: tuple[int, bytes, list[bytes]]) -> None:
    kind, row, earlier = case
    assert kernel.look_back(kind, row, b"".join(earlier)) == oracle.look_back(kind, row, earlier)


@given(
    st.sampled_from([oracle.CANDLE, oracle.TRADE]),
    st.integers(0, 2**32 - 1),
    st.integers(0, len(kernel.OUTCOMES) - 1),
)
def test_flags(kind: int, given_flags: int, outcome: int) -> None:
    assert kernel.flags(kind, given_flags, outcome) == oracle.flags(kind, given_flags, outcome)


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
        self.oracle = oracle.Stream(kind, capacity, STEP_MS if kind == oracle.CANDLE else 0)
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
        self.streams.ring(self.slot).keep = self.streams.kernel.head(self.slot)
        self.oracle.record()
        ring = self.streams.ring(self.slot)
        assert ring.window(ring.first, ring.contiguous).tobytes() == b"".join(self.oracle.ring)


TURNS = KINDS.flatmap(
    lambda kind: st.tuples(
        st.just(kind), st.lists(st.lists(st.lists(rows(kind, 12), max_size=5), max_size=3), max_size=6)
    )
)


@settings(max_examples=150, deadline=None)
@given(TURNS, st.sampled_from([16, 64, 128]))
def test_streams_through_the_receiver(case: tuple[int, list[list[list[bytes]]]], capacity: int) -> None:
    """Turns of chunks of rows; a ring of 16 forgets, so what is late or a repeat depends on what it still holds.
    One of up to 64 rows is looked through, a longer one has a table."""
    kind, turns = case
    pair = Pair(kind, capacity)
    for chunks in turns:
        for chunk in chunks:
            pair.offer(chunk)
        pair.end_turn()


def candle(ms: int, close: float = 1.5) -> np.void:
    row = np.zeros(1, ROW_DTYPES[RowKind.CANDLE])[0]
    row["ts_ms"], row["open"], row["high"], row["low"], row["close"] = ms, 1.5, 2.0, 1.0, close
    row["flags"] = CandleFlag.CLOSED
    return row


def test_a_story_in_one_screen() -> None:
    """New, repeat, correction, its repeat, late, its repeat: three rows more, with the flags that say why."""
    pair = Pair(oracle.CANDLE, 16)
    story = [(0, 1.5), (2, 1.5), (2, 1.5), (2, 1.75), (2, 1.75), (1, 1.5), (1, 1.5), (3, 1.5)]
    pair.offer([candle(NOW_MS + STEP_MS * step, close).tobytes() for step, close in story])
    pair.end_turn()
    pair.offer([candle(NOW_MS + STEP_MS).tobytes(), candle(NOW_MS + 2 * STEP_MS).tobytes()])
    pair.end_turn()
    kept = pair.streams.ring(0).window(1, 16)
    closed = CandleFlag.CLOSED
    assert ((kept["ts_ms"] - NOW_MS) // STEP_MS).tolist() == [0, 2, 2, 1, 3]
    assert kept["flags"].tolist() == [
        closed,
        closed,
        closed | CandleFlag.CORRECTION,
        closed | CandleFlag.LATE,
        closed,
    ]


def test_what_a_ring_forgot_and_what_its_table_still_points_at() -> None:
    """Long after the table was made, rows that are gone are no longer found and those that came later are."""
    pair = Pair(oracle.CANDLE, 128)
    rng = random.Random(7)
    newest = 0
    for _ in range(60):
        steps = [newest + i + 1 for i in range(rng.randint(0, 12))]
        newest = steps[-1] if steps else newest
        steps += [max(0, newest - rng.randint(0, 200)) for _ in range(rng.randint(0, 12))]
        pair.offer(
            [candle(NOW_MS + STEP_MS * step, rng.choice((1.5, 1.75, 1.25))).tobytes() for step in steps]
        )
        pair.end_turn()
    assert pair.counts[oracle.LATE] > 0
    assert min(pair.counts[what] for what in (oracle.CORRECTION, oracle.REPEAT, oracle.OLD)) > 20


def test_one_time_revised_again_and_again() -> None:
    """Every revision is compared with all before it, in the turn and in the ring."""
    pair = Pair(oracle.CANDLE, 512)
    closes = [1 + i / 200 for i in range(200)]
    for chunk in (closes[:50] + closes[:50], closes[50:150], closes[100:] + closes):
        pair.offer([candle(NOW_MS, close).tobytes() for close in chunk])
        pair.end_turn()
    assert pair.counts[oracle.CORRECTION] == 199
    assert pair.counts[oracle.REPEAT] == 300


def cpu_seconds(rows: Rows, page: int) -> float:
    """CPU time of admitting pages of these rows into one stream that holds them all."""
    pair = Pair(oracle.CANDLE, len(rows))
    spent = 0.0
    for begin in range(0, len(rows), page):
        pair.receiver.kernel.begin()
        began = time.thread_time()
        pair.receiver.kernel.offer(pair.slot, np.ascontiguousarray(rows[begin : begin + page]))
        spent += time.thread_time() - began
        pair.group.clear()
        arrivals = pair.receiver.arrivals[: pair.receiver.kernel.arrival_count]
        runs = number(pair.streams, arrivals)
        record(pair.streams, pair.group, pair.receiver.inbox, runs, store_id=1, epoch=1)
    ring = pair.streams.ring(pair.slot)
    assert np.array_equal(ring.window(1, len(rows))["ts_ms"], rows["ts_ms"]), (
        "all were admitted, in this order"
    )
    return spent


@pytest.mark.parametrize("page", [1_024, 8])
def test_rows_from_the_newest_to_the_oldest_cost_little_more_than_in_order(page: int) -> None:
    """History is often paged from its end. Looking through 4,096 rows for each took a hundred times as long."""
    rows = np.zeros(16_384, ROW_DTYPES[RowKind.CANDLE])
    rows[:] = candle(NOW_MS)
    rows["ts_ms"] += STEP_MS * np.arange(len(rows))
    in_order = min(cpu_seconds(rows, page) for _ in range(3))
    assert min(cpu_seconds(rows[::-1], page) for _ in range(3)) < 20 * in_order
