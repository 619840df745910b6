"""The version 1 frames of other builders (tests/golden/v1), each sent to a running server: one reply, of the class that
its case names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import zmq

from flux import codec
from flux.feed import synth
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer, wait_until

pytestmark = pytest.mark.system

VECTORS = Path(__file__).resolve().parents[1] / "golden" / "v1"

_REPLIES = {
    "HealthRequest": codec.HealthResponse,
    "GetCursorRequest": codec.GetCursorResponse,
    "BackfillCandlesRequest": codec.BackfillCandlesResponse,
}

_SERVED_HERE = {5: codec.SubscribeCandlesAck, 11: codec.StreamStatusResponse}


@dataclass(frozen=True)
class Case:
    """One payload frame, and what the existing version 1 server answers when it arrives as a request."""

    name: str
    frame: bytes
    service: str
    policy: str
    tag: int


def _load() -> list[Case]:
    cases = []
    for path in sorted(VECTORS.glob("*.json")):
        told = json.loads(path.read_text())
        frame = path.with_suffix(".bin").read_bytes()[told["offset"] :]
        tag = (told["expected"] or {}).get("message_type", 0)
        cases.append(Case(told["name"], frame, told["flux_service"], told["policy"], tag))
    return cases


CASES = _load()


def expect(case: Case, reply: Any) -> None:
    """The reply is of the class that the case names, but for what docs/wire.md says is different here."""
    assert reply.schema_version == 1, case.name
    kind, _, text = case.service.partition(" ")
    if case.tag in _SERVED_HERE:
        told = isinstance(reply, codec.ErrorResponse) and reply.message != "unsupported message_type"
        assert told or isinstance(reply, _SERVED_HERE[case.tag]), case.name
    elif kind == "dispatch":
        unknown = isinstance(reply, codec.ErrorResponse) and reply.message == "unknown stream key"
        assert unknown or isinstance(reply, _REPLIES[text]), case.name
    else:
        assert isinstance(reply, codec.ErrorResponse), case.name
        both = {(int(kind), text)}
        if case.policy == "either":  # a reader may refuse it or not
            both |= {(400, "invalid flatbuffer envelope"), (404, "unsupported message_type")}
        assert (reply.code, reply.message) in both, case.name


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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_gets_exactly_one_reply(
    server: FluxServer, context: zmq.Context[zmq.Socket[bytes]], case: Case
) -> None:
    """As a REQ socket sends it; without the delimiter it is one of the next test's."""
    after = messages.health_request(correlation_id="and now", schema_version=1)
    with context.socket(zmq.DEALER) as socket:
        socket.connect(server.rpc)
        socket.send_multipart([b"", case.frame])
        *envelope, frame = only_reply(socket)
        assert envelope == [b""], "answered as it was asked"
        reply = codec.decode(frame)
        expect(case, reply)
        if case.service.startswith("dispatch"):
            assert not isinstance(reply, codec.ErrorResponse), "the stream is there"
        socket.send_multipart([b"", after])
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
