"""What a consumer was given and is not done with: acks go from here to the cache, which closes after the last."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from flux.batch import Batch
from flux.client.callbacks import GapCallback, guarded
from flux.client.deliver import Delivery, Handover, split
from flux.client.keeper import Keeper
from flux.errors import FluxError

_LOG: Final = logging.getLogger("flux.client")


class Consumer:
    """Takes from the hand-over for whoever asks for batches. `ended`: whether nothing more is handed over."""

    def __init__(self, handover: Handover, keeper: Keeper | None, ended: Callable[[], bool]) -> None:
        self.gap_callbacks: list[GapCallback] = []
        self._handover = handover
        self._keeper = keeper
        self._ended = ended
        self._acking = threading.RLock()  # an `ack` may come from any thread
        self._current: Delivery | None = None  # what the consumer works on, as far as it is not acked
        self._given: Batch | None = None  # the batch it came as
        self._partly = False

    def take(self, timeout: float | None) -> Delivery | None:
        """The next delivery, as `Handover.take`."""
        delivery: Delivery | None = None
        try:
            delivery = self._handover.take(timeout)
            return delivery
        finally:
            if delivery is None:
                self.let_go()

    def received(self, delivery: Delivery) -> Batch | None:
        """The batch that a consumer gets next; a gap goes to its callbacks instead."""
        item = delivery.item
        if isinstance(item, Batch):
            with self._acking:
                self._current, self._given = delivery, item
            return item
        delivery.tenure.done(delivery.upto)
        if not self.gap_callbacks:
            _LOG.warning("%s: %d to %d: %s", item.key, item.first_sequence, item.last_sequence, item.reason)
        for callback in self.gap_callbacks:
            guarded(callback, item, None)
        return None

    def ack(self, batch: Batch, upto: int | None) -> None:
        """See `Live.ack`."""
        with self._acking:
            current = self._current
            if current is None or self._given is not batch:
                return
            if self._keeper is not None and self._keeper.closing:
                raise FluxError("this Live has ended and its cache is closed: the batch comes again")
            if upto is None or upto >= batch.end_sequence:
                self.done()
            elif isinstance(current.item, Batch) and upto >= current.item.start_sequence:
                handled, rest = split(current.item, upto)
                self._done_with(current._replace(item=handled, upto=upto))
                self._current, self._partly = current._replace(item=rest, after_gap=False), True

    def done(self) -> None:
        """The consumer is done with what it was given."""
        with self._acking:
            delivery, self._current, self._partly = self._current, None, False
            if delivery is not None:
                self._done_with(delivery)
                self._handover.done()
                self.let_go()

    def leave(self) -> None:
        """The calling thread leaves without an error: it is done with what it took, unless it said otherwise. Another
        thread that took it, a callback's, says so itself.
        """
        if not self._partly and self._handover.taken_here():
            self.done()

    def let_go(self, *, leaving: bool = False) -> None:
        """Close the cache, if all has ended and nobody can be done with another batch."""
        if self._keeper is not None and self._ended() and self._handover.finished(leaving=leaving):
            self._keeper.close()

    def _done_with(self, delivery: Delivery) -> None:
        delivery.tenure.done(delivery.upto)
        if self._keeper is not None:
            self._keeper.ack(delivery)
