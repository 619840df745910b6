"""NATS core with nats-py: a subject for each of the 64 streams, one subscription to all by a wildcard.

`publish` puts a message into the client's buffer, and the client's own task writes what has gathered whenever the loop
gets to it, which is after each batch: nothing is flushed by hand. Subjects are not checked again at each publish, which
nats-py does unless told that the caller knows them. The subscriber gives a callback; to iterate makes a task for each
message. On uvloop, where it is installed, as nats-py's own measurements are.
"""

from __future__ import annotations

import asyncio

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from benchmarks.peers.bus.loops import publish_async, run
from benchmarks.peers.bus.pace import Pace
from benchmarks.peers.bus.spec import topics, turning
from benchmarks.peers.bus.tally import Tally

ALL = "v2.>"
WAIT_S = 0.05  # between two looks at whether all is here


def subjects() -> list[str]:
    """flux's topics as subjects, whose tokens are its fields."""
    return [topic.decode().strip("\x1f").replace("\x1f", ".") for topic in topics()]


async def connected(url: str) -> Client:
    """A client of the broker at this address."""
    return await nats.connect(url, skip_subject_validation=True)


def run_publisher(pace: Pace, url: str) -> None:
    run(_publish(pace, url))


async def _publish(pace: Pace, url: str) -> None:
    client = await connected(url)
    publish, turns = client.publish, turning(subjects())

    async def hand_over(first: int, payloads: list[bytes]) -> None:
        for name, payload in zip(turns(first), payloads, strict=False):
            await publish(name, payload)

    await publish_async(pace, hand_over)
    await client.close()


def run_subscriber(tally: Tally, url: str) -> None:
    run(_subscribe(tally, url))


async def _subscribe(tally: Tally, url: str) -> None:
    client = await connected(url)

    async def on_message(message: Msg) -> None:
        tally.take(message.data)

    await client.subscribe(ALL, cb=on_message)
    while not tally.finished():
        await asyncio.sleep(WAIT_S)
    await client.close()
