"""How a publisher does what `Faults` says: messages left out, spoilt, held back or sent twice, and counted."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flux.journal import BATCH, Group
from flux.loadgen.faults import Faults
from flux.transport.pump import Sender

_LATE_RECORDS: Final = 256
_LATE_BYTES: Final = _LATE_RECORDS * 512


class _Held(NamedTuple):
    """A message that waits for the next one of its stream; a copy of its record."""

    number: int
    content: bytes
    slot: int
    sequence: int


class Wrongdoing:
    """Sends groups with faults. `all_messages` and `streams` are those of this publisher."""

    def __init__(self, faults: Faults, sender: Sender, all_messages: int, streams: int) -> None:
        self.done = {"drop": 0, "corrupt": 0, "reorder": 0, "duplicate": 0}  # messages
        self._faults = faults
        self._sender = sender
        self._all = all_messages
        self._streams = streams
        self._held: dict[int, _Held] = {}  # by slot, so never more than streams
        self._late = Group(_LATE_BYTES, _LATE_RECORDS)

    def send(self, group: Group, numbers: NDArray[np.int64]) -> None:
        """Send a group whose i-th record is message `numbers[i]`, a row each."""
        faults = self._faults
        dropped = _hit(numbers, faults.drop)
        spoilt = _hit(numbers, faults.corrupt) & ~dropped
        sound = ~dropped & ~spoilt
        held = self._hold(group, numbers, _hit(numbers, faults.reorder) & sound)
        twice = _hit(numbers, faults.duplicate) & sound & ~held
        times = np.where(dropped | held, 0, np.where(twice, 2, 1))
        order = np.repeat(np.arange(len(numbers), dtype=np.uint32), times)
        self._sender.send(group, order, spoilt[order].astype(np.uint8))
        for name, which in (("drop", dropped), ("corrupt", spoilt), ("duplicate", twice)):
            self.done[name] += int(np.count_nonzero(which))
        self._release(numbers[sound & ~held])

    def finish(self) -> None:
        """Send what is still held back: its stream has no next message, so it is only late."""
        self._send_late(list(self._held.values()))
        self._held.clear()

    def _hold(self, group: Group, numbers: NDArray[np.int64], wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Keep a copy of each, at most one of a stream, unless it is its stream's last; which these are."""
        wanted = wanted & (numbers + self._streams < self._all)
        if not wanted.any():
            return wanted
        entries, data = group.entries, group.data
        for i in np.flatnonzero(wanted):
            entry = entries[i]
            slot, at = int(entry["label"]), int(entry["at"])
            if slot in self._held:
                wanted[i] = False  # it is the one that another waits for
                continue
            content = bytes(data[at : at + int(entry["size"])])
            self._held[slot] = _Held(int(numbers[i]), content, slot, int(entry["label2"]))
        return wanted

    def _release(self, sent: NDArray[np.int64]) -> None:
        """Send those held back whose stream has gone on."""
        if not self._held:
            return
        newest: dict[int, int] = {}
        for number in sent[np.isin(sent % self._streams, list(self._held))].tolist():
            slot = number % self._streams
            newest[slot] = max(newest.get(slot, number), number)
        late = [self._held.pop(slot) for slot in newest if newest[slot] > self._held[slot].number]
        self.done["reorder"] += len(late)
        self._send_late(late)

    def _send_late(self, late: list[_Held]) -> None:
        for begin in range(0, len(late), _LATE_RECORDS):
            self._late.clear()
            for held in late[begin : begin + _LATE_RECORDS]:
                self._late.append(BATCH, held.content, held.slot, held.sequence)
            self._sender.send(self._late)


def _hit(numbers: NDArray[np.int64], every: int) -> NDArray[np.bool_]:
    return (numbers + 1) % every == 0 if every else np.zeros(len(numbers), np.bool_)
