"""Hostile messages by the thousand, from a seed: to a running server's three ports and to a running `Live`.

    python -m tests.system.hostile --messages 100000 [--seed 7]

Every message begins as one of `edges.py`; then bytes are flipped, numbers put to their edges, parts cut, repeated or
exchanged, and mostly the checksum is made right again, so that what stands behind it is reached. A third goes to the
request port, where each gets one answer; a third to the ingest port; a third to a client, as live messages and as
answers. An honest neighbour is served all the while. Exit code 1 when somebody died.
"""

from __future__ import annotations

import argparse
import os
import random
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zmq

import flux
from flux import codec
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.limits import MIB
from flux.model import MARK, QUOTE, TRADE, StreamKey
from flux.transport.topics import BEAT, stream_topic
from tests.patience import PATIENCE_S
from tests.system.edges import INTEGERS, SHAPES, edges, honest
from tests.system.neighbour import Neighbour, memory
from tests.system.processes import FluxServer
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import KEY, STORE_ID

BAD = StreamKey("EDGE", "BTC/USDT", "1m")
GROWTH = 100 * MIB
IN_FLIGHT = 8
WAIT_MS = int(PATIENCE_S * 1_000)


def corpus() -> list[bytes]:
    """Frames to begin with: every message of every version, and each of its fields at an edge."""
    names = {"source_id": BAD.source_id, "symbol": BAD.symbol, "interval": BAD.interval}
    found = []
    for tag in SHAPES:
        rows = {19: np.ones(2, TRADE), 20: np.ones(2, QUOTE)}.get(tag, candles(2, 1))
        said = {
            "key": names,
            "source_id": BAD.source_id,
            "start_sequence": 1,
            "rows": rows,
            "store_id": STORE_ID,
        }
        base = honest(tag, **said, epoch=1, marks=np.zeros(2, MARK), interval_ms=1_000)
        for edge in edges(tag, base):
            found += [frame for version in (1, 2) if len(frame := edge.frame(version)) < 4_096]
    return found


def mutated(frames: list[bytes], rng: random.Random) -> bytes:
    """One of the frames, changed."""
    data = bytearray(rng.choice(frames))
    sealed = data[4:8] == b"FLX2"
    if sealed:
        del data[-4:]
    for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data)) if data else 0
        kind = rng.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            _put(data, at & ~3, struct.pack("<I", rng.choice(INTEGERS) % 2**32))
        elif kind == 2:
            _put(data, at & ~7, struct.pack("<Q", rng.choice(INTEGERS)))
        elif kind == 3:
            del data[at : at + rng.randrange(16)]
        elif kind == 4:
            data[at:at] = data[at : at + rng.randrange(64)]
        else:
            other = rng.choice(frames)
            data[at:] = other[at:]
    if sealed and rng.random() < 0.9:
        return bytes(data) + struct.pack("<I", codec.crc32c(data))
    return bytes(data)


def _put(data: bytearray, at: int, value: bytes) -> None:
    if at + len(value) <= len(data):
        data[at : at + len(value)] = value


def ask(server: FluxServer, messages: Iterator[bytes]) -> int:
    """Each to the request port: as many answers, of which this is the number."""
    answers = 0
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.LINGER, 0)
        peer.setsockopt(zmq.RCVTIMEO, WAIT_MS)
        peer.connect(server.rpc)
        waiting = 0
        for message in messages:
            peer.send_multipart([b"", message])
            waiting += 1
            if waiting == IN_FLIGHT:
                for _ in range(waiting):
                    codec.decode(peer.recv_multipart()[-1])
                answers, waiting = answers + waiting, 0
        for _ in range(waiting):
            codec.decode(peer.recv_multipart()[-1])
        assert not peer.poll(0), "more answers than requests"
        return answers + waiting


def push(server: FluxServer, messages: Iterator[bytes], rng: random.Random) -> None:
    """Each to the ingest port, now and then in two parts, and a part of them as subscriptions."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as pusher, context.socket(zmq.XSUB) as subscriber:
        for peer, endpoint in ((pusher, server.ingest), (subscriber, server.pub)):
            peer.setsockopt(zmq.LINGER, WAIT_MS)
            peer.setsockopt(zmq.SNDTIMEO, WAIT_MS)
            peer.connect(endpoint)
        for message in messages:
            if rng.random() < 0.05:
                subscriber.send(bytes([rng.randrange(3)]) + message[:2_000])
            elif rng.random() < 0.05:
                pusher.send_multipart([message, message])
            else:
                pusher.send(message)


def follow(messages: list[bytes]) -> None:
    """Each to a `Live`, which goes on with an honest stream."""
    with LiveServer() as server:
        server.add(KEY, 10)
        server.add(BAD, 10)
        with flux.Live(pub=server.pub, rep=server.rep) as live:
            live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
            live.subscribe(BAD.symbol, interval=BAD.interval, source=BAD.source_id, start="oldest")
            live.start()
            server.subscribed(stream_topic(BAD))
            server.beat()
            batches, got = iter(live), 0
            for begin in range(0, len(messages), 500):
                for number, message in enumerate(messages[begin : begin + 500]):
                    if codec_major(message) > 2:
                        continue  # a client ends with a clear error for a server of another major version
                    server.publisher.socket.send_multipart(
                        [BEAT if number % 4 == 0 else stream_topic(BAD), message]
                    )
                server.publish(KEY, 1)
                while got < 10 + begin // 500 + 1:
                    batch = next(batches)
                    got += len(batch) if batch.key == KEY else 0
            eventually(lambda: sum(live.counters().values()) > 0)


def codec_major(message: bytes) -> int:
    """The schema version that a client would find in a frame; 0 when it does not decode."""
    try:
        return int(codec.decode(message).schema_version)
    except codec.DecodeError:
        return 0


def run(messages: int, seed: int) -> None:
    """All of it. Raises AssertionError, or whatever a death looks like."""
    print(f"seed {seed}, {messages} messages", flush=True)
    rng, frames = random.Random(seed), corpus()
    third = messages // 3
    with (
        tempfile.TemporaryDirectory() as directory,
        FluxServer(Path(directory) / "d", "--ingest", "tcp://127.0.0.1:*") as server,
    ):
        with Feed(BAD.source_id, ingest=server.ingest, chunk_rep=server.rpc) as feed:
            feed.send(BAD.symbol, BAD.interval, candles(100, 2))
            feed.flush(PATIENCE_S)
        with Neighbour(server):
            before = memory(server.pid)
            assert ask(server, (mutated(frames, rng) for _ in range(third))) == third
            push(server, (mutated(frames, rng) for _ in range(third)), rng)
        assert server.process.poll() is None, "the server died"
        assert memory(server.pid) < before + GROWTH
        assert server.stop() == 0
    before = memory(os.getpid())
    follow([mutated(frames, rng) for _ in range(messages - 2 * third)])
    assert memory(os.getpid()) < before + GROWTH


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    began = time.monotonic()
    run(arguments.messages, arguments.seed)
    print(f"0 deaths in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
