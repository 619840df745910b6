"""Redis pub/sub with redis-py and hiredis: a channel for each of the 64 streams.

The publisher sends what is due as one pipeline: a write and its replies, instead of a round trip a message.
`execute_command` puts a PUBLISH into it without what `publish` does around it. The subscriber names its 64 channels in
one SUBSCRIBE, which costs the server a look-up a message, where a pattern would cost a match. It reads replies with
`parse_response`, as `listen` does, and leaves out what `listen` makes of each: a dictionary. RESP2, because redis-py
takes 6.2 µs for a message as RESP3's push and 4.4 µs as RESP2's reply.
"""

from __future__ import annotations

import redis

from benchmarks.peers.bus.pace import Pace, publish
from benchmarks.peers.bus.spec import topics, turning
from benchmarks.peers.bus.tally import Tally


def connected(port: str) -> redis.Redis:
    """A client of the broker at this port."""
    return redis.Redis(port=int(port), protocol=2)


def run_publisher(pace: Pace, port: str) -> None:
    with connected(port) as client:
        pipeline, turns = client.pipeline(transaction=False), turning(topics())

        def hand_over(first: int, payloads: list[bytes]) -> None:
            for topic, payload in zip(turns(first), payloads, strict=False):
                pipeline.execute_command("PUBLISH", topic, payload)
            pipeline.execute()

        publish(pace, hand_over)


def run_subscriber(tally: Tally, port: str) -> None:
    with connected(port) as client, client.pubsub() as subscription:
        subscription.subscribe(*topics())
        for _ in topics():
            subscription.parse_response()
        next_reply, take = subscription.parse_response, tally.take
        while not tally.finished():
            take(next_reply()[2])
