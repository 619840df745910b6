"""A server that came back: its last row is compared before its rows are believed (D6, V3)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flux.limits import MAX_RELINK_ASKS
from flux.model import CANDLE, Cursor
from flux.protocol.effects import Ask, AskKind, Deliver, SetAside, Tell
from flux.protocol.history import ANOTHER, VERSION_1_FIELDS, _same
from flux.protocol.replies import Page, PageStatus, Refusal, RefusalStatus, Status, TimedOut
from flux.protocol.stream_state import StreamState
from tests.unit.coordinator_bench import EPOCH, KEY, STORE, Bench, page, status
from tests.unit.plain_ring import PlainRing, arrival
from tests.unit.simulated import MS, SECOND

CONFLICT = 2


def relinked(bench: Bench, boot_id: int = 2, head: int = 10, *, meanwhile: int = 0) -> Ask:
    """The server is back with another boot; the request that follows its status. `meanwhile`: rows that were faster."""
    bench.machine.link_down(bench.now)
    bench.wait(200 * MS)
    bench.machine.link_up(bench.now)
    if meanwhile:
        bench.live(bench.ring.contiguous + 1, meanwhile)
    bench.beat((9, head), boot_id=boot_id)
    ask = bench.ask()
    assert ask.kind is AskKind.STATUS
    bench.answer(ask, status(head))
    return bench.ask()


def ten_rows() -> Bench:
    bench = Bench(1).join()
    bench.live(1, 10)
    assert bench.deliver() == list(range(1, 11))
    bench.of(Deliver)
    return bench


def one(sequence: int, row: int, head: int = 10, **fields: Any) -> Page:
    place = {"store_id": STORE, "epoch": EPOCH, "watermark_sequence": head, **fields}
    return Page(sequence, np.array([row]), **place)


@pytest.mark.parametrize("meanwhile", [0, 3])
def test_after_another_boot_the_last_row_is_asked_for_and_rows_are_held_until_it_is_there(
    meanwhile: int,
) -> None:
    bench = ten_rows()
    ask = relinked(bench, head=10 + meanwhile, meanwhile=meanwhile)
    assert (ask.kind, ask.from_sequence, ask.to_sequence, ask.limit) == (AskKind.PROOF, 9, 10, 1), (
        "the last one from before, whatever came since"
    )
    bench.of(Deliver)  # of what came before the heartbeat that says so
    bench.live(11 + meanwhile)
    assert not bench.of(Deliver), "held back"
    bench.answer(ask, one(10, 10))
    assert bench.of(Deliver) == [Deliver(0, 11 + meanwhile, 11 + meanwhile)]
    assert not bench.of(SetAside)


@pytest.mark.parametrize("head", [10, 25])
def test_a_difference_is_another_history_and_is_filled_anew(head: int) -> None:
    bench = ten_rows()
    ask = relinked(bench, head=head)
    bench.of(Tell)
    bench.answer(ask, one(10, 666, head, first_available_sequence=4))
    assert bench.of(SetAside) == [SetAside(0, KEY, ANOTHER.format(10), 10)]
    bench.answer(bench.ask(), status(head, 4))
    ask = bench.ask()
    assert (ask.kind, ask.from_sequence) == (AskKind.ROWS, 3)
    bench.answer(ask, page(4, head - 3, head))
    assert bench.of(Deliver) == [Deliver(0, 4, head)]
    assert StreamState.FAILED not in {tell.state for tell in bench.of(Tell)}


@pytest.mark.parametrize("reply", [
    page(0, 0, 10),
    page(12, 2, 13),
    page(0, 0, 10, status=PageStatus.RETENTION_EXCEEDED, first_available_sequence=11),
    page(0, 0, 10, status=PageStatus.HOLE, first_available_sequence=11),
    Refusal("sequence 9 is older than what is kept", 404),
])  # fmt: skip
def test_a_row_that_is_no_longer_kept_proves_nothing(reply: Page | Refusal) -> None:
    bench = ten_rows()
    ask = relinked(bench)
    bench.answer(ask, reply)
    bench.live(11)
    assert bench.of(Deliver) == [Deliver(0, 11, 11)]
    assert not bench.of(SetAside)


def test_it_is_asked_again_with_pauses_when_no_answer_comes() -> None:
    bench = ten_rows()
    ask = relinked(bench)
    for reply in (TimedOut(), Refusal("busy", 503, RefusalStatus.UNAVAILABLE, 100), TimedOut()):
        assert ask.kind is AskKind.PROOF
        bench.answer(ask, reply)
        assert not bench.of(Ask), "not at once"
        bench.wait(2 * SECOND)
        (ask,) = bench.of(Ask)
    bench.answer(ask, one(10, 10))
    bench.live(11)
    assert bench.of(Deliver) == [Deliver(0, 11, 11)]


def test_the_same_boot_needs_no_proof() -> None:
    bench = ten_rows()
    bench.machine.link_down(bench.now)
    bench.machine.link_up(bench.now)
    bench.beat((9, 10))
    bench.answer(bench.ask(), status(10))
    assert not bench.of(Ask)
    bench.live(11)
    assert bench.of(Deliver) == [Deliver(0, 11, 11)]


@pytest.mark.parametrize(("row", "aside"), [(50, False), (51, True)])
def test_the_row_at_the_cursor_of_a_cache_is_compared_at_the_join(row: int, aside: bool) -> None:
    bench = Bench(1)
    bench.machine.unsubscribe(0)
    bench.ring = PlainRing(64)
    bench.machine.subscribe(KEY, 0, bench.ring, "cache", bench.now, Cursor(STORE, EPOCH, 50), np.array([50]))
    bench.join(head=60)
    ask = bench.ask()
    assert (ask.kind, ask.from_sequence, ask.to_sequence) == (AskKind.PROOF, 49, 50)
    bench.live(51)
    assert not bench.of(Deliver)
    bench.answer(ask, one(50, row, 60))
    assert bool(bench.of(SetAside)) is aside
    assert bool(bench.of(Deliver)) is not aside


def test_very_many_streams_are_asked_about_one_by_one_and_hold_nothing_back() -> None:
    bench = ten_rows()
    rings = {}
    count = MAX_RELINK_ASKS + 200
    for slot in range(1, count):
        rings[slot] = PlainRing(8)
        key = KEY._replace(symbol=f"S{slot}")
        bench.machine.first_seen(
            key,
            slot,
            rings[slot],
            bench.now,
            start_sequence=1,
            store_id=STORE,
            epoch=EPOCH,
            stream_id=slot + 100,
        )
        rings[slot].place(1, np.array([1]))
        bench.machine.arrivals(arrival(slot, 1, 1), bench.now)
    bench.of(Deliver)
    bench.machine.link_down(bench.now)
    bench.machine.link_up(bench.now)
    bench.beat(boot_id=2)
    rings[count - 1].place(2, np.array([2]))
    bench.machine.arrivals(arrival(count - 1, 2, 1), bench.now)
    assert [effect.slot for effect in bench.of(Deliver)] == [count - 1]
    proofs = 0
    for _ in range(300):
        bench.wait(10 * MS)
        asks = bench.of(Ask)
        assert len(asks) <= 16, "as many at once as of any requests"
        for ask in asks:
            proofs += ask.kind is AskKind.PROOF
            assert ask.key is not None
            bench.answer(
                ask, Page(1, np.array([1]), store_id=STORE, epoch=EPOCH) if ask.slot else one(10, 10)
            )
    assert proofs == count
    assert not bench.of(SetAside)


class TestVersion1:
    """No boot, no epochs: every relink, times, prices and volumes alone."""

    def bench(self) -> Bench:
        bench = Bench(1)
        bench.machine.link_up(bench.now)
        bench.wait(SECOND)
        (ask,) = bench.of(Ask)
        bench.answer(ask, Refusal("unsupported schema_version", 400))
        ask = bench.ask()
        assert ask.version == 1
        bench.answer(ask, Status(KEY, 0))
        bench.live(1, 10)
        bench.deliver()
        bench.of(Deliver)
        return bench

    def relinked(self, bench: Bench, head: int) -> None:
        bench.machine.link_down(bench.now)
        bench.machine.link_up(bench.now)
        bench.wait(1_100 * MS)
        (ask,) = bench.of(Ask)
        assert ask.kind is AskKind.STATUS
        bench.of(Tell)
        bench.answer(ask, Status(KEY, head))

    def test_a_restarted_server_whose_head_has_passed_ours(self) -> None:
        """Two runs were joined in silence (V3)."""
        bench = self.bench()
        self.relinked(bench, 40)
        ask = bench.ask()
        assert (ask.kind, ask.from_sequence, ask.limit) == (AskKind.PROOF, 9, 1)
        bench.answer(ask, Page(10, np.array([666])))
        assert bench.of(SetAside) == [SetAside(0, KEY, ANOTHER.format(10), 10)]
        bench.answer(bench.ask(), Status(KEY, 40))
        ask = bench.ask()
        assert (ask.kind, ask.from_sequence) == (AskKind.ROWS, 0)
        bench.answer(ask, Page(1, np.arange(1, 41)))
        assert bench.of(Deliver) == [Deliver(0, 1, 40)]

    def test_the_same_server_goes_on(self) -> None:
        bench = self.bench()
        self.relinked(bench, 12)
        bench.answer(bench.ask(), Page(10, np.array([10])))
        ask = bench.ask()
        assert (ask.kind, ask.from_sequence) == (AskKind.ROWS, 10)
        bench.answer(ask, Page(11, np.array([11, 12])))
        assert bench.of(Deliver) == [Deliver(0, 11, 12)]
        assert not bench.of(SetAside)

    def test_one_that_is_not_that_far_yet_shows_no_failure_on_the_way(self) -> None:
        """Its rows are conflicts with ours until its head says why."""
        bench = self.bench()
        bench.machine.link_down(bench.now)
        bench.machine.link_up(bench.now)
        bench.ring.place(1, np.array([666]))
        bench.machine.arrivals(arrival(0, 1, 1, rows=0, outcome=CONFLICT), bench.now)
        asides: list[SetAside] = []
        for _ in range(40):
            bench.wait(100 * MS)
            for ask in bench.of(Ask):
                bench.answer(
                    ask, Status(KEY, 1) if ask.kind is AskKind.STATUS else Page(0, np.empty(0, np.int64))
                )
            asides += bench.of(SetAside)
        assert asides == [SetAside(0, KEY, "the server started anew", 10)]
        assert StreamState.FAILED not in {tell.state for tell in bench.of(Tell)}

    def test_a_conflict_of_the_same_history_is_one(self) -> None:
        bench = self.bench()
        bench.ring.place(10, np.array([666]))
        bench.machine.arrivals(arrival(0, 10, 1, rows=0, outcome=CONFLICT), bench.now)
        bench.answer(bench.ask(), Status(KEY, 10))
        bench.answer(bench.ask(), Page(10, np.array([10])))
        state, reason = bench.machine.state(0, bench.now)
        assert state is StreamState.FAILED
        assert "other bytes" in reason

    def test_what_version_1_does_not_carry_is_not_compared(self) -> None:
        mine = np.zeros(1, CANDLE)
        for name in CANDLE.names or ():
            other = mine.copy()
            other[name] = 1
            assert _same(mine, other, 1) is (name not in VERSION_1_FIELDS)
            assert not _same(mine, other, 2)


def test_a_head_that_passes_after_it_was_behind_is_compared() -> None:
    """A disk that was rolled back, and the same boot all the while: the cursor ahead was no fault of a moment."""
    bench = ten_rows()
    bench.machine.link_down(bench.now)
    bench.machine.link_up(bench.now)
    bench.beat()
    ask = bench.ask()
    for _ in range(3):
        bench.answer(ask, status(5))
        bench.wait(500 * MS)
        asks = bench.of(Ask)
        ask = asks[-1] if asks else ask
    assert bench.machine.state(0, bench.now)[0] is StreamState.FAILED
    bench.answer(ask, page(0, 0, 5, status=PageStatus.CURSOR_AHEAD))
    bench.wait(10 * SECOND)
    (ask,) = bench.of(Ask)
    bench.answer(ask, status(30))
    ask = bench.ask()
    assert ask.kind is AskKind.PROOF
    bench.answer(ask, one(10, 666, 30))
    assert len(bench.of(SetAside)) == 1
    assert bench.machine.state(0, bench.now)[0] is not StreamState.FAILED
