"""The streams of a run, the same in every process."""

from __future__ import annotations

from typing import Final

from flux.limits import MAX_ARRIVALS
from flux.loadgen.plan import Plan
from flux.model import StreamKey
from flux.transport.pump import Streams

SOURCE: Final = "LOAD"
INTERVAL: Final = "1s"
EPOCH: Final = 1
_MIN_RING_ROWS: Final = 64


def ring_rows(plan: Plan, messages: int, streams: int) -> int:
    """Rows of a ring that keeps a stream's share of `messages` messages four times over; a power of two."""
    share = -(-messages // streams) * plan.rows
    return max(_MIN_RING_ROWS, 1 << (4 * share - 1).bit_length())


def streams_of(
    plan: Plan,
    messages: int = MAX_ARRIVALS,
    store_id: int = 0,
    part: int | None = None,
    *,
    source: str = SOURCE,
    epoch: int = EPOCH,
) -> Streams:
    """Slot by slot the streams of publisher `part`, or all (None); the stream_id is the plan's number.

    Rings are sized for `messages` messages at once.
    """
    numbers = range(plan.streams) if part is None else range(part, plan.streams, plan.publishers)
    made = Streams(len(numbers))
    for stream in numbers:
        key = StreamKey(source, f"S{stream}", INTERVAL)
        slot = made.add(key, stream_id=stream, ring_rows=ring_rows(plan, messages, len(numbers)))
        made.expect(slot, store_id, epoch)
    return made


def ready_topic(number: int) -> bytes:
    """What subscriber `number` asks for behind all else. Nothing is ever sent under it: an XPUB tells each prefix only
    once, so with several subscribers a prefix of its own is what shows that each of them is there. libzmq sends the
    subscriptions of a connection in order of their bytes, which is why it begins with the last."""
    return b"\xffready\x1f%d\x1f" % number
