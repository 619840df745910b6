"""Registrations of runs, however many, keep nobody's rows from coming and stop no server."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from flux import limits, testing
from flux.errors import RequestTimeout
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.journal.records import Position
from flux.model import State
from flux.server.pipeline.claims import Due
from flux.server.requests.view import Claim
from flux.server.service import Server
from tests.patience import PATIENCE_S
from tests.system.processes import wait_until

FLOOD = """
import random, sys, zmq
from flux.limits import ONE_LIFE_RUNS
from flux.schema import messages
context = zmq.Context()
peers = [context.socket(zmq.DEALER) for _ in range(4)]
for peer in peers:
    peer.connect(sys.argv[1])
while True:
    for peer in peers:
        for _ in range(16):
            peer.send_multipart([b"", messages.source_position_request(correlation_id="1", schema_version=2,
                source_id="FLOOD", run=ONE_LIFE_RUNS + random.getrandbits(61), claim=random.getrandbits(62) + 1,
                refused_after=0)])
        while peer.poll(0):
            peer.recv_multipart()
"""


@pytest.fixture
def server() -> Iterator[Server]:
    with testing.server() as running:
        yield running


def deliver(server: Server, count: int) -> None:
    """A feed begins, and rows of it come for a while."""
    rows = candles(count, 1)
    with Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
        for number in range(count):
            feed.send("S0", "1m", rows[number : number + 1])
            feed.flush(PATIENCE_S)
        assert feed.committed == count


def test_rows_come_while_registrations_flood_the_server(server: Server) -> None:
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, server.chunk_rep])
    try:
        wait_until(lambda: server.committer._sources.full, "the table is full")
        deliver(server, 20)
        assert server.vitals.state is State.OK
        assert len(server.loop._moved) <= 4 * limits.CLAIMS_PER_TURN
    finally:
        flood.kill()
        flood.wait()


def test_rows_come_while_claims_are_due_without_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a flood that is faster than any loop."""
    claims = server.loop._claims
    take, numbers = claims.take, iter(range(10**9))

    def endless() -> list[Due]:
        mine = take()
        return mine + [
            Due("FLOOD", limits.ONE_LIFE_RUNS + next(numbers), 1)
            for _ in range(limits.CLAIMS_PER_TURN - len(mine))
        ]

    monkeypatch.setattr(claims, "take", endless)
    claims.claim("SIM", 1, 1)  # wakes the loop
    deliver(server, 20)
    assert server.vitals.state is State.OK


@pytest.mark.parametrize("names", [200_000])
def test_never_more_is_put_into_a_group_than_there_is_room_for(server: Server, names: int) -> None:
    moved: dict[str, Position] = {
        f"feed:{'e' * 32}:{limits.ONE_LIFE_RUNS + number}": (0, 1) for number in range(names)
    }
    note, noted = server.loop._note_moved, threading.Event()

    def filled() -> bool:
        if not noted.is_set():
            server.loop._moved.update(moved)
            noted.set()
        return note()

    server.loop._note_moved = filled  # type: ignore[method-assign]  # the fault
    server._wake.set()
    assert noted.wait(PATIENCE_S)
    deliver(server, 1)
    assert not server.loop._moved
    assert server.failure is None


def test_a_feed_is_told_why_it_is_not_registered(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._view, "claim_run", lambda *_: Claim.NOT_TAKEN)
    feed = Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep)
    feed.send("S0", "1m", candles(1, 1))
    wait_until(lambda: "registrations" in feed._delivery.trouble, "the feed has heard it")
    with pytest.raises(RequestTimeout, match="256 registrations of runs wait already"):
        feed.flush(0.2)
    monkeypatch.undo()
    feed.flush(PATIENCE_S)
    feed.close()
