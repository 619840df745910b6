"""The streams of a run, the same in both processes."""

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


def ring_rows(plan: Plan, messages: int) -> int:
    """Rows of a ring that keeps a stream's share of `messages` messages four times over; a power of two."""
    share = -(-messages // plan.streams) * plan.rows
    return max(_MIN_RING_ROWS, 1 << (4 * share - 1).bit_length())


def streams_of(
    plan: Plan,
    messages: int = MAX_ARRIVALS,
    store_id: int = 0,
    *,
    source: str = SOURCE,
    epoch: int = EPOCH,
) -> Streams:
    """Slot and stream_id n is the plan's stream n; rings are sized for `messages` messages at once."""
    made = Streams(plan.streams)
    for stream in range(plan.streams):
        key = StreamKey(source, f"S{stream}", INTERVAL)
        slot = made.add(key, stream_id=stream, ring_rows=ring_rows(plan, messages))
        made.expect(slot, store_id, epoch)
    return made
