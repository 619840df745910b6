"""zmq.asyncio: the same sockets as plain pyzmq, awaited.

Multipart calls, as its documentation recommends: a future a message instead of one a frame. On asyncio's own loop."""

from __future__ import annotations

import asyncio
import os

import zmq
import zmq.asyncio

from benchmarks.peers.bus.over_zmq import bound, connected
from benchmarks.peers.bus.pace import Pace, publish_async
from benchmarks.peers.bus.spec import turns
from benchmarks.peers.bus.tally import Tally

def go(co):
    if os.environ.get("UV"):
        import uvloop
        uvloop.run(co)
    else:
        asyncio.run(co)

def run_publisher(pace: Pace, _: str) -> None:
    go(_publish(pace))


async def _publish(pace: Pace) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.PUB) as socket:
        bound(socket, pace.board)
        sender = socket.send_multipart

        async def hand_over(first: int, payloads: list[bytes]) -> None:
            for topic, payload in zip(turns(first), payloads, strict=False):
                await sender((topic, payload))

        await publish_async(pace, hand_over)


def run_subscriber(tally: Tally, _: str) -> None:
    go(_subscribe(tally))


async def _subscribe(tally: Tally) -> None:
    with zmq.asyncio.Context() as context, context.socket(zmq.SUB) as socket:
        connected(socket, tally.board)
        recv, take = socket.recv_multipart, tally.take
        if os.environ.get("A"):
          while not tally.finished():
            for _ in range(64):
                f = recv()
                if not f.done():
                    tally.account()
                take((await f)[1])
            tally.account()
        else:
          while not tally.finished():
            await socket.poll(100)
            try:
                while True:
                    _, payload = await recv(zmq.NOBLOCK)
                    take(payload)
            except zmq.Again:
                tally.account()
