"""zmq.asyncio: the same sockets as plain pyzmq, awaited.

Multipart calls, as its documentation recommends: a future a message instead of one a frame. The subscriber waits with
`poll` and then takes what is there with NOBLOCK, which is three times as fast as to await each message: a call without
it asks the socket for its events first. On uvloop, where it is installed, which saves a sixth of the CPU time.
"""

from __future__ import annotations

import zmq
import zmq.asyncio

from benchmarks.peers.bus.loops import publish_async, run
from benchmarks.peers.bus.over_zmq import WAIT_MS, bound, connected
from benchmarks.peers.bus.pace import Pace
from benchmarks.peers.bus.spec import topics, turning
from benchmarks.peers.bus.tally import Tally


def run_publisher(pace: Pace, _: str) -> None:
    run(_publish(pace))


async def _publish(pace: Pace) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.PUB) as socket:
        bound(socket, pace.board)
        send, turns = socket.send_multipart, turning(topics())

        async def hand_over(first: int, payloads: list[bytes]) -> None:
            for frames in zip(turns(first), payloads, strict=False):
                await send(frames)

        await publish_async(pace, hand_over)


def run_subscriber(tally: Tally, _: str) -> None:
    run(_subscribe(tally))


async def _subscribe(tally: Tally) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
        connected(socket, tally.board)
        recv, take = socket.recv_multipart, tally.take
        while not tally.finished():
            try:
                while True:
                    _, payload = await recv(zmq.NOBLOCK)
                    take(payload)
            except zmq.Again:
                tally.account()
                await socket.poll(WAIT_MS)
