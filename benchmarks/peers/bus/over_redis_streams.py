"""Redis streams with redis-py and hiredis: one stream that holds the messages of all 64 topics.

The publisher pipelines XADD as pub/sub's does PUBLISH; `MAXLEN ~` keeps the newest 200,000, which Redis drops in whole
nodes at no cost worth naming. One key instead of 64, because XREAD answers for each key by itself. The subscriber reads
with XREAD BLOCK up to READ messages at once, from the beginning, and goes on behind the last it saw: what was not there
when it asked is there the next time.
"""

from __future__ import annotations

from benchmarks.peers.bus.over_redis import connected
from benchmarks.peers.bus.pace import Pace, publish
from benchmarks.peers.bus.spec import HWM, topics, turning
from benchmarks.peers.bus.tally import Tally

KEY = b"flux"
READ = 1_000
WAIT_MS = 100


def run_publisher(pace: Pace, port: str) -> None:
    with connected(port) as client:
        pipeline, turns = client.pipeline(transaction=False), turning(topics())
        keep = str(HWM).encode()

        def hand_over(first: int, payloads: list[bytes]) -> None:
            for topic, payload in zip(turns(first), payloads, strict=False):
                pipeline.execute_command("XADD", KEY, "MAXLEN", "~", keep, "*", topic, payload)
            pipeline.execute()

        publish(pace, hand_over)


def run_subscriber(tally: Tally, port: str) -> None:
    with connected(port) as client:
        last, take = b"0-0", tally.take
        while not tally.finished():
            for _, messages in client.xread({KEY: last}, count=READ, block=WAIT_MS):
                for _, fields in messages:
                    for payload in fields.values():
                        take(payload)
                last = messages[-1][0]
            tally.account()
