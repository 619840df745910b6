"""The cache behind `flux.Live`: goes on where the consumer was, gives the past only to who asks, and never fails
silently (C6).
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from flux.batch import Batch
from flux.client.cache import Cache
from flux.client.live import Live
from flux.client.warmup import Past, Warmup, past
from flux.errors import ConfigError, FluxError, InUseError
from flux.model import Cursor, Gap, StreamKey
from flux.protocol.stream_state import StreamState
from flux.transport.topics import stream_topic
from tests.patience import PATIENCE_S
from tests.unit.followed import KEY, check, follow, handled, live_of, rows_until
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import STORE_ID

# -- going on ------------------------------------------------------------------------------------------------


def test_it_goes_on_behind_what_was_acked_and_gives_nothing_older(server: LiveServer, cache: Path) -> None:
    check(handled(server, cache, 100), server, 1, 100)
    server.publish(KEY, 20)
    batches = handled(server, cache, 120)
    check(batches, server, 101, 120)
    assert not any(batch.cached for batch in batches)


def test_what_was_given_but_not_handled_comes_again(server: LiveServer, cache: Path) -> None:
    def consumer() -> None:
        with live_of(server, cache) as live:
            follow(server, live)
            rows_until(live, 100)
            server.publish(KEY, 5)
            for _ in live:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consumer()
    check(handled(server, cache, 105), server, 101, 105)


def test_resync_fetches_all_that_the_server_keeps(server: LiveServer, cache: Path) -> None:
    with live_of(server, cache) as live:
        follow(server, live)
        rows_until(live, 100)
        live.resync(KEY)
        check(rows_until(live, 100), server, 1, 100)
    with live_of(server, cache) as live:
        live.subscribe("BTCUSDT", interval="1m", start="cache", warmup="all")
        check([next(live)], server, 1, 100)


# -- the past, for who asks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("warmup", "first"), [("all", 1), (30, 71), (1, 100), (1_000, 1), ("20s", 80)])
def test_warmup_gives_so_much_of_the_cache_at_once_without_the_server(
    server: LiveServer, cache: Path, warmup: Warmup, first: int
) -> None:
    """The rows of the server are a second apart."""
    handled(server, cache, 100)
    with Live(cache=cache, pub="tcp://127.0.0.1:1", rep="tcp://127.0.0.1:1") as live:
        live.subscribe("BTCUSDT", interval="1m", start="cache", warmup=warmup)
        warmed = [next(live)]
        check(warmed, server, first, 100)
        assert warmed[0].cached
    server.publish(KEY, 5)
    with live_of(server, cache) as live:
        follow(server, live, warmup=warmup)
        batches = rows_until(live, 105)
        check(batches, server, first, 105)
        assert [batch.cached for batch in batches if batch.end_sequence <= 100] == [True]
        assert not any(batch.cached for batch in batches if batch.start_sequence > 100)


def test_a_wildcard_warms_every_stream_that_was_kept(server: LiveServer, cache: Path) -> None:
    other = StreamKey("SIM", "ETH/USDT", "1m")
    server.add(other, 7)
    with live_of(server, cache) as live:
        live.subscribe(["BTCUSDT", "ETH/USDT"], interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(other))
        server.beat()
        heads: dict[StreamKey | None, int] = {}
        while heads != {KEY: 100, other: 7}:
            batch = next(live)
            heads[batch.key] = batch.end_sequence
    with Live(cache=cache, pub="tcp://127.0.0.1:1", rep="tcp://127.0.0.1:1") as live:
        live.subscribe("*", interval="1m", start="cache", warmup=3)
        warmed = {batch.key: (batch.start_sequence, batch.end_sequence) for batch in (next(live), next(live))}
    assert warmed == {KEY: (98, 100), other: (5, 7)}


@pytest.mark.parametrize("wrong", [0, -1, True, 1.5, "", "1", "1y", "d", "0d", "-1d", "1 d", "ALL", b"all"])
def test_a_warmup_that_cannot_be_is_said_at_once(wrong: object) -> None:
    with pytest.raises(ConfigError, match="warmup is a number of rows"):
        past(wrong)  # type: ignore[arg-type]  # what a caller without types may give


def test_how_much_a_warmup_is() -> None:
    assert past(None) is None
    assert (past(500), past("all"), past("2d")) == (Past(500), Past(), Past(ms=2 * 86_400_000))


# -- every start stores --------------------------------------------------------------------------------------------


def test_every_start_is_kept(server: LiveServer, cache: Path) -> None:
    check(handled(server, cache, 100, "oldest"), server, 1, 100)
    server.publish(KEY, 10)
    check(handled(server, cache, 110), server, 101, 110)


def test_begun_anew_the_cache_holds_what_came_this_time(server: LiveServer, cache: Path) -> None:
    handled(server, cache, 100, "oldest")
    check(handled(server, cache, 100, 41), server, 41, 100)
    assert kept(cache) == [(1, 100)]
    with live_of(server, cache) as live:  # killed in the middle of a run that began anew
        follow(server, live, "oldest")
        live.ack(next(live))
    server.publish(KEY, 10)
    assert handled(server, cache, 110)[0].start_sequence == 101


def test_a_start_ahead_of_the_cache_leaves_a_gap_and_not_a_hole(server: LiveServer, cache: Path) -> None:
    handled(server, cache, 100, "oldest")
    server.publish(KEY, 100)
    with live_of(server, cache) as live:
        follow(server, live, None)
        eventually(lambda: live.status(KEY).state is StreamState.IDLE)
        server.publish(KEY, 5)
        check(rows_until(live, 205), server, 201, 205)
    assert kept(cache) == [(1, 100), (201, 205)]


def test_a_start_before_the_cache_fills_it_from_there(server: LiveServer, cache: Path) -> None:
    handled(server, cache, 100, 61)
    assert kept(cache) == [(61, 100)]
    handled(server, cache, 100, "oldest")
    assert kept(cache) == [(1, 100)]


def test_a_start_in_another_store_sets_the_old_rows_aside(server: LiveServer, cache: Path) -> None:
    handled(server, cache, 100, "oldest")
    server.served.store_id = STORE_ID + 1
    check(handled(server, cache, 100, "oldest"), server, 1, 100)
    with Cache(cache) as opened:
        assert opened.cursor(KEY) == Cursor(STORE_ID + 1, 1, 100)


def test_a_start_in_a_later_epoch_keeps_no_void_row(server: LiveServer, cache: Path) -> None:
    handled(server, cache, 100, "oldest")
    stream = server.stream(KEY)
    stream.rows, stream.epoch_ends, server.served.epoch = stream.rows[:90], {1: 90}, 2
    server.publish(KEY, 30)
    with live_of(server, cache) as live:
        follow(server, live, None)
        eventually(lambda: live.status(KEY).state is StreamState.IDLE)
        server.publish(KEY, 5)
        rows_until(live, 125)
    assert kept(cache) == [(121, 125)]


def kept(path: Path) -> list[tuple[int, int]]:
    """The stretches of sequences that the cache has of the stream."""
    found, at = [], 0
    with Cache(path) as opened:
        while (run := opened.read(KEY, at, 1_000)) is not None:
            at = run.first_sequence + len(run.rows) - 1
            found.append((run.first_sequence, at))
    return found


def test_a_gap_in_the_cache_is_passed_by_a_warmup(server: LiveServer, cache: Path) -> None:
    server.stream(KEY).first = server.stream(KEY).ring_first = 41
    gaps: list[Gap] = []
    with live_of(server, cache) as live:
        live.add_gap_callback(gaps.append)
        follow(server, live, 11)
        check(rows_until(live, 100), server, 41, 100)
    assert kept(cache) == [(41, 100)]
    assert [(gap.first_sequence, gap.last_sequence) for gap in gaps] == [(11, 40)]


def test_a_batch_that_was_handled_in_part_goes_on_there(server: LiveServer, cache: Path) -> None:
    with live_of(server, cache) as live:
        follow(server, live)
        batch = next(live)
        live.ack(batch, upto=40)
        live.ack(batch, upto=30)  # no way back
        assert live.status(KEY).consumed == 40
    check(handled(server, cache, 100), server, 41, 100)
    with live_of(server, cache) as live:
        follow(server, live, "oldest")
        live.ack(next(live), upto=40)
        server.publish(KEY, 5)
        rows_until(live, 105)  # asking for more says that the rest was handled too
    assert kept(cache) == [(1, 105)]


# -- without `with` ------------------------------------------------------------------------------------------


def free(cache: Path) -> bool:
    """Whether nobody has the cache open."""
    try:
        Cache(cache).close()
    except InUseError:
        return False
    return True


@pytest.mark.parametrize("end", ["taken to its end", "left", "callbacks", "never started", "dropped"])
def test_without_a_with_block_the_cache_is_closed_all_the_same(
    server: LiveServer, cache: Path, end: str
) -> None:
    before = threading.active_count()
    live = live_of(server, cache)
    if end == "never started":
        live.stop()
        assert free(cache)
        return
    if end == "callbacks":
        live.add_callback(lambda batch: live.stop() if batch.end_sequence == 100 else None)
    follow(server, live)
    if end == "callbacks":
        assert live.block_for_close(PATIENCE_S)
    else:
        rows_until(live, 100)
        server.publish(KEY, 5)
        for batch in live:
            live.stop()
            if end != "taken to its end":
                break
            last = batch.end_sequence
        if end == "left":
            assert live.block_for_close(PATIENCE_S)
            assert free(cache)
        if end == "dropped":
            del live
            eventually(
                lambda: gc.collect() >= 0 and free(cache), "the cache stays open"
            )  # its loop ends first
    eventually(lambda: free(cache), "the cache stays open")
    eventually(lambda: threading.active_count() <= before, "a thread stays")
    if end == "taken to its end":
        assert kept(cache)[-1][1] >= last, "what was taken behind the end of the loop is acked too"


def test_stopped_while_a_consumer_works_its_batch_is_still_acked(server: LiveServer, cache: Path) -> None:
    live = live_of(server, cache)
    follow(server, live)
    rows_until(live, 100)
    server.publish(KEY, 1)
    batch = next(live)
    stopping = threading.Thread(target=lambda: (live.stop(), live.block_for_close(PATIENCE_S)))
    stopping.start()
    stopping.join()
    assert not free(cache)
    live.ack(batch)
    assert free(cache), "nothing is left to be done with"
    with Cache(cache) as found:
        cursor = found.cursor(KEY)
    assert cursor is not None
    assert cursor.sequence == batch.end_sequence


# -- who is done with a batch ------------------------------------------------------------------------------------


def cursor_of(cache: Path) -> int:
    with Cache(cache) as found:
        cursor = found.cursor(KEY)
    return 0 if cursor is None else cursor.sequence


@pytest.mark.parametrize("consumer", ["callback", "callback in part", "iterating thread"])
def test_leaving_with_is_no_ack_of_what_another_thread_works_on(
    server: LiveServer, cache: Path, consumer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, go_on = threading.Event(), threading.Event()
    handled: list[bool] = []

    def work(batch: Batch) -> None:
        if consumer == "callback in part":
            live.ack(batch, upto=batch.start_sequence)
        given.set()
        go_on.wait(PATIENCE_S)
        handled.append(live._consumer._current is not None)  # nobody was done with it meanwhile

    def iterate() -> None:
        for batch in live:
            work(batch)

    with live_of(server, cache) as live:
        thread = threading.Thread(target=iterate)
        if consumer != "iterating thread":
            live.add_callback(work)
        follow(server, live)
        if consumer == "iterating thread":
            thread.start()
        assert given.wait(PATIENCE_S)
        if consumer != "iterating thread":  # `with` waits for a callback: its work ends once this was left
            stop = live._loop.stop
            monkeypatch.setattr(live._loop, "stop", lambda drain: (stop(drain), go_on.set()))
    go_on.set()
    if consumer == "iterating thread":
        thread.join(PATIENCE_S)
        assert cursor_of(cache) == 0, "it comes again: nobody was done with it in time"
    else:
        assert handled[0]
        assert cursor_of(cache) == 100, "the callback was done with it, before the cache was closed"


def test_after_with_an_ack_that_can_not_be_kept_is_an_error(server: LiveServer, cache: Path) -> None:
    with contextlib.suppress(KeyError), live_of(server, cache) as live:
        follow(server, live)
        batch = next(live)
        raise KeyError
    with pytest.raises(FluxError, match="the batch comes again"):
        live.ack(batch)


@pytest.mark.parametrize("started", [False, True])
def test_after_the_end_a_live_answers_or_raises_one_error(server: LiveServer, started: bool) -> None:
    with live_of(server) as live:
        if started:
            follow(server, live, "oldest")
            rows_until(live, 100)
    calls: list[Callable[[], object]] = [
        lambda: live.subscribe("ETH", interval="1m"),
        lambda: live.subscribe("*", interval="1m"),
        lambda: live.resync(KEY),
        lambda: live.add_callback(print),
        lambda: live.add_gap_callback(print),
        lambda: live.add_state_callback(print),
    ]
    for call in calls:
        with pytest.raises(FluxError):
            call()
    assert list(live) == []
    assert live.keys() == ([KEY] if started else [])
    assert live.block_for_close(PATIENCE_S)
    live.stop()
    live.start()
    with live:
        pass
