"""A cache of `flux.Live` that cannot be used, breaks, or is late: an error or working, never silence (C6)."""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from flux import limits
from flux.batch import Candles
from flux.client.cache import Cache, CacheBatch
from flux.client.deliver import Delivery, Tenure
from flux.client.keeper import Keeper
from flux.client.live import Live
from flux.client.warmup import OnCacheError
from flux.errors import ConfigError, DataError, FluxError, InUseError, StorageError
from flux.model import CANDLE, Cursor
from flux.protocol.stream_state import StreamState
from tests.patience import PATIENCE_S
from tests.unit.followed import KEY, check, follow, live_of, rows_until
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import STORE_ID

# -- a cache that cannot be ------------------------------------------------------------------------------------------


def csv_file(path: Path) -> None:
    path.write_text("ts_ms,open,high,low,close,volume\n1,1,1,1,1,1\n")


def parquet_file(path: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute("COPY (SELECT 1 AS a) TO $path (FORMAT parquet)", {"path": str(path)})


def database_of_another(path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE meta (mine INTEGER)")


def cut_cache(path: Path) -> None:
    with Cache(path) as cache:
        rows = np.zeros(200_000, CANDLE)
        cache.append(KEY, 1, 1, 1, rows, 200_000)
        cache.idle()
    os.truncate(path, path.stat().st_size // 2)


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "name", "error"),
    [
        (csv_file, "rows.csv", ConfigError),
        (csv_file, "cache.duckdb", DataError),
        (parquet_file, "rows.parquet", ConfigError),
        (database_of_another, "cache.duckdb", ConfigError),
        (cut_cache, "cache.duckdb", DataError),
        (directory, "cache.duckdb", ConfigError),
    ],
)
def test_what_is_no_cache_is_an_error_and_left_alone(
    tmp_path: Path,
    make: Callable[[Path], None],
    name: str,
    error: type[FluxError],
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / name
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(error, match=name):
        Live(cache=path)
    with Live(cache=path, on_cache_error="without") as live:
        live.subscribe("X", interval="1m", start="cache")
    assert [record.message.split(":")[0] for record in caplog.records] == ["going on without the cache"]
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ConfigError, match="none is no directory"):
        Live(cache=tmp_path / "none" / "cache.duckdb")
    Cache(cache).close()
    cache.chmod(stat.S_IRUSR)
    if os.geteuid():  # root writes anywhere
        with pytest.raises(ConfigError, match="cannot be written"):
            Live(cache=cache)


def test_a_cache_in_use_is_an_error(server: LiveServer, cache: Path) -> None:
    with live_of(server, cache), pytest.raises(InUseError, match=f"pid {os.getpid()}"):
        live_of(server, cache)


def test_without_a_cache_that_cannot_be_had_the_client_works(
    server: LiveServer, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    csv_file(cache)
    with live_of(server, cache, "without") as live:
        follow(server, live)
        check(rows_until(live, 100), server, 1, 100)
    assert len([record for record in caplog.records if "without the cache" in record.message]) == 1


def test_what_needs_a_cache_says_so() -> None:
    with Live() as live:
        with pytest.raises(ConfigError, match="start='cache' needs a cache"):
            live.subscribe("X", interval="1m", start="cache")
        with pytest.raises(ConfigError, match="warmup goes with start='cache'"):
            live.subscribe("X", interval="1m", start="oldest", warmup=3)
    with pytest.raises(ConfigError, match="on_cache_error is"):
        Live(on_cache_error="ignore")  # type: ignore[arg-type]  # what a caller without types may give


# -- a cache that breaks, or is late, while it is used ------------------------------------------------------


def test_a_cache_that_breaks_in_mid_run_ends_the_client(
    server: LiveServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with live_of(server, cache) as live:
        follow(server, live)
        rows_until(live, 100)
        monkeypatch.setattr(Cache, "commit", raising(DataError("the cache is damaged")))
        server.publish(KEY, 1)
        next(live)
        with pytest.raises(DataError, match="the cache is damaged"):
            next(live)
        with pytest.raises(DataError, match="the cache is damaged"):
            live.block_for_close(PATIENCE_S)


def test_without_it_the_client_goes_on(
    server: LiveServer, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with live_of(server, cache, "without") as live:
        follow(server, live)
        monkeypatch.setattr(Cache, "commit", raising(DataError("the cache is damaged")))
        batches = rows_until(live, 100)
        server.publish(KEY, 1)
        batches += rows_until(live, 101)
        eventually(lambda: any("without the cache" in record.message for record in caplog.records))
        server.publish(KEY, 100)
        batches += rows_until(live, 201)
        check(batches, server, 1, 201)
    assert len([record for record in caplog.records if "without the cache" in record.message]) == 1
    assert [record.levelno for record in caplog.records if "without the cache" in record.message] == [
        logging.ERROR
    ]


@pytest.mark.parametrize("how", ["deleted", "another"])
@pytest.mark.parametrize("on_cache_error", ["raise", "without"])
def test_a_cache_whose_file_lost_its_name_is_noticed(
    how: str,
    on_cache_error: OnCacheError,
    server: LiveServer,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Acks would go into a file without a name, and all would come again after a restart; nothing needs to be acked for
    it to be noticed."""
    with live_of(server, cache, on_cache_error) as live:
        follow(server, live)
        rows_until(live, 100)
        if how == "deleted":
            cache.unlink()
        else:
            cache.rename(cache.with_name("moved"))
            cache.write_bytes(b"")
        said = f"{cache} {'was deleted' if how == 'deleted' else 'is another file now'}, while it was in use"
        eventually(lambda: said in live.status(KEY).reason)
        if on_cache_error == "raise":
            assert live.status(KEY).state is StreamState.FAILED
            with pytest.raises(DataError, match="while it was in use"):
                list(live)
            with pytest.raises(DataError, match="while it was in use"):
                live.block_for_close(PATIENCE_S)
        else:
            server.publish(KEY, 100)
            check(rows_until(live, 200), server, 101, 200)
            assert [r.levelno for r in caplog.records if said in r.message] == [logging.ERROR]


@pytest.mark.parametrize("way", ["with", "stop"])
def test_a_cache_that_was_deleted_before_the_last_ack_is_an_error_at_the_end(
    way: str, server: LiveServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.client.keeper.CACHE_FLUSH_MS", 1_000 * PATIENCE_S)  # the end alone looks
    live = live_of(server, cache)
    follow(server, live)
    rows_until(live, 100)
    cache.unlink()

    def leave() -> None:
        if way == "with":
            with live:
                return
        live.stop()
        live.block_for_close(PATIENCE_S)

    with pytest.raises(DataError, match="while it was in use"):
        leave()
    live.terminate()
    assert live.status(KEY).state is StreamState.FAILED


def test_a_disk_that_is_full_for_a_while_makes_the_cache_late_and_nothing_else(
    server: LiveServer, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit = Cache.commit
    tries: list[float] = []

    def full(self: Cache, batches: object) -> None:
        tries.append(time.monotonic())
        if len(tries) < 4:
            raise StorageError("no space left on device")
        commit(self, batches)  # type: ignore[arg-type]  # it stands in for the real one

    monkeypatch.setattr(Cache, "commit", full)
    with live_of(server, cache) as live:
        follow(server, live)
        check(rows_until(live, 100), server, 1, 100)
        live._consumer.done()
        eventually(lambda: len(tries) >= 4)
        late = [record for record in caplog.records if "is late" in record.message]
        if tries[2] - tries[0] < limits.LOG_REPEAT_NS / 1e9:
            assert len(late) == 1, "the same reason at most once a second"
    with Cache(cache) as opened:
        assert opened.cursor(KEY) == Cursor(STORE_ID, 1, 100)


def raising(error: Exception) -> object:
    def call(*_: object) -> None:
        raise error

    return call


class Slow:
    """Stands in for a cache whose disk does not follow until it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        self.rows = 0

    def commit(self, batches: list[CacheBatch]) -> None:
        self.let.wait(PATIENCE_S)
        self.rows += sum(len(batch.rows) for batch in batches)

    def begin_anew(self, *_: object) -> None: ...
    def idle(self) -> None: ...
    def gone(self) -> str:
        return ""

    def close(self) -> None: ...


def deliveries(server: LiveServer, count: int) -> Iterator[Delivery]:
    tenure, rows = Tenure(kept=True), server.stream(KEY).rows
    for number in range(count):
        first = 1 + number * len(rows)
        last = first + len(rows) - 1
        yield Delivery(Candles(KEY, first, rows, epoch=1, store_id=1), tenure, last)


def test_an_acked_batch_is_in_the_cache_without_anything_else_happening(
    server: LiveServer, cache: Path
) -> None:
    """At most 250 ms later (C6): nobody closes it, and nothing more is acked."""
    assert limits.CACHE_FLUSH_MS == 250
    opened = Cache(cache)
    keeper = Keeper(opened)
    for delivery in deliveries(server, 1):
        keeper.ack(delivery)
    eventually(lambda: opened.cursor(KEY) == Cursor(1, 1, 100))
    keeper.close()


def test_consumers_wait_for_a_disk_that_cannot_follow(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CACHE_PENDING_ROWS acked rows may wait, and no more."""
    monkeypatch.setattr("flux.client.keeper.CACHE_PENDING_ROWS", 1_000)
    slow = Slow()
    keeper = Keeper(slow)  # type: ignore[arg-type]  # it stands in for the real one
    acked: list[int] = []

    def consumer() -> None:
        for number, delivery in enumerate(deliveries(server, 40)):
            keeper.ack(delivery)
            acked.append(number)

    thread = threading.Thread(target=consumer)
    thread.start()
    eventually(lambda: len(acked) == 10)
    thread.join(0.3)  # nothing else can be waited for: it must not go on
    assert len(acked) == 10
    slow.let.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    keeper.close()
    assert slow.rows == 4_000


def test_a_broken_cache_frees_the_consumers_that_wait_for_it(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.client.keeper.CACHE_PENDING_ROWS", 1_000)
    slow = Slow()
    errors: list[FluxError] = []

    def broken(batches: list[CacheBatch]) -> None:
        slow.let.wait(PATIENCE_S)
        raise DataError("damaged")

    slow.commit = broken  # type: ignore[method-assign]  # it stands in for the real one
    keeper = Keeper(slow)  # type: ignore[arg-type]  # it stands in for the real one
    keeper.when_broken(errors.append)
    thread = threading.Thread(target=lambda: [keeper.ack(delivery) for delivery in deliveries(server, 40)])
    thread.start()
    slow.let.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    eventually(lambda: errors)
    keeper.close()
    assert [str(error) for error in errors] == ["damaged"]
