"""Rows on their way out of the rings: what is handed over to the consumer, and what its acks will mean.

    Deliver ──► offered ──► ring.window (the one copy) ──► Delivery(batch, tenure) ──► Handover
    DeliverGap, Rewind ──────────────────────────────────► Delivery(gap, tenure)  ──►

It belongs to the loop's thread. A tenure holds for a stream's items from one rewind to the next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from flux.batch import Batch
from flux.client.deliver import BATCHES, Delivery, Handover, Item, Tenure
from flux.limits import MAX_DELIVERY_ROWS
from flux.model import Gap
from flux.protocol import effects as fx

if TYPE_CHECKING:
    from flux.client.keeper import Keeper
    from flux.protocol.coordinator import Coordinator
    from flux.transport.pump import Streams

_LOG: Final = logging.getLogger("flux.client")


class Outbox:
    """See the module."""

    def __init__(
        self, coordinator: Coordinator, streams: Streams, handover: Handover, keeper: Keeper | None
    ) -> None:
        self._coordinator = coordinator
        self._streams = streams
        self._handover = handover
        self._keeper = keeper
        self._offered: dict[int, int] = {}  # slots with rows to hand over, in order, and since when (ns)
        self._tenures: dict[int, Tenure] = {}
        self._anew: set[int] = set()  # slots whose rows do not go on where the cache ends
        self._after_gap: set[int] = set()  # slots whose next batch has a gap before it

    def anew(self, slot: int) -> None:
        """The stream's rows do not go on where the cache ends: they take the place of what it has."""
        self._anew.add(slot)

    def offer(self, effect: fx.Deliver) -> None:
        """Rows became contiguous."""
        self._offered.setdefault(effect.slot, time.monotonic_ns())

    def gap(self, effect: fx.DeliverGap) -> None:
        """Rows will never come; those before them were handed over."""
        self._after_gap.add(effect.slot)
        self._put(effect.slot, effect.gap, effect.gap.first_sequence - 1, effect.gap.last_sequence)

    def rewind(self, effect: fx.Rewind) -> None:
        """Rows that were handed over are void."""
        if self._keeper is not None:
            self._keeper.drop_above(effect.key, effect.to_sequence)
        self._end_tenure(effect.slot, effect.to_sequence)
        reason = "void: the epoch ended before them"
        gap = Gap(effect.key, effect.to_sequence + 1, effect.last_sequence, reason)
        self._put(effect.slot, gap, effect.to_sequence, effect.to_sequence)

    def set_aside(self, effect: fx.SetAside) -> None:
        """The stream begins anew, with rows of another store: those that the consumer has are void, and it is given
        the reason once.
        """
        _LOG.warning("%s is fetched anew: %s", effect.key, effect.reason)
        if self._keeper is not None:
            self._keeper.set_aside(effect.key)
        self._end_tenure(effect.slot, 0)
        self._after_gap.add(effect.slot)
        self._offered.pop(effect.slot, None)
        if effect.last_sequence:
            gap = Gap(effect.key, 1, effect.last_sequence, f"void: {effect.reason}")
            self._put(effect.slot, gap, 0, 0)

    def hand_over(self, carry_out: Callable[[], None]) -> None:
        """Copy newly contiguous rows out of the rings, as much as consumers leave room for; `carry_out` sees to the
        effects that this has.
        """
        while self._offered and self._handover.room():
            slot = next(iter(self._offered))
            del self._offered[slot]
            stream, ring = self._coordinator.stream(slot), self._streams.ring(slot)
            first = stream.delivered + 1
            if ring.contiguous < first:
                continue
            epoch, upto = stream.epoch_at(first)  # a batch ends where the epoch of its rows does
            rows = ring.window(first, min(ring.contiguous, upto, stream.delivered + MAX_DELIVERY_ROWS))
            assert len(rows), "a ring let go of rows that were not delivered"
            last = first + len(rows) - 1
            make = BATCHES[stream.key.kind]
            batch = make(stream.key, first, rows, epoch=epoch, store_id=stream.store_id)
            self._put(slot, batch, first - 1, last)
            if last < ring.contiguous:
                self._offered[slot] = time.monotonic_ns()
            self._coordinator.delivered(slot, last, time.monotonic_ns())
            carry_out()

    def consumed(self, slot: int) -> int:
        """The last sequence that the consumer is done with."""
        tenure = self._tenures.get(slot)
        return self._coordinator.stream(slot).delivered if tenure is None else tenure.consumed

    def waiting_since(self, slot: int) -> int | None:
        """When the oldest row that the consumer is not done with was received in order (monotonic ns)."""
        tenure = self._tenures.get(slot)
        since = None if tenure is None else tenure.waiting_since()
        return self._offered.get(slot) if since is None else since

    def _put(self, slot: int, item: Item, before: int, upto: int) -> None:
        """Hand over an item: the consumer is at `before` when it is given, and at `upto` when it is done with it."""
        tenure = self._tenures.get(slot)
        if tenure is None:
            tenure = Tenure(self._keeper is not None, anew=slot in self._anew, before=before)
            self._tenures[slot] = tenure
            self._anew.discard(slot)
        tenure.put(upto, time.monotonic_ns())
        after_gap = isinstance(item, Batch) and slot in self._after_gap
        self._handover.put(Delivery(item, tenure, upto, after_gap))
        if isinstance(item, Batch):
            self._after_gap.discard(slot)

    def _end_tenure(self, slot: int, upto: int) -> None:
        """Batches that are still with consumers are void above `upto`: late acks must not bring them back."""
        tenure = self._tenures.pop(slot, None)
        if tenure is not None:
            tenure.upto = upto
            if tenure.anew:
                self._anew.add(slot)
