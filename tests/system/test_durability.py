"""A disk that is full for a while, and a stop under load: nothing acknowledged is lost, and it is said."""

from __future__ import annotations

import random
import resource
import time
from pathlib import Path
from types import TracebackType

import pytest
import zmq

from flux import codec
from flux.errors import RequestTimeout
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import State, StreamKey
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from flux.transport.topics import BEAT
from tests.patience import PATIENCE_S
from tests.system.feeding import SOURCE, Feeding, truth_of
from tests.system.processes import FluxServer, free_port, wait_until
from tests.system.served_rows import Listener
from tests.system.test_feed import check_kept

pytestmark = pytest.mark.system

STOP_S = 25.0
"""Until the process is gone. S15's 5 s are the server's own: it exits 1 when a thread needs more."""


class Beats:
    """A bare SUB socket on a server's heartbeats."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.SUBSCRIBE, BEAT)
        self._socket.connect(endpoint)
        self.last: codec.Heartbeat | None = None

    def wait_for(self, state: State) -> codec.Heartbeat:
        """The next heartbeat that says so."""
        deadline = time.monotonic() + PATIENCE_S
        while self._socket.poll(max(0, int(1_000 * (deadline - time.monotonic())))):
            self.last = codec.decode(self._socket.recv_multipart()[1])
            if self.last.state == state:
                return self.last
        raise AssertionError(f"no {state.name} in {PATIENCE_S} s; the last heartbeat said {self.last}")

    def drain(self) -> codec.Heartbeat | None:
        """The last one there is, once no more come."""
        while self._socket.poll(200):
            self.last = codec.decode(self._socket.recv_multipart()[1])
        return self.last

    def __enter__(self) -> Beats:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(linger=0)


def limit_files(server: FluxServer, size: int) -> None:
    """From now on the server's files end at `size` bytes: for it the disk is full."""
    hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, hard))


def test_a_full_disk_stops_nothing_for_good(tmp_path: Path) -> None:
    """S10: said in heartbeats and health, nothing acknowledged is lost, reads go on, and it resumes by itself."""
    data, key = tmp_path / "data", StreamKey(SOURCE, "X", "1m")
    rows = synth.candles(9_000)
    with (
        FluxServer(data, "--ingest", "tcp://127.0.0.1:*") as server,
        Feed(SOURCE, ingest=server.ingest, chunk_rep=server.rpc) as feed,
        Beats(server.pub) as beats,
        Listener(server.pub, rows) as listener,
        Sockets() as sockets,
    ):
        asker = Requester(sockets, server.rpc)
        wait_until(lambda: listener.drain() and listener.beats > 0, "a heartbeat: it is subscribed")
        feed.send("X", "1m", rows[:2_000])
        feed.flush(PATIENCE_S)
        wait_until(lambda: listener.drain() and listener.highest == 2_000, "2000 rows")
        limit_files(server, server.committed().offset + 1_000)
        feed.send("X", "1m", rows[2_000:5_000])
        said = beats.wait_for(State.UNHEALTHY)
        assert said.reason is not None
        assert "the journal does not take rows" in said.reason
        assert "File too large" in said.reason
        health = asker.ask(messages.health_request, timeout=PATIENCE_S)
        assert (health.ok, health.state) == (False, State.UNHEALTHY)
        with pytest.raises(RequestTimeout):
            feed.flush(0.2)
        assert feed.committed == 2_000
        # Heartbeats go behind what is published: two more, and nothing is still under way.
        shown = listener.beats
        wait_until(lambda: listener.drain() and listener.beats >= shown + 2, "two heartbeats")
        assert listener.highest == 2_000, "a row was shown that the journal does not have"
        kept = asker.ask(
            messages.backfill_rows_request, timeout=PATIENCE_S, key=key, from_sequence_exclusive=0
        )
        assert kept.rows.tobytes() == rows[:2_000].tobytes(), "reads go on"
        limit_files(server, resource.RLIM_INFINITY)
        feed.send("X", "1m", rows[5_000:])
        feed.flush(PATIENCE_S)
        beats.wait_for(State.OK)
        wait_until(lambda: listener.drain() and listener.highest == 9_000, "all rows")
        assert listener.seen.max() == 1
        assert server.stop() == 0
    check_kept(data, {key: rows})


def test_stopped_while_the_disk_is_full(tmp_path: Path) -> None:
    """The stop does not wait for space; the feed still has what it was not told of, and sends it to the next one."""
    data = tmp_path / "data"
    rows = synth.candles(3_000)
    ingest, rpc = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    with Feed(SOURCE, ingest=ingest, chunk_rep=rpc) as feed:
        with FluxServer(data, "--ingest", ingest, rpc=rpc) as server, Beats(server.pub) as beats:
            feed.send("X", "1m", rows[:1_000])
            feed.flush(PATIENCE_S)
            limit_files(server, server.committed().offset + 1_000)
            feed.send("X", "1m", rows[1_000:])
            beats.wait_for(State.UNHEALTHY)
            began = time.monotonic()
            server.stop()
            assert time.monotonic() - began < STOP_S
            assert feed.committed == 1_000
        with FluxServer(data, "--ingest", ingest, rpc=rpc) as server:
            assert server.state == "OK"
            feed.flush(PATIENCE_S)
            assert server.stop() == 0
    check_kept(data, {StreamKey(SOURCE, "X", "1m"): rows})


def test_stopped_under_load(tmp_path: Path, rng: random.Random) -> None:
    """S15: exit 0 within 5 s, CLOSING in the last heartbeat, everything behind it in the store; then it goes on."""
    data, file = tmp_path / "data", tmp_path / "SAMPLE.csv"
    truth = truth_of(25_000, rng.randrange(2**31))
    replayed = synth.candles(20_000, rng.randrange(2**31))
    synth.write_csv(file, replayed)
    ingest, rpc = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    replay = ("--replay", file, "--tick", "1ms", "--batch-rows", "10")
    with (
        Feed(SOURCE, ingest=ingest, chunk_rep=rpc) as feed,
        Feeding(feed, truth, rng, window=500) as feeding,
    ):
        with FluxServer(data, "--ingest", ingest, *replay, rpc=rpc) as server, Beats(server.pub) as beats:
            beats.wait_for(State.OK)
            target = feed.committed + rng.randrange(1, (feeding.total - feed.committed) // 2)
            wait_until(lambda: feed.committed >= target, f"row {target}")
            began = time.monotonic()
            assert server.stop() == 0
            assert time.monotonic() - began < STOP_S
            beats.wait_for(State.CLOSING)
            last = beats.drain()
            assert last is not None
            assert last.state == State.CLOSING
            shown = {int(mark["stream_id"]): int(mark["latest_sequence"]) for mark in last.marks}
        with FluxServer(data, "--ingest", ingest, *replay, rpc=rpc) as server:
            assert server.state == "OK"
            assert sum(server.heads().values()) >= sum(shown.values())
            feeding.join()
            feed.flush(PATIENCE_S)
            sample = "SIM/SAMPLE/1m"
            wait_until(lambda: server.heads()[sample] == len(replayed), "the file's last row")
            assert server.stop() == 0
    check_kept(data, {StreamKey.parse(sample): replayed} | truth)
