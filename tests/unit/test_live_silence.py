"""Nothing comes: the state has a reason, and the log one warning after two seconds that says what is missing (C-6)."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator

import pytest

from flux.client.deliver import StateChange
from flux.client.live import Live
from flux.limits import WARN_AFTER_MS
from flux.protocol.stream_state import StreamState
from flux.transport.topics import stream_topic
from tests.unit.followed import KEY, live_of, rows_until
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import STORE_ID


@pytest.fixture
def server() -> Iterator[LiveServer]:
    with LiveServer() as made:
        made.add(KEY, 100)
        yield made


@pytest.fixture
def nobody() -> Iterator[str]:
    """An endpoint at which nothing listens."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"tcp://127.0.0.1:{holder.getsockname()[1]}"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def beating(server: LiveServer, ended: threading.Event) -> threading.Thread:
    """Heartbeats while another thread waits for what comes of them."""

    def beat() -> None:
        while not ended.wait(0.3):
            server.beat()

    thread = threading.Thread(target=beat)
    thread.start()
    return thread


def test_a_wrong_publisher_beside_a_right_server(
    server: LiveServer, nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[StateChange] = []
    with Live(pub=nobody, rep=server.rep) as live:
        live.add_state_callback(told.append)
        live.subscribe("BTCUSDT", interval="1m", source="SIM", start="oldest")
        live.start()
        status = live.status(KEY)
        assert (status.state, status.reason) == (
            StreamState.CONNECTING,
            f"nobody publishes at {nobody}: no server there, or another address",
        )
        eventually(lambda: warnings(caplog))
        eventually(lambda: told)
        assert (told[0].state, told[0].reason) == (status.state, status.reason)
    assert warnings(caplog) == [f"nothing comes: {status.reason}"], "once"


def test_a_right_publisher_beside_a_server_that_does_not_answer(
    server: LiveServer, nobody: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Live(pub=server.pub, rep=nobody) as live:
        live.subscribe("BTCUSDT", interval="1m", source="SIM", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        ended = threading.Event()
        thread = beating(server, ended)
        try:
            eventually(lambda: f"{nobody} does not answer requests" in live.status(KEY).reason)
            assert live.status(KEY).state is StreamState.STALLED
            eventually(lambda: warnings(caplog))
        finally:
            ended.set()
            thread.join()
    assert warnings(caplog) == [
        f"nothing comes: {nobody} does not answer requests: is it a server's request endpoint?"
    ]


def test_a_stream_that_the_server_does_not_know_and_a_source_that_was_not_given(
    server: LiveServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLUX_SOURCE_ID", raising=False)
    with live_of(server) as live:
        live.subscribe(["BTCUSD", "NONE"], interval="1m", start="oldest")
        live.start()
        server.subscribed(b"v2\x1fcandles\x1fSIM\x1f1m\x1fNONE\x1f")
        ended = threading.Event()
        thread = beating(server, ended)
        try:
            eventually(lambda: "did you mean SIM/BTCUSDT/1m" in live.status("SIM/BTCUSD/1m").reason)
            eventually(lambda: warnings(caplog))
        finally:
            ended.set()
            thread.join()
    (said,) = warnings(caplog)
    assert said.startswith(
        "nothing comes: SIM/BTCUSD/1m is waited for, and 1 streams more: unknown stream key"
    )
    assert "did you mean SIM/BTCUSDT/1m" in said
    assert server.rep in said
    assert said.endswith("(no source was given: SIM is the default)")


def test_endpoints_of_two_servers(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    with LiveServer() as other:
        other.add(KEY, 5)
        other.served.store_id = STORE_ID + 1
        with Live(pub=other.pub, rep=server.rep) as live:
            live.subscribe("BTCUSDT", interval="1m", source="SIM", start="oldest")
            live.start()
            other.subscribed(stream_topic(KEY))
            ended = threading.Event()
            thread = beating(other, ended)
            try:
                rows_until(live, 100)
                eventually(lambda: any("different servers" in said for said in warnings(caplog)))
            finally:
                ended.set()
                thread.join()
    said = [each for each in warnings(caplog) if "different servers" in each]
    assert len(said) == 1
    assert other.pub in said[0]
    assert server.rep in said[0]


def test_who_gets_rows_is_not_warned(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    assert WARN_AFTER_MS == 2_000
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        live.start()
        server.subscribed(stream_topic(KEY))
        server.beat()
        rows_until(live, 100)
        eventually(lambda: live.status(KEY).state is StreamState.STALLED)  # three heartbeats later
    assert warnings(caplog) == []
