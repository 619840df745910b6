"""Does a client that changes its subscriptions hold up the rows of another? p90 without and with it, in turns.

    python -m benchmarks.bench_churn                        20,000 streams, 1,000 changes a second; three minutes
    python -m benchmarks.bench_churn --changes 5000         more of them; --streams, --rate, --rows, --rounds likewise
    python -m pytest -s benchmarks/bench_churn.py           small: that it runs

    feed, this process ─► server ─┬─► measured client: one stream by `Live`, at a steady rate
                                  └─► churning client: a topic of one of the other streams, drawn, at each change

Each is a process of its own. A change subscribes to the topic, or ends that where it is subscribed to: in turns of
version 1 and 2; each hundredth is the prefix of all streams, taken and given back. Rows and changes keep to schedules
of their own; a row carries when it was to be sent. A round without changes and one with them follow each other; the
bound is for the median of the differences of their p90. A round ends when the server has taken every change of it: the
churning client then asks for one more stream, and has got a row of it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks.ratios import Ratio, keep
from flux.client.live import Live
from flux.feed.push import Feed
from flux.model import CANDLE, CandleFlag, StreamKey
from flux.transport.sockets import Socket, Sockets, receive_some, subscribe, unsubscribe
from flux.transport.topics import BEAT, stream_topic, v1_topic
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer

SOURCE, INTERVAL = "CHURN", "1s"
MEASURED = StreamKey(SOURCE, "MEASURED", INTERVAL)
PROOF = StreamKey(SOURCE, "PROOF", INTERVAL)
ALL = b"candles."  # what every version 1 topic begins with
ALL_EACH = 100  # changes
WARM = 10  # a round's tenth part is not counted
TURN_S = 0.001
MOST_MS = 1.0


class Size(NamedTuple):
    """Rows and changes are a second's; `rows` of each round, `rounds` of each kind."""

    streams: int = 20_000
    rate: int = 500
    rows: int = 5_000
    rounds: int = 8
    changes: int = 1_000


SMALL = Size(streams=200, rate=500, rows=100, rounds=2, changes=2_000)


class Round(NamedTuple):
    """Nanoseconds from the intended send time of each row behind the warm-up, and how many changes were made."""

    latencies: np.ndarray
    changes: int

    @property
    def p90_ms(self) -> float:
        return float(np.percentile(self.latencies, 90)) / 1e6


class Pair(NamedTuple):
    """Two rounds that follow each other."""

    without: Round
    churned: Round

    @property
    def moved_ms(self) -> float:
        return self.churned.p90_ms - self.without.p90_ms


def follow(parent: Connection, pub: str, rpc: str, rows: int) -> None:
    """The measured client's process: sends a round's latencies each time it has them all."""
    found: list[np.ndarray] = []
    with Live(pub=pub, rep=rpc) as live:
        live.subscribe(MEASURED.symbol, interval=INTERVAL, source=SOURCE, start="oldest")
        for batch in live:
            found.append(time.monotonic_ns() - batch.turnover)
            if batch.end_sequence == 1:  # the row that says that it is there
                found.clear()
                parent.send("there")
            elif (batch.end_sequence - 1) % rows == 0:
                parent.send(np.concatenate(found))
                found.clear()


class Churner:
    """Changes of one client's subscriptions, from a seed."""

    def __init__(self, socket: Socket, streams: int) -> None:
        self._socket = socket
        keys = [stream(number) for number in range(streams)]
        self._topics = [topic(key) for key in keys for topic in (v1_topic, stream_topic)]
        self._held: set[bytes] = set()
        self._rng = random.Random(1)
        self.made = 0

    def change(self) -> None:
        """The next one."""
        place = self.made % ALL_EACH
        self._turn(
            ALL if place < 2 else self._topics[2 * self._rng.randrange(len(self._topics) // 2) + place % 2]
        )
        self.made += 1

    def rest(self) -> None:
        """No prefix of all streams stays behind."""
        if ALL in self._held:
            self._turn(ALL)

    def _turn(self, topic: bytes) -> None:
        (unsubscribe if topic in self._held else subscribe)(self._socket, topic)
        self._held ^= {topic}


def churn(parent: Connection, pub: str, streams: int, rate: int) -> None:
    """The churning client's process: told to begin it changes, told again it stops and sends how many were taken."""
    with Sockets() as sockets:
        socket = sockets.subscriber(pub, [BEAT])
        heard(socket, BEAT)
        unsubscribe(socket, BEAT)
        churner = Churner(socket, streams)
        parent.send("there")
        while True:
            parent.recv()
            start, before = time.monotonic_ns(), churner.made
            while not parent.poll(TURN_S):
                due = before + (time.monotonic_ns() - start) * rate // 1_000_000_000
                while churner.made < due:
                    churner.change()
                for _ in receive_some(socket, rate):
                    pass  # rows of what it asks for
            parent.recv()
            churner.rest()
            subscribe(socket, v1_topic(PROOF))
            heard(socket, v1_topic(PROOF))
            unsubscribe(socket, v1_topic(PROOF))
            parent.send(churner.made - before)


def heard(socket: Socket, topic: bytes) -> None:
    """Wait for a message of this topic."""
    while True:
        socket.poll()
        if any(frames[0] == topic for frames in receive_some(socket, 1_000)):
            return


def stream(number: int) -> StreamKey:
    return StreamKey(SOURCE, f"S{number}", INTERVAL)


def candle(number: int) -> np.ndarray:
    row = np.zeros(1, CANDLE)
    row["flags"], row["ts_ms"] = CandleFlag.CLOSED, 1_700_000_000_000 + number * 1_000
    return row


def told(child: Connection) -> Any:
    """What a process sends next."""
    came = child.poll(PATIENCE_S)
    assert came, f"nothing within {PATIENCE_S} s"
    return child.recv()


@contextmanager
def process(run: Any, *arguments: object) -> Iterator[Connection]:
    """A process that runs `run` with a connection to this one, until the block ends."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    made: BaseProcess = spawn.Process(target=run, args=(there, *arguments), daemon=True)
    made.start()
    there.close()  # so that its end is seen here
    try:
        yield here
    finally:
        made.kill()
        made.join()
        here.close()


class Bench:
    """The feed, and what the two clients are told; the rows of MEASURED and PROOF are numbered here."""

    def __init__(self, feed: Feed, size: Size, measured: Connection, churning: Connection) -> None:
        self._feed, self._size, self._measured, self._churning = feed, size, measured, churning
        self._rows = self._proofs = 0

    def begin(self) -> None:
        """All streams are there, and both clients."""
        for number in range(self._size.streams):
            self._feed.send(stream(number).symbol, INTERVAL, candle(0))
        self._feed.flush(10 * PATIENCE_S)
        self._send(time.monotonic_ns())
        assert told(self._measured) == told(self._churning) == "there"

    def round(self, *, churned: bool) -> Round:
        if churned:
            self._churning.send("begin")
        start = time.monotonic_ns()
        for number in range(self._size.rows):
            intended = start + number * 1_000_000_000 // self._size.rate
            time.sleep(max(0, intended - time.monotonic_ns()) / 1e9)
            self._send(intended)
        latencies = told(self._measured)
        assert len(latencies) == self._size.rows
        return Round(latencies[self._size.rows // WARM :], self._stop() if churned else 0)

    def _send(self, intended: int) -> None:
        row = candle(self._rows)
        row["turnover"] = intended
        self._feed.send(MEASURED.symbol, INTERVAL, row)
        self._rows += 1

    def _stop(self) -> int:
        """Rows of PROOF until the churning client has one; the changes that it made."""
        self._churning.send("stop")
        deadline = time.monotonic() + PATIENCE_S
        while not self._churning.poll(0.01):
            left = deadline - time.monotonic()
            assert left > 0, f"the changes were not taken within {PATIENCE_S} s"
            self._feed.send(PROOF.symbol, INTERVAL, candle(self._proofs))
            self._proofs += 1
        return int(self._churning.recv())


def measure(folder: Path, size: Size) -> list[Pair]:
    """Rounds without and with churn, in turns, of a server on `folder`; AssertionError where a row is missing."""
    with (
        FluxServer(folder, "--ingest", "tcp://127.0.0.1:*", "--durability", "process") as server,
        process(follow, server.pub, server.rpc, size.rows) as measured,
        process(churn, server.pub, size.streams, size.changes) as churning,
        Feed(SOURCE, ingest=server.ingest, chunk_rep=server.rpc) as feed,
    ):
        bench = Bench(feed, size, measured, churning)
        bench.begin()
        pairs = [Pair(bench.round(churned=False), bench.round(churned=True)) for _ in range(1 + size.rounds)]
        feed.flush(PATIENCE_S)
        feed.close()
        ended = server.stop()
        assert ended == 0
    return pairs[1:]  # in the first the server still stores the streams' first rows


def report(pairs: list[Pair], size: Size) -> Ratio:
    """Prints every round, and keeps the median of the differences for the table."""
    print(f"\n{size.streams:,} streams, {size.rate} rows/s, {size.changes:,} changes/s asked for")
    seconds = size.rows / size.rate
    for pair in pairs:
        print(
            f"p90 without churn {pair.without.p90_ms:8.3f} ms, with {pair.churned.p90_ms:8.3f} ms: "
            f"{pair.moved_ms:+.3f} ms; {pair.churned.changes / seconds:,.0f} changes/s"
        )
    moved = statistics.median(pair.moved_ms for pair in pairs)
    ratio = Ratio(
        "churn of one client: another's p90 moves by", moved, MOST_MS, most=True, unit="ms", gate=False
    )
    keep(ratio)
    return ratio


@pytest.mark.informational
def test_churn_beside_another_client(tmp_path: Path) -> None:
    report(measure(tmp_path, SMALL), SMALL)


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench_churn", description=(__doc__ or "").partition("\n")[0])
    for name, value in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value, help=f"({value:,})")
    size = Size(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        report(measure(Path(folder), size), size)


if __name__ == "__main__":
    main()
