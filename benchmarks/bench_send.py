"""The pump's sending against plain pyzmq and against libzmq called from C, over TCP loopback.

    python -m pytest -s benchmarks/bench_send.py

One group of single-row records of 64 streams is sent again and again, two frames a message, through one PUB socket to a
subscriber in another process that takes them in C and throws them away. What is timed is the sender: handing MESSAGES
over, while libzmq's own thread moves what it was given. Nothing is lost (no high-water mark), and each way begins only
when the subscriber has all of the one before. Judged like receiving: the median of the turns' own ratios.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import zmq
import zmq.backend.cython._zmq

from benchmarks import bench_pump
from benchmarks.bench_pump import IN_TURNS, KEYS, MESSAGES, PATIENCE_MS, ROWS_A_TURN, STORE, STREAMS, TURNS
from flux.journal import Group
from flux.model import CANDLE
from flux.transport.pump import Receiver, Sender, Streams, record
from flux.transport.sockets import Sockets, endpoint_of
from tests.oracle.sequencer import Sequencer

IN_GROUP = STREAMS * ROWS_A_TURN

C_SOURCE = """
#include <stddef.h>
#include <stdint.h>
#include <string.h>
typedef struct { uint64_t at; uint32_t size, kind; uint64_t label, label2; } entry;
typedef int (*on_send)(void *, const void *, size_t, int);
/* Topic and payload of each entry, as libzmq's users in C send two frames. */
long publish(void *socket, const char *data, const entry *entries, long count, on_send send) {
    for (long i = 0; i < count; i++) {
        uint16_t topic;
        memcpy(&topic, data + entries[i].at, 2);
        const char *body = data + entries[i].at + 2;
        if (send(socket, body, topic, 2 | 1) < 0 || send(socket, body + topic, entries[i].size - 2 - topic, 1) < 0)
            return i;
    }
    return count;
}
"""


def subscribe(endpoint: str, folder: str) -> None:
    """The subscriber's process: says how many messages it has each time it has a whole round's."""
    take = bench_pump.by_c(Path(folder)) or bench_pump.by_pyzmq
    with Sockets() as sockets:
        socket = sockets.subscriber(endpoint, [b""], hwm=0)
        print("there", flush=True)
        while True:
            take(socket, 0)
            print(MESSAGES, flush=True)


def one_group(streams: Streams) -> Group:
    """Records of one row: ROWS_A_TURN of each stream."""
    sequencer = Sequencer()
    for number, key in enumerate(KEYS):
        streams.add(key, stream_id=number, ring_rows=1_024)
        sequencer.add(0)
    taker, rows = Receiver(None, streams, server=True), np.zeros(ROWS_A_TURN, CANDLE)
    rows["flags"], rows["ts_ms"] = 1, 1_700_000_000_000 + 1_000 * np.arange(ROWS_A_TURN)
    taker.kernel.begin()
    for slot in range(STREAMS):
        taker.kernel.offer(slot, rows)
    group = Group(4 << 20)
    runs = sequencer.number(taker.arrivals[:STREAMS])
    record(streams, group, taker.inbox, runs, store_id=STORE, epoch=1, max_rows=1)
    assert group.count == IN_GROUP
    return group


def by_pump(socket: zmq.Socket[bytes], group: Group, streams: Streams) -> Callable[[], None]:
    sender = Sender(socket, streams)

    def send() -> None:
        sent = sender.send(group).sent
        assert sent == IN_GROUP

    return send


def by_pyzmq(socket: zmq.Socket[bytes], group: Group) -> Callable[[], None]:
    messages = []
    for entry in group.entries:
        body = bytes(group.data[int(entry["at"]) :][: int(entry["size"])])
        topic = int.from_bytes(body[:2], "little")
        messages.append([body[2 : 2 + topic], body[2 + topic :]])

    def send() -> None:
        for message in messages:
            socket.send_multipart(message, zmq.NOBLOCK)

    return send


def by_c(socket: zmq.Socket[bytes], group: Group, folder: Path) -> Callable[[], None] | None:
    """libzmq's own calls, compiled here; None without a compiler."""
    if (compiler := shutil.which("cc")) is None:
        return None
    source, made = folder / "publish.c", folder / "publish.so"
    source.write_text(C_SOURCE)
    subprocess.run([compiler, "-O3", "-shared", "-fPIC", source, "-o", made], check=True)
    publish, library = ctypes.CDLL(str(made)).publish, ctypes.CDLL(zmq.backend.cython._zmq.__file__)
    publish.restype = ctypes.c_long
    call = ctypes.cast(library.zmq_send, ctypes.c_void_p)
    entries, data = group.entries, np.frombuffer(group.data, np.uint8)

    def send() -> None:
        given = (ctypes.c_void_p(socket.underlying), ctypes.c_void_p(data.ctypes.data))
        sent = publish(*given, ctypes.c_void_p(entries.ctypes.data), ctypes.c_long(IN_GROUP), call)
        assert sent == IN_GROUP

    return send


class Sending(NamedTuple):
    """What sends one group, by way, and the subscriber that takes it."""

    ways: dict[str, Callable[[], None] | None]
    child: subprocess.Popen[bytes]

    def taken(self) -> None:
        """The subscriber has all of a round."""
        assert self.child.stdout is not None
        received = int(self.child.stdout.readline())
        assert received == MESSAGES


@pytest.fixture(scope="module")
def sending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sending]:
    folder, streams = tmp_path_factory.mktemp("send"), Streams(STREAMS)
    group = one_group(streams)
    with Sockets() as sockets:
        made = sockets.publisher("tcp://127.0.0.1:*", hwm=0)
        socket, given = made.socket, (endpoint_of(made.socket), str(folder))
        code = f"from benchmarks import bench_send; bench_send.subscribe(*{given!r})"
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            subscribed = socket.poll(PATIENCE_MS)
            assert subscribed, "nobody subscribed"
            made.drain()
            ways = {"flux": by_pump(socket, group, streams), "pyzmq": by_pyzmq(socket, group)}
            yield Sending(ways | {"libzmq in C": by_c(socket, group, folder)}, child)
            child.kill()


@pytest.mark.gate
@pytest.mark.benchmark(group="pump send")
@pytest.mark.parametrize(("turn", "way"), IN_TURNS)
def test_sending(benchmark: Any, sending: Sending, turn: int, way: str) -> None:
    """Handing over; then the subscriber takes what is still under way."""
    if (send := sending.ways[way]) is None:
        pytest.skip("no C compiler")
    benchmark.extra_info["items"] = MESSAGES

    def hand_over() -> None:
        for _ in range(TURNS):
            send()

    benchmark.pedantic(hand_over, teardown=sending.taken)
