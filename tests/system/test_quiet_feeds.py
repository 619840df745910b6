"""A server remembers a bounded number of feeds' runs; a feed that was forgotten goes on, and is accused of nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from flux import codec, testing
from flux.errors import StorageError
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.limits import ONE_LIFE_RUNS
from flux.model import TRADE, StreamKey
from flux.schema import messages
from flux.server.service import Server
from tests.patience import PATIENCE_S
from tests.system.processes import wait_until
from tests.system.served_rows import stored_streams

PLACES = 8
KEY = StreamKey("FEED", "QUIET", "1m")


@pytest.fixture(autouse=True)
def _few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (
        "flux.limits",
        "flux.server.pipeline.sessions",
        "flux.journal.remembered",
        "flux.server.pipeline.committer",
    ):
        monkeypatch.setattr(f"{module}.MAX_RUNS", PLACES)
    for name in ("MAX_ROWLESS_RUNS", "ONE_LIFE_PLACES"):
        monkeypatch.setattr(f"flux.journal.remembered.{name}", PLACES // 4)
    monkeypatch.setattr("flux.feed.link.KEEP_S", 0.01)


def feed(server: Server) -> Feed:
    return Feed(KEY.source_id, ingest=server.ingest, chunk_rep=server.chunk_rep)


def others(server: Server, count: int) -> None:
    for number in range(count):
        with feed(server) as other:
            other.send("OTHER", "1m", candles(count, 2)[number : number + 1])
            other.flush(PATIENCE_S)


def test_a_feed_that_was_forgotten_goes_on_as_another_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = candles(60, 1)
    with testing.server(data=tmp_path) as server, feed(server) as quiet:
        for begin in (0, 20, 40):
            before = quiet.run
            quiet.send(KEY.symbol, KEY.interval, rows[begin : begin + 20])
            quiet.flush(PATIENCE_S)
            assert quiet.committed == begin + 20
            monkeypatch.setattr("flux.feed.link.KEEP_S", PATIENCE_S)
            others(server, 3 * PLACES)
            monkeypatch.setattr("flux.feed.link.KEEP_S", 0.01)
            wait_until(lambda before=before: quiet.run != before, "the feed has heard it")
    assert "no longer knows this feed's run" in caplog.text
    sequences, kept = stored_streams(tmp_path / "flux.duckdb")[KEY]
    assert sequences.tolist() == list(range(1, 61))
    np.testing.assert_array_equal(kept, rows)


def test_a_feed_that_is_heard_of_keeps_its_place() -> None:
    rows = candles(3 * PLACES, 1)
    with testing.server() as server, feed(server) as busy:
        first = busy.run
        for number in range(3 * PLACES):
            busy.send(KEY.symbol, KEY.interval, rows[number : number + 1])
            busy.flush(PATIENCE_S)
            others(server, 2)
            assert server.committer._runs.knows(f"feed:{KEY.source_id}:{first}")
        assert busy.run == first


class Cut:
    """A way to the request port on which answers are lost until `mended` is set."""

    def __init__(self, chunk_rep: str) -> None:
        self.mended = threading.Event()
        self._over = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._front, self._back = self._context.socket(zmq.ROUTER), self._context.socket(zmq.DEALER)
        self.endpoint = f"tcp://127.0.0.1:{self._front.bind_to_random_port('tcp://127.0.0.1')}"
        self._back.connect(chunk_rep)
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        poller.register(self._back, zmq.POLLIN)
        while not self._over.is_set():
            for ready, _ in poller.poll(50):
                frames = ready.recv_multipart()
                if ready is self._front:
                    self._back.send_multipart(frames)
                elif self.mended.is_set():
                    self._front.send_multipart(frames)
        self._context.destroy(linger=0)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Server, Cut]]:
    with testing.server(data=tmp_path) as server:
        cut = Cut(server.chunk_rep)
        yield server, cut
        cut.close()


@pytest.mark.parametrize("heard", [0, 10])
def test_rows_that_may_be_committed_are_never_sent_again(
    served: tuple[Server, Cut], monkeypatch: pytest.MonkeyPatch, heard: int
) -> None:
    """They were committed, the answers were lost, and the server forgot the run, however lately they were sent: a trade
    without an id is not recognised. `heard`: rows that the feed knows to be committed."""
    monkeypatch.setattr("flux.feed.link.STALL_S", 0.1)
    server, cut = served
    rows = np.zeros(100, TRADE)
    rows["ts_ns"] = 1_700_000_000_000_000_000 + np.arange(100)
    rows["price"], rows["size"] = 1.5, 1.0
    key = StreamKey("FEED", "CUT", "trade")
    with pytest.raises(StorageError, match=f"rows {heard + 1} to 100 may be committed or lost"):  # noqa: PT012, SIM117  closing raises it
        with Feed(key.source_id, ingest=server.ingest, chunk_rep=cut.endpoint) as feed:
            cut.mended.set()
            wait_until(lambda: feed._delivery._registered, "the run is known")
            feed.send("CUT", "trade", rows[:heard])
            feed.flush(PATIENCE_S)
            cut.mended.clear()
            feed.send("CUT", "trade", rows[heard:])
            with Feed("WATCH", ingest=server.ingest, chunk_rep=server.chunk_rep) as watching:
                wait_until(
                    lambda: (at := watching.position(key)) is not None and at.sequence == 100, "100 rows"
                )
            others(server, 3 * PLACES)
            taken = server.loop.counters["messages"]
            feed._delivery.outbox.resend(everything=True)  # as after an answer of 0 that was late
            wait_until(lambda: server.loop.counters["messages"] > taken, "what came again")
            cut.mended.set()
            feed.flush(PATIENCE_S)
    with Feed("WATCH", ingest=server.ingest, chunk_rep=server.chunk_rep) as after:
        at = after.position(key)
    assert at is not None
    assert at.sequence == 100, "nothing came twice"


def durable(server: Server, name: str) -> Feed:
    return Feed(KEY.source_id, run=name, ingest=server.ingest, chunk_rep=server.chunk_rep)


def test_claims_without_rows_push_out_no_run_that_has_rows() -> None:
    rows = candles(2, 1)
    with testing.server() as server:
        with durable(server, "mine") as first:
            first.send(KEY.symbol, KEY.interval, rows[:1])
            first.flush(PATIENCE_S)
        for number in range(3 * PLACES):
            with durable(server, f"claim {number}") as claim:
                claim.position(KEY, PATIENCE_S)
        with durable(server, "mine") as second:
            second.position(KEY, PATIENCE_S)
            assert second.committed == 1


def test_the_claimer_of_a_durable_run_that_may_be_forgotten_hears_it() -> None:
    rows = candles(2 * PLACES, 1)
    with testing.server() as server:
        for number in range(PLACES):
            with durable(server, f"run {number}") as one:
                one.position(KEY, PATIENCE_S)
                one.send(KEY.symbol, KEY.interval, rows[number : number + 1])
                one.flush(PATIENCE_S)
        late = durable(server, "one too many")
        with pytest.raises(StorageError, match="no longer knows run 'one too many'"):
            late.position(KEY, PATIENCE_S)
        with pytest.raises(StorageError):
            late.close()
        with durable(server, "run 0") as again:
            again.position(KEY, PATIENCE_S)
            assert again.committed == 1, "nobody took its place"


def test_a_feed_without_a_name_begins_however_many_durable_runs_there_are(tmp_path: Path) -> None:
    rows = candles(2 * PLACES, 1)
    with testing.server(data=tmp_path) as server:
        for number in range(PLACES):
            with durable(server, f"run {number}") as one:
                one.position(KEY, PATIENCE_S)
                one.send(KEY.symbol, KEY.interval, rows[number : number + 1])
                one.flush(PATIENCE_S)
    with testing.server(data=tmp_path) as server:
        others(server, 3 * PLACES)
        for number in range(PLACES):
            with durable(server, f"run {number}") as again:
                again.position(KEY, PATIENCE_S)
                assert again.committed == 1, "nobody took its place"


def ask(chunk_rep: str, run: int, token: int) -> Any:
    """The answer to a claim."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as asking:
        asking.connect(chunk_rep)
        request = messages.source_position_request(
            correlation_id="1",
            schema_version=2,
            source_id=KEY.source_id,
            run=run,
            claim=token,
            refused_after=0,
        )
        asking.send_multipart([b"", request])
        assert asking.poll(int(PATIENCE_S * 1_000))
        return codec.decode(asking.recv_multipart()[-1])


def test_a_registration_that_was_forgotten_is_carried_out_again() -> None:
    """It was known as carried out, and never again, so its feed would ask for ever."""
    run = ONE_LIFE_RUNS + 7

    def registered() -> bool:
        return isinstance(ask(server.chunk_rep, run, 31), codec.SourcePositionResponse)

    with testing.server() as server:
        wait_until(registered, "the run is registered")
        for other in range(3 * PLACES):
            wait_until(
                lambda other=other: not hasattr(ask(server.chunk_rep, run + 1 + other, 31), "status"),
                "another is registered",
            )
        assert not server.committer.is_known(f"feed:{KEY.source_id}:{run}")
        wait_until(registered, "the run is registered again")
