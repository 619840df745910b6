"""A version 1 client against a real server: everything that docs/wire.md says it may rely on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from flux.config import Replay, ServeConfig
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import StreamKey
from flux.server.service import Server
from tests.patience import PATIENCE_S
from tests.system import v1_peer as v1
from tests.system.feeding import Feeding
from tests.system.processes import FluxServer, wait_until
from tests.system.v1_peer import Client, Row

pytestmark = pytest.mark.system

ROWS = 25_500
MINUTE_MS = 60_000
KEY = ("SIM", "SAMPLE", "1m")
UNKNOWN = ("SIM", "NOBODY", "1m")


def as_v1(rows: NDArray[np.void]) -> list[Row]:
    names = Row._fields
    return [Row(*row) for row in rows[list(names)].tolist()]


@pytest.fixture(scope="module")
def truth() -> list[Row]:
    return as_v1(synth.candles(ROWS, seed=3))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("v1")
    synth.write_csv(folder / "SAMPLE.csv", synth.candles(ROWS, seed=3))
    with (
        FluxServer(folder / "data", "--replay", folder / "SAMPLE.csv") as server,
        Client(server.rpc, server.pub) as made,
    ):
        wait_until(lambda: head(made, KEY) == ROWS, "the whole file")
        yield made
        assert server.stop() == 0


def head(client: Client, key: v1.Key) -> int:
    reply = client.ask(v1.cursor(key))
    return reply.message.Cursor().LatestSequence() if reply.tag == 4 else 0


def error(reply: v1.Reply) -> tuple[int, str]:
    assert reply.tag == 10
    return reply.message.Code(), reply.message.Message().decode()


# Requests


def test_health_is_ok_and_the_correlation_id_comes_back(client: Client) -> None:
    reply = client.ask(v1.health(correlation_id="abc-1"))
    assert (reply.tag, reply.correlation_id, reply.message.Ok()) == (2, "abc-1", True)
    assert client.ask(v1.health()).correlation_id is None
    assert client.ask(v1.health(correlation_id="")).correlation_id == ""


def test_the_cursor_is_the_head(client: Client, truth: list[Row]) -> None:
    reply = client.ask(v1.cursor(KEY, correlation_id="c"))
    assert (reply.tag, reply.correlation_id, v1.key_of(reply.message)) == (4, "c", KEY)
    cursor = reply.message.Cursor()
    assert (cursor.LatestSequence(), cursor.LatestTsMs()) == (ROWS, truth[-1].ts_ms)


@pytest.mark.parametrize("after", [None, 0, 1, ROWS, ROWS + 1])
def test_a_subscription_is_accepted_and_told_the_latest(client: Client, after: int | None) -> None:
    ack = client.ask(v1.subscribe(KEY, after)).message
    assert (ack.Accepted(), ack.LatestSequence(), v1.key_of(ack)) == (True, ROWS, KEY)
    assert ack.Reason() is None


def test_an_unknown_stream_is_not_accepted(client: Client) -> None:
    ack = client.ask(v1.subscribe(UNKNOWN)).message
    assert (ack.Accepted(), ack.Reason(), ack.LatestSequence()) == (False, b"unknown stream key", 0)
    assert error(client.ask(v1.cursor(UNKNOWN))) == (404, "unknown stream key"), "asking creates no stream"


def test_a_stream_status_in_version_1(client: Client, truth: list[Row]) -> None:
    status = client.ask(v1.status(KEY)).message
    assert (status.LatestSequence(), status.LatestTsMs()) == (ROWS, truth[-1].ts_ms)
    assert (status.FirstSequence(), status.FormingLength()) == (1, 0)


# Backfill


@pytest.mark.parametrize("limit", [97, 1_000, 9_999, 10_000, 10_001, 2**32 - 1, 0])
def test_pages_of_any_size_give_every_row_once(client: Client, truth: list[Row], limit: int) -> None:
    seen: list[Row] = []
    for start, rows in client.pages(KEY, limit=limit):
        assert start == len(seen) + 1
        assert 0 < len(rows) <= min(limit or 10_000, 10_000)
        seen += rows
    assert seen == truth


def test_pages_of_one_row(client: Client, truth: list[Row], rng: random.Random) -> None:
    after = rng.randrange(ROWS - 500)
    at = max(after, ROWS - 700)  # the walk ends at the head
    pages = list(client.pages(KEY, after=at, limit=1))
    assert [start for start, _ in pages] == list(range(at + 1, ROWS + 1))
    assert [row for _, rows in pages for row in rows] == truth[at:]


def test_a_page_from_anywhere(client: Client, truth: list[Row], rng: random.Random) -> None:
    for _ in range(20):
        after, limit = rng.randrange(ROWS), rng.randrange(1, 3_000)
        page = client.ask(v1.backfill(KEY, after=after, limit=limit)).message
        assert page.StartSequence() == after + 1
        assert v1.rows_of(page) == truth[after : after + limit]
        assert page.HasMore() == (after + limit < ROWS)
        assert page.NextSequence() == (after + limit if page.HasMore() else 0)


@pytest.mark.parametrize("after", [ROWS, ROWS + 1, 2**63, 2**64 - 1])
def test_at_the_head_there_is_nothing_and_no_more(client: Client, after: int) -> None:
    page = client.ask(v1.backfill(KEY, after=after)).message
    assert (page.CandlesLength(), page.HasMore(), page.NextSequence()) == (0, False, 0)


def test_the_end_is_inclusive(client: Client, truth: list[Row]) -> None:
    end = truth[499].ts_ms
    for given, last in ((end, 500), (end - 1, 499), (end + 1, 500), (truth[-1].ts_ms + MINUTE_MS, ROWS)):
        page = client.ask(v1.backfill(KEY, after=max(0, last - 10), end_ts_ms=given)).message
        assert v1.rows_of(page) == truth[last - 10 : last]
        assert not page.HasMore(), "nothing later inside the bounds"
    page = client.ask(v1.backfill(KEY, end_ts_ms=end, limit=499)).message
    assert (page.CandlesLength(), page.HasMore(), page.NextSequence()) == (499, True, 499)
    page = client.ask(v1.backfill(KEY, end_ts_ms=truth[0].ts_ms - 1)).message
    assert (page.CandlesLength(), page.HasMore(), page.NextSequence()) == (0, False, 0)


def test_the_limit_wins_where_the_end_would_shut_out_the_next_row(client: Client, truth: list[Row]) -> None:
    page = client.ask(v1.backfill(KEY, after=100, end_ts_ms=truth[50].ts_ms, limit=3)).message
    assert page.StartSequence() == 101
    assert v1.rows_of(page) == truth[100:103]


# What is no request


@pytest.mark.parametrize("version", [0, 3, 99])
def test_another_version_is_refused_in_version_1(client: Client, version: int) -> None:
    reply = client.ask(v1.health(schema_version=version, correlation_id="v"))
    assert error(reply) == (400, "unsupported schema_version")
    assert reply.correlation_id == "v"


@pytest.mark.parametrize("frame", [b"", b"\0\0\0", b"\0" * 7, b"\xff" * 64, b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_envelope(client: Client, frame: bytes) -> None:
    reply = client.ask(frame)
    assert error(reply) == (400, "invalid flatbuffer envelope")
    assert reply.correlation_id is None


def test_two_frames_are_no_request(client: Client) -> None:
    assert error(client.ask(v1.health(), v1.health()))[0] == 400


@pytest.mark.parametrize("build", [v1.cursor, v1.subscribe, v1.backfill, v1.status])
def test_a_key_must_be_there(client: Client, build: Any) -> None:
    reply = client.ask(build(None, correlation_id="k"))
    assert error(reply) == (400, "missing stream key")
    assert reply.correlation_id == "k"


@pytest.mark.parametrize("build", [v1.cursor, v1.backfill, v1.status])
def test_an_unknown_key(client: Client, build: Any) -> None:
    reply = client.ask(build(UNKNOWN, correlation_id="u"))
    assert error(reply) == (404, "unknown stream key")
    assert reply.correlation_id == "u"


def test_a_message_that_is_no_request(client: Client) -> None:
    assert error(client.ask(v1.empty_batch(KEY))) == (404, "unsupported message_type")


# Live


def test_live_batches_join_the_backfill_without_a_row_lost_or_repeated(
    tmp_path: Path, rng: random.Random
) -> None:
    rows = synth.candles(25_500, seed=5)
    truth = as_v1(rows)
    with (
        FluxServer(tmp_path / "data", "--ingest", "tcp://127.0.0.1:*") as server,
        Client(server.rpc, server.pub) as client,
        Feed(KEY[0], ingest=server.ingest, chunk_rep=server.rpc) as made,
        client.listen(v1.topic_of(KEY)) as live,
    ):
        given = 0
        while not live.poll(20):  # until the subscription has arrived
            made.send(*KEY[1:], rows[given : given + 16])
            given += 16
        rest = Feeding(made, {StreamKey(*KEY): rows[given:]}, rng, window=500)
        check_joined(client, live, truth, rest)
        made.flush(PATIENCE_S)
        assert server.stop() == 0


def check_joined(client: Client, live: zmq.Socket[bytes], truth: list[Row], rest: Feeding) -> None:
    """Backfill and live together are the truth, while the rest of it is being sent."""
    first = next_batch(live)
    with rest:
        ack = client.ask(v1.subscribe(KEY, 0)).message
        assert ack.Accepted()
        assert ack.LatestSequence() >= first.StartSequence()
        seen: list[Row] = []
        for _, page in client.pages(KEY, limit=997):  # the feed goes on meanwhile
            seen += page
        assert len(seen) >= ack.LatestSequence()
        expected = first.StartSequence()
        batch = first
        while True:
            assert v1.key_of(batch) == KEY
            assert batch.StartSequence() == expected
            got = v1.rows_of(batch)
            assert 0 < len(got) <= 64
            assert got == truth[expected - 1 : expected - 1 + len(got)]
            expected += len(got)
            seen += got[max(0, len(seen) + 1 - batch.StartSequence()) :]
            if expected > len(truth):
                break
            batch = next_batch(live)
        assert seen == truth


def next_batch(live: zmq.Socket[bytes]) -> Any:
    assert live.poll(v1.PATIENCE_MS), "no batch"
    topic, frame = live.recv_multipart()
    assert topic == v1.topic_of(KEY)
    reply = v1.decode(frame)
    assert (reply.tag, reply.correlation_id) == (7, None)
    return reply.message


def test_version_1_is_encoded_only_while_somebody_asks_for_it(tmp_path: Path) -> None:
    synth.write_csv(tmp_path / "SAMPLE.csv", synth.candles(200, seed=6))
    local = "tcp://127.0.0.1:*"
    replay = Replay(tmp_path / "SAMPLE.csv", tick_s=0.002, loop=True)
    server = Server(
        ServeConfig(
            tmp_path / "data", live_pub=local, chunk_rep=local, replays=(replay,), durability="process"
        )
    )
    server.start()
    counts = server.committer.counts
    try:
        with (
            Client(server.chunk_rep, server.live_pub) as client,
            client.listen(b"v2\x1f", b"candlesticks") as v2,
        ):
            assert v2.poll(v1.PATIENCE_MS)
            sent = counts.messages
            wait_until(lambda: counts.messages > sent + 20, "more messages")
            assert counts.messages_v1 == 0
            for prefix in (v1.topic_of(KEY), b"candles", b""):
                with client.listen(prefix) as live:
                    assert live.poll(v1.PATIENCE_MS)
                wait_until(lambda: quiet(counts), f"no more version 1 after {prefix!r}")
    finally:
        server.stop()
    assert server.failure is None


def quiet(counts: Any) -> bool:
    """Whether messages go out and none of them in version 1."""
    before, sent = counts.messages_v1, counts.messages
    wait_until(lambda: counts.messages > sent + 5, "more messages")
    return bool(counts.messages_v1 == before)


# What a feed makes possible: corrections, and names that hide in one another


@pytest.fixture
def fed(tmp_path: Path) -> Iterator[tuple[FluxServer, Client]]:
    with (
        FluxServer(tmp_path / "data", "--ingest", "tcp://127.0.0.1:*") as server,
        Client(server.rpc, server.pub) as client,
    ):
        yield server, client
        assert server.stop() == 0


def feed(server: FluxServer, source: str, symbol: str, *batches: NDArray[np.void]) -> None:
    with Feed(source, ingest=server.ingest, chunk_rep=server.rpc) as made:
        for rows in batches:
            made.send(symbol, "1m", rows)
        made.flush(PATIENCE_S)


def test_a_hole_before_a_late_row_is_filled_by_limit(fed: tuple[FluxServer, Client]) -> None:
    server, client = fed
    rows = synth.candles(12, seed=7)
    late, on_time = rows[4:5], np.delete(rows, 4)
    key = ("FEED", "LATE", "1m")
    feed(server, "FEED", "LATE", on_time, late)
    assert head(client, key) == 12
    # Sequence 11 was lost; 12, the late row, is the first that the client has behind it.
    end = int(late["ts_ms"][0]) - MINUTE_MS
    page = client.ask(v1.backfill(key, after=10, end_ts_ms=end, limit=1)).message
    assert (page.StartSequence(), page.CandlesLength()) == (11, 1)
    assert v1.rows_of(page) == as_v1(on_time[10:])


def test_a_correction_is_one_more_row(fed: tuple[FluxServer, Client]) -> None:
    server, client = fed
    rows = synth.candles(5, seed=8)
    corrected = rows[2:3].copy()
    corrected["volume"] += 1
    feed(server, "FEED", "FIXED", rows, corrected)
    (page,) = client.pages(("FEED", "FIXED", "1m"))
    assert page == (1, as_v1(np.concatenate([rows, corrected])))


def test_a_topic_that_begins_with_anothers_is_not_published(fed: tuple[FluxServer, Client]) -> None:
    server, client = fed
    rows = synth.candles(40, seed=9)
    short, long = ("A", "B", "1m"), ("A", "B.1m", "1m")
    assert v1.topic_of(long).startswith(v1.topic_of(short))
    feed(server, "A", "B", rows[:1])
    feed(server, "A", "B.1m", rows[:1])
    ack = client.ask(v1.subscribe(long)).message
    assert not ack.Accepted()
    assert b"begins with another" in ack.Reason()
    assert client.ask(v1.subscribe(short)).message.Accepted()
    with client.listen(v1.topic_of(short)) as live, client.listen(b"v2\x1fcandles\x1fA\x1f") as v2:
        sent = 1
        while not (live.poll(0) and v2.poll(0)):  # until both subscriptions have arrived
            sent += 1
            assert sent <= len(rows), "nothing arrived"
            feed(server, "A", "B.1m", rows[sent - 1 : sent])
            feed(server, "A", "B", rows[sent - 1 : sent])
            live.poll(100)
            v2.poll(100)
        told = set()
        while live.poll(200):
            topic, frame = live.recv_multipart()
            told.add((topic, v1.key_of(v1.decode(frame).message)))
        assert told == {(v1.topic_of(short), short)}
        assert v2.poll(0)
    (page,) = client.pages(long)
    assert page == (1, as_v1(rows[:sent])), "it is kept and served all the same"
