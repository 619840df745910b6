"""NATS JetStream with nats-py: one stream on file that takes the subjects of all 64 streams.

The publisher calls `publish_async` with the library's own window of 4,000 messages that the server has not yet
acknowledged; each acknowledgement is a message of its own. The subscriber is a push consumer without acknowledgements,
the cheapest there is: its place is its own affair, as a flux client's is. The server of this version syncs its files
each two minutes, and acknowledges before: a `flux-loadgen --mode through` promises more.
"""

from __future__ import annotations

import asyncio

from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StorageType, StreamConfig

from benchmarks.peers.bus.loops import publish_async, run
from benchmarks.peers.bus.over_nats import ALL, WAIT_S, connected, subjects
from benchmarks.peers.bus.pace import Pace
from benchmarks.peers.bus.spec import turning
from benchmarks.peers.bus.tally import Tally

STREAM = StreamConfig(name="flux", subjects=[ALL], storage=StorageType.FILE)  # whoever is first makes it
WINDOW = 4_000


def run_publisher(pace: Pace, url: str) -> None:
    run(_publish(pace, url))


async def _publish(pace: Pace, url: str) -> None:
    client = await connected(url)
    stream = client.jetstream(publish_async_max_pending=WINDOW)
    await stream.add_stream(STREAM)
    publish, turns = stream.publish_async, turning(subjects())

    async def hand_over(first: int, payloads: list[bytes]) -> None:
        for name, payload in zip(turns(first), payloads, strict=False):
            await publish(name, payload)

    await publish_async(pace, hand_over)
    await stream.publish_async_completed()
    await client.close()


def run_subscriber(tally: Tally, url: str) -> None:
    run(_subscribe(tally, url))


async def _subscribe(tally: Tally, url: str) -> None:
    client = await connected(url)
    stream = client.jetstream()
    await stream.add_stream(STREAM)

    async def on_message(message: Msg) -> None:
        tally.take(message.data)

    wanted = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
    await stream.subscribe(ALL, stream=STREAM.name, cb=on_message, config=wanted, manual_ack=True)
    while not tally.finished():
        await asyncio.sleep(WAIT_S)
    await client.close()
