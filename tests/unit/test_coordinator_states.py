"""What the client promises of states, epochs, stores and versions (C4, C5, C10, S6), a sentence a test."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np

from flux.limits import MAX_RELINK_ASKS
from flux.model import Cursor, Gap, StreamKey
from flux.protocol.coordinator import CONFLICT, OTHER_EPOCH, Coordinator
from flux.protocol.effects import (
    Ask,
    AskKind,
    Deliver,
    DeliverGap,
    Fail,
    Rewind,
    SetAside,
    SetExpected,
    Speak,
    Tell,
)
from flux.protocol.replies import (
    Beat,
    Page,
    PageStatus,
    Refusal,
    Status,
)
from flux.protocol.stream_state import StreamState, state_of
from tests.unit.coordinator_bench import EPOCH, KEY, STORE, Bench, page, status
from tests.unit.plain_ring import PlainRing, arrival
from tests.unit.simulated import MARK, MS, SECOND

# -- C4, C5: states and the link -----------------------------------------------------------------------------


def test_states_are_a_function_of_facts() -> None:
    base = {
        "fault": False,
        "linked": True,
        "was_linked": True,
        "ready": True,
        "beats_missing": False,
        "joining": False,
        "behind": False,
        "progressing": True,
        "arrived_recently": False,
    }

    def state(**changes: bool) -> StreamState:
        return state_of(**{**base, **changes})

    assert state() is StreamState.IDLE, "quiet is not stalled"
    assert state(arrived_recently=True) is StreamState.RECEIVING
    assert state(behind=True) is StreamState.BACKFILLING
    assert state(joining=True) is StreamState.BACKFILLING
    assert state(behind=True, progressing=False) is StreamState.STALLED
    assert state(beats_missing=True, arrived_recently=True) is StreamState.STALLED
    assert state(ready=False) is StreamState.CONNECTING
    assert state(linked=False, was_linked=False) is StreamState.CONNECTING
    assert state(linked=False) is StreamState.DISCONNECTED
    assert state(fault=True, linked=False) is StreamState.FAILED


def test_states_are_told_as_they_change() -> None:
    bench = Bench(1).join()
    bench.live(1)
    bench.deliver()
    for _ in range(4):
        bench.wait(SECOND)
        bench.beat()
    bench.wait(4 * SECOND)
    bench.beat()
    bench.machine.link_down(bench.now)
    told = [tell.state.name for tell in bench.of(Tell)]
    assert told == ["BACKFILLING", "IDLE", "RECEIVING", "IDLE", "STALLED", "IDLE", "DISCONNECTED"]


def test_after_a_break_the_head_is_asked_for_and_what_was_missed_is_fetched() -> None:
    bench = Bench(1).join()
    bench.live(1)
    bench.deliver()
    bench.machine.link_down(bench.now)
    bench.wait(60 * SECOND)
    assert not bench.of(Ask)
    bench.machine.link_up(bench.now)
    bench.beat()
    bench.answer(bench.ask(), status(30))
    ask = bench.ask()
    assert (ask.from_sequence, ask.to_sequence) == (1, 30)


def test_after_a_break_of_very_many_streams_the_marks_tell_who_moved() -> None:
    machine, now = Coordinator(Random(1)), 10 * SECOND
    count = MAX_RELINK_ASKS + 10
    machine.link_up(now)
    for slot in range(count):
        machine.first_seen(
            StreamKey("SIM", f"S{slot}", "1m"),
            slot,
            PlainRing(),
            now,
            start_sequence=1,
            store_id=STORE,
            epoch=EPOCH,
            stream_id=slot + 1,
        )
        machine.delivered(slot, 1, now)
    machine.tick(now)
    machine.take()
    machine.link_down(now)
    machine.link_up(now)
    marks = np.zeros(1, MARK)
    marks["stream_id"], marks["latest_sequence"] = 6, 4
    machine.heartbeat(Beat(STORE, EPOCH, 1, 1, 1_000, 0, marks), now)
    machine.tick(now + SECOND)
    asked = [effect.slot for effect in machine.take() if isinstance(effect, Ask)]
    assert 5 in asked


# -- S6: cursors, epochs, stores -----------------------------------------------------------------------------


def test_an_ended_epoch_drops_what_is_above_its_end_and_goes_on() -> None:
    bench = Bench(1).join()
    bench.live(1, 10)
    bench.deliver()
    bench.effects.clear()
    bench.beat((9, 7), epoch=2, boot_id=2)
    bench.wait(SECOND)
    (ask,) = bench.of(Ask)
    bench.answer(ask, status(7, epoch=2))
    ask = bench.ask()
    assert (ask.kind, ask.epoch) == (AskKind.ROWS, 1)
    bench.answer(
        ask,
        page(0, 0, 9, status=PageStatus.EPOCH_ENDED, epoch=2, epoch_end_sequence=7),
    )
    assert bench.of(Rewind) == [Rewind(0, KEY, 7, 10)]
    assert bench.of(SetExpected) == [SetExpected(0, STORE, 2)]
    ask = bench.ask()
    while ask.kind is AskKind.STATUS:
        bench.answer(ask, status(9, epoch=2))
        ask = bench.ask()
    assert (ask.from_sequence, ask.to_sequence, ask.epoch) == (7, 9, 2)


def test_an_epoch_that_ended_above_this_client_drops_nothing() -> None:
    bench = Bench("cache", cursor=Cursor(STORE, 1, 5))
    bench.machine.link_up(bench.now)
    bench.beat(epoch=2)
    bench.answer(bench.ask(), status(9, epoch=2))
    ask = bench.ask()
    assert (ask.epoch, ask.from_sequence) == (1, 5)
    bench.answer(ask, page(0, 0, 9, status=PageStatus.EPOCH_ENDED, epoch=2, epoch_end_sequence=8))
    assert not bench.of(Rewind)
    assert bench.of(SetExpected)[-1] == SetExpected(0, STORE, 2)


def test_another_store_sets_the_stream_aside_once_and_fills_it_anew() -> None:
    bench = Bench("cache", cursor=Cursor(99, 3, 500)).join(head=40, first=11)
    (aside,) = bench.of(SetAside)
    assert aside.key == KEY
    assert bench.of(SetExpected)[-1] == SetExpected(0, STORE, EPOCH)
    ask = bench.ask()
    assert (ask.from_sequence, ask.to_sequence) == (10, 40)
    bench.answer(ask, page(11, 30, 40))
    assert bench.of(Deliver) == [Deliver(0, 11, 40)]
    bench.beat((9, 40))
    bench.wait(3 * SECOND)
    assert not bench.of(SetAside)


def test_a_client_ahead_of_the_head_asks_again_before_it_believes_it() -> None:
    bench = Bench("cache", cursor=Cursor(STORE, EPOCH, 50)).join(head=40)
    for _ in range(2):
        bench.wait(300 * MS)
        assert bench.machine.state(0, bench.now)[0] is not StreamState.FAILED
        (ask,) = bench.of(Ask)
        bench.answer(ask, status(40))
    state, reason = bench.machine.state(0, bench.now)
    assert state is StreamState.FAILED
    assert "40" in reason
    assert "resync" in reason
    ask = bench.ask()
    assert (ask.kind, ask.from_sequence, ask.epoch, ask.store_id) == (AskKind.ROWS, 50, EPOCH, STORE), (
        "it is shown"
    )
    bench.answer(ask, page(0, 0, 40, status=PageStatus.CURSOR_AHEAD))
    assert bench.machine.state(0, bench.now)[0] is StreamState.FAILED
    bench.wait(60 * SECOND)
    assert 5 < len(bench.of(Ask)) + 5 < 25, "a new epoch is still looked for, slowly"


def test_a_head_that_moves_a_moment_after_its_row_is_no_rollback() -> None:
    bench = Bench("cache", cursor=Cursor(STORE, EPOCH, 50)).join(head=49)
    bench.wait(300 * MS)
    (ask,) = bench.of(Ask)
    bench.answer(ask, status(50))
    assert bench.machine.state(0, bench.now)[0] is StreamState.IDLE


def test_rows_of_another_epoch_make_it_ask_at_most_once_a_second() -> None:
    bench = Bench(1).join()
    for _ in range(50):
        bench.machine.arrivals(arrival(0, 1, 1, outcome=OTHER_EPOCH), bench.now)
        bench.wait(50 * MS)
        for ask in bench.of(Ask):
            bench.answer(ask, status(0))
    bench.machine.arrivals(arrival(0, 1, 1, outcome=OTHER_EPOCH), bench.now)
    bench.wait(900 * MS)
    assert len(bench.of(Ask)) <= 1


def test_other_bytes_for_a_sequence_are_loud_and_the_first_are_kept() -> None:
    bench = Bench(1).join()
    bench.live(1)
    bench.ring.place(1, np.array([666]))
    bench.machine.arrivals(arrival(0, 1, 1, rows=0, outcome=CONFLICT), bench.now)
    state, reason = bench.machine.state(0, bench.now)
    assert state is StreamState.FAILED
    assert "other bytes" in reason
    assert bench.deliver() == [1]


def test_resync_forgets_and_fetches_all_that_is_kept() -> None:
    bench = Bench(1).join()
    bench.live(1, 5)
    bench.deliver()
    bench.machine.resync(0, bench.now)
    assert bench.of(SetAside) == [SetAside(0, KEY, "resync")]
    bench.answer(bench.ask(), status(5, 3))
    ask = bench.ask()
    assert (ask.from_sequence, ask.to_sequence) == (2, 5)


# -- C10 and version 1 ---------------------------------------------------------------------------------------


def test_a_server_of_another_major_version_is_one_error_and_no_retry() -> None:
    bench = Bench(1).join(head=5)
    bench.ask()
    bench.machine.spoke(99, bench.now)
    bench.machine.spoke(99, bench.now)
    (fail,) = bench.of(Fail)
    assert fail.reason == "server speaks schema 99, this client 2: upgrade flux"
    assert bench.machine.state(0, bench.now)[0] is StreamState.FAILED
    bench.wait(60 * SECOND)
    assert not bench.of(Ask)


def v1_bench(start: str | int | None = "oldest", head: int = 30) -> Bench:
    """A client that found out that its server speaks version 1."""
    bench = Bench(start)
    bench.machine.link_up(bench.now)
    bench.wait(SECOND)
    (ask,) = bench.of(Ask)
    bench.answer(ask, Refusal("unsupported schema_version", 400))
    assert bench.of(Speak) == [Speak(1)]
    ask = bench.ask()
    assert (ask.kind, ask.version) == (AskKind.STATUS, 1)
    bench.answer(ask, Status(KEY, head))
    return bench


def v1_page(start: int, count: int) -> Page:
    return Page(start, np.arange(start, start + count))


def test_a_v1_server_is_asked_in_version_1_at_once() -> None:
    bench = v1_bench()
    ask = bench.ask()
    assert (ask.kind, ask.version, ask.from_sequence, ask.limit) == (AskKind.ROWS, 1, 0, 30)
    bench.answer(ask, v1_page(11, 20))
    assert not bench.of(DeliverGap), "the first page says where the oldest is"
    assert bench.of(Deliver) == [Deliver(0, 11, 30)]


def test_a_v1_server_that_no_longer_keeps_rows_makes_a_gap() -> None:
    bench = v1_bench(start=3)
    bench.answer(bench.ask(), v1_page(11, 20))
    assert [effect.gap for effect in bench.of(DeliverGap)] == [Gap(KEY, 3, 10, "retention")]
    assert bench.of(Deliver) == [Deliver(0, 11, 30)]


def test_a_v1_server_is_asked_for_its_head_since_it_sends_no_marks() -> None:
    bench = v1_bench(start=31)
    bench.wait(6 * SECOND)
    (ask,) = bench.of(Ask)
    assert ask.kind is AskKind.STATUS
    bench.answer(ask, Status(KEY, 32))
    assert bench.ask().kind is AskKind.ROWS


def test_a_v1_server_that_was_started_anew_is_filled_anew() -> None:
    bench = v1_bench(start=25)
    bench.answer(bench.ask(), v1_page(25, 6))
    bench.deliver()
    for _ in range(3):
        bench.wait(6 * SECOND)
        for ask in bench.of(Ask):
            bench.answer(ask, Status(KEY, 4))
    assert [aside.reason for aside in bench.of(SetAside)] == ["the server started anew"]
    assert bench.ring.first == 1


def test_a_hole_that_a_v1_server_refuses_is_told_as_a_gap() -> None:
    bench = v1_bench(start=1, head=0)
    bench.live(3)
    for _ in range(5):
        bench.wait(6 * SECOND)
        for ask in bench.of(Ask):
            bench.answer(ask, Status(KEY, 3) if ask.kind is AskKind.STATUS else Refusal("no such rows", 500))
    assert [effect.gap for effect in bench.of(DeliverGap)] == [Gap(KEY, 1, 2, "refused: no such rows")]


def test_rows_that_a_v1_server_refuses_for_their_age_are_a_gap_up_to_its_oldest() -> None:
    bench = v1_bench(start=3)
    ask = bench.ask()
    while ask.from_sequence:
        bench.answer(ask, Refusal("older than what is kept", 404))
        bench.wait(6 * SECOND)
        (ask,) = [ask for ask in bench.of(Ask) if ask.kind is AskKind.ROWS]
    bench.answer(ask, v1_page(11, 20))
    assert [effect.gap for effect in bench.of(DeliverGap)] == [Gap(KEY, 3, 10, "retention")]
    assert bench.of(Deliver) == [Deliver(0, 11, 30)]


def test_a_server_that_speaks_neither_version_is_one_error() -> None:
    bench = v1_bench()
    bench.answer(bench.ask(), Refusal("unsupported schema_version", 400))
    assert len(bench.of(Fail)) == 1
    bench.wait(60 * SECOND)
    assert not bench.of(Ask)


# -- scale ---------------------------------------------------------------------------------------------------


def test_a_tick_does_not_look_at_streams_that_want_nothing() -> None:
    bench = Bench(1).join()
    touched = []
    ring = bench.ring

    class Watched(PlainRing):
        def __getattribute__(self, name: str) -> Any:
            if name in ("contiguous", "top"):
                touched.append(name)
            return super().__getattribute__(name)

    ring.__class__ = Watched
    bench.wait(10 * MS)
    touched.clear()
    for _ in range(100):
        bench.machine.tick(bench.now)
    assert not touched
