"""Peers that wait for a server's ports while it starts: all are known to its watches, and none is in a start's way."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from flux.config import ServeConfig
from flux.server.service import Server
from tests.patience import PATIENCE_S, readable
from tests.system.processes import free_port, wait_until

pytestmark = pytest.mark.system

Waiting = Callable[[int, str], list["zmq.Socket[bytes]"]]


@pytest.fixture
def waiting() -> Iterator[Waiting]:
    """Makes peers that connect as soon as somebody listens."""
    with zmq.Context() as context:
        context.setsockopt(zmq.LINGER, 0)
        made: list[zmq.Socket[bytes]] = []

        def peers(kind: int, endpoint: str) -> list[zmq.Socket[bytes]]:
            peer = context.socket(kind)
            peer.setsockopt(zmq.RECONNECT_IVL, 5)
            peer.connect(endpoint)
            made.append(peer)
            return made

        yield peers
        for peer in made:
            peer.close()


def established(*ports: int) -> int:
    """Connections that the system has at these ports of this machine, at the listener's end."""
    with open("/proc/net/tcp", encoding="ascii") as lines:
        found = [line.split() for line in lines][1:]
    return sum(line[3] == "01" and int(line[1].rpartition(":")[2], 16) in ports for line in found)


def test_those_who_waited_are_known_to_the_watches(tmp_path: Path, waiting: Waiting) -> None:
    ports = [free_port() for _ in range(3)]
    pub, rpc, ingest = (f"tcp://127.0.0.1:{port}" for port in ports)
    for _ in range(10):
        waiting(zmq.SUB, pub)
        waiting(zmq.DEALER, rpc)
        waiting(zmq.PUSH, ingest)
    server = Server(ServeConfig(tmp_path / "data", pub, rpc, ingest=ingest))
    server.start()
    try:
        wait_until(lambda: established(*ports) == 30, "the peers")
        wait_until(lambda: len(server.memory._connections) == 30, "the watches hear of them")
    finally:
        server.stop()


@pytest.mark.parametrize("again", [False, True])
def test_more_peers_than_descriptors_wait_for_a_start(tmp_path: Path, waiting: Waiting, again: bool) -> None:
    """Reading DIR/losses failed for want of one, which was called damage, with the advice to move it away."""
    ends = "tcp://127.0.0.1:*"
    if again:
        server = Server(ServeConfig(tmp_path / "data", ends, ends))
        server.start()
        server.stop()
    ingest = f"tcp://127.0.0.1:{free_port()}"
    for _ in range(150):
        waiting(zmq.PUSH, ingest)
    command = [
        *(sys.executable, "-m", "flux.cli.main", "serve", "--data", str(tmp_path / "data")),
        *("--pub", ends, "--rpc", ends, "--ingest", ingest),
    ]
    with subprocess.Popen(
        ["/bin/sh", "-c", 'ulimit -n 128; exec "$@"', "sh", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline() if readable(process.stdout, PATIENCE_S) else b""
            process.terminate()
            _, errors = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert said.startswith(b"flux serve: ready"), errors.decode()
    assert process.returncode == 0, errors.decode()
