"""The accounting of somebody else's streams against its plain-Python twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.kernels.histogram import Histogram, Watch
from flux.model import ARRIVAL
from tests.oracle.watch import Watched

Said = tuple[int, int, int, int, int]  # stream, start, count, store_id, epoch

COUNTS = ("received", "missing", "duplicate", "reordered", "outside", "foreign", "restarts")


class Bench:
    """A watch over `streams` streams, and where it records."""

    def __init__(self, streams: int = 1, window: int = 64) -> None:
        self.watch = Watch(streams)
        for slot in range(streams):
            assert self.watch.add(window) == slot
        self.recorded, self.origin, self.interval = Histogram(), Histogram(), Histogram()

    def arrive(
        self, *said: Said, now_ns: int = 0, measured: bool = True, recorded_ns: int = 0, origin_ns: int = 0
    ) -> int:
        """Messages of one drain; how many rows were new."""
        arrivals = np.zeros(len(said), ARRIVAL)
        for arrival, (stream, start, count, store_id, epoch) in zip(arrivals, said, strict=True):
            arrival["stream"], arrival["start"], arrival["count"] = stream, start, count
            arrival["store_id"], arrival["epoch"] = store_id, epoch
            arrival["recorded_ns"], arrival["origin_ns"] = recorded_ns, origin_ns
        return self.watch.account(arrivals, now_ns, measured, self.recorded, self.origin, self.interval)


starts = st.one_of(st.integers(1, 400), st.integers(1, 2**62))
messages = st.lists(
    st.tuples(st.integers(0, 1), starts, st.integers(0, 80), st.integers(0, 2), st.integers(0, 2)),
    max_size=40,
)


@given(messages, st.integers(0, 40))
def test_like_the_oracle(said: list[Said], cut: int) -> None:
    bench, twins = Bench(2), [Watched(64), Watched(64)]
    for part in (said[:cut], said[cut:]):
        fresh = sum(
            twins[stream].message(start, count, store, epoch) if count else 0
            for stream, start, count, store, epoch in part
        )
        assert bench.arrive(*part) == fresh
    for slot, twin in enumerate(twins):
        found = bench.watch.stream(slot)
        assert {name: found[name] for name in COUNTS} == {name: getattr(twin, name) for name in COUNTS}
        assert (found["first"], found["last"]) == (twin.first, max(0, twin.next - 1))
    assert bench.watch.received == sum(twin.received for twin in twins)
    assert bench.watch.missing == sum(twin.missing for twin in twins)


@given(st.permutations(range(60)), st.sets(st.integers(0, 59)), st.integers(1, 2**62))
def test_rows_in_any_order_are_each_counted_once(order: list[int], lost: set[int], base: int) -> None:
    kept = [n for n in order if n not in lost]
    bench = Bench()
    bench.arrive((0, base, 1, 7, 1), *((0, base + 1 + n, 1, 7, 1) for n in kept))
    assert bench.watch.received == len(kept) + 1
    assert bench.watch.missing == (max(kept) + 1 - len(kept) if kept else 0)
    assert bench.arrive(*((0, base + 1 + n, 1, 7, 1) for n in kept)) == 0
    assert bench.watch.stream(0)["duplicate"] == len(kept)


def test_the_first_sequence_seen_is_the_start() -> None:
    bench = Bench()
    bench.arrive((0, 1_000, 3, 7, 1), (0, 998, 2, 7, 1), (0, 1_005, 1, 7, 1))
    found = bench.watch.stream(0)
    assert (found["first"], found["last"], found["received"], found["missing"]) == (1_000, 1_005, 4, 2)
    assert found["outside"] == 2


def test_a_row_too_long_ago_gets_no_verdict() -> None:
    bench = Bench()
    bench.arrive((0, 1, 1, 7, 1), (0, 3, 100, 7, 1), (0, 2, 1, 7, 1))
    found = bench.watch.stream(0)
    assert (found["missing"], found["outside"], found["duplicate"]) == (1, 1, 0)


def test_a_new_epoch_begins_anew_and_an_old_one_is_foreign() -> None:
    bench = Bench()
    bench.arrive((0, 1, 1, 7, 1), (0, 3, 1, 7, 1), (0, 2, 1, 7, 2), (0, 4, 1, 7, 1), (0, 3, 1, 7, 2))
    found = bench.watch.stream(0)
    assert (found["received"], found["missing"], found["foreign"], found["restarts"]) == (4, 1, 1, 1)
    assert (found["first"], found["last"]) == (2, 3)


def test_new_rows_are_timed_from_the_time_in_their_frame() -> None:
    bench = Bench()
    bench.arrive((0, 1, 5, 7, 1), now_ns=10_000, recorded_ns=9_000, origin_ns=4_000)
    bench.arrive((0, 1, 5, 7, 1), now_ns=20_000, recorded_ns=9_000)  # the same again: not timed
    bench.arrive((0, 6, 2, 7, 1), now_ns=20_000, measured=False, recorded_ns=18_000)
    assert bench.recorded.recorded() == [(1_000, 5)]
    assert bench.origin.recorded() == [(6_000, 5)]
    assert (bench.interval.total, bench.interval.min, bench.interval.max) == (7, 1_000, 2_000)
    assert bench.recorded.mean == 1_000.0


def test_many_equal_values_are_as_many_single_ones() -> None:
    for value in (-5, 0, 1, 2_047, 2_048, 10**11, 10**11 + 1, 10**12):
        bench, single = Bench(), Histogram()
        bench.arrive((0, 1, 3, 7, 1), now_ns=10**15 + value, recorded_ns=10**15)
        for _ in range(3):
            single.record(value)
        assert bench.recorded == single


def test_clocks_that_disagree_and_frames_without_a_time() -> None:
    bench = Bench()
    bench.arrive((0, 1, 2, 7, 1), now_ns=1_000, recorded_ns=2_000)
    bench.arrive((0, 3, 4, 7, 1), now_ns=1_000)
    assert (bench.watch.behind, bench.watch.untimed) == (2, 4)
    assert (bench.recorded.total, bench.recorded.refused) == (0, 2)


def test_what_cannot_be() -> None:
    watch = Watch(1)
    for window in (0, 63, 65, 100):
        with pytest.raises(ValueError, match="power of two"):
            watch.add(window)
    watch.add(64)
    assert len(watch) == 1
    with pytest.raises(ValueError, match="1 streams is the limit"):
        watch.add(64)
    with pytest.raises(IndexError, match="slot 1 of 1"):
        watch.stream(1)
    with pytest.raises(IndexError, match="slot 3 of 1"):
        Bench().arrive((3, 1, 1, 0, 0))
