"""No thread dies in silence: on a server its end is UNHEALTHY and an exit code, on a client the object's failure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flux
from flux.config import ServeConfig
from flux.errors import FluxError
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.model import State
from flux.protocol.stream_state import StreamState
from flux.server.service import Server
from flux.threads import WatchedThread
from tests.no_descriptors import no_descriptors
from tests.patience import PATIENCE_S
from tests.unit.live_server import LiveServer, eventually
from tests.unit.lives import BTC, Life
from tests.unit.served import KEY


class UnforeseenError(Exception):
    """What nobody thought of."""


def fail(*_: object, **__: object) -> Any:
    raise UnforeseenError("on purpose")


def test_what_ended_a_thread_is_heard_of_once() -> None:
    heard: list[BaseException] = []
    thread = WatchedThread(fail, name="t", failed=heard.append)
    assert thread.join(0)
    thread.start()
    assert thread.join(PATIENCE_S)
    assert [type(error) for error in heard] == [UnforeseenError]
    assert not thread.is_alive()


@pytest.mark.parametrize("wanted", [True, False])
def test_an_end_that_nobody_asked_for_is_a_failure(wanted: bool) -> None:
    heard: list[BaseException] = []
    thread = WatchedThread(lambda: None, name="early", failed=heard.append, wanted=lambda: wanted)
    thread.start()
    assert thread.join(PATIENCE_S)
    assert [str(error) for error in heard] == ["the thread 'early' came to its end and was not to"] * wanted


def test_a_thread_does_not_wait_for_itself() -> None:
    ended: list[bool] = []
    thread = WatchedThread(lambda: ended.append(thread.join()), name="self", failed=fail)
    thread.start()
    assert thread.join(PATIENCE_S)
    assert ended == [False]


def breaks(owner: object, name: str) -> None:
    assert hasattr(owner, name), f"{name} has another name now"
    setattr(owner, name, fail)


# Where each thread of a server meets something unforeseen.
BREAKS: dict[str, Callable[[Server], None]] = {
    "loop": lambda server: breaks(server.loop, "_note_moved"),
    "committer": lambda server: breaks(server.committer, "_turn"),
    "heart": lambda server: breaks(server.committer.heart, "frames"),
    "projector": lambda server: breaks(server.projector, "_tidy"),
    "requests": lambda server: breaks(server._requests, "_take"),
    "store": lambda server: server._requests._to_store.put(None),  # it ends, and was not to
    "syncer": lambda server: breaks(server.committer._syncer, "_turn"),
}


@pytest.mark.parametrize("which", BREAKS)
def test_the_end_of_any_thread_of_a_server_is_said_and_ends_it(which: str, tmp_path: Path) -> None:
    ends = "tcp://127.0.0.1:*"
    server = Server(ServeConfig(data=tmp_path / "d", live_pub=ends, chunk_rep=ends, ingest=ends))
    server.start()
    try:
        BREAKS[which](server)
        assert server.wait(PATIENCE_S)
        assert isinstance(server.failure, UnforeseenError | RuntimeError)
        assert server.vitals.state is State.UNHEALTHY
        assert "the server stops" in server.vitals.reason
    finally:
        server.stop()


def test_the_end_of_a_servers_thread_is_an_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flux.server import foreground

    ends = "tcp://127.0.0.1:*"
    monkeypatch.setattr("flux.server.pipeline.heartbeat.Heart.frames", fail)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(FluxError, match="a fault of its own") as raised:
        foreground.serve(ServeConfig(data=tmp_path / "d", live_pub=ends, chunk_rep=ends))
    assert raised.value.exit_code == 1


def test_a_syncer_without_descriptors_is_unhealthy_and_tries_again(tmp_path: Path) -> None:
    with Life(tmp_path / "d", disk=False) as life:
        life.write(BTC, 10)
        eventually(lambda: life.committer._syncer.reached == life.committer.committed)
        with no_descriptors():
            life.write(BTC, 10)
            eventually(
                lambda: (
                    life.vitals.state is State.UNHEALTHY
                    or life.committer._syncer.reached == life.committer.committed
                )
            )
        life.write(BTC, 10)
        eventually(lambda: life.committer._syncer.reached == life.committer.committed)
        eventually(lambda: life.vitals.state is State.OK)
        assert not life.failures


def test_a_live_whose_loop_meets_the_unforeseen_fails_and_says_so() -> None:
    with LiveServer() as server:
        server.add(KEY, 10)
        with flux.Live(pub=server.pub, rep=server.rep) as live:
            live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
            live._loop._receive = fail  # type: ignore[method-assign]  # the fault
            with pytest.raises(FluxError):
                list(live)
            with pytest.raises(FluxError, match="Unforeseen"):
                live.block_for_close(PATIENCE_S)


@pytest.mark.parametrize("which", ["_run_callbacks", "_run_state_callbacks"])
def test_a_live_whose_callbacks_thread_meets_the_unforeseen_ends(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flux.Live, which, fail)
    with LiveServer() as server:
        server.add(KEY, 10)
        live = flux.Live(pub=server.pub, rep=server.rep)
        live.add_callback(lambda _: None)
        live.add_state_callback(lambda _: None)
        live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
        live.start()
        with pytest.raises(FluxError, match="Unforeseen"):
            live.block_for_close(PATIENCE_S)
        live.terminate()


def leave(_: object) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize("which", ["rows", "states"])
def test_a_live_whose_callback_ends_its_thread_says_so_for_good(which: str) -> None:
    """The status stays what it is after `stop`, as what `block_for_close` raises does."""
    with LiveServer() as server:
        server.add(KEY, 10)
        live = flux.Live(pub=server.pub, rep=server.rep)
        live.add_callback(leave if which == "rows" else lambda _: None)
        live.add_state_callback(leave if which == "states" else lambda _: None)
        live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
        live.start()
        with pytest.raises(FluxError, match="SystemExit: 3"):
            live.block_for_close(PATIENCE_S)
        live.stop()
        status = live.status(KEY)
        assert (status.state, status.reason) == (
            StreamState.FAILED,
            "a thread of this Live ended: SystemExit: 3",
        )
        live.terminate()


def test_a_feed_whose_thread_meets_the_unforeseen_fails_every_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux.limits.FEED_PENDING_BYTES", 1)
    rows = candles(40_000, 1)  # twice that is more than may wait
    feed = Feed("FEED", ingest="tcp://127.0.0.1:9", chunk_rep="tcp://127.0.0.1:9")
    feed.send("BTC", "1m", rows)
    waiting: list[BaseException] = []

    def send() -> None:
        try:
            feed.send("BTC", "1m", rows)  # without a timeout: it waits for the server
        except FluxError as error:
            waiting.append(error)

    sender = threading.Thread(target=send)
    sender.start()
    feed._delivery.turn = fail  # type: ignore[method-assign]  # the fault
    feed._delivery.wake.set()
    sender.join(PATIENCE_S)
    assert len(waiting) == 1
    for call in (feed.flush, feed.close):
        with pytest.raises(FluxError, match="Unforeseen"):
            call()
