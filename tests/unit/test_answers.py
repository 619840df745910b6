"""Answers: what every request gets but a backfill, with a server in memory and no socket."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import numpy as np
import pytest

from flux import codec
from flux.limits import MAX_CORRELATION_BYTES, MAX_LIST_STREAMS, MAX_REQUEST_BYTES
from flux.model import State, StreamKey
from flux.schema import messages
from flux.server.requests.answers import Answers
from flux.server.requests.view import Health
from tests.unit.served import (
    KEY,
    OTHER,
    STORE_ID,
    TRADES,
    Served,
    Stream,
    answer,
    ask,
    candles,
    is_error,
    rows,
    rows_at,
    served,
)

# What never gets as far as a message


@pytest.mark.parametrize("frames", [(), (b"a", b"b"), (b"",) * 5])
def test_a_request_is_one_frame(frames: tuple[bytes, ...]) -> None:
    assert is_error(answer(served(), *frames), 400, f"not {len(frames)}")


@pytest.mark.parametrize("frame", [b"", b"\0", b"abc", b"{}" * 40, b"\xff" * 64])
def test_what_is_no_envelope_is_told_so_in_version_1(frame: bytes) -> None:
    reply = answer(served(), frame)
    assert is_error(reply, 400, "invalid flatbuffer envelope")
    assert reply.message == "invalid flatbuffer envelope"
    assert (reply.schema_version, reply.correlation_id) == (1, None)


def test_a_request_too_large_is_told_the_limit() -> None:
    frame = messages.health_request(schema_version=1) + b"\0" * MAX_REQUEST_BYTES
    assert is_error(answer(served(), frame), 400, str(MAX_REQUEST_BYTES))


def test_a_flipped_bit_is_no_envelope() -> None:
    frame = bytearray(messages.health_request(schema_version=2))
    frame[-6] ^= 1
    assert is_error(answer(served(), bytes(frame)), 400, "invalid flatbuffer envelope")


@pytest.mark.parametrize("version", [0, 3, 99, 2**32 - 1])
def test_other_versions_are_refused_in_version_1_and_their_correlation_id_comes_back(version: int) -> None:
    frame = _with_version(version)
    reply = answer(served(), frame)
    assert is_error(reply, 400, "unsupported schema_version")
    assert reply.message == "unsupported schema_version"
    assert (reply.schema_version, reply.correlation_id) == (1, "c-9")


def _with_version(version: int) -> bytes:
    import flatbuffers

    from flux.schema.generated import Envelope, HealthRequest

    builder = flatbuffers.Builder(64)
    correlation = builder.CreateString("c-9")
    HealthRequest.Start(builder)
    health = HealthRequest.End(builder)
    Envelope.Start(builder)
    Envelope.AddSchemaVersion(builder, version)
    Envelope.AddCorrelationId(builder, correlation)
    Envelope.AddMessageType(builder, 1)
    Envelope.AddMessage(builder, health)
    builder.Finish(Envelope.End(builder))
    return bytes(builder.Output())


def test_a_correlation_id_comes_back_up_to_its_limit() -> None:
    for text in ("", "é" * (MAX_CORRELATION_BYTES // 2), "k" * MAX_CORRELATION_BYTES):
        assert (
            answer(served(), messages.health_request(correlation_id=text, schema_version=1)).correlation_id
            == text
        )
    long = messages.health_request(correlation_id="k" * (MAX_CORRELATION_BYTES + 1), schema_version=1)
    reply = answer(served(), long)
    assert isinstance(reply, codec.HealthResponse)
    assert reply.correlation_id is None


@pytest.mark.parametrize(
    ("build", "slots"),
    [
        (messages.health_response, {}),
        (messages.error_response, {"code": 1}),
        (messages.subscribe_candles_ack, {"accepted": True}),
        (messages.gap_list_request, {"key": KEY}),
    ],
)
def test_a_message_that_is_no_request_here_is_unimplemented(build: Any, slots: dict[str, Any]) -> None:
    if build is not messages.gap_list_request:
        assert is_error(ask(served(), build, 1, **slots), 404, "unsupported message_type")
    assert is_error(ask(served(), build, 2, **slots), 501, "unsupported message_type", status=3)


def test_rows_and_requests_of_the_other_version_are_unimplemented() -> None:
    live = codec.encode(rows_at([1]), KEY, version=1)
    assert isinstance(live, bytes)
    assert is_error(answer(served(), live), 404, "unsupported message_type")
    assert is_error(ask(served(), messages.backfill_candles_request, 2, key=KEY), 501, "", status=3)


# Names


@pytest.mark.parametrize(
    "build",
    [messages.get_cursor_request, messages.subscribe_candles_request, messages.backfill_candles_request],
)
def test_a_missing_key_is_told_in_the_words_of_version_1(build: Any) -> None:
    reply = ask(served(), build, 1, key=None)
    assert is_error(reply, 400, "missing stream key")
    assert reply.message == "missing stream key"


def test_a_missing_key_in_version_2() -> None:
    assert is_error(
        ask(served(), messages.backfill_rows_request, 2, key=None), 400, "missing stream key", status=1
    )
    assert is_error(ask(served(), messages.stream_status_request, 2), 400, "missing stream key", status=1)


@pytest.mark.parametrize("symbol", ["a\0b", "a\nb", "\x1b[2J", "x" * 10_240, "", "é"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_name_outside_the_grammar_is_escaped(symbol: str, version: int) -> None:
    reply = ask(served(), messages.get_cursor_request, version, key=KEY._replace(symbol=symbol))
    if version == 1:  # which knows no wrong names, and whose text is frozen
        assert is_error(reply, 404, "unknown stream key")
        assert reply.message == "unknown stream key"
        return
    assert is_error(reply, 400, "symbol", status=1)
    assert reply.message.isascii()
    assert reply.message.isprintable()
    assert len(reply.message) < 500


def test_an_unknown_stream_in_the_words_of_version_1() -> None:
    unknown = KEY._replace(symbol="TSET")
    for build in (
        messages.get_cursor_request,
        messages.backfill_candles_request,
        messages.stream_status_request,
    ):
        reply = ask(served(), build, 1, key=unknown)
        assert is_error(reply, 404, "unknown stream key")
        assert reply.message == "unknown stream key"
    assert candles(served(), key=TRADES).code == 404, "trades are not candles"


def test_an_unknown_stream_in_version_2_comes_with_near_names() -> None:
    server = served()
    reply = rows(server, KEY._replace(symbol="TSET"))
    assert is_error(reply, 404, "SIM/TEST/1s", status=2)
    reply = rows(server, StreamKey("ZZZ", "QQQQQQ", "1M"))
    assert is_error(reply, 404, "unknown stream key ZZZ/QQQQQQ/1M", status=2)
    assert "did you mean" not in reply.message
    assert len(server.all) == 3, "asking creates nothing"


def test_at_most_five_near_names() -> None:
    server = Served(*(Stream(StreamKey("SIM", f"BTCUSD{n}", "1m"), n, rows_at([])) for n in range(1, 10)))
    reply = rows(server, StreamKey("SIM", "BTCUSD", "1m"))
    assert reply.message.count("BTCUSD") == 1 + 5


def test_a_flood_of_unknown_names_costs_few_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that waits for streams that are not there yet asks again and again, and others wait meanwhile."""
    compared: list[int] = []

    def close(wanted: str, names: list[str], most: int, cutoff: float) -> list[str]:
        compared.append(len(names))
        return get_close_matches(wanted, names, most, cutoff)

    monkeypatch.setattr("flux.server.requests.answers.get_close_matches", close)
    server = Served(*(Stream(StreamKey("SIM", f"BTCUSD{n}", "1m"), n, rows_at([])) for n in range(1, 400)))
    now = 0
    answers = Answers(server, now_ms=lambda: now)
    request = messages.stream_status_request(key=StreamKey("SIM", "BTCUSD", "1m"), schema_version=2)
    for second in range(1, 3):
        now = second * 1_000
        replies = [codec.decode(answers.answer([request])) for _ in range(100)]
        assert all(is_error(reply, 404, "unknown stream key SIM/BTCUSD/1m", status=2) for reply in replies)
        assert "did you mean" in replies[0].message
        assert len(compared) == 10 * second
    assert max(compared) <= 50


def test_the_nearest_name_is_said_first() -> None:
    names = [("B", "ETHUSDT", "1m"), ("A", "BTCUSDT", "5m"), ("A", "BTCUSDT", "1m"), ("B", "BTCUSDT", "1m")]
    server = Served(*(Stream(StreamKey(*name), n, rows_at([])) for n, name in enumerate(names, 1)))
    reply = rows(server, StreamKey("A", "btcusd", "1m"))
    assert reply.message.endswith("did you mean A/BTCUSDT/1m or A/BTCUSDT/5m or B/BTCUSDT/1m?")


# Health, cursor, subscribe, status, list, position


def test_health_says_ok_and_in_version_2_who_answers() -> None:
    reply = ask(served(), messages.health_request, 1)
    assert (reply.ok, reply.message, reply.store_id) == (True, "ok", 0)
    reply = ask(served(), messages.health_request, 2)
    assert (reply.ok, reply.state, reply.version) == (True, 0, "9.9")
    assert (reply.store_id, reply.epoch, reply.schema_version_max) == (STORE_ID, 1, 2)


@pytest.mark.parametrize(
    ("state", "ok"), [(State.DEGRADED, True), (State.UNHEALTHY, False), (State.CLOSING, False)]
)
def test_health_says_what_is_wrong(state: State, ok: bool) -> None:
    server = served()
    server.state = Health(state, "disk full")
    for version in (1, 2):
        reply = ask(server, messages.health_request, version)
        assert (reply.ok, reply.message) == (ok, "disk full")
    assert reply.state == state


@pytest.mark.parametrize("version", [1, 2])
def test_a_cursor_is_the_committed_head(version: int) -> None:
    reply = ask(served(), messages.get_cursor_request, version, key=KEY)
    assert (reply.key, reply.cursor) == (KEY, (10, 10_000))
    assert ask(served(), messages.get_cursor_request, version, key=OTHER).cursor == (0, 0)


def test_subscribe_says_what_the_latest_is() -> None:
    server = served()
    build = messages.subscribe_candles_request
    for slots in ({}, {"has_from_sequence": True, "from_sequence_exclusive": 4}):
        reply = ask(server, build, 1, key=KEY, **slots)
        assert (reply.accepted, reply.reason, reply.key, reply.latest_sequence) == (True, None, KEY, 10)


def test_subscribe_is_not_accepted_with_a_reason() -> None:
    server = served()
    build = messages.subscribe_candles_request
    reply = ask(server, build, 1, key=KEY._replace(symbol="NONE"))
    assert (reply.accepted, reply.reason, reply.latest_sequence) == (False, "unknown stream key", 0)
    server.all[0].first = 5
    reply = ask(server, build, 1, key=KEY, has_from_sequence=True, from_sequence_exclusive=3)
    assert (reply.accepted, reply.latest_sequence) == (False, 10)
    assert "first is 5" in reply.reason
    assert ask(server, build, 1, key=KEY, has_from_sequence=True, from_sequence_exclusive=4).accepted
    assert ask(server, build, 1, key=KEY, from_sequence_exclusive=3).accepted, (
        "without its flag it means nothing"
    )
    assert not ask(server, build, 1, key=TRADES).accepted
    server.all[0].v1 = False
    assert "topic" in ask(server, build, 1, key=KEY).reason


def test_status_by_name_and_by_number() -> None:
    server = served()
    server.all[0].forming = rows_at([11_000])
    for slots in ({"key": KEY}, {"stream_id": 1}):
        reply = ask(server, messages.stream_status_request, 2, **slots)
        assert (reply.key, reply.stream_id, reply.epoch, reply.store_id) == (KEY, 1, 1, STORE_ID)
        assert (reply.first_sequence, reply.latest_sequence, reply.latest_ts_ms) == (1, 10, 10_000)
        assert reply.server_time_ms == 123
        assert np.array_equal(reply.forming, server.all[0].forming)
    reply = ask(server, messages.stream_status_request, 1, key=KEY)
    assert reply.latest_sequence == 10
    assert len(reply.forming) == 0, "never sent to version 1"
    assert is_error(ask(server, messages.stream_status_request, 2, stream_id=99), 404, "unknown", status=2)


def test_streams_are_listed_in_pages_by_prefix() -> None:
    server = Served(*(Stream(StreamKey("SIM", f"S{n}", "1m"), n, rows_at([])) for n in range(1, 1_202)))
    reply = ask(server, messages.stream_list_request, 2)
    assert (len(reply.streams), reply.has_more) == (MAX_LIST_STREAMS, True)
    reply = ask(server, messages.stream_list_request, 2, after_stream_id=reply.streams[-1].stream_id)
    assert ([s.stream_id for s in reply.streams], reply.has_more) == (list(range(1_001, 1_202)), False)
    reply = ask(server, messages.stream_list_request, 2, prefix="SIM/1m/S120", limit=3)
    assert ([s.key.symbol for s in reply.streams], reply.has_more) == (["S120", "S1200", "S1201"], False)
    assert ask(server, messages.stream_list_request, 2, prefix="SIM/1m/S120", limit=2).has_more
    assert ask(server, messages.stream_list_request, 2, prefix="SIM/5m").streams == []


def test_a_feed_learns_what_of_its_run_is_committed() -> None:
    build = messages.source_position_request
    reply = ask(served(), build, 2, source_id="FEED", run=7)
    assert (reply.source_id, reply.run, reply.committed) == ("FEED", 7, 42)
    assert ask(served(), build, 2, source_id="FEED", run=8).committed == 0
    assert (reply.refused_total, reply.refused.tolist()) == (2, [(3, 4, 0), (9, 32, 0)])
    assert ask(served(), build, 2, source_id="FEED", run=7, refused_after=3).refused["row"].tolist() == [9]
    refused = ask(served(), build, 2, source_id="no name", run=7)
    assert (refused.status, refused.code) == (1, 400)


def test_a_claim_is_answered_once_it_stands_in_the_journal() -> None:
    server, build = served(), messages.source_position_request
    refused = ask(server, build, 2, source_id="FEED", run=7, claim=5)
    assert (refused.status, refused.retry_after_ms) == (5, 20)
    assert ask(server, build, 2, source_id="FEED", run=7, claim=5).committed == 42


def test_what_was_asked_and_refused_is_counted() -> None:
    answers = Answers(served())
    for frame in (messages.health_request(), b"", messages.get_cursor_request(key=None)):
        answers.answer([frame])
    assert answers.counts == {"HealthRequest": 1, "GetCursorRequest": 1, "INVALID_ARGUMENT": 2}
