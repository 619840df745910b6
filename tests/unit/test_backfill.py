"""Backfills of both versions: which rows, which status, with a server in memory and no socket."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flux import codec
from flux.errors import StorageError
from flux.limits import MAX_REPLY_ROWS
from flux.model import RowKind, StreamKey
from flux.schema import messages
from flux.server.requests import pages
from flux.server.requests.answers import Answers
from tests.unit.served import (
    KEY,
    OTHER,
    STORE_ID,
    TRADES,
    Served,
    Stream,
    candles,
    is_error,
    rows,
    rows_at,
    sequences,
    served,
)

# Backfill, version 1


def test_pages_follow_each_other_without_a_hole() -> None:
    server = served()
    reply = candles(server, limit=4)
    assert (sequences(reply), reply.has_more, reply.next_sequence) == ([1, 2, 3, 4], True, 4)
    reply = candles(server, has_from_sequence=True, from_sequence_exclusive=reply.next_sequence, limit=4)
    assert (sequences(reply), reply.has_more, reply.next_sequence) == ([5, 6, 7, 8], True, 8)
    reply = candles(server, has_from_sequence=True, from_sequence_exclusive=8, limit=4)
    assert (sequences(reply), reply.has_more, reply.next_sequence) == ([9, 10], False, 0)
    assert reply.candles["ts_ms"].tolist() == [9_000, 10_000]


def test_no_cursor_begins_at_the_oldest_kept() -> None:
    server = served()
    server.all[0].first = 4
    assert sequences(candles(server, limit=2)) == [4, 5]
    assert sequences(candles(server, limit=2, has_from_sequence=True)) == [4, 5], "0 means nothing yet"
    assert sequences(candles(server, from_sequence_exclusive=8, limit=2)) == [4, 5], (
        "a value without its flag"
    )


def test_the_end_is_inclusive_and_counts_only_with_its_flag() -> None:
    server = served()
    reply = candles(server, has_end_ts_ms=True, end_ts_ms=3_000)
    assert (sequences(reply), reply.has_more) == ([1, 2, 3], False)
    assert sequences(candles(server, has_end_ts_ms=True, end_ts_ms=2_999)) == [1, 2]
    assert len(candles(server, end_ts_ms=3_000).candles) == 10
    for end in (0, -1, -(2**63)):
        reply = candles(server, has_end_ts_ms=True, end_ts_ms=end)
        assert (len(reply.candles), reply.start_sequence, reply.has_more) == (0, 0, False)
    assert len(candles(server, has_end_ts_ms=True, end_ts_ms=2**63 - 1).candles) == 10


@pytest.mark.parametrize("limit", [0, MAX_REPLY_ROWS, MAX_REPLY_ROWS + 1, 2**32 - 1])
def test_no_reply_has_more_than_the_cap(limit: int) -> None:
    server = Served(Stream(KEY, 1, rows_at(range(MAX_REPLY_ROWS + 5))))
    reply = candles(server, limit=limit)
    assert (len(reply.candles), reply.has_more, reply.next_sequence) == (MAX_REPLY_ROWS, True, MAX_REPLY_ROWS)
    reply = rows(server, limit=limit)
    assert (len(reply.rows), reply.has_more) == (MAX_REPLY_ROWS, True)


@pytest.mark.parametrize("cursor", [10, 11, 2**63, 2**64 - 1])
def test_nothing_is_missing_at_or_beyond_the_head(cursor: int) -> None:
    reply = candles(served(), has_from_sequence=True, from_sequence_exclusive=cursor)
    assert (len(reply.candles), reply.start_sequence, reply.has_more, reply.next_sequence) == (0, 0, False, 0)


def test_an_empty_stream_is_an_empty_success() -> None:
    reply = candles(served(), key=OTHER)
    assert (len(reply.candles), reply.start_sequence, reply.has_more) == (0, 0, False)


def test_what_cannot_be_repaired_is_an_error_never_an_empty_success() -> None:
    server = served()
    server.all[0].first = 5
    reply = candles(server, has_from_sequence=True, from_sequence_exclusive=3)
    assert is_error(reply, 404, "older than what is kept: the first is 5")
    server = Served(Stream(KEY, 1, rows_at(range(10)), ring_first=9, stored=10, lost={4, 5}))
    reply = candles(server, has_from_sequence=True, from_sequence_exclusive=3)
    assert is_error(reply, 404, "sequences 4 to 5 are lost")
    assert sequences(candles(server)) == [1, 2, 3]


def test_a_repair_that_its_own_end_shuts_out_is_answered_by_limit() -> None:
    # The client has 1 to 3, lost 4 (ts 40) and 5 (ts 50), and buffered 6, a correction of ts 20.
    server = Served(Stream(KEY, 1, rows_at([10, 20, 30, 40, 50, 20, 60])))
    lost = {"has_from_sequence": True, "from_sequence_exclusive": 3, "has_end_ts_ms": True, "end_ts_ms": 10}
    reply = candles(server, limit=2, **lost)
    assert (sequences(reply), reply.has_more) == ([4, 5], False)
    reply = candles(server, limit=1, **{**lost, "end_ts_ms": 20})
    assert (sequences(reply), reply.has_more) == ([4], True), "6 is inside the bounds"
    # With the row after the cursor inside, the end counts.
    reply = candles(server, limit=4, **{**lost, "from_sequence_exclusive": 2, "end_ts_ms": 30})
    assert (sequences(reply), reply.has_more) == ([3, 4, 5, 6], False), "up to the last row inside"
    # Nothing behind the cursor: nothing to ignore the end for.
    assert len(candles(server, **{**lost, "from_sequence_exclusive": 7}).candles) == 0


# Backfill, version 2


def test_rows_come_with_the_stores_identity_and_bounds() -> None:
    server = served()
    server.all[0].first = 2
    reply = rows(server, from_sequence_exclusive=3, limit=2, store_id=STORE_ID, epoch=1)
    assert (reply.status, sequences(reply), reply.has_more, reply.row_count) == (0, [4, 5], True, 2)
    assert (reply.store_id, reply.epoch) == (STORE_ID, 1)
    assert (reply.first_available_sequence, reply.watermark_sequence) == (2, 10)
    assert np.array_equal(reply.rows, server.all[0].rows[3:5])
    reply = rows(server, from_sequence_exclusive=8, to_sequence_inclusive=9)
    assert (sequences(reply), reply.has_more) == ([9], False)
    assert sequences(rows(server, from_sequence_exclusive=8, to_sequence_inclusive=2**64 - 1)) == [9, 10]
    assert sequences(rows(server, from_sequence_exclusive=8, to_sequence_inclusive=3)) == []


def test_times_are_half_open_and_0_is_none() -> None:
    server = served()
    assert sequences(rows(server, start_ts_ms=3_000, end_ts_ms=5_000)) == [3, 4]
    assert sequences(rows(server, start_ts_ms=9_000)) == [9, 10]
    assert sequences(rows(server, end_ts_ms=2_001)) == [1, 2]
    server.all[0].first = 5
    reply = rows(server, start_ts_ms=3_000, end_ts_ms=7_000)
    assert (reply.status, sequences(reply)) == (0, [5, 6]), "asking by time claims nothing"


def test_trades_and_quotes_travel_as_their_own_rows() -> None:
    quotes = StreamKey("SIM", "TEST", "quote")
    server = Served(
        Stream(TRADES, 1, rows_at([5, 6, 7], RowKind.TRADE)),
        Stream(quotes, 2, rows_at([5, 6, 7], RowKind.QUOTE)),
    )
    for stream in server.all:
        reply = rows(server, stream.key, start_ts_ms=6)
        assert sequences(reply) == [2, 3]
        assert np.array_equal(reply.rows, stream.rows[1:])


def test_rows_are_compressed_where_that_is_accepted_and_worth_it() -> None:
    server = Served(Stream(KEY, 1, rows_at(range(0, 5_000_000, 1_000))))
    plain = rows(server, limit=5_000)
    packed = rows(server, limit=5_000, accept_zstd=True)
    assert plain.zstd is None
    assert packed.zstd is not None
    assert len(packed.zstd) < 5_000 * 64 // 2
    assert np.array_equal(packed.rows, plain.rows)
    assert packed.row_count == 5_000
    assert rows(server, limit=10, accept_zstd=True).zstd is None


def test_a_cursor_older_than_what_is_kept() -> None:
    server = served()
    server.all[0].first = 5
    for cursor in (0, 3):
        reply = rows(server, from_sequence_exclusive=cursor)
        assert (reply.status, len(reply.rows), reply.first_available_sequence) == (1, 0, 5)
    assert sequences(rows(server, from_sequence_exclusive=4, limit=1)) == [5]


def test_a_cursor_ahead_of_the_head_is_told_and_heard_once_it_is_ours() -> None:
    server = served()
    reply = rows(server, from_sequence_exclusive=11)
    assert (reply.status, reply.watermark_sequence, reply.epoch) == (2, 10, 1)
    assert server.ahead == [], "anybody can ask for anything"
    assert rows(server, from_sequence_exclusive=11, store_id=STORE_ID, epoch=1).status == 2
    assert rows(server, from_sequence_exclusive=3, store_id=STORE_ID, epoch=2).status == 2
    assert server.ahead == [(KEY, 1, 11), (KEY, 2, 3)]


def test_an_older_epoch_is_told_how_far_it_is_right() -> None:
    server = Served(Stream(KEY, 1, rows_at(range(10)), epoch_ends={1: 8, 2: 6, 3: 9}), epoch=4)
    for epoch, end in ((1, 6), (2, 6), (3, 9)):
        reply = rows(server, from_sequence_exclusive=7, store_id=STORE_ID, epoch=epoch)
        assert (reply.status, reply.epoch_end_sequence, reply.epoch, len(reply.rows)) == (3, end, 4, 0)
    assert rows(server, from_sequence_exclusive=7, store_id=STORE_ID, epoch=4).status == 0
    assert rows(server, from_sequence_exclusive=7, store_id=STORE_ID).status == 0, "epoch 0 claims nothing"
    server.all[0].epoch_ends = {}
    assert rows(server, store_id=STORE_ID, epoch=1).epoch_end_sequence == 0, "it was not there yet"


def test_a_page_ends_where_the_epoch_of_its_rows_does() -> None:
    """D13: rows keep the epoch in which they were numbered and first sent; the store's own stays beside it."""
    server = Served(Stream(KEY, 1, rows_at(range(12)), epoch_ends={1: 8, 3: 6, 4: 9}), epoch=5)
    pages, after = [], 0
    while after < 12:
        page = rows(server, from_sequence_exclusive=after)
        pages.append((page.rows_epoch, sequences(page), page.has_more))
        assert page.epoch == 5
        after = page.start_sequence + len(page.rows) - 1
    assert pages == [
        (1, [1, 2, 3, 4, 5, 6], True),
        (4, [7, 8, 9], True),
        (0, [10, 11, 12], False),
    ], "rows 7 and 8 of epoch 1 were lost with epoch 3; 0: as the store's"
    assert rows(server, from_sequence_exclusive=1, to_sequence_inclusive=6).has_more is False
    timed = rows(server, start_ts_ms=6, end_ts_ms=11)
    assert (timed.rows_epoch, sequences(timed), timed.has_more) == (4, [7, 8, 9], True)
    assert rows(server, from_sequence_exclusive=2, limit=2).rows_epoch == 1


def test_nothing_of_another_store_is_right() -> None:
    server = served()
    reply = rows(server, from_sequence_exclusive=3, store_id=STORE_ID + 1, epoch=9)
    assert (reply.status, reply.epoch_end_sequence, reply.store_id) == (3, 0, STORE_ID)
    assert server.ahead == []


def test_a_hole_says_where_rows_go_on() -> None:
    server = Served(Stream(KEY, 1, rows_at(range(10)), ring_first=9, stored=10, lost={4, 5}))
    reply = rows(server, from_sequence_exclusive=3)
    assert (reply.status, len(reply.rows), reply.first_available_sequence) == (4, 0, 6)
    assert sequences(rows(server, from_sequence_exclusive=5)) == [6, 7, 8, 9, 10]


def test_memory_says_that_it_needs_the_store_and_the_store_goes_on_from_there() -> None:
    server = Served(Stream(KEY, 1, rows_at(range(10)), ring_first=6, stored=10))
    for build, version in ((messages.backfill_candles_request, 1), (messages.backfill_rows_request, 2)):
        work = Answers(server).answer([build(key=KEY, schema_version=version)])
        assert not isinstance(work, bytes)
        assert work.from_memory() is None
        assert server.store_reads == 0
        assert sequences(codec.decode(work.from_store(server))) == list(range(1, 11))
        assert codec.decode(work.unavailable("later", 50)).code == 503
        refused = codec.decode(work.exhausted("too much", 50))
        assert (refused.code, refused.status, refused.retry_after_ms) == (
            (429, 0, 0) if version == 1 else (429, 4, 50)
        )
        server.store_reads = 0


def test_a_store_that_fails_is_the_workers_to_answer() -> None:
    server = Served(Stream(KEY, 1, rows_at(range(10)), ring_first=6, stored=10))

    class Broken:
        def read(self, *_: object) -> Any:
            raise StorageError("disk")

        def sequence_range(self, *_: object) -> Any:
            raise StorageError("disk")

    work = Answers(server).answer([messages.backfill_rows_request(key=KEY)])
    assert not isinstance(work, bytes)
    with pytest.raises(StorageError):
        work.from_store(Broken())


@pytest.mark.parametrize("sequence", [2**63, 2**64 - 1])
def test_a_sequence_that_cannot_be_is_an_invalid_argument(sequence: int) -> None:
    reply = rows(served(), from_sequence_exclusive=sequence)
    assert is_error(reply, 400, "from_sequence_exclusive is out of bounds", 1)


def test_the_highest_sequence_there_can_be_is_only_ahead() -> None:
    assert rows(served(), from_sequence_exclusive=2**63 - 1, store_id=STORE_ID).status == 2
    assert len(rows(served(), to_sequence_inclusive=2**63 - 1).rows) == 10


def test_what_the_store_lacks_while_it_lags_comes_from_the_journal() -> None:
    stream = Stream(KEY, 1, rows_at(range(1_000, 11_000, 1_000)), ring_first=8, stored=3)
    assert rows(Served(stream), from_sequence_exclusive=3).status == 4, "neither has it"
    stream.journal_first = 3
    server = Served(stream)
    assert sequences(rows(server)) == list(range(1, 11)), "store, journal and ring, one behind the other"
    assert sequences(rows(server, from_sequence_exclusive=3)) == list(range(4, 11))
    assert sequences(rows(server, start_ts_ms=5_000)) == list(range(5, 11))
    assert sequences(rows(server, end_ts_ms=5_500)) == list(range(1, 6))
    assert sequences(rows(server, end_ts_ms=2_500)) == [1, 2]
    assert sequences(rows(server, start_ts_ms=20_000)) == []


def test_a_time_is_looked_for_in_so_many_rows_of_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(KEY, 1, rows_at(range(1_000, 11_000, 1_000)), ring_first=8, stored=3, journal_first=3)
    monkeypatch.setattr(pages, "PAST_SEARCH_ROWS", 3)
    with pytest.raises(StorageError, match="4 rows are in the journal alone"):
        rows(Served(stream), start_ts_ms=5_000)


def test_where_the_store_fails_all_of_the_journal_is_read() -> None:
    class Broken:
        def read(self, *_: object) -> Any:
            raise StorageError("disk")

        def sequence_range(self, *_: object) -> Any:
            raise StorageError("disk")

    stream = Stream(KEY, 1, rows_at(range(10)), ring_first=6, stored=10, journal_kept=3)
    view = Served(stream)
    answers = Answers(view)

    def asked(after: int) -> Any:
        work = answers.answer([messages.backfill_rows_request(key=KEY, from_sequence_exclusive=after)])
        assert not isinstance(work, bytes)
        return codec.decode(work.from_store(Broken()))

    assert sequences(asked(2)) == list(range(3, 11))
    with pytest.raises(StorageError):
        asked(1)  # truly the store's alone
