"""Numbers of a peer that fit their slot and cannot be meant: refused, or bounded where they are read."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import numpy as np
import pytest
import zmq

from flux import codec
from flux.codec.bounds import beyond_bounds
from flux.errors import AnswerError, UnavailableError
from flux.limits import MAX_REPLY_ROWS, MAX_RETRY_AFTER_MS, MAX_STREAM_ID
from flux.model import CANDLE, MARK, MAX_SEQUENCE, StreamKey
from flux.protocol.coordinator import Coordinator
from flux.protocol.effects import Ask, AskKind
from flux.protocol.repair import next_range
from flux.protocol.replies import Beat, Status
from flux.ring import Ring
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets, endpoint_of, receive
from tests.patience import PATIENCE_S
from tests.unit.served import KEY


@pytest.mark.parametrize("zstd", [False, True])
@pytest.mark.parametrize(
    ("slots", "named"),
    [
        ({}, ""),
        ({"watermark_sequence": 8, "has_more": True}, ""),
        ({"rows_epoch": 2}, ""),
        ({"watermark_sequence": 6}, "watermark_sequence"),
        ({"watermark_sequence": 7, "has_more": True}, "has_more"),
        ({"epoch": 0}, "epoch"),
        ({"rows_epoch": 4}, "rows_epoch"),
        ({"status": 5}, "status"),
    ],
)
def test_a_page_that_contradicts_itself_is_no_answer(slots: dict[str, Any], named: str, zstd: bool) -> None:
    """Rows 5 to 7 of epoch 3."""
    said = {"store_id": 9, "epoch": 3, "watermark_sequence": 7, "zstd": zstd} | slots
    frame = codec.encode_backfill(KEY, 5, np.zeros(3, CANDLE), **said)
    assert beyond_bounds(codec.decode(frame)) == named


@pytest.mark.parametrize(
    ("slots", "named"),
    [
        ({"interval_ms": 1_000}, ""),
        ({"interval_ms": 0}, "interval_ms"),
        ({"interval_ms": 2**32 - 1}, "interval_ms"),
    ],
)
def test_the_interval_of_a_heartbeat_is_one_that_can_be_waited_for(slots: dict[str, int], named: str) -> None:
    frame = messages.heartbeat(store_id=1, epoch=1, boot_id=1, server_time_ns=0, number=1, **slots)
    assert beyond_bounds(codec.decode(frame)) == named


def test_a_number_in_a_listed_stream_is_judged_too() -> None:
    for stream_id, named in ((MAX_STREAM_ID, ""), (MAX_STREAM_ID + 1, "streams.stream_id")):
        frame = messages.stream_list_response(streams=[{"key": KEY, "stream_id": stream_id}])
        assert beyond_bounds(codec.decode(frame)) == named


def test_a_head_beyond_all_reason_beside_a_hole_asks_for_no_more_than_a_page() -> None:
    gaps = np.array([[5, 6]], np.uint64)
    for head in (MAX_SEQUENCE, 2**63, 2**64 - 1):
        after, to = next_range(4, 8, head, gaps, 2**18, 2**18) or (0, 0)
        assert 4 == after < to <= 4 + MAX_REPLY_ROWS


def joined(status: Status) -> Coordinator:
    """A coordinator that was told where its one stream stands."""
    made = Coordinator(random.Random(1))
    made.subscribe(KEY, 0, Ring(1_024), "oldest", 0)
    made.link_up(0)
    made.tick(2 * 10**9)
    ask = next(effect for effect in made.take() if isinstance(effect, Ask))
    assert ask.kind is AskKind.STATUS
    made.answer(ask.number, status, 2 * 10**9)
    return made


def test_a_stream_id_that_no_server_gives_takes_no_memory() -> None:
    tracemalloc.start()
    try:
        joined(Status(KEY, 10, 1, 1, 1, 2**32 - 1))
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_a_mark_beyond_the_highest_sequence_is_no_head() -> None:
    made = joined(Status(KEY, 0, 1, 1, 1, 7))
    marks = np.zeros(2, MARK)
    marks["stream_id"], marks["latest_sequence"] = 7, (2**63, 2**64 - 1)
    made.heartbeat(Beat(1, 1, 1, 1, 1_000, 0, marks), 3 * 10**9)
    assert made.head(0) == 0
    marks["latest_sequence"] = 12
    made.heartbeat(Beat(1, 1, 1, 2, 1_000, 0, marks), 3 * 10**9)
    assert made.head(0) == 12


# What a server answers, over a real socket


OTHER = StreamKey("SIM", "OTHER", "1s")
ANSWERS: dict[str, Any] = {
    "another type": lambda c: messages.health_response(correlation_id=c),
    "another stream": lambda c: messages.stream_status_response(key=OTHER, correlation_id=c),
    "a sequence that cannot be": lambda c: messages.stream_status_response(
        key=KEY, latest_sequence=2**63, correlation_id=c
    ),
    "a stream_id that cannot be": lambda c: messages.stream_status_response(
        key=KEY, stream_id=2**32 - 1, correlation_id=c
    ),
}


def asked(answer: Any, build: Any, **slots: Any) -> Any:
    """What a requester makes of an answer."""
    with Sockets() as sockets:
        router = sockets.router("tcp://127.0.0.1:*")
        requester = Requester(sockets, endpoint_of(router))
        requester.send(build, timeout=PATIENCE_S, **slots)
        assert router.poll(int(PATIENCE_S * 1_000), zmq.POLLIN)
        frames = receive(router) or []
        request = codec.decode(frames[-1])
        router.send_multipart([*frames[:-1], answer(request.correlation_id)])
        outcome = requester.receive(PATIENCE_S)[0]
        if outcome.error is not None:
            raise outcome.error
        return outcome.reply


@pytest.mark.parametrize("which", ANSWERS)
def test_what_is_no_answer_is_an_error_and_says_what_came(which: str) -> None:
    with pytest.raises(AnswerError, match="answered stream_status_request"):
        asked(ANSWERS[which], messages.stream_status_request, key=KEY)


def test_pages_and_lists_that_go_back_are_no_answers() -> None:
    rows = np.zeros(2, CANDLE)

    def page(first: int) -> Any:
        return lambda c: codec.encode_backfill(KEY, first, rows, correlation_id=c)

    ask = {"key": KEY, "from_sequence_exclusive": 5}
    assert asked(page(6), messages.backfill_rows_request, **ask).start_sequence == 6
    with pytest.raises(AnswerError, match="had already"):
        asked(page(5), messages.backfill_rows_request, **ask)

    def listed(*ids: int) -> Any:
        streams = [{"key": KEY, "stream_id": number} for number in ids]
        return lambda c: messages.stream_list_response(streams=streams, correlation_id=c)

    assert len(asked(listed(4, 5), messages.stream_list_request, after_stream_id=3).streams) == 2
    for ids in ((3, 5), (5, 4), (4, 4)):
        with pytest.raises(AnswerError, match="had already"):
            asked(listed(*ids), messages.stream_list_request, after_stream_id=3)


def test_a_wait_that_a_server_asks_for_has_a_bound() -> None:
    with pytest.raises(UnavailableError) as raised:
        asked(
            lambda c: messages.error_response(code=503, status=5, retry_after_ms=2**32 - 1, correlation_id=c),
            messages.health_request,
        )
    assert raised.value.retry_after_ms == MAX_RETRY_AFTER_MS
