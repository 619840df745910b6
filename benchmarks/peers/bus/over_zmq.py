"""Plain pyzmq: PUB and SUB, two frames a message, as a good user of it writes them.

`send` frame by frame: `send_multipart` and `recv_multipart` do the same in Python and cost more; `copy=True`, because a
message below 64 KiB costs more to track than to copy (pyzmq's own default). A receiver that polls only when nothing
waits. XPUB_NODROP, so that a full queue holds the publisher back instead of losing messages; HWM as flux-loadgen's.
"""

from __future__ import annotations

from typing import Any

import zmq

from benchmarks.peers.bus.board import Board, Place
from benchmarks.peers.bus.pace import Pace, publish
from benchmarks.peers.bus.spec import HWM, topics, turning
from benchmarks.peers.bus.tally import Tally

WAIT_MS = 100


def bound(socket: zmq.Socket[Any], board: Board) -> None:
    """A publisher's socket at a free port, which the board tells."""
    socket.sndhwm = HWM
    socket.linger = 0
    socket.set(zmq.XPUB_NODROP, 1)
    board[Place.ENDPOINT] = socket.bind_to_random_port("tcp://127.0.0.1")


def connected(socket: zmq.Socket[Any], board: Board) -> None:
    """A subscriber's socket, subscribed to all topics by what they have in common."""
    socket.rcvhwm = HWM
    socket.linger = 0
    socket.subscribe(topics()[0].partition(b"\x1fS")[0])
    socket.connect(f"tcp://127.0.0.1:{board[Place.ENDPOINT]}")


def run_publisher(pace: Pace, _: str) -> None:
    with zmq.Context() as context, context.socket(zmq.PUB) as socket:
        bound(socket, pace.board)
        send, more, turns = socket.send, zmq.SNDMORE, turning(topics())

        def hand_over(first: int, payloads: list[bytes]) -> None:
            for topic, payload in zip(turns(first), payloads, strict=False):
                send(topic, more)
                send(payload)

        publish(pace, hand_over)


def run_subscriber(tally: Tally, _: str) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        connected(socket, tally.board)
        recv, take, now = socket.recv, tally.take, zmq.NOBLOCK
        while not tally.finished():
            try:
                while True:
                    recv(now)
                    take(recv())
            except zmq.Again:
                tally.account()
                socket.poll(WAIT_MS)
