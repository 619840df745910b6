"""The server's side of the pump: feeds' frames from a real PULL socket into the inbox, each row once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flux import codec, limits
from flux.model import NO_RUN, REFUSED, CandleFlag, RefusedReason, RowKind, StreamKey, TradeFlag
from flux.schema import messages
from flux.transport.pump import Drained
from tests.kernels.pumped import KEY, QUOTES, STORE, TRADES, Pumped, Rows, frame_of, of_version, rows_of
from tests.oracle import pump as oracle

RUN, OTHER_RUN = STORE, 77
INGEST, FILE = 1, 2


pytestmark = pytest.mark.usefixtures("both_ways")


@pytest.fixture
def server() -> Iterator[Pumped]:
    """Within the process, so that what was sent is there: over TCP it may come in two turns, and the second has the
    inbox for itself."""
    with Pumped(server=True, tcp=False) as made:
        yield made


def open_stream(server: Pumped, key: StreamKey = KEY, rows: int = 64, owner: int = INGEST) -> int:
    return server.add(key, rows=rows, owner=owner)


def open_run(server: Pumped, run: int = RUN, taken: int = 0) -> int:
    return server.receiver.kernel.add_run(b"SIM", run, taken, INGEST)


def test_a_new_stream_and_a_new_run_are_asked_for_one_after_the_other(server: Pumped) -> None:
    server.send(frame_of(KEY, 1, 3))
    assert server.receive()[1] is Drained.UNKNOWN_STREAM
    slot = open_stream(server)
    assert server.receive()[1] is Drained.UNKNOWN_RUN
    unknown = server.receiver.unknown
    assert unknown is not None
    assert (unknown.slot, unknown.store_id, unknown.start, unknown.rows) == (slot, RUN, 1, 3)
    run = open_run(server)
    arrivals, status = server.receive()
    assert status is Drained.EMPTY
    assert arrivals[["stream", "rows", "start", "run"]].tolist() == [(slot, 3, 1, run)]
    assert server.inbox(arrivals[0]).tobytes() == rows_of(RowKind.CANDLE, 1, 3).tobytes()
    assert server.receiver.kernel.run_taken(run) == 3
    assert server.receiver.kernel.find_run(b"SIM", RUN) == run
    assert server.receiver.kernel.find_run(b"SIM", OTHER_RUN) is None


def test_a_run_goes_over_all_streams_of_its_feed(server: Pumped) -> None:
    slots = {key: open_stream(server, key) for key in (KEY, TRADES, QUOTES)}
    run = open_run(server)
    number = 1
    for first in (1, 4, 7):
        for key, slot in slots.items():
            rows = rows_of(key.kind, first, 3)
            server.send(frame_of(key, number, rows, stream_id=slot))
            number += 3
    arrivals, _ = server.receive()
    assert server.receiver.kernel.run_taken(run) == 27
    server.record(arrivals)
    for key, slot in slots.items():
        assert server.streams.ring(slot).window(1, 99).tobytes() == rows_of(key.kind, 1, 9).tobytes()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 25)), max_size=30), st.sampled_from([16, 64]))
def test_any_messages_of_a_run_as_the_oracle_has_it(sent: list[tuple[int, int]], capacity: int) -> None:
    """Repeats, holes and overlaps; with the short ring a message is taken in parts, and nothing twice."""
    with Pumped(server=True, tcp=False) as server:
        slot = open_stream(server, TRADES, capacity)
        index, run = open_run(server), oracle.Run()
        for start, count in sent:
            rows = rows_of(RowKind.TRADE, start, count)
            server.send(frame_of(TRADES, start, rows))
            run.message(start, [row.tobytes() for row in rows])
        taken = b"".join(taken_in_turns(server, slot, RowKind.TRADE))
        assert taken == b"".join(run.rows)
        assert server.receiver.kernel.run_taken(index) == run.taken
        counters = server.receiver.counters
        assert (counters["ahead"], counters["resent"], counters["repeats"]) == (run.ahead, run.resent, 0)


def taken_in_turns(server: Pumped, slot: int, kind: RowKind) -> Iterator[bytes]:
    """Receive and record until all is looked at, persisting only when the pump says that it waits for that."""
    status = Drained.FULL
    while status is not Drained.EMPTY or server.looked_at < server.sent:
        arrivals, status = server.receive()
        for arrival in arrivals[arrivals["rows"] > 0]:
            yield server.inbox(arrival, kind).tobytes()
        server.group.clear()
        server.record(arrivals)
        if status is Drained.HELD:
            server.streams.ring(slot).keep = server.streams.kernel.head(slot)


def test_a_ring_full_of_rows_that_are_not_stored_holds_the_feed(server: Pumped) -> None:
    slot = open_stream(server, rows=16)
    run = open_run(server)
    server.send(frame_of(KEY, 1, 40), frame_of(KEY, 41, 1))
    seen = []
    for persisted in (0, 0, 5, 16, 30, 41):
        server.streams.ring(slot).keep = persisted
        arrivals, status = server.receive()
        server.record(arrivals)
        seen.append((arrivals[["start", "count", "rows"]].tolist(), status.name))
    assert seen == [
        ([(1, 16, 16)], "FULL"),
        ([], "HELD"),
        ([(17, 5, 5)], "FULL"),
        ([(22, 11, 11)], "FULL"),
        ([(33, 8, 8), (41, 1, 1)], "EMPTY"),
        ([], "EMPTY"),
    ]
    assert server.receiver.kernel.run_taken(run) == 41
    assert server.counted == {"admitted": 41}
    assert server.streams.ring(slot).window(26, 41).tobytes() == rows_of(RowKind.CANDLE, 26, 16).tobytes()


def test_a_full_inbox_leaves_the_rest_for_the_next_call() -> None:
    size, fits = limits.MAX_INGEST_ROWS - 1, limits.INBOX_BYTES // 64
    sent = -(-fits // size)
    with Pumped(server=True, tcp=False) as server:
        slot = open_stream(server, rows=65_536)
        run = open_run(server)
        server.send(*(frame_of(KEY, 1 + i * size, size) for i in range(sent)))
        arrivals, status = server.receive()
        assert (int(arrivals["rows"].sum()), status) == (fits, Drained.FULL)
        assert server.receiver.kernel.run_taken(run) == fits
        rest, status = server.receive()
        assert (rest["start"].tolist(), status) == ([fits + 1], Drained.EMPTY)
        assert server.receiver.kernel.run_taken(run) == sent * size
        assert server.streams.kernel.highest(slot) == rows_of(RowKind.CANDLE, sent * size, 1)["ts_ms"][0]


def test_bad_rows_are_counted_by_reason_and_the_good_ones_go_on(server: Pumped) -> None:
    slot = open_stream(server)
    run = open_run(server)
    rows = rows_of(RowKind.CANDLE, 1, 14)
    rows["close"][1], rows["volume"][2], rows["high"][3], rows["open"][4] = np.nan, np.inf, 0.5, 99
    rows["ts_ms"][5], rows["ts_ms"][6] = -2_208_988_800_001, 4_102_444_800_000
    rows["volume"][10], rows["flags"][12] = -1, 0
    rows["ts_ms"][11] += 30_000
    rows["ts_ms"][13] = time.time_ns() // 60_000_000_000 * 60_000 + 2 * limits.MAX_AHEAD_MS
    rows[8] = rows[7]
    server.send(frame_of(KEY, 1, rows))
    arrivals, _ = server.receive()
    assert arrivals[["count", "rows"]].tolist() == [(14, 3)]
    assert server.counted == {
        "admitted": 3, "repeats": 1, "not_finite": 2, "high_low": 1, "open_close": 1, "time": 2, "volume": 1,
        "grid": 1, "forming": 1, "future": 1,
    }  # fmt: skip
    assert server.receiver.kernel.run_taken(run) == 14, "a refused row is not sent again"
    assert server.streams.kernel.refused(slot) == 10
    assert server.receiver.kernel.last_refused().keys() == server.counted.keys() - {"admitted", "repeats"}
    server.record(arrivals)
    assert server.streams.ring(slot).window(1, 9).tobytes() == rows[[0, 7, 9]].tobytes()


def refused_of(
    server: Pumped, run: int, after: int = 0, upto: int = 2**64 - 1
) -> tuple[int, list[tuple[int, RefusedReason]]]:
    """How many rows of the run were refused, and those that can be asked for."""
    out = np.zeros(limits.MAX_REFUSED_LISTED, REFUSED)
    total, n = server.receiver.kernel.run_refused(run, after, upto, out.view(np.uint8))
    return total, [(int(row["row"]), RefusedReason(int(row["reason"]))) for row in out[:n]]


class TestRefusedRows:
    """What is known of a run's refused rows: their numbers and reasons."""

    def test_their_numbers_in_the_run_and_why(self, server: Pumped) -> None:
        open_stream(server)
        open_stream(server, TRADES, owner=FILE)
        run = open_run(server)
        rows = rows_of(RowKind.CANDLE, 1, 5)
        rows["close"][1], rows["flags"][4] = np.nan, 0
        server.send(frame_of(KEY, 1, rows), frame_of(TRADES, 6, 2, stream_id=8), frame_of(KEY, 8, rows))
        server.receive()
        assert refused_of(server, run, upto=1) == (6, []), "nothing more is committed"
        expected = [
            (2, RefusedReason.NOT_FINITE),
            (5, RefusedReason.FORMING),
            (6, RefusedReason.OWNER),
            (7, RefusedReason.OWNER),
            (9, RefusedReason.NOT_FINITE),
            (12, RefusedReason.FORMING),
        ]
        assert refused_of(server, run) == (6, expected)
        assert refused_of(server, run, after=6) == (6, expected[3:])

    def test_the_last_ones_of_very_many(self, server: Pumped) -> None:
        open_stream(server, rows=1_024)
        run = open_run(server)
        rows = rows_of(RowKind.CANDLE, 1, 1_000)
        rows["volume"] = -1
        server.send(frame_of(KEY, 1, rows))
        server.receive()
        total, listed = refused_of(server, run)
        assert total == 1_000
        assert listed == [(row, RefusedReason.VOLUME) for row in range(1_001 - len(listed), 1_001)]
        assert limits.MAX_REFUSED_LISTED - 1 <= len(listed) <= limits.MAX_REFUSED_LISTED

    def test_a_stream_that_cannot_be_made(self, server: Pumped) -> None:
        run = open_run(server)
        server.send(frame_of(KEY, 1, 2))
        assert server.receive()[1] is Drained.UNKNOWN_STREAM
        server.receiver.kernel.refuse(run)
        assert refused_of(server, run) == (2, [(1, RefusedReason.STREAM), (2, RefusedReason.STREAM)])


def test_an_older_process_of_a_durable_run_is_not_listened_to(server: Pumped) -> None:
    slot = open_stream(server)
    run = server.receiver.kernel.add_run(b"SIM", RUN, 4, INGEST, incarnation=2)
    server.send(frame_of(KEY, 5, 2, epoch=1), frame_of(KEY, 5, 1, epoch=2), frame_of(KEY, 6, 1, epoch=3))
    server.send(frame_of(KEY, 7, 1, epoch=2))
    arrivals, _ = server.receive()
    assert arrivals["rows"].tolist() == [1, 1]
    assert server.counted == {"admitted": 2, "older_claim": 2}
    assert (server.receiver.kernel.run_taken(run), slot) == (6, 0)


def test_two_live_runs_that_write_one_stream_are_counted(server: Pumped) -> None:
    """A feed that was started anew goes on where another ended: only one that comes again shares its stream."""
    slot = open_stream(server)
    for run in (RUN, OTHER_RUN):
        open_run(server, run)
    numbers = iter(range(1, 20))
    for run, start in ((RUN, 1), (RUN, 2), (OTHER_RUN, 1), (OTHER_RUN, 2)):
        server.send(
            frame_of(KEY, start, rows_of(RowKind.CANDLE, next(numbers), 1), store_id=run, stream_id=7)
        )
    server.receive()
    assert (server.counted, server.receiver.kernel.last_shared()) == ({"admitted": 4}, None)
    for run, start in ((RUN, 3), (OTHER_RUN, 3)):
        server.send(
            frame_of(KEY, start, rows_of(RowKind.CANDLE, next(numbers), 1), store_id=run, stream_id=7)
        )
    server.receive()
    assert (server.counted, server.receiver.kernel.last_shared()) == ({"admitted": 6, "shared": 2}, slot)


def test_flags_are_the_servers_own(server: Pumped) -> None:
    open_stream(server)
    open_run(server)
    rows = rows_of(RowKind.CANDLE, 1, 4)
    rows["ts_ms"] = rows["ts_ms"][[0, 2, 2, 1]]
    rows["flags"] = 2**32 - 1
    server.send(frame_of(KEY, 1, rows))
    kept = 255 & ~int(CandleFlag.CORRECTION | CandleFlag.LATE)
    expected = [kept, kept, kept | CandleFlag.CORRECTION, kept | CandleFlag.LATE]
    assert server.inbox(server.receive()[0][0])["flags"].tolist() == expected


def test_a_trade_sent_again_with_other_values_is_a_correction(server: Pumped) -> None:
    """S18: by trade_id; what the server set before never counts when rows are compared."""
    slot = open_stream(server, TRADES)
    open_run(server)
    rows = rows_of(RowKind.TRADE, 1, 4)
    rows["trade_id"] = [10, 12, 12, 11]
    rows["flags"] = TradeFlag.BUY | TradeFlag.LATE | TradeFlag.CORRECTION
    server.send(frame_of(TRADES, 1, rows))
    arrivals, _ = server.receive()
    server.record(arrivals)
    kept = server.streams.ring(slot).window(1, 9)
    buy = TradeFlag.BUY
    assert kept["flags"].tolist() == [buy, buy, buy | TradeFlag.CORRECTION, buy | TradeFlag.LATE]
    rows["flags"] = buy
    server.send(frame_of(TRADES, 5, rows), frame_of(TRADES, 9, kept))
    server.receive()
    assert server.counted == {"admitted": 2, "corrections": 1, "late": 1, "repeats": 8}


class TestOwner:
    def test_another_inputs_stream_refuses_the_rows_and_the_run_goes_on(self, server: Pumped) -> None:
        mine, files = open_stream(server, TRADES), open_stream(server, owner=FILE)
        run = open_run(server)
        server.send(frame_of(KEY, 1, 3), frame_of(KEY, 1, 3), frame_of(KEY, 3, 2), frame_of(KEY, 9, 1))
        server.send(frame_of(TRADES, 5, 2, stream_id=8))
        arrivals, _ = server.receive()
        assert arrivals[["stream", "rows", "run"]].tolist() == [
            (files, 0, run),
            (files, 0, run),
            (mine, 2, run),
        ]
        assert server.counted == {"owner": 4, "resent": 4, "ahead": 1, "admitted": 2}
        assert server.receiver.kernel.run_taken(run) == 6

    def test_a_stream_of_nobody_goes_to_the_first_that_writes_it(self, server: Pumped) -> None:
        """As after a restart, when the run is known from another stream already."""
        slots = [open_stream(server, key, owner=0) for key in (KEY, TRADES)]
        open_run(server)
        server.send(frame_of(KEY, 1, 1), frame_of(TRADES, 2, 1, stream_id=8))
        arrivals, _ = server.receive()
        assert arrivals["rows"].tolist() == [1, 1]
        assert [server.streams.kernel.owner(slot) for slot in slots] == [INGEST, INGEST]


class TestRefused:
    def test_discarded_the_run_stays(self, server: Pumped) -> None:
        run = open_run(server)
        server.send(frame_of(KEY, 1, 3))
        assert server.receive()[1] is Drained.UNKNOWN_STREAM
        server.receiver.discard()
        assert server.receiver.kernel.run_taken(run) == 0

    def test_refused_the_run_goes_on_behind_it(self, server: Pumped) -> None:
        open_stream(server, TRADES)
        run = open_run(server)
        server.send(frame_of(KEY, 1, 3), frame_of(KEY, 9, 3), frame_of(TRADES, 4, 2, stream_id=8))
        for _ in range(2):
            assert server.receive()[1] is Drained.UNKNOWN_STREAM
            server.receiver.kernel.refuse(run)
        arrivals, status = server.receive()
        assert (arrivals["rows"].tolist(), status) == ([2], Drained.EMPTY)
        assert server.counted == {"refused_stream": 2, "admitted": 2}
        assert server.receiver.kernel.run_taken(run) == 5

    @pytest.mark.parametrize(
        ("reason", "frame"),
        [
            ("version", of_version(frame_of(KEY, 1, 1), 99)),
            ("kind", codec.encode(rows_of(RowKind.CANDLE, 1, 1), KEY, version=1)),
            ("kind", messages.health_request()),
            ("sequence", frame_of(KEY, 0, 1)),
            ("rows", frame_of(KEY, 1, limits.MAX_INGEST_ROWS + 1)),
        ],
    )
    def test_nothing_is_made_of_what_is_no_feeds_message(
        self, server: Pumped, reason: str, frame: bytes
    ) -> None:
        server.send(frame)
        assert server.receive()[1] is Drained.EMPTY, "a stream was asked for"
        assert server.counted == {reason: 1}
        server.send_frames(b"topic", frame)
        server.receive()
        assert server.counted == {reason: 1, "frames": 1}


def test_the_oldest_run_goes_when_there_are_too_many(server: Pumped) -> None:
    open_stream(server)
    for run in range(1, limits.MAX_RUNS + 2):
        open_run(server, run)
    server.send(frame_of(KEY, 1, 1, store_id=2), frame_of(KEY, 1, 1, store_id=1))
    arrivals, status = server.receive()
    assert arrivals["run"].tolist() == [1], "the last run has the first one's place, the second keeps its own"
    assert status is Drained.UNKNOWN_RUN, "the first was forgotten"


class TestOffer:
    def rows(self, count: int) -> Rows:
        return rows_of(RowKind.CANDLE, 1, count)

    def test_a_source_in_this_process_offers_without_a_run(self, server: Pumped) -> None:
        slot = open_stream(server, owner=FILE)
        assert server.receiver.kernel.offer(slot, self.rows(5)) == 5
        assert server.receiver.kernel.offer(slot, self.rows(7)) == 2
        arrivals = server.receiver.arrivals[: server.receiver.kernel.arrival_count]
        assert arrivals[["rows", "count", "run"]].tolist() == [(5, 5, NO_RUN), (2, 7, NO_RUN)]

    def test_rows_of_another_input_than_the_streams_are_refused(self, server: Pumped) -> None:
        slot = open_stream(server, owner=FILE)
        assert server.receiver.kernel.offer(slot, self.rows(5), FILE + 1) == 0
        assert server.receiver.kernel.offer(slot, self.rows(3), FILE) == 3
        assert server.counted == {"owner": 5, "admitted": 3}

    def test_a_file_may_be_ahead_of_the_clock(self, server: Pumped) -> None:
        slot = open_stream(server, owner=FILE)
        rows = self.rows(2)
        rows["ts_ms"] = time.time_ns() // 60_000_000_000 * 60_000 + np.array([2, 3]) * 24 * 3_600_000
        assert server.receiver.kernel.offer(slot, rows, FILE) == 2

    def test_room_counts_what_is_offered_and_not_yet_recorded(self, server: Pumped) -> None:
        slot = open_stream(server, rows=16)
        kernel = server.receiver.kernel
        kernel.offer(slot, self.rows(10))
        assert kernel.room(slot) == 6
        with pytest.raises(ValueError, match="no room for 10 rows"):
            kernel.offer(slot, self.rows(10))
        server.record(server.receiver.arrivals[: kernel.arrival_count])
        kernel.begin()
        assert kernel.room(slot) == 6
        server.streams.ring(slot).keep = 8
        assert kernel.room(slot) == 14
