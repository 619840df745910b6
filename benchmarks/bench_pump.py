"""The pump's receiving against plain pyzmq and against libzmq called from C, over TCP loopback.

    python -m pytest -s benchmarks/bench_pump.py

A publisher in a process of its own sends single-row messages of 64 streams, two frames each, as fast as it can and for
as long as somebody takes them: so each way of receiving has the same machine to itself, a saturating sender included.
Each round connects a new SUB socket and takes MESSAGES of them: the pump verifies, checks, finds the stream and places
the row in its ring; pyzmq and C only receive. A round is the pump and each peer one behind the other, in another order
each time; what is judged is the median of the rounds' own ratios, because both sides of a round meet the same hour of a
shared machine, and one bad second spoils one round only. On two cores the publisher's and libzmq's own threads are part
of every figure.
"""

from __future__ import annotations

import ctypes
import itertools
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import zmq
import zmq.backend.cython._zmq

from benchmarks import ratios
from flux.journal import Group
from flux.model import CANDLE, StreamKey
from flux.transport.pump import Receiver, Sender, Streams, record
from flux.transport.sockets import Publisher, Sockets, endpoint_of
from flux.transport.topics import stream_topic
from tests.oracle.sequencer import Sequencer

STREAMS = 64
ROWS_A_TURN = 64  # per stream: with one row a message, what one group holds
TURNS = 40
MESSAGES = STREAMS * ROWS_A_TURN * TURNS
ROUNDS = 5
STORE = 1
KEYS = [StreamKey("SIM", f"S{i:02}/USDT", "1s") for i in range(STREAMS)]
PATIENCE_MS = 10_000

C_SOURCE = """
typedef struct { void *words[8]; } msg;
typedef int (*on_msg)(msg *); typedef int (*receive)(msg *, void *, int);
/* The loop of libzmq's own benchmarks, for two frames a message. */
long drain(void *socket, long count, on_msg init, receive recv, on_msg close, on_msg more) {
    msg m;
    for (long i = 0; i < count; i++)
        for (int rest = 1; rest;) {
            init(&m);
            if (recv(&m, socket, 0) < 0) return i;
            rest = more(&m);
            close(&m);
        }
    return count;
}
"""


def publish() -> None:
    """The publisher's process: says where it is, then sends to each subscription that comes until it goes."""
    with Sockets() as sockets:
        publisher = sockets.publisher("tcp://127.0.0.1:*", hwm=0)
        print(endpoint_of(publisher.socket), flush=True)
        while True:
            publisher.socket.poll()
            while epoch := newest(publisher):
                send_while_wanted(publisher, epoch)


def newest(publisher: Publisher) -> int:
    """The epoch of who subscribed last, 0 when nobody is there: the length of the prefix, one more each round. A new
    subscriber meets the end of what was meant for the one before, and may not take it for its own."""
    publisher.drain()
    return max(map(len, publisher.subscriptions.prefixes), default=0)


def send_while_wanted(publisher: Publisher, epoch: int) -> None:
    """Sends until another has subscribed, or nobody is left."""
    streams, sequencer = Streams(STREAMS), Sequencer()
    for number, key in enumerate(KEYS):
        streams.add(key, stream_id=number, ring_rows=1_024)
        sequencer.add(0)
    taker, sender = Receiver(None, streams, server=True), Sender(publisher.socket, streams)
    group, rows = Group(4 << 20), np.zeros(ROWS_A_TURN, CANDLE)
    rows["flags"] = 1
    turn = 0
    while True:
        if newest(publisher) != epoch:
            return
        rows["ts_ms"] = 1_700_000_000_000 + 1_000 * (turn * ROWS_A_TURN + np.arange(ROWS_A_TURN))
        taker.kernel.begin()
        for slot in range(STREAMS):
            taker.kernel.offer(slot, rows)
        group.clear()
        runs = sequencer.number(taker.arrivals[:STREAMS])
        record(streams, group, taker.inbox, runs, store_id=STORE, epoch=epoch, max_rows=1)
        sent = sender.send(group).sent
        assert sent == STREAMS * ROWS_A_TURN
        turn += 1


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with subprocess.Popen(
        [sys.executable, "-c", "from benchmarks import bench_pump; bench_pump.publish()"],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ) as child:
        assert child.stdout is not None
        yield child.stdout.readline().decode().strip()
        child.kill()


def timed(endpoint: str, prefix: bytes, take: Callable[[zmq.Socket[bytes], int], None]) -> float:
    """Seconds from the first message there to the last one taken. XPUB tells of a prefix that nobody had before."""
    with Sockets() as sockets:
        socket = sockets.subscriber(endpoint, [prefix], hwm=0)
        came = socket.poll(PATIENCE_MS)
        assert came, "no message"
        start = time.perf_counter()
        take(socket, len(prefix))
        return time.perf_counter() - start


def by_pump(socket: zmq.Socket[bytes], epoch: int) -> None:
    streams, left = Streams(STREAMS), MESSAGES
    for key in KEYS:
        streams.expect(streams.add(key, ring_rows=4_096), STORE, epoch)
    receiver = Receiver(socket, streams)
    while left > 0:
        came = socket.poll(PATIENCE_MS)
        assert came, f"{left} messages missing"
        arrivals, _ = receiver.receive()
        left -= int(arrivals["rows"].sum())
    held = sum(streams.ring(slot).contiguous for slot in range(STREAMS))
    assert held == MESSAGES - left


def by_pyzmq(socket: zmq.Socket[bytes], _: int) -> None:
    for _ in range(MESSAGES):
        socket.recv_multipart()


def by_c(folder: Path) -> Callable[[zmq.Socket[bytes], int], None] | None:
    """libzmq's own pattern, compiled here; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, made = folder / "drain.c", folder / "drain.so"
    source.write_text(C_SOURCE)
    subprocess.run([compiler, "-O3", "-shared", "-fPIC", source, "-o", made], check=True)
    drain, library = ctypes.CDLL(str(made)).drain, ctypes.CDLL(zmq.backend.cython._zmq.__file__)
    drain.restype = ctypes.c_long
    names = ("zmq_msg_init", "zmq_msg_recv", "zmq_msg_close", "zmq_msg_more")
    calls = [ctypes.cast(getattr(library, name), ctypes.c_void_p) for name in names]

    def take(socket: zmq.Socket[bytes], _: int) -> None:
        drained = drain(ctypes.c_void_p(socket.underlying), ctypes.c_long(MESSAGES), *calls)
        assert drained == MESSAGES

    return take


@pytest.mark.gate
def test_receiving_single_row_messages(endpoint: str, tmp_path: Path) -> None:
    """Table: at least 4.5 times pyzmq and 0.8 of C; the gate asks for half of each."""
    ways: dict[str, Callable[[zmq.Socket[bytes], int], None]] = {"pump": by_pump, "pyzmq": by_pyzmq}
    in_c = by_c(tmp_path)
    if in_c is not None:
        ways["c"] = in_c
    taken: dict[str, list[float]] = {way: [] for way in ways}
    prefixes = (stream_topic(KEYS[0])[:size] for size in itertools.count(1))
    names = list(ways)
    for turn in range(ROUNDS):
        for way in (*names[turn % len(names) :], *names[: turn % len(names)]):
            taken[way].append(timed(endpoint, next(prefixes), ways[way]))
    print()
    for way, seconds in taken.items():
        best, median = min(seconds), statistics.median(seconds)
        print(
            f"receive, {way:5}: {MESSAGES / best / 1e6:.2f} M messages/s at best, {MESSAGES / median / 1e6:.2f} median"
        )
    for peer, table in (("pyzmq", 4.5), ("c", 0.8)):
        if peer in taken:
            rounds = [theirs / ours for theirs, ours in zip(taken[peer], taken["pump"], strict=True)]
            print(f"{peer} / pump by round: {', '.join(f'{ratio:.2f}' for ratio in rounds)}")
            name = "libzmq in C" if peer == "c" else peer
            ratios.at_least(f"pump receive: {name} / pump", statistics.median(rounds), table)
    rate = MESSAGES / min(taken["pump"]) / 1e6
    ratios.note_at_least("pump receive: messages a second", rate, 1.3, "M/s")
