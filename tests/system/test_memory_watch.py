"""One peer cannot take any amount of memory, on any port; the others are served meanwhile, whoever came first."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux import limits
from flux.cli.doctor import examine
from flux.model import State
from flux.schema import messages
from flux.server.memory import Connections
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets, endpoint_of
from tests.patience import PATIENCE_S
from tests.system.endless import BOUND, connected, endless
from tests.system.neighbour import Neighbour, memory
from tests.system.processes import Flux, FluxServer, wait_until
from tests.unit.live_server import eventually

OVER = 300 * limits.MIB  # what may come between two looks, on a machine that is stalled too
MOST = 20 * BOUND
IDLE = 20
CASES = [
    ("pub", b"SUB", 4_000, "first"),
    ("rpc", b"DEALER", 200_000, "first"),
    ("ingest", b"PUSH", 4_000_000, "first"),
    ("ingest", b"PUSH", 4_000_000, "last"),
]


class SmallServer(FluxServer):
    """`flux serve` with a small bound."""

    def __init__(self, data: Path) -> None:
        ends = "tcp://127.0.0.1:*"
        Flux.__init__(
            self,
            "--data",
            data,
            "--pub",
            ends,
            "--rpc",
            ends,
            "--ingest",
            ends,
            module="tests.system.endless",
        )
        said = self.line().split()
        self.pub, self.rpc, self.ingest = (said[said.index(name) + 1] for name in ("pub", "rpc", "ingest"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallServer]:
    with SmallServer(tmp_path_factory.mktemp("memory") / "d") as made:
        yield made
        assert made.process.poll() is None
        assert made.stop() == 0
        said = made.errors()
        assert said.count("DEGRADED: the memory") == len(CASES), f"only who sent without end: {said}"


@pytest.mark.parametrize(("port", "kind", "part", "came"), CASES)
def test_a_message_that_never_ends_is_cut_off(
    server: SmallServer, port: str, kind: bytes, part: int, came: str
) -> None:
    most, over = 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, memory(server.pid))

    looking = threading.Thread(target=look)
    with contextlib.ExitStack() as opened:
        if came == "first":
            culprit = opened.enter_context(connected(getattr(server, port), kind))
        opened.enter_context(Neighbour(server))
        sockets = opened.enter_context(Sockets())
        requester = Requester(sockets, server.rpc)
        requester.ask(messages.health_request, timeout=PATIENCE_S)  # it is connected
        idle = [opened.enter_context(connected(server.pub, b"SUB")) for _ in range(IDLE)]
        if came == "last":
            culprit = opened.enter_context(connected(getattr(server, port), kind))
        looking.start()
        try:
            assert endless(culprit, part, MOST) > 0
            said = requester.ask(messages.health_request, timeout=PATIENCE_S)
        finally:
            over.set()
            looking.join()
        assert most < BOUND + OVER, f"{most // limits.MIB} MiB"
        assert said.state in (State.DEGRADED, State.OK)
        if said.state == State.DEGRADED:
            assert "was dropped" in said.message
        wait_until(
            lambda: requester.ask(messages.health_request, timeout=PATIENCE_S).state == State.OK,
            "all is well again",
        )
        assert memory(server.pid) < BOUND
        for peer in idle:
            peer.settimeout(0)
            assert _is_open(peer), "an idle connection was dropped"


def _is_open(peer: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        while peer.recv(65_536):
            pass
        return False
    return True


def _follow(made: Connections, peers: int) -> None:
    eventually(lambda: (made.follow(), len(made) == peers)[1])


def test_who_sent_most_since_the_mark_goes_first_of_equals_the_newest() -> None:
    with Sockets() as sockets:
        router = sockets.router("tcp://127.0.0.1:*")
        made = Connections([sockets.comings(router)])
        peers = []
        for some in range(4):
            peers.append(connected(endpoint_of(router), b"DEALER"))
            _follow(made, some + 1)
        _send(peers[3], 9)
        made.mark()  # what was sent by now no longer counts
        _send(peers[0], 2)
        _send(peers[1], 3)
        for gone in (1, 3, 2, 0):  # a drop marks too: the rest are equals then
            assert made.drop() == _name(peers[gone])
            assert peers[gone].recv(1_024) == b""
        assert made.drop() == ""


def test_who_came_back_is_dropped_after_all_that_were_there() -> None:
    with Sockets() as sockets:
        router = sockets.router("tcp://127.0.0.1:*")
        made = Connections([sockets.comings(router)])
        culprit, honest = (connected(endpoint_of(router), b"DEALER") for _ in range(2))
        _follow(made, 2)
        made.mark()
        over = made.looks
        _send(honest, 1)
        assert made.drop(over) == _name(honest)
        again = connected(endpoint_of(router), b"DEALER")
        _follow(made, 2)
        _send(again, 1)
        assert made.drop(over) == _name(culprit)
        assert made.drop(over) == _name(again)


def test_a_descriptor_that_another_port_has_by_now_is_followed() -> None:
    with Sockets() as sockets:
        router = sockets.router("tcp://127.0.0.1:*")
        come, peer = sockets.comings(router), connected(endpoint_of(router), b"DEALER")
        came: list[tuple[int, bool]] = []
        eventually(lambda: came.extend(come()) or len(came) == 1)
        made = Connections([lambda: came, lambda: [(came[0][0], False)]])
        made.follow()
        assert len(made) == 1, "another port said late that it left, and this one is there"
        assert made.drop() == _name(peer)


def _name(peer: socket.socket) -> str:
    return ":".join(map(str, peer.getsockname()))


def _send(peer: socket.socket, chunks: int) -> None:
    """Send so much that is never a whole message, and wait until it came: what was sent is acknowledged."""
    peer.sendall((b"\x03" + struct.pack(">Q", 1_000) + bytes(1_000)) * chunks)
    eventually(lambda: fcntl.ioctl(peer, termios.TIOCOUTQ, bytes(4)) == bytes(4))


def test_the_newest_connection_goes_first_and_none_that_left() -> None:
    with Sockets() as sockets:
        router = sockets.router("tcp://127.0.0.1:*")
        made = Connections([sockets.comings(router)])
        peers = [connected(endpoint_of(router), b"DEALER") for _ in range(4)]
        _follow(made, 4)
        peers[2].close()
        _follow(made, 3)
        for gone in (3, 1, 0):
            assert made.drop() == _name(peers[gone])
            assert peers[gone].recv(1_024) == b""
        assert made.drop() == ""


def test_the_worst_case_is_the_sum_of_its_parts_and_doctor_shows_it() -> None:
    few, many = limits.server_bytes(0), limits.server_bytes()
    assert few["rings"] == 0
    assert limits.server_bytes(16)["rings"] == 16 * limits.ring_rows(0) * 64
    assert (
        many["rings"]
        == sum(limits.ring_rows(n) for n in range(limits.MAX_STREAMS)) * 64
        <= limits.MAX_RING_BYTES
    )
    assert sum(few.values()) < sum(many.values()) < 4 * limits.GIB
    found = {finding.name: finding.text for finding in examine(None)}["bounds"]
    assert f"{sum(many.values()) // limits.MIB} with the most" in found
    assert f"rings {many['rings'] // limits.MIB}" in found
