"""A server that sends one message for ever takes no memory without bound of a client: its connection is dropped, the
user is told, and an honest server that is there afterwards serves the same object."""

from __future__ import annotations

import gc
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import flux
from flux.errors import FloodError, RequestTimeout
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.limits import CLIENT_PARTIAL_BYTES, MIB
from tests.patience import PATIENCE_S
from tests.system.endless_server import EndlessServer
from tests.system.neighbour import memory
from tests.system.processes import FluxServer, free_port
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import KEY

SMALL, LARGE = 0, 4_000_000  # bytes of a part
GROWTH = (
    32 * CLIENT_PARTIAL_BYTES + 500 * MIB
)  # what comes between two looks, on a machine that is stalled too

pytestmark = pytest.mark.system


@pytest.fixture(autouse=True)
def most() -> Iterator[None]:
    """This process grows by no more than the bound while the block lasts."""
    before, highest, over = memory(os.getpid()), 0, threading.Event()

    def look() -> None:
        nonlocal highest
        while not over.wait(0.005):
            highest = max(highest, memory(os.getpid()))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
    assert highest - before < GROWTH, f"{(highest - before) // MIB} MiB"


def cut(hostile: EndlessServer) -> None:
    assert hostile.cut.wait(PATIENCE_S), "nobody ended the connection"


@pytest.mark.parametrize(("part", "whole"), [(SMALL, 0), (LARGE, 0), (SMALL, 1_000_000)])
def test_live_drops_an_endless_publisher(part: int, whole: int, caplog: pytest.LogCaptureFixture) -> None:
    with EndlessServer(b"PUB", part, whole) as hostile, LiveServer() as served:
        served.add(KEY, 5)
        live = flux.Live(pub=hostile.endpoint, rep=served.rep)
        live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
        live.start()
        with live:
            cut(hostile)
            eventually(lambda: "its connection was dropped" in live.status(KEY).reason)
            assert hostile.endpoint in live.status(KEY).reason
            assert "its connection was dropped" in caplog.text
            hostile.close()
            with LiveServer(served.served, pub=hostile.endpoint) as honest:
                eventually(lambda: (honest.beat(), live.status(KEY).reason == "")[1])
                assert next(live).start_sequence == 1


def test_live_drops_an_endless_answer() -> None:
    with EndlessServer(b"ROUTER", SMALL) as hostile, LiveServer() as served:
        served.add(KEY, 5)
        live = flux.Live(pub=served.pub, rep=hostile.endpoint)
        live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
        live.start()
        with live:
            cut(hostile)
            hostile.close()
            with LiveServer(served.served, rep=hostile.endpoint):
                served.beat()
                assert next(live).start_sequence == 1


@pytest.mark.parametrize("part", [SMALL, LARGE])
def test_historical_says_so_and_goes_on_with_an_honest_server(part: int) -> None:
    with (
        EndlessServer(b"ROUTER", part) as hostile,
        flux.Historical(rep=hostile.endpoint, timeout=PATIENCE_S) as asked,
    ):
        with pytest.raises(FloodError, match=r"tcp://.* sent \d+\.\d MiB, .*: its connection was dropped"):
            asked.get_status(KEY)
        hostile.close()
        with LiveServer(rep=hostile.endpoint) as honest:
            honest.add(KEY, 5)
            assert asked.get_status(KEY).latest_sequence > 0


def test_a_historical_that_nobody_calls_is_watched_too(caplog: pytest.LogCaptureFixture) -> None:
    with EndlessServer(b"ROUTER", SMALL) as hostile, flux.Historical(rep=hostile.endpoint):
        cut(hostile)
        eventually(lambda: "its connection was dropped" in caplog.text)


def test_the_watch_keeps_no_historical_alive() -> None:
    with EndlessServer(b"ROUTER", SMALL) as hostile:
        flux.Historical(rep=hostile.endpoint)
        gc.collect()
        eventually(lambda: not any(thread.name == "flux-intake" for thread in threading.enumerate()))


@pytest.mark.parametrize("port", ["ingest", "rpc"])
def test_a_feed_keeps_its_rows_says_why_and_goes_on(port: str, tmp_path: Path) -> None:
    rows = candles(1_000)
    kind = {"ingest": b"PULL", "rpc": b"ROUTER"}[port]
    ends = {name: f"tcp://127.0.0.1:{free_port()}" for name in ("ingest", "rpc")}

    def serve() -> FluxServer:
        return FluxServer(tmp_path / "d", "--ingest", ends["ingest"], rpc=ends["rpc"])

    with serve() as served, EndlessServer(kind, SMALL) as hostile:
        ends[port] = hostile.endpoint
        with Feed("FEED", ingest=ends["ingest"], chunk_rep=ends["rpc"]) as feed:
            feed.send("X", "1m", rows)
            cut(hostile)

            def told() -> bool:
                """A request that had no answer for a second ends the connection too: then the next one is dropped."""
                with pytest.raises(RequestTimeout, match="1000 of 1000 rows not committed") as late:
                    feed.flush(0.1)
                return (
                    re.search(r"; tcp://.* sent .*: its connection was dropped", str(late.value)) is not None
                )

            eventually(told)
            hostile.close()
            assert served.stop() == 0
            with serve():
                feed.flush(PATIENCE_S)
                assert feed.committed == len(rows)
