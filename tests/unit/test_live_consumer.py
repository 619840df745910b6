"""What a consumer of `flux.Live` can rely on: it never hangs at the end (C9), and when it is slow it gets what waits in
few batches and sees how far it lags (C8).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from flux.batch import Batch, Candles
from flux.client.deliver import Delivery, Handover, Tenure
from flux.client.live import Live
from flux.errors import FluxError
from flux.limits import MAX_DELIVERY_ROWS
from flux.model import Gap
from flux.protocol.stream_state import StreamState
from flux.transport.topics import stream_topic
from tests.patience import PATIENCE_S
from tests.unit.followed import KEY, check, live_of, rows_until
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import rows_at


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer() as made:
        made.add(KEY, 100)
        yield made


# -- ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [Live.stop, Live.terminate])
def test_stopped_right_after_the_start_a_consumer_comes_to_its_end(end: object, server: LiveServer) -> None:
    """Whether the loop's thread has begun by then or not; what was posted to it finds no sockets."""
    for number in range(20):
        ended: list[int] = []
        live = live_of(server)

        def consumer(live: Live = live, ended: list[int] = ended) -> None:
            for _ in live:
                pass
            ended.append(1)

        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        thread = threading.Thread(target=consumer, daemon=True)
        thread.start()
        time.sleep(0.0005 * (number % 4))  # at any moment of its beginning
        end(live)  # type: ignore[operator]  # a method of Live
        thread.join(PATIENCE_S)
        assert ended == [1], "the consumer hangs"
        assert live.block_for_close(PATIENCE_S)
        with live:
            pass


def test_stopped_before_the_start_nobody_waits(server: LiveServer) -> None:
    async def main() -> None:
        with live_of(server) as live:
            live.subscribe("BTCUSDT", interval="1m")
            waiting = asyncio.ensure_future(live.wait_for_close())
            await asyncio.sleep(0)
            live.stop()
            await asyncio.wait_for(waiting, PATIENCE_S)
            assert list(live) == []

    asyncio.run(main())


def test_what_is_asked_of_a_live_that_ends_is_answered(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        rows_until(live, 100)
        live.stop()
        assert live.block_for_close(PATIENCE_S)
        assert live.status(KEY).delivered == 100
        assert live.keys() == [KEY]


def test_stop_from_a_callback_returns_and_ends_it(server: LiveServer) -> None:
    returned: list[str] = []
    with live_of(server) as live:

        def on_batch(batch: Batch) -> None:
            live.stop()
            returned.append("batch")

        live.add_callback(on_batch)
        live.add_state_callback(lambda _: returned.append("state"))
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        assert live.block_for_close(PATIENCE_S)
    assert "batch" in returned
    assert not any(thread.is_alive() for thread in live._threads)


def test_stop_from_a_state_callback_returns_and_ends_it(server: LiveServer) -> None:
    with live_of(server) as live:
        live.add_state_callback(lambda _: live.stop())
        live.subscribe("BTCUSDT", interval="1m")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        assert live.block_for_close(PATIENCE_S)
    assert not any(thread.is_alive() for thread in live._threads)


def test_next_begins_as_iterating_does(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        assert next(live).start_sequence == 1
    with live_of(server) as live:

        async def first() -> Batch:
            return await anext(live)

        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        assert asyncio.run(first()).start_sequence == 1
    with live_of(server) as live:
        live.add_callback(print)
        with pytest.raises(FluxError, match="not both"):
            next(live)


# -- slow consumers ---------------------------------------------------------------------------------------------


def deliveries(*spans: tuple[int, int], tenure: Tenure | None = None, epoch: int = 1) -> list[Delivery]:
    tenure = tenure or Tenure(kept=False)
    made = []
    for first, last in spans:
        rows = rows_at(range(first, last + 1))
        made.append(Delivery(Candles(KEY, first, rows, epoch=epoch), tenure, last))
    return made


def taken(*given: Delivery, limit: int = 64) -> list[tuple[int, int] | str]:
    handover = Handover(lambda: None, limit)
    for delivery in given:
        handover.put(delivery)
    handover.close()
    found: list[tuple[int, int] | str] = []
    while (delivery := handover.take(0)) is not None:
        item = delivery.item
        if isinstance(item, Batch):
            assert item.rows["ts_ms"].tolist() == list(range(item.start_sequence, item.end_sequence + 1))
            assert delivery.upto == item.end_sequence
            found.append((item.start_sequence, item.end_sequence))
        else:
            found.append(item.reason)
    return found


def test_what_waits_of_a_stream_comes_as_one_batch() -> None:
    one, two = Tenure(kept=False), Tenure(kept=False)
    a, b = deliveries((1, 5), (6, 9), (10, 10), tenure=one), deliveries((3, 4), (5, 8), tenure=two)
    assert taken(a[0], b[0], a[1], b[1], a[2]) == [(1, 10), (3, 8)]


def test_a_batch_ends_where_something_else_is_between_its_rows() -> None:
    tenure = Tenure(kept=False)
    a = deliveries((1, 5), (6, 9), (20, 22), (23, 24), tenure=tenure)
    gap = Delivery(Gap(KEY, 10, 19, "hole"), tenure, 19)
    assert taken(a[0], a[1], gap, a[2], a[3]) == [(1, 9), "hole", (20, 24)]
    assert taken(a[0], a[1]._replace(after_gap=True)) == [(1, 5), (6, 9)]
    assert taken(a[0], *deliveries((6, 7), tenure=tenure, epoch=2)) == [(1, 5), (6, 7)]
    assert taken(a[0], *deliveries((6, 7))) == [(1, 5), (6, 7)], "of another tenure"
    big = MAX_DELIVERY_ROWS - 3
    assert taken(*deliveries((1, big), (big + 1, big + 3), (big + 4, big + 5), tenure=tenure)) == [
        (1, big + 3),
        (big + 4, big + 5),
    ]


def test_a_slow_consumer_gets_what_waits_in_as_few_batches_as_fit(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start=101)
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        eventually(lambda: live.status(KEY).state is StreamState.IDLE)
        for _ in range(150):
            server.publish(KEY, 20)
        eventually(lambda: live.status(KEY).contiguous == 3_100)
        batches = rows_until(live, 3_100)
        check(batches, server, 101, 3_100)
        assert len(batches) <= 3


def test_rows_beyond_one_batch_are_handed_over_without_another_to_come(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.client.outbox.MAX_DELIVERY_ROWS", 30)
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        check(rows_until(live, 100), server, 1, 100)


def test_a_consumer_sees_its_own_lag(server: LiveServer) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start=101)
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        eventually(lambda: live.status(KEY).state is StreamState.IDLE)
        assert (live.status(KEY).consumed, live.status(KEY).lag_rows, live.status(KEY).lag_s) == (100, 0, 0)
        server.publish(KEY, 50)
        eventually(lambda: live.status(KEY).delivered == 150)
        waiting = live.status(KEY)
        assert (waiting.consumed, waiting.lag_rows, waiting.behind) == (100, 50, 0)
        eventually(lambda: live.status(KEY).lag_s > waiting.lag_s > 0)
        batch = next(live)
        assert live.status(KEY).consumed == 100, "given is not done with"
        live.ack(batch)
        eventually(lambda: live.status(KEY).consumed == batch.end_sequence)
        rest = [] if batch.end_sequence == 150 else rows_until(live, 150)
        for last in rest[-1:]:
            live.ack(last)
        done = live.status(KEY)
        assert (done.consumed, done.lag_rows, done.lag_s) == (150, 0, 0)


def test_rows_that_turned_out_void_are_no_lag(server: LiveServer) -> None:
    with live_of(server) as live:
        live.add_gap_callback(lambda _: None)
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        rows_until(live, 100)
        stream = server.stream(KEY)
        stream.rows, stream.epoch_ends, server.served.epoch = stream.rows[:90], {1: 90}, 2
        server.publish(KEY, 15)
        server.beat()
        for batch in rows_until(live, 105)[-1:]:
            live.ack(batch)
        assert (live.status(KEY).consumed, live.status(KEY).lag_rows) == (105, 0)
