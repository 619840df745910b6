"""One peer cannot take any amount of memory, on any port; what was connected before is served meanwhile."""

from __future__ import annotations

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
        assert made.errors().count("made last, was dropped") >= 3, "one for each of the ports"


@pytest.mark.parametrize(
    ("port", "kind", "part"),
    [("pub", b"SUB", 4_000), ("rpc", b"DEALER", 200_000), ("ingest", b"PUSH", 4_000_000)],
)
def test_a_message_that_never_ends_is_cut_off(server: SmallServer, port: str, kind: bytes, part: int) -> None:
    most, over = 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, memory(server.pid))

    looking = threading.Thread(target=look)
    with Neighbour(server), Sockets() as sockets:
        requester = Requester(sockets, server.rpc)
        requester.ask(
            messages.health_request, timeout=PATIENCE_S
        )  # it is connected: the other one comes last
        looking.start()
        try:
            assert endless(getattr(server, port), kind, part, MOST) > 0
            said = requester.ask(messages.health_request, timeout=PATIENCE_S)
        finally:
            over.set()
            looking.join()
        assert most < BOUND + OVER
        assert said.state in (State.DEGRADED, State.OK)
        if said.state == State.DEGRADED:
            assert "made last, was dropped" in said.message
        wait_until(
            lambda: requester.ask(messages.health_request, timeout=PATIENCE_S).state == State.OK,
            "all is well again",
        )
        assert memory(server.pid) < BOUND


def test_the_newest_connection_goes_first_and_none_that_left() -> None:
    with Sockets() as sockets:
        router = sockets.router("tcp://127.0.0.1:*")
        made = Connections([sockets.comings(router)])
        peers = [connected(endpoint_of(router), b"DEALER") for _ in range(4)]
        eventually(lambda: (made.follow(), len(made) == 4)[1])
        peers[2].close()
        eventually(lambda: (made.follow(), len(made) == 3)[1])
        for gone in (3, 1, 0):
            assert made.drop_last() == ":".join(map(str, peers[gone].getsockname()))
            assert peers[gone].recv(1_024) == b""
        assert made.drop_last() == ""


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
