"""The pump's receiving against plain pyzmq and against libzmq called from C, over TCP loopback.

    python -m pytest -s benchmarks/bench_pump.py

A publisher in a process of its own sends single-row messages of 64 streams, two frames each, as fast as it can and for
as long as somebody takes them: so each way of receiving has the same machine to itself, a saturating sender included.
Each round connects a new SUB socket and takes MESSAGES of them: the pump verifies, checks, finds the stream and places
the row in its ring; pyzmq and C only receive. A round is the pump and each peer one behind the other, in another order
each time: a benchmark for each way and turn. What is judged is the median of the turns' own ratios, because both sides
of a turn meet the same hour of a shared machine, and one bad second spoils one turn only. On two cores the publisher's
and libzmq's own threads are part of every figure.
"""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
import zmq.backend.cython._zmq

from benchmarks.sizes import of
from flux.journal import Group
from flux.model import CANDLE, StreamKey
from flux.transport.pump import Receiver, Sender, Streams, record
from flux.transport.sockets import Publisher, Sockets, endpoint_of
from flux.transport.topics import stream_topic
from tests.oracle.sequencer import Sequencer

STREAMS = 64
ROWS_A_TURN = 64  # per stream: with one row a message, what one group holds
TURNS = of(1, 40)
MESSAGES = STREAMS * ROWS_A_TURN * TURNS
ROUNDS = of(2, 5)
WAYS = ("flux", "pyzmq", "libzmq in C")
IN_TURNS = [(turn, way) for turn in range(ROUNDS) for way in (*WAYS[turn % 3 :], *WAYS[: turn % 3])]
STORE = 1
KEYS = [StreamKey("SIM", f"S{i:02}/USDT", "1s") for i in range(STREAMS)]
PATIENCE_MS = 10_000
EPOCHS = itertools.count(1)

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


@pytest.fixture
def subscribed(endpoint: str) -> Iterator[tuple[zmq.Socket[bytes], int]]:
    """A new subscriber whose first message is there, and the round's epoch. XPUB tells of a prefix that nobody had
    before."""
    epoch = next(EPOCHS)
    with Sockets() as sockets:
        socket = sockets.subscriber(endpoint, [stream_topic(KEYS[0])[:epoch]], hwm=0)
        came = socket.poll(PATIENCE_MS)
        assert came, "no message"
        yield socket, epoch


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


@pytest.fixture(scope="module")
def ways(
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Callable[[zmq.Socket[bytes], int], None] | None]:
    return {"flux": by_pump, "pyzmq": by_pyzmq, "libzmq in C": by_c(tmp_path_factory.mktemp("c"))}


@pytest.mark.gate
@pytest.mark.benchmark(group="pump receive")
@pytest.mark.parametrize(("turn", "way"), IN_TURNS)
def test_receiving(
    benchmark: Any,
    ways: dict[str, Callable[[zmq.Socket[bytes], int], None] | None],
    subscribed: tuple[zmq.Socket[bytes], int],
    turn: int,
    way: str,
) -> None:
    """From the first message there to the last one taken."""
    if (take := ways[way]) is None:
        pytest.skip("no C compiler")
    benchmark.extra_info["items"] = MESSAGES
    benchmark.pedantic(take, subscribed)
