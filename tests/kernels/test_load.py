"""The load generator's rows and its accounting against their plain-Python twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.kernels.histogram import Histogram, Load, Schedule, Tally
from flux.model import ARRIVAL, CANDLE, RUN, Outcome
from flux.ring import Ring
from tests.oracle import load as oracle
from tests.oracle.load import intended

loads = st.builds(
    oracle.Load,
    rate=st.integers(1, 10**7),
    streams=st.integers(1, 9),
    rows=st.integers(1, 4),
    seed=st.integers(0, 2**63 - 1),
)


def made(load: oracle.Load) -> Load:
    schedule = Schedule(load.rate, 12345)  # whose start does not matter here
    return Load(schedule, load.streams, load.rows, load.seed, part=load.part, parts=load.parts)


@st.composite
def shares(draw: st.DrawFn) -> oracle.Load:
    """A load of which this is one publisher of several."""
    load, parts = draw(loads), draw(st.integers(1, 4))
    load.streams *= parts
    load.parts, load.part = parts, draw(st.integers(0, parts - 1))
    return load


@given(shares(), st.integers(0, 10**6), st.integers(0, 40), st.integers(0, 10**15))
def test_fill_like_the_oracle(load: oracle.Load, first: int, count: int, sent_ns: int) -> None:
    rows, runs = np.zeros(count * load.rows, CANDLE), np.zeros(load.streams, RUN)
    numbers = np.zeros(count, np.int64)
    n = made(load).fill(first, count, sent_ns, rows, runs, numbers)
    expected = load.runs(first, count)
    assert [(r["stream"], r["first"], r["rows"]) for r in runs[:n]] == [
        (stream // load.parts, start, len(ks) * load.rows) for stream, start, ks in expected
    ]
    assert numbers.tolist() == [k // load.parts for _, _, ks in expected for k in ks]
    at = 0
    for run, (stream, start, ks) in zip(runs[:n], expected, strict=True):
        assert run["at"] == at * 64
        for i in range(len(ks) * load.rows):
            assert rows[at].item() == load.row(stream, start + i, float(sent_ns))
            at += 1


def test_fill_refuses_short_buffers() -> None:
    load, rows, runs = Load(Schedule(1000, 0), 4, 2, 1), np.zeros(8, CANDLE), np.zeros(4, RUN)
    assert load.fill(0, 4, 0, rows, runs) == 4
    with pytest.raises(ValueError, match="needed"):
        load.fill(0, 4, 0, rows[:7], runs)
    with pytest.raises(ValueError, match="needed"):
        load.fill(0, 4, 0, rows, runs[:3])
    with pytest.raises(ValueError, match="needed"):
        load.fill(0, 4, 0, rows, runs, np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="from 0"):
        load.fill(-1, 4, 0, rows, runs)


class Bench:
    """A receiving side without a socket: rings, a tally, and messages laid into both."""

    def __init__(self, load: oracle.Load, capacity: int = 1024, warmup_messages: int = 0) -> None:
        self.load = load
        self.rings = [Ring(capacity) for _ in range(load.streams)]
        self.tally = Tally(made(load), [ring._address for ring in self.rings], warmup_messages)
        self.schedule, self.send, self.interval = Histogram(), Histogram(), Histogram()

    def arrive(self, messages: list[tuple[int, int]], now_ns: int, spoil: int | None = None) -> None:
        """(stream, start) of whole messages, in one drain; row `spoil` of each has a wrong price."""
        arrivals = np.zeros(len(messages), ARRIVAL)
        for arrival, (stream, start) in zip(arrivals, messages, strict=True):
            k = self.load.message(stream, start)
            sent = float(intended(self.load.rate, 0, k))
            rows = np.array([self.load.row(stream, start + i, sent) for i in range(self.load.rows)], CANDLE)
            if spoil is not None:
                rows["open"][spoil] += 1
            placed = self.rings[stream].place(start, rows)
            arrival["stream"], arrival["start"] = stream, start
            arrival["count"], arrival["rows"] = len(rows), placed.placed
            if placed.conflicts:
                arrival["outcome"] = Outcome.CONFLICT
            elif placed.beyond:
                arrival["outcome"] = Outcome.BEYOND
        self.tally.account(arrivals, now_ns, self.schedule, self.send, self.interval)


@given(loads, st.data())
def test_account_like_the_oracle(load: oracle.Load, data: st.DataObject) -> None:
    bench, twin = Bench(load, warmup_messages=5), oracle.Tally(load)
    message = st.tuples(st.integers(0, load.streams - 1), st.integers(0, 20).map(lambda n: n * load.rows + 1))
    messages = data.draw(st.lists(message, max_size=40))
    cut = data.draw(st.integers(0, len(messages)))
    now = 10**12
    for part in (messages[:cut], messages[cut:]):
        bench.arrive(part, now)
        for stream, start in part:
            twin.arrive(stream, start)
    tally = bench.tally
    assert (tally.received, tally.reached) == (twin.received, twin.reached)
    totals = (twin.duplicate.total(), twin.reordered.total(), 0)
    assert (tally.duplicate, tally.reordered, tally.corrupt) == totals
    assert np.frombuffer(tally.streams(), np.uint64).reshape(-1, 5).tolist() == [
        [twin.highest.get(s, 0) + 1, twin.received_of(s), twin.duplicate[s], twin.reordered[s], 0]
        for s in range(load.streams)
    ]
    measured = [load.message(*row) for row in twin.seen if load.message(*row) >= 5]
    assert tally.measured == bench.schedule.total == bench.send.total == len(measured)
    assert tally.last_ns == (now if measured else 0)
    assert bench.interval.total == twin.received
    assert bench.schedule.max == max((now - intended(load.rate, 0, k) for k in measured), default=0)


def test_another_byte_than_was_sent_is_corrupt() -> None:
    bench = Bench(oracle.Load(1000, 2, 3, 1))
    bench.arrive([(0, 1), (1, 1)], 10**9, spoil=2)
    assert (bench.tally.received, bench.tally.corrupt) == (6, 2)
    bench.arrive([(0, 1)], 10**9)  # the same sequences with other bytes: that message is wrong as a whole
    assert (bench.tally.received, bench.tally.corrupt, bench.tally.duplicate) == (6, 5, 0)


def test_a_send_time_behind_the_receipt_is_corrupt() -> None:
    bench = Bench(oracle.Load(1000, 1, 1, 1))
    bench.arrive([(0, 1001)], 999_999_999)
    assert bench.tally.corrupt == 1
    assert bench.schedule.refused == 1


def test_a_hole_that_stays_does_not_stop_the_ring() -> None:
    bench = Bench(oracle.Load(1000, 1, 1, 1), capacity=64)
    for start in [1, *range(3, 1001)]:
        bench.arrive([(0, start)], 10**10)
    assert (bench.tally.received, bench.tally.reached, bench.tally.corrupt) == (999, 1000, 0)
    assert bench.send.total == 999
    assert bench.rings[0].beyond == 0


def test_a_hole_wider_than_the_ring_costs_one_drain() -> None:
    bench = Bench(oracle.Load(1000, 1, 1, 1), capacity=64)
    bench.arrive([(0, 1)], 10**10)
    for start in range(1000, 1100):
        bench.arrive([(0, start)], 10**10)
    tally = bench.tally
    assert (tally.received, tally.reached, tally.corrupt, tally.unread) == (101, 1099, 0, 1)
    assert bench.schedule.total == 101
    assert bench.send.total == 100


def test_more_in_one_drain_than_the_ring_keeps_is_counted_and_timed() -> None:
    bench = Bench(oracle.Load(1000, 1, 1, 1), capacity=16)
    bench.arrive([(0, start) for start in range(1, 101)], 10**10)
    assert (bench.tally.received, bench.tally.reached) == (100, 100)
    assert bench.schedule.total == 100
    assert bench.schedule.max == 10**10
    assert bench.send.total == 16
    assert bench.tally.unread == 84


def test_another_epoch_and_an_unknown_slot() -> None:
    bench = Bench(oracle.Load(1000, 1, 2, 1))
    arrivals = np.zeros(1, ARRIVAL)
    arrivals["start"], arrivals["count"], arrivals["outcome"] = 1, 2, Outcome.OTHER_EPOCH
    bench.tally.account(arrivals, 1, bench.schedule, bench.send, bench.interval)
    assert (bench.tally.received, bench.tally.corrupt) == (0, 2)
    arrivals["stream"] = 1
    with pytest.raises(IndexError, match="slot 1 of 1"):
        bench.tally.account(arrivals, 1, bench.schedule, bench.send, bench.interval)


@pytest.mark.parametrize(("streams", "part", "parts"), [(4, 0, 3), (4, 2, 2), (0, 0, 1), (4, 0, 8)])
def test_shares_that_cannot_be(streams: int, part: int, parts: int) -> None:
    with pytest.raises(ValueError, match="streams"):
        Load(Schedule(1, 0), streams, 1, 1, part=part, parts=parts)


def test_a_tally_needs_a_ring_of_candles_for_each_stream() -> None:
    with pytest.raises(ValueError, match="1 rings for 2 streams"):
        Tally(Load(Schedule(1, 0), 2, 1, 1), [Ring(16)._address], 0)
    with pytest.raises(ValueError, match="all streams"):
        Tally(Load(Schedule(1, 0), 2, 1, 1, parts=2), [Ring(16)._address] * 2, 0)
    ring = Ring(16, np.dtype("V40"))
    with pytest.raises(ValueError, match="candles"):
        Tally(Load(Schedule(1, 0), 1, 1, 1), [ring._address], 0)
