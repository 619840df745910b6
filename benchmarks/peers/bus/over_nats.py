"""NATS core with nats-py: a subject for each of the 64 streams, one subscription to all by a wildcard.

`publish` puts a message into the client's buffer, and the client's own task writes what has gathered whenever the loop
gets to it, which is after each batch: nothing is flushed by hand. Subjects are not checked again at each publish, which
nats-py does unless it is told that the caller knows them. The subscriber gives a callback; an iteration makes a task for
each message. uvloop, as nats-py's own measurements run where it is installed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import nats
from nats.aio.msg import Msg

from benchmarks.peers.bus.pace import Pace, publish_async
from benchmarks.peers.bus.spec import topics, turns
from benchmarks.peers.bus.tally import Tally

ALL = "v2.>"
WAIT_S = 0.05  # between two looks at whether all is here


def run(ends: Coroutine[Any, Any, None]) -> None:
    """In uvloop, where it is installed."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(ends)
    else:
        uvloop.run(ends)


def subjects() -> list[str]:
    """flux's topics as subjects, whose tokens are its fields."""
    return [topic.decode().strip("\x1f").replace("\x1f", ".") for topic in topics()]


async def connected(url: str) -> nats.NATS:
    """A client of the broker at this address."""
    return await nats.connect(url, skip_subject_validation=True)


def run_publisher(pace: Pace, url: str) -> None:
    run(_publish(pace, url))


async def _publish(pace: Pace, url: str) -> None:
    client = await connected(url)
    publish = client.publish

    async def hand_over(first: int, payloads: list[bytes]) -> None:
        for name, payload in zip(turns(first, subjects), payloads, strict=False):
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
