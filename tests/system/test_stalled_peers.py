"""Peers that stop reading cost a bounded amount, and nobody else anything (S11, S12)."""

from __future__ import annotations

import os
import resource
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import flux
from flux import journal
from flux.codec import HealthResponse
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.journal.disk import known_synced
from flux.limits import MAX_DESCRIPTORS, MAX_LIVE_ROWS, MIB
from flux.model import State, StreamKey
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from flux.transport.topics import stream_topic
from tests.patience import PATIENCE_S
from tests.system.endless import HWM, connected
from tests.system.neighbour import Neighbour, memory
from tests.system.processes import FluxServer, wait_until
from tests.system.test_memory_watch import SmallServer

KEY = StreamKey("FAST", "BTC/USDT", "1m")
MESSAGES = 16_000  # of MAX_LIVE_ROWS rows
BUFFERED = 4_000  # of them that both ends' TCP buffers hold
SILENT = 40 * MIB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FluxServer]:
    with SmallServer(tmp_path / "d") as made:
        yield made
        assert made.stop() == 0


def test_a_server_without_descriptors_serves_those_it_has_and_is_well_again_after(tmp_path: Path) -> None:
    """D16: with durability `process` what is committed is synced all the same."""
    arguments = ("--ingest", "tcp://127.0.0.1:*", "--durability", "process")
    with FluxServer(tmp_path / "d", *arguments) as server:
        open_now = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
        with Neighbour(server), Sockets() as sockets:
            requester = Requester(sockets, server.rpc)
            requester.ask(messages.health_request, timeout=PATIENCE_S)
            _, most = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (open_now + 40, most))
            others = crowd(server.rpc, 100)
            wait_until(
                lambda: "descriptors" in health(requester).message, "the newest connections are dropped"
            )
            synced = last_synced(server)
            wait_until(lambda: last_synced(server) > synced, "what is committed meanwhile is synced")
            for other in others:
                other.close()
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (most, most))
            wait_until(lambda: health(requester).state == State.OK, "it is well")
        assert server.stop() == 0


def crowd(endpoint: str, count: int) -> list[socket.socket]:
    """Connections that say nothing."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return [socket.create_connection((host, int(port))) for _ in range(count)]


def health(requester: Requester) -> HealthResponse:
    """What the server reports of itself."""
    found: HealthResponse = requester.ask(messages.health_request, timeout=PATIENCE_S)
    return found


def test_more_connections_than_descriptors_cost_no_core_and_no_neighbour(tmp_path: Path) -> None:
    """libzmq's listener asked for a descriptor without a pause while there was none."""
    with FluxServer(tmp_path / "d", "--ingest", "tcp://127.0.0.1:*") as server, Sockets() as sockets:
        requester = Requester(sockets, server.rpc)
        health(requester)
        soft, most = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        assert soft >= min(most, MAX_DESCRIPTORS) or most == resource.RLIM_INFINITY
        with Neighbour(server):
            open_now = len(list(Path(f"/proc/{server.pid}/fd").iterdir()))
            resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (open_now + 40, most))
            others = crowd(server.rpc, 90)
            wait_until(
                lambda: "descriptors" in health(requester).message, "the newest connections are dropped"
            )
            assert health(requester).state == State.DEGRADED
            few = (open_now + 40) * 7 // 8 + 1
            wait_until(
                lambda: len(list(Path(f"/proc/{server.pid}/fd").iterdir())) <= few,
                "some descriptors are free",
            )
        used, began = cpu_s(server.pid), time.monotonic()
        wait_until(lambda: time.monotonic() - began > 3, "three seconds of it")
        assert cpu_s(server.pid) - used < 0.2 * (time.monotonic() - began), "no core is lost to it"
        for other in others:
            other.close()
        wait_until(lambda: health(requester).state == State.OK, "it is well")
        assert server.stop() == 0


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def last_synced(server: FluxServer) -> int:
    """How far the COMMIT at the committed position says that the journal was synced."""
    position = server.committed()
    with journal.path_of(server.data, position.file).open("rb") as file:
        return known_synced(file.fileno(), position.offset)


def send_frame(peer: socket.socket, body: bytes, flags: int = 0) -> None:
    """One ZMTP frame."""
    peer.sendall(bytes([flags | 2]) + struct.pack(">Q", len(body)) + body)


def followed(server: FluxServer, rows: int) -> int:
    """Rows that an honest client got, all in order."""
    got = 0
    with flux.Live(pub=server.pub, rep=server.rpc) as live:
        live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
        for batch in live:
            assert batch.start_sequence == got + 1
            got += len(batch)
            if got == rows:
                return got
    return got


def test_a_subscriber_that_stops_reading_costs_a_bounded_amount_and_nobody_else_anything(
    server: FluxServer,
) -> None:
    rows = candles(MESSAGES * MAX_LIVE_ROWS, 3)
    with (
        connected(server.pub, b"SUB") as stalled,
        Neighbour(server),
        Feed(KEY.source_id, ingest=server.ingest, chunk_rep=server.rpc) as feed,
    ):
        send_frame(stalled, b"\x01" + stream_topic(KEY))
        feed.send(KEY.symbol, KEY.interval, rows)
        feed.flush(PATIENCE_S)  # ingest never waited for it
        assert followed(server, len(rows)) == len(rows)
        stalled.settimeout(2)
        assert HWM / 2 < received(stalled) < HWM + BUFFERED, "messages were kept for it"


def received(stalled: socket.socket) -> int:
    """Whole messages that were kept for a stalled subscriber, by the length of the frames."""
    data = bytearray()
    try:
        while more := stalled.recv(1 << 20):
            data += more
    except TimeoutError:
        pass
    count = at = 0
    while at + 9 <= len(data):
        flags = data[at]
        size, head = (struct.unpack_from(">Q", data, at + 1)[0], 9) if flags & 2 else (data[at + 1], 2)
        at += head + size
        count += not flags & 1
    return count


def test_a_peer_that_never_reads_costs_a_few_mib(server: FluxServer) -> None:
    with Feed(KEY.source_id, ingest=server.ingest, chunk_rep=server.rpc) as feed:
        feed.send(KEY.symbol, KEY.interval, candles(20_000, 3))
        feed.flush(PATIENCE_S)
    backfill = messages.backfill_rows_request(key=KEY)
    listing = messages.stream_list_request()
    with Neighbour(server), Sockets() as sockets, connected(server.rpc, b"DEALER") as silent:
        requester = Requester(sockets, server.rpc)
        for _ in range(20):
            requester.ask(messages.backfill_rows_request, key=KEY, timeout=PATIENCE_S)
        before = memory(server.pid)
        silent.settimeout(0.5)  # libzmq takes no more of it while its replies wait
        sent = 0
        try:
            while sent < 3_000:
                send_frame(silent, b"", 1)
                send_frame(silent, backfill if sent % 2 else listing)
                sent += 1
                if sent % 100 == 0:
                    assert memory(server.pid) < before + SILENT
        except TimeoutError:
            pass
        assert sent > 16
        # Others are answered from the store's rows too, meanwhile.
        assert len(requester.ask(messages.backfill_rows_request, key=KEY, timeout=PATIENCE_S).rows) == 10_000
        assert memory(server.pid) < before + SILENT
    wait_until(lambda: memory(server.pid) < before + SILENT, "its memory comes back")
