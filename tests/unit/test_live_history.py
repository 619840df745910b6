"""`flux.Live` and a server that is not the one it was: another store, another history, other bytes. Never silent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from flux import codec
from flux.client.deliver import StateChange
from flux.client.live import Live
from flux.model import Gap, StreamKey
from flux.protocol.stream_state import StreamState
from flux.schema import messages
from flux.server.requests.answers import Answers
from flux.server.requests.backfill import CandlesBackfill, RowsBackfill
from flux.transport.topics import stream_topic, v1_topic
from tests.unit.followed import KEY, check, live_of, rows_until
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import STORE_ID


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer() as made:
        made.add(KEY, 100)
        yield made


def follow(server: LiveServer, live: Live, gaps: list[Gap], start: str = "oldest") -> None:
    live.add_gap_callback(gaps.append)
    live.subscribe("BTCUSDT", interval="1m", start=start)
    live.start()
    server.subscribed(stream_topic(KEY))
    server.beat()


def another_history(server: LiveServer, changed: int, head: int) -> None:
    """The server comes back with other rows from `changed` on, and is at `head`."""
    stream = server.stream(KEY)
    more = np.resize(stream.rows, head)
    more["volume"][changed - 1 :] += 0.5
    more["ts_ms"] = 1_700_000_000_000 + 1_000 * np.arange(head)
    stream.rows = more
    server.boot_id += 1


def test_other_bytes_for_a_sequence_are_failed_and_loud(server: LiveServer) -> None:
    """The first are kept, and the state says what to do."""
    states: list[StateChange] = []
    with live_of(server) as live:
        live.add_state_callback(states.append)
        follow(server, live, [])
        check(rows_until(live, 100), server, 1, 100)
        server.publish(KEY, 1)
        check(rows_until(live, 101), server, 101, 101)
        other = server.stream(KEY).rows[100:].copy()
        other["volume"] += 1
        frame = codec.Encoder(KEY).encode(other, 101, epoch=1, store_id=STORE_ID, stream_id=1)
        server.publisher.socket.send_multipart([stream_topic(KEY), frame])
        eventually(lambda: live.status(KEY).state is StreamState.FAILED, "FAILED")
        status = live.status(KEY)
        assert status.conflicts == 1
        assert "other bytes" in status.reason
        assert "resync" in status.reason
        eventually(lambda: states and states[-1].state is StreamState.FAILED, "told")
        server.publish(KEY, 1)
        check(rows_until(live, 102), server, 102, 102)


def test_another_store_is_filled_anew_with_the_reason_once(server: LiveServer) -> None:
    gaps: list[Gap] = []
    with live_of(server) as live:
        follow(server, live, gaps)
        check(rows_until(live, 100), server, 1, 100)
        another_history(server, 50, 120)
        server.served.store_id = STORE_ID + 1
        server.beat()
        batches = rows_until(live, 120)
        check(batches, server, 1, 120)
        assert {batch.store_id for batch in batches} == {STORE_ID + 1}
        server.publish(KEY, 5)
        server.beat()
        check(rows_until(live, 125), server, 121, 125)
    assert [(gap.first_sequence, gap.last_sequence) for gap in gaps] == [(1, 100)]
    assert gaps[0].reason == (
        f"void: the server has another store: {STORE_ID + 1:016x}, and what came before is of {STORE_ID:016x}"
    )


@pytest.mark.parametrize("head", [100, 140])
def test_a_disk_that_was_rolled_back_and_grew_is_another_history(server: LiveServer, head: int) -> None:
    """The same store and epoch, and other rows from 90 on: only the rows themselves show it (D6)."""
    gaps: list[Gap] = []
    states: list[StateChange] = []
    with live_of(server) as live:
        live.add_state_callback(states.append)
        follow(server, live, gaps)
        check(rows_until(live, 100), server, 1, 100)
        another_history(server, 90, head)
        server.beat()
        check(rows_until(live, head), server, 1, head)
        server.publish(KEY, 3)
        server.beat()
        check(rows_until(live, head + 3), server, head + 1, head + 3)
    assert [(gap.first_sequence, gap.last_sequence) for gap in gaps] == [(1, 100)]
    assert gaps[0].reason == "void: the server has another history: row 100 is not the one that came before"
    assert StreamState.FAILED not in {change.state for change in states}


def test_the_same_history_after_another_boot_goes_on(server: LiveServer) -> None:
    gaps: list[Gap] = []
    with live_of(server) as live:
        follow(server, live, gaps)
        check(rows_until(live, 100), server, 1, 100)
        server.boot_id += 1
        server.publish(KEY, 10)
        server.beat()
        check(rows_until(live, 110), server, 101, 110)
    assert gaps == []


@pytest.mark.parametrize("changed", [90, 101])
def test_the_last_row_of_a_cache_is_compared_at_the_join(
    server: LiveServer, tmp_path: Path, changed: int
) -> None:
    """A client that was away meanwhile has nothing but the rows that it kept (D6)."""
    gaps: list[Gap] = []
    with live_of(server, tmp_path / "cache.duckdb") as live:
        follow(server, live, gaps, "cache")
        check(rows_until(live, 100), server, 1, 100)
    another_history(server, changed, 130)
    with live_of(server, tmp_path / "cache.duckdb") as live:
        follow(server, live, gaps, "cache")
        first = 1 if changed <= 100 else 101
        check(rows_until(live, 130), server, first, 130)
    assert [(gap.first_sequence, gap.last_sequence) for gap in gaps] == ([(1, 100)] if first == 1 else [])
    with live_of(server, tmp_path / "cache.duckdb") as live:
        follow(server, live, gaps, "cache")
        server.publish(KEY, 2)
        server.beat()
        check(rows_until(live, 132), server, 131, 132)
    assert len(gaps) <= 1, "said once"


class Version1Answers(Answers):
    """Of a server that knows version 1 alone."""

    def answer(self, body: Sequence[bytes]) -> bytes | CandlesBackfill | RowsBackfill:
        if body[0][4:8] == b"FLX2":
            correlation_id = codec.decode(body[0]).correlation_id
            return messages.error_response(
                code=400,
                message="unsupported schema_version",
                correlation_id=correlation_id,
                schema_version=1,
            )
        return super().answer(body)


class Version1Server(LiveServer):
    """No heartbeats, no epochs; it sends rows of version 1."""

    answers = Version1Answers

    def add(self, key: StreamKey, count: int = 0) -> None:
        super().add(key, count)
        for name in ("turnover", "trade_count"):  # which it does not know
            self.stream(key).rows[name] = 0

    def send(self, count: int) -> None:
        stream = self.stream(KEY)
        begin = stream.head
        stream.rows = np.resize(stream.rows, begin + count)
        stream.rows["ts_ms"] = 1_700_000_000_000 + 1_000 * np.arange(begin + count)
        frame = codec.Encoder(KEY, version=1).encode(stream.rows[begin:], begin + 1)
        self.publisher.socket.send_multipart([v1_topic(KEY), frame])


@pytest.mark.parametrize(("changed", "head"), [(1, 140), (1, 60), (101, 140)])
def test_a_version_1_server_that_began_again(changed: int, head: int) -> None:
    """Its head has passed the client's cursor, or has not yet; or it is the one that it was (V3)."""
    gaps: list[Gap] = []
    states: list[StateChange] = []
    with Version1Server() as server:
        server.add(KEY, 100)
        with live_of(server) as live:
            live.add_gap_callback(gaps.append)
            live.add_state_callback(states.append)
            live.subscribe("BTCUSDT", interval="1m", start="oldest")
            live.start()
            check(rows_until(live, 100), server, 1, 100)
            server.close()
            with Version1Server(pub=server.pub, rep=server.rep) as again:
                again.add(KEY, 100)
                another_history(again, changed, head)
                again.subscribed(v1_topic(KEY))
                again.send(2)
                same = changed > 100
                check(rows_until(live, head + 2), again, 101 if same else 1, head + 2)
    assert [(gap.first_sequence, gap.last_sequence) for gap in gaps] == ([] if same else [(1, 100)])
    assert all(gap.reason.startswith("void: the server ") for gap in gaps)
    assert StreamState.FAILED not in {change.state for change in states}
