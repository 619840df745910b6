"""What the client promises of joining and repair (C1 to C3, S13), a sentence a test, on a coordinator without
I/O.
"""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from flux.errors import FluxError
from flux.limits import BACKOFF_MAX_MS, MAX_ASKS, REORDER_GRACE_MS
from flux.model import Cursor, Gap, StreamKey
from flux.protocol.coordinator import OTHER_EPOCH
from flux.protocol.effects import (
    Ask,
    AskKind,
    Deliver,
    DeliverGap,
    Join,
    SetExpected,
    Tell,
)
from flux.protocol.repair import next_range
from flux.protocol.replies import (
    Listing,
    PageStatus,
    Refusal,
    RefusalStatus,
    Reply,
    Status,
    TimedOut,
)
from flux.protocol.schedule import Schedule, backoff_ns
from flux.protocol.stream_state import StreamState
from tests.unit.coordinator_bench import EPOCH, KEY, STORE, Bench, page, status
from tests.unit.plain_ring import PlainRing, arrival
from tests.unit.simulated import MS, SECOND

# -- C1: the join --------------------------------------------------------------------------------------------


def test_nothing_is_asked_before_proof_of_life() -> None:
    bench = Bench("oldest")
    bench.machine.link_up(bench.now)
    bench.wait(900 * MS)
    assert not bench.of(Ask)
    bench.beat()
    assert bench.ask().kind is AskKind.STATUS


def test_a_batch_is_proof_of_life_too() -> None:
    bench = Bench("oldest")
    bench.machine.link_up(bench.now)
    bench.machine.arrivals(arrival(0, 5, 1, outcome=OTHER_EPOCH), bench.now)
    assert bench.ask().kind is AskKind.STATUS


def test_without_a_heartbeat_it_asks_after_a_second() -> None:
    bench = Bench("oldest")
    bench.machine.link_up(bench.now)
    bench.wait(1_000 * MS)
    assert [ask.kind for ask in bench.of(Ask)] == [AskKind.STATUS]


def test_without_a_start_a_stream_begins_at_the_watermark_of_its_join() -> None:
    bench = Bench().join(head=1_000_000)
    assert bench.of(SetExpected) == [SetExpected(0, STORE, EPOCH)]
    bench.wait(SECOND)
    assert not bench.of(Ask), "nothing is missing"
    bench.live(1_000_001, 3)
    assert bench.of(Deliver) == [Deliver(0, 1_000_001, 1_000_003)]


def test_the_oldest_kept_is_where_oldest_begins() -> None:
    bench = Bench("oldest").join(head=50, first=11)
    ask = bench.ask()
    assert (ask.kind, ask.from_sequence, ask.to_sequence) == (AskKind.ROWS, 10, 50)
    bench.answer(ask, page(11, 40, 50))
    assert bench.of(Deliver) == [Deliver(0, 11, 50)]
    assert not bench.of(DeliverGap)


def test_an_empty_cache_begins_at_the_oldest_kept() -> None:
    assert Bench("cache").join(head=50, first=11).ask().from_sequence == 10


def test_a_cursor_goes_on_behind_itself_and_live_rows_are_buffered_from_the_start() -> None:
    bench = Bench("cache", cursor=Cursor(STORE, EPOCH, 40))
    assert bench.of(SetExpected) == [SetExpected(0, STORE, EPOCH)], "before anything was asked"
    bench.live(51, 2)
    bench.join(head=50)
    ask = bench.ask()
    assert (ask.from_sequence, ask.to_sequence) == (40, 50)
    bench.answer(ask, page(41, 10, 50))
    assert bench.of(Deliver) == [Deliver(0, 41, 52)], "drained behind the backfill"


def test_backfill_brings_what_is_beyond_the_window_until_the_head_is_inside() -> None:
    bench = Bench("oldest", capacity=16).join(head=40)
    pages = 0
    while bench.ring.contiguous < 60:
        bench.live(60)  # beyond, until it is not
        ask = bench.ask()
        assert ask.to_sequence - ask.from_sequence <= 16
        bench.answer(ask, page(ask.from_sequence + 1, ask.to_sequence - ask.from_sequence, 60))
        bench.deliver()
        pages += 1
    assert pages == 4


def test_a_start_before_what_is_kept_is_told_as_a_gap() -> None:
    bench = Bench(5).join(head=50, first=21)
    ask = bench.ask()
    assert ask.from_sequence == 4
    bench.answer(
        ask,
        page(0, 0, 50, status=PageStatus.RETENTION_EXCEEDED, first_available_sequence=21),
    )
    assert bench.of(DeliverGap) == [DeliverGap(0, Gap(KEY, 5, 20, "retention"))]
    assert bench.ask().from_sequence == 20


def test_an_unknown_stream_is_looked_for_slowly_and_begins_at_one_when_it_comes() -> None:
    bench = Bench()
    bench.machine.link_up(bench.now)
    bench.beat()
    bench.answer(bench.ask(), Refusal("unknown stream", 404, RefusalStatus.NOT_FOUND))
    assert bench.machine.state(0, bench.now) == (
        StreamState.IDLE,
        "unknown stream",
    )
    bench.wait(900 * MS)
    assert not bench.of(Ask)
    bench.machine.arrivals(arrival(0, 3, 1, outcome=OTHER_EPOCH), bench.now)
    bench.answer(bench.ask(), status(3))
    assert bench.ask().from_sequence == 0, "rows 1 and 2 were lost on the wire, and are this stream's"


def test_a_stream_first_seen_under_a_wildcard_begins_there() -> None:
    bench = Bench().join()
    ring, key = PlainRing(), StreamKey("SIM", "NEW", "1m")
    bench.machine.first_seen(
        key, 1, ring, bench.now, start_sequence=77, store_id=STORE, epoch=EPOCH, stream_id=3
    )
    ring.place(77, np.arange(77, 79))
    bench.machine.arrivals(arrival(1, 77, 2), bench.now)
    assert Deliver(1, 77, 78) in bench.of(Deliver)
    assert SetExpected(1, STORE, EPOCH) in bench.of(SetExpected), "rows of another store would be taken too"


def test_a_wildcard_with_a_start_lists_the_servers_streams_page_by_page() -> None:
    bench = Bench().join()
    bench.machine.subscribe_all("SIM", "1h", "oldest", bench.now)
    ask = bench.ask()
    assert (ask.kind, ask.prefix, ask.after_stream_id) == (AskKind.LIST, "SIM/1h/", 0)
    other = StreamKey("SIM", "ETHUSDT", "1h")
    bench.answer(ask, Listing((Status(other, 5, 1, STORE, EPOCH, 12),), has_more=True))
    assert bench.of(Join) == [Join(other, "oldest")]
    assert bench.ask().after_stream_id == 12


def test_a_key_or_a_slot_is_followed_once() -> None:
    bench = Bench()
    with pytest.raises(FluxError, match="already subscribed"):
        bench.machine.subscribe(KEY, 5, PlainRing(), None, bench.now)
    bench.machine.unsubscribe(0)
    bench.machine.subscribe(KEY, 0, PlainRing(), None, bench.now)


# -- C2, S13: repair -----------------------------------------------------------------------------------------


def test_a_hole_is_repaired_after_a_short_grace() -> None:
    bench = Bench(1).join()
    bench.live(1)
    bench.live(4)
    bench.machine.tick(bench.now)
    assert not bench.of(Ask)
    bench.wait(REORDER_GRACE_MS * MS)
    (ask,) = bench.of(Ask)
    assert (ask.from_sequence, ask.to_sequence) == (1, 3)
    bench.answer(ask, page(2, 2, 4))
    assert bench.of(Deliver) == [Deliver(0, 1, 1), Deliver(0, 2, 4)]


def test_a_hole_that_closes_by_itself_costs_no_request() -> None:
    bench = Bench(1).join()
    bench.live(2)
    bench.wait(REORDER_GRACE_MS * MS // 2)
    bench.live(1)
    bench.wait(SECOND)
    assert not bench.of(Ask)
    assert bench.of(Deliver) == [Deliver(0, 1, 2)]


def test_a_lost_last_message_is_repaired_within_two_heartbeats() -> None:
    bench = Bench(1).join()
    bench.live(1)
    lost_at = bench.now
    bench.wait(900 * MS)
    bench.beat((9, 2))
    bench.wait(200 * MS)
    (ask,) = bench.of(Ask)
    assert (ask.from_sequence, ask.to_sequence) == (1, 2)
    assert bench.now - lost_at < 2 * SECOND


def test_marks_of_unknown_streams_and_of_another_store_are_nobodys() -> None:
    bench = Bench(1).join()
    bench.live(1)
    bench.beat((4_000_000, 10), (8, 10))
    bench.wait(500 * MS)
    assert not bench.of(Ask)
    bench.beat((9, 10), store_id=8)
    bench.wait(SECOND)
    assert [ask.kind for ask in bench.of(Ask)] == [AskKind.STATUS], "the status decides, not the mark"


def test_a_hole_that_cannot_be_repaired_is_told_before_later_rows() -> None:
    bench = Bench(1).join()
    bench.live(1, 2)
    bench.live(6, 2)
    bench.wait(REORDER_GRACE_MS * MS)
    (ask,) = bench.of(Ask)
    bench.effects.clear()
    bench.answer(ask, page(0, 0, 7, status=PageStatus.HOLE, first_available_sequence=6))
    assert not bench.of(DeliverGap), "rows before it were not taken yet"
    assert bench.deliver() == [1, 2]
    assert [e for e in bench.effects if not isinstance(e, Tell)] == [
        DeliverGap(0, Gap(KEY, 3, 5, "hole")),
        Deliver(0, 6, 7),
    ]
    assert bench.deliver() == [6, 7]


def test_a_gap_ends_where_rows_are_here_all_the_same() -> None:
    bench = Bench(1).join()
    bench.live(4)
    bench.wait(REORDER_GRACE_MS * MS)
    (ask,) = bench.of(Ask)
    bench.answer(ask, page(0, 0, 9, status=PageStatus.RETENTION_EXCEEDED, first_available_sequence=8))
    assert [effect.gap.last_sequence for effect in bench.of(DeliverGap)] == [3]
    assert bench.of(Deliver) == [Deliver(0, 4, 4)]


@pytest.mark.parametrize(
    ("gaps", "head", "expected"),
    [
        ([], 100, (10, 100)),
        ([(11, 12)], 20, (10, 12)),
        ([(11, 12), (15, 15)], 20, (10, 15)),
        ([(11, 12), (15, 15)], 30, (10, 30)),
        ([(11, 11), (900, 900)], 901, (10, 11)),
        ([(11, 60_000)], 60_001, (10, 10_010)),
    ],
)
def test_holes_are_asked_for_together_while_they_are_close(
    gaps: list[tuple[int, int]], head: int, expected: tuple[int, int]
) -> None:
    top = {0: 10}.get(len(gaps), 20 if head <= 30 else head)
    array = np.array(gaps, np.uint64).reshape(-1, 2)
    assert next_range(10, top, head, array, 100_000, 100_000) == expected


def test_huge_sequences_lose_no_bit() -> None:
    base = 2**62
    gaps = np.array([(base + 1, base + 1), (base + 3, base + 3)], np.uint64)
    assert next_range(base, base + 4, base + 5, gaps, 64, 64) == (base, base + 5)


# -- C3: single flight, bounds, back-off ---------------------------------------------------------------------


def test_a_stream_has_one_request_in_flight() -> None:
    bench = Bench(1).join(head=500)
    bench.ask()
    bench.live(600)
    bench.beat((9, 600))
    bench.wait(1_900 * MS)
    assert not bench.of(Ask)


def test_a_client_has_few_requests_in_flight_and_the_rest_wait_in_line() -> None:
    bench = Bench("oldest")
    for slot in range(1, 100):
        bench.machine.subscribe(StreamKey("SIM", f"S{slot}", "1m"), slot, PlainRing(), None, bench.now)
    bench.machine.link_up(bench.now)
    bench.beat()
    bench.machine.tick(bench.now)
    first = bench.of(Ask)
    assert len(first) == MAX_ASKS
    bench.answer(first[0], Status(first[0].key or KEY, 0, 0, STORE, EPOCH, 1))
    (following,) = bench.of(Ask)
    assert following.slot == MAX_ASKS


@pytest.mark.parametrize(
    "reply",
    [
        TimedOut(),
        Refusal("busy", 503, RefusalStatus.UNAVAILABLE),
        Refusal("what", 500),
        page(1, 0, 500),
        page(1, 0, 500, status=PageStatus.RETENTION_EXCEEDED, first_available_sequence=0),
        page(1, 0, 500, status=PageStatus.HOLE, first_available_sequence=1),
        page(700, 3, 500),
        page(1, 0, 500, status=PageStatus.EPOCH_ENDED, epoch_end_sequence=3),
        status(500),
        Listing((), has_more=True),
    ],
    ids=lambda reply: type(reply).__name__,
)
def test_an_empty_or_failing_answer_never_makes_a_hot_loop(reply: Reply) -> None:
    bench = Bench(1).join(head=500)
    pending = [bench.ask()]
    asked = 0
    for _ in range(6_000):
        for ask in pending:
            bench.answer(ask, reply if ask.kind is AskKind.ROWS else status(500))
        bench.wait(10 * MS)
        pending = bench.of(Ask)
        asked += len(pending)
    assert 8 < asked < 40, "a minute: pauses grow to five seconds"


def test_pauses_double_up_to_five_seconds_with_chance_in_them() -> None:
    random = Random(3)
    for failures in range(1, 40):
        full = min(BACKOFF_MAX_MS, 100 * 2 ** (failures - 1)) * MS
        assert full / 2 <= backoff_ns(failures, random) <= full
    assert backoff_ns(60, random) != backoff_ns(60, random)
    assert backoff_ns(1, random, at_least_ms=700) == 700 * MS


def test_a_server_may_say_when_to_ask_again() -> None:
    bench = Bench(1).join(head=5)
    bench.answer(bench.ask(), Refusal("busy", 503, RefusalStatus.UNAVAILABLE, retry_after_ms=4_000))
    bench.wait(3_900 * MS)
    assert not bench.of(Ask)
    bench.wait(200 * MS)
    assert len(bench.of(Ask)) == 1


def test_a_late_answer_is_nobodys() -> None:
    bench = Bench(1).join(head=5)
    ask = bench.ask()
    bench.answer(ask, TimedOut())
    bench.answer(ask, page(1, 5, 5))
    assert bench.ring.contiguous == 0


def test_a_slow_consumer_stops_the_requests_and_its_progress_brings_them_back() -> None:
    bench = Bench(1, capacity=16).join(head=100)
    bench.answer(bench.ask(), page(1, 16, 100))
    bench.wait(3 * SECOND)
    assert not bench.of(Ask), "no room"
    assert bench.deliver() == list(range(1, 17))
    bench.wait(REORDER_GRACE_MS * MS)
    assert [(ask.from_sequence, ask.to_sequence) for ask in bench.of(Ask)] == [(16, 32)]


def test_a_ring_keeps_what_was_not_delivered_from_its_first_row_on() -> None:
    bench = Bench(1, capacity=16).join()
    bench.live(1, 16)
    bench.live(17, 16)
    assert (bench.ring.first, bench.ring.contiguous) == (1, 16), "the second batch is beyond"
    assert bench.deliver() == list(range(1, 17))


def test_turns_cost_what_is_due_and_the_latest_word_counts() -> None:
    schedule = Schedule()
    schedule.by(1, 50)
    schedule.by(1, 70)
    schedule.by(2, 60)
    schedule.at(2, 90)
    schedule.by(3, 55)
    schedule.drop(3)
    assert schedule.next_ns() == 50
    assert schedule.pop(80) == [1]
    assert schedule.next_ns() == 90
    assert schedule.pop(90) == [2]
    assert schedule.next_ns() is None
