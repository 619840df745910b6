"""What a publisher's heartbeats say of its streams: how far each was numbered, whatever of it came.

By sequence alone a stream that loses its last rows looks like one that ended earlier. A mark is the committed head of
a stream in one store and epoch, and names the stream by its id there, which the rows' own frames hold too. It is
compared with a stream that is still in the store it was met in; where another store has taken its place, its id there
is not known, and neither is its end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from flux import codec
from flux.errors import DecodeError
from flux.limits import MAX_STREAMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_EPOCHS: Final = 64  # (store, epoch) pairs whose marks are kept, the oldest goes first


class Marks:
    """Of a run: streams by their slot, sequences as the publisher numbers them."""

    def __init__(self) -> None:
        self.heartbeats = 0  # that could be read
        self._heads: dict[
            tuple[int, int], dict[int, int]
        ] = {}  # (store_id, epoch): stream_id: latest sequence
        self._ids: list[int] = []  # by slot: the stream's id in its store
        self._stores = np.zeros(MAX_STREAMS, np.uint64)
        self._epochs = np.zeros(MAX_STREAMS, np.uint32)  # the highest that came
        self._replaced = np.zeros(MAX_STREAMS, np.bool_)  # rows of another store came

    def add(self, store_id: int, epoch: int, stream_id: int) -> None:
        """One more stream: whose it is, as its first message says."""
        self._stores[len(self._ids)], self._epochs[len(self._ids)] = store_id, epoch
        self._ids.append(stream_id)

    def follow(self, arrivals: NDArray[np.void]) -> None:
        """Learn from ARRIVAL records of which epoch the streams are by now."""
        slots, stores = arrivals["stream"], arrivals["store_id"]
        same = stores == self._stores[slots]
        if same.all():
            np.maximum.at(self._epochs, slots, arrivals["epoch"])
            return
        np.maximum.at(self._epochs, slots[same], arrivals["epoch"][same])
        self._replaced[slots[~same & (stores != 0)]] = (
            True  # version 1 names no store, and takes no one's place
        )

    def hear(self, payload: bytes) -> None:
        """Take a message that carries no rows; what is no heartbeat says nothing here."""
        try:
            message: Any = codec.decode(payload)
        except DecodeError:
            return
        if not isinstance(message, codec.Heartbeat) or not message.store_id:
            return
        self.heartbeats += 1
        whose = (message.store_id, message.epoch)
        heads = self._heads.setdefault(whose, {})
        heads.update(
            zip(message.marks["stream_id"].tolist(), message.marks["latest_sequence"].tolist(), strict=True)
        )
        if len(heads) > MAX_STREAMS:
            heads.clear()  # no store has so many: nothing that it says is believed
        if len(self._heads) > MAX_EPOCHS:
            self._heads.pop(next(iter(self._heads)))

    def heads(self) -> dict[int, int]:
        """By slot the last sequence that a mark of the stream's present epoch names, where there is one."""
        found = {}
        for slot, stream_id in enumerate(self._ids):
            whose = (int(self._stores[slot]), int(self._epochs[slot]))
            head = self._heads.get(whose, {}).get(stream_id)
            if head is not None and not self._replaced[slot]:
                found[slot] = head
        return found
