"""One trial of one peer: what is sent, how fast, for how long; and what comes out of it.

A message is the topic and the frame that flux itself would send for one candle of one of 64 streams: 23 and 244 bytes.
Nobody but flux reads the frame, so a peer's message carries its own number and its intended send time (int64 each,
CLOCK_MONOTONIC ns) in the first 16 of these bytes. Message k goes to topic k mod 64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Final, TypeVar

import numpy as np

from flux import codec
from flux.loadgen.plan import CLOSED_HWM, NS_PER_S
from flux.model import CANDLE, StreamKey
from flux.transport.topics import stream_topic

STREAMS: Final = 64
WINDOW: Final = 100_000  # messages under way at saturation: a quarter of a high-water mark
HWM: Final = CLOSED_HWM  # messages, as flux-loadgen in its closed loop
MAX_BATCH: Final = 256  # messages sent between two looks at the clock, as far as the library sends in batches
PROBE: Final = -1  # the number of a message that only asks whether the way is open
HELD_SHARE: Final = 0.995  # of the rate asked, as flux-loadgen


Name = TypeVar("Name", bytes, str)


@cache
def topics() -> list[bytes]:
    """The streams' topics on flux's wire."""
    return [stream_topic(StreamKey("LOAD", f"S{stream:02}", "1s")) for stream in range(STREAMS)]


def turning(names: list[Name]) -> Callable[[int], list[Name]]:
    """A function that gives the names of message `first` and those after it, MAX_BATCH of them."""
    many = names * (2 + MAX_BATCH // STREAMS)
    turns = [many[stream : stream + MAX_BATCH] for stream in range(STREAMS)]
    return lambda first: turns[first % STREAMS]


@cache
def frame() -> bytes:
    """A version 2 message of one candle."""
    return bytes(codec.encode(np.zeros(1, CANDLE), StreamKey("LOAD", "S00", "1s"), start_sequence=1))


@dataclass(frozen=True, slots=True)
class Spec:
    """What a trial does. `rate` 0: saturation."""

    rate: int  # messages per second, open loop; 0 = as fast as it goes with WINDOW messages under way
    duration_ns: int  # measured time
    warmup_ns: int  # sent before it and counted, but not measured

    @property
    def run_ns(self) -> int:
        return self.warmup_ns + self.duration_ns

    @property
    def warmup_messages(self) -> int:
        """How many of the first messages are not timed."""
        return -(-self.warmup_ns * self.rate // NS_PER_S)

    @property
    def messages(self) -> int:
        """All that are due in the run at this rate."""
        return -(-self.run_ns * self.rate // NS_PER_S)


@dataclass(slots=True)
class Result:
    """What a trial gave. Times in ns, counts in messages."""

    peer: str
    rate: int  # asked; 0 = saturation
    achieved: float = 0.0  # received per second of the measured time
    held: bool = False  # all sent, and at least HELD_SHARE of the rate received in time
    scheduled: int = 0
    sent: int = 0
    received: int = 0
    missing: int = (
        0  # of those sent; where a rate is not held, what was still under way at the end counts too
    )
    disorder: int = 0  # came again, or after a later one
    p50: int = 0
    p99: int = 0
    p999: int = 0
    max: int = 0
    cpu_us: dict[str, float] = field(
        default_factory=dict
    )  # per message received, of publisher, broker, subscriber
    error: str = ""  # why there are no numbers

    @property
    def cpu_us_all(self) -> float:
        return sum(self.cpu_us.values())
