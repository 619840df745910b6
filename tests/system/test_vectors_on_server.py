"""The wire vectors of other builders, each sent to a running server: one reply, of the class its case names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from flux import codec
from flux.feed import synth
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer, wait_until
from tests.unit.vectors import CASES, Case, expect

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(not CASES, reason="the vectors are not beside the project"),
]

SYMBOLS = ("TEST", "AAPL")
PATIENCE_MS = int(PATIENCE_S * 1_000)
QUIET_MS = 50


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FluxServer]:
    """Serves the streams that the cases ask for."""
    folder = tmp_path_factory.mktemp("vectors")
    replays: list[str] = []
    for symbol in SYMBOLS:
        synth.write_csv(folder / f"{symbol}.csv", synth.candles(500, seed=4, interval="1s"))
        replays += ("--replay", f"SIM/{symbol}/1s={folder / symbol}.csv")
    with FluxServer(folder / "data", *replays) as made, Sockets() as sockets:
        requester = Requester(sockets, made.rpc)
        wait_until(lambda: heads(requester) == [500, 500], "both streams")
        yield made
        assert made.process.poll() is None, "it died of a case"
        assert made.stop() == 0


@pytest.fixture(scope="module")
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def heads(requester: Requester) -> list[int]:
    listed = requester.ask(messages.stream_list_request, timeout=PATIENCE_S).streams
    return [stream.latest_sequence for stream in listed]


def only_reply(socket: zmq.Socket[bytes]) -> list[bytes]:
    """The frames of the next message."""
    assert socket.poll(PATIENCE_MS), "no reply"
    return socket.recv_multipart()


def test_there_are_cases() -> None:
    assert len(CASES) > 50


@pytest.mark.parametrize("delimiter", [[b""], []], ids=["as REQ", "bare DEALER"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_gets_exactly_one_reply(
    server: FluxServer, context: zmq.Context[zmq.Socket[bytes]], case: Case, delimiter: list[bytes]
) -> None:
    after = messages.health_request(correlation_id="and now", schema_version=1)
    with context.socket(zmq.DEALER) as socket:
        socket.connect(server.rpc)
        socket.send_multipart([*delimiter, case.frame])
        *envelope, frame = only_reply(socket)
        assert envelope == delimiter, "answered as it was asked"
        reply = codec.decode(frame)
        expect(case, reply)
        if case.service.startswith("dispatch"):
            assert not isinstance(reply, codec.ErrorResponse), "the stream is there"
        socket.send_multipart([*delimiter, after])
        reply = codec.decode(only_reply(socket)[-1])
        assert isinstance(reply, codec.HealthResponse), "the case was answered twice"
        assert reply.correlation_id == "and now"
        assert not socket.poll(0)


def test_all_cases_at_once_on_one_connection(
    server: FluxServer, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    """Backfills may be overtaken, so replies are only counted here; the server answers what it was asked."""
    with context.socket(zmq.DEALER) as socket:
        socket.connect(server.rpc)
        for start in range(0, len(CASES), 8):
            some = CASES[start : start + 8]
            for case in some:
                socket.send(case.frame)
            for _ in some:
                assert socket.poll(PATIENCE_MS), "a case was not answered"
                codec.decode(socket.recv())
        assert not socket.poll(QUIET_MS)


def test_a_req_socket_gets_its_reply(server: FluxServer, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    for case in CASES:
        with context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(server.rpc)
            socket.send(case.frame)
            expect(case, codec.decode(only_reply(socket)[0]))
