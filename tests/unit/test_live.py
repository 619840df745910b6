"""`flux.Live` over real sockets: each row once and in order, by iterator, async iterator, callback; the
cache.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytest

from flux import codec
from flux.batch import Batch
from flux.errors import ConfigError, FluxError, InvalidNameError, NotFoundError, VersionError
from flux.model import Gap, StreamKey
from flux.protocol.stream_state import StreamState
from flux.schema import messages
from flux.schema.generated.Envelope import Envelope
from flux.transport.topics import BEAT, stream_topic, v2_prefix
from tests.patience import PATIENCE_S
from tests.unit.followed import KEY, check, live_of, rows_until
from tests.unit.live_server import LiveServer, eventually


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer() as made:
        made.add(KEY, 100)
        yield made


def of_version(version: int, frame: bytes) -> bytes:
    """A v2 frame that says another schema version, its checksum right."""
    table = Envelope.GetRootAs(frame)._tab
    forged = bytearray(frame[:-4])
    at = table.Pos + table.Offset(4)
    forged[at : at + 4] = version.to_bytes(4, "little")
    return bytes(forged) + codec.crc32c(forged).to_bytes(4, "little")


def test_all_that_is_kept_then_live_with_losses_repaired(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        batches = rows_until(live, 100)
        server.publish(KEY, 500, lose=range(150, 600, 7))
        batches += rows_until(live, 600)
        check(batches, server, 1, 600)
        assert all(batch.key == KEY and batch.epoch == 1 and not batch.cached for batch in batches)
        status = live.status("SIM/BTCUSDT/1m")
        assert (status.delivered, status.behind, status.conflicts) == (600, 0, 0)
        assert status.state is StreamState.RECEIVING


@pytest.mark.parametrize("form", ["text", "datetime64", "seconds"])
def test_a_start_may_be_a_time(server: LiveServer, form: str) -> None:
    """C-7: the row of that time is the first one."""
    ts_ms = int(server.stream(KEY).rows["ts_ms"][40])
    moment = np.datetime64(ts_ms, "ms")
    start = {"text": str(moment), "datetime64": moment, "seconds": ts_ms / 1_000}[form]
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start=start)
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        check(rows_until(live, 100), server, 41, 100)


def test_a_start_after_the_newest_row_and_of_a_stream_that_is_not_there(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="now+1d")
        live.subscribe("NEW", interval="1m", start="yesterday")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        server.publish(KEY, 5)
        check(rows_until(live, 105), server, 101, 105)


def test_a_lost_last_message_comes_with_the_next_heartbeat(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe(["BTCUSDT"], interval="1m", start=101)
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        eventually(lambda: live.status(KEY).state is StreamState.IDLE)
        server.publish(KEY, 3, lose=[103])
        batches = rows_until(live, 102)
        server.beat()
        batches += rows_until(live, 103)
        check(batches, server, 101, 103)


def test_without_a_start_only_what_comes_after_the_join(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        eventually(lambda: live.status(KEY).state is StreamState.IDLE)
        server.publish(KEY, 2)
        check(rows_until(live, 102), server, 101, 102)


def test_a_wildcard_brings_streams_as_they_show_themselves(server: LiveServer) -> None:
    other = StreamKey("SIM", "ETH/USDT", "1m")
    server.add(other)
    with live_of(server) as live:
        live.subscribe("*", interval="1m")
        live.start()
        server.subscribed(v2_prefix("candles", "SIM", "1m"))
        server.beat()
        server.publish(other, 3)
        check(rows_until(live, 3), server, 1, 3, other)
        server.publish(KEY, 1)
        check(rows_until(live, 101), server, 101, 101)
        assert set(live.keys()) == {KEY, other}


def test_a_wildcard_with_a_start_lists_what_the_server_has(server: LiveServer) -> None:
    other = StreamKey("SIM", "ETHUSDT", "1m")
    server.add(other, 7)
    with live_of(server) as live:
        live.subscribe("*", interval="1m", start="oldest")
        live.start()
        server.subscribed(BEAT)
        server.beat()
        heads = {}
        for batch in live:
            heads[batch.key] = batch.end_sequence
            if heads == {KEY: 100, other: 7}:
                break


def test_a_hole_is_told_by_a_gap_before_the_rows_behind_it(server: LiveServer) -> None:
    server.stream(KEY).first = server.stream(KEY).ring_first = 41
    gaps: list[Gap] = []
    with live_of(server) as live:
        live.add_gap_callback(gaps.append)
        live.subscribe("BTCUSDT", interval="1m", start=11)
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        check(rows_until(live, 100), server, 41, 100)
    assert gaps == [Gap(KEY, 11, 40, "retention")]


def test_async_for_in_a_running_event_loop(server: LiveServer) -> None:
    async def main() -> list[Batch]:
        batches = []
        with live_of(server) as live:
            live.subscribe("BTCUSDT", interval="1m", start="oldest")
            live.start()
            await asyncio.to_thread(server.subscribed, stream_topic(KEY))
            server.beat()
            async for batch in live:
                batches.append(batch)
                if batch.end_sequence == 100:
                    server.publish(KEY, 5)
                if batch.end_sequence == 105:
                    live.stop()
            await live.wait_for_close()
        return batches

    check(asyncio.run(main()), server, 1, 105)


def test_callbacks_get_every_batch_and_a_failing_one_stops_nothing(server: LiveServer) -> None:
    batches: list[Batch] = []
    errors: list[Exception] = []
    done = threading.Event()

    def callback(batch: Batch) -> None:
        batches.append(batch)
        if batch.end_sequence >= 110:
            done.set()
        raise ValueError("mine")

    with live_of(server) as live:
        live.add_callback(callback, errors.append)
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        server.publish(KEY, 10)
        server.beat()
        assert done.wait(PATIENCE_S)
        with pytest.raises(FluxError, match="not both"):
            iter(live)
    check(batches, server, 1, 110)
    assert [str(error) for error in errors] == ["mine"] * len(batches)


def test_state_changes_are_told(server: LiveServer) -> None:
    states: list[StreamState] = []
    with live_of(server) as live:
        live.add_state_callback(lambda change: states.append(change.state))
        live.subscribe("BTCUSDT", interval="1m")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        eventually(lambda: StreamState.IDLE in states)
        server.publish(KEY, 1)
        eventually(lambda: states and states[-1] is StreamState.RECEIVING)


def test_a_slow_consumer_loses_nothing(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        for _ in range(200):  # far more turns than batches may wait
            server.publish(KEY, 20)
        eventually(lambda: live.status(KEY).head == 4_100)
        check(rows_until(live, 4_100), server, 1, 4_100)


def test_a_server_that_comes_back_costs_a_backfill(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        batches = rows_until(live, 100)
        server.close()
        eventually(lambda: live.status(KEY).state is StreamState.DISCONNECTED)
        with LiveServer(server.served, server.pub, server.rep) as back:
            back.publish(KEY, 50)
            back.subscribed(stream_topic(KEY))
            back.beat()
            batches += rows_until(live, 150)
            check(batches, back, 1, 150)


def test_an_ended_epoch_voids_rows_and_goes_on(server: LiveServer) -> None:
    gaps: list[Gap] = []
    with live_of(server) as live:
        live.add_gap_callback(gaps.append)
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        rows_until(live, 100)
        stream = server.stream(KEY)
        stream.rows = stream.rows[:90]
        stream.epoch_ends = {1: 90}
        server.served.epoch = 2
        server.publish(KEY, 15)
        server.beat()
        batches = rows_until(live, 105)
        check(batches, server, 91, 105)
        assert {batch.epoch for batch in batches} == {2}
    assert [(gap.first_sequence, gap.last_sequence) for gap in gaps] == [(91, 100)]


def test_rows_keep_the_epoch_in_which_they_were_numbered(server: LiveServer) -> None:
    """A consumer that is keyed by (epoch, sequence) applies each row once, however it comes (D13)."""
    stream = server.stream(KEY)
    stream.epoch_ends, server.served.epoch = {1: 40, 2: 90}, 3
    applied: dict[tuple[int, int], int] = {}
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        batches = rows_until(live, 100)
        server.publish(KEY, 5)
        server.beat()
        batches += rows_until(live, 105)
        check(batches, server, 1, 105)
        for batch in batches:
            for sequence in range(batch.start_sequence, batch.end_sequence + 1):
                applied[batch.epoch, sequence] = applied.get((batch.epoch, sequence), 0) + 1
    wanted = (
        [(1, n) for n in range(1, 41)] + [(2, n) for n in range(41, 91)] + [(3, n) for n in range(91, 106)]
    )
    assert applied == dict.fromkeys(wanted, 1)


def test_another_major_version_is_one_clear_error(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m")
        live.start()
        server.subscribed(BEAT)
        frame = of_version(99, messages.health_request())
        server.publisher.socket.send_multipart([BEAT, frame])
        with pytest.raises(VersionError, match="server speaks schema 99, this client 2: upgrade flux"):
            next(iter(live))
        with pytest.raises(VersionError):
            live.block_for_close(PATIENCE_S)


def test_stop_works_from_anywhere_and_hands_over_what_is_there(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        eventually(lambda: live.status(KEY).delivered == 100)
        thread = threading.Thread(target=live.stop)
        thread.start()
        thread.join(PATIENCE_S)
        assert live.block_for_close(PATIENCE_S)
        check(list(live), server, 1, 100)
        with pytest.raises(FluxError, match="ended"):
            live.subscribe("ETHUSDT", interval="1m")


def test_what_cannot_be_is_said_at_once(server: LiveServer) -> None:
    with live_of(server) as live:
        with pytest.raises(InvalidNameError):
            live.subscribe("a\nb", interval="1m")
        with pytest.raises(InvalidNameError):
            live.subscribe("*", interval="7m")
        for nothing in ("someday", 0, -1, 2**63, True, float("nan"), b"cache", np.timedelta64(1)):
            with pytest.raises(ConfigError):
                live.subscribe("A", interval="1m", start=cast(Any, nothing))
        with pytest.raises(ConfigError, match="names"):
            live.subscribe("*", interval="1m", start="yesterday")
        with pytest.raises(NotFoundError):
            live.status("SIM/A/1m")
