"""Faults on the wire: a plan of which records of a group are sent, in which order, and which are spoilt.

Nothing is taken from the journal or the store: what is lost here was numbered and kept, so a client can and must repair
it. The same seed makes the same faults for the same groups.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from flux import journal
from flux.errors import ConfigError


@dataclass(slots=True)
class Injected:
    """Messages that a fault was put on, since the beginning."""

    dropped: int = 0
    duplicated: int = 0
    reordered: int = 0
    corrupted: int = 0


class Faults:
    """Dials from 0 to 1, and `gap_every` (0 = off): each so-many-th message is dropped, whatever the dice say.

    `reorder` exchanges a message with the one behind it. The committer calls the object with each group; the dials may
    be turned while it does.
    """

    def __init__(
        self,
        *,
        drop: float = 0.0,
        gap_every: int = 0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        corrupt: float = 0.0,
        seed: int = 0,
    ) -> None:
        for name, dial in (
            ("drop", drop),
            ("duplicate", duplicate),
            ("reorder", reorder),
            ("corrupt", corrupt),
        ):
            if not 0 <= dial <= 1:
                raise ConfigError(f"{name} is a share from 0 to 1, not {dial}")
        if gap_every < 0:
            raise ConfigError(f"gap_every is a number of messages, not {gap_every}")
        self.drop, self.gap_every = drop, gap_every
        self.duplicate, self.reorder, self.corrupt = duplicate, reorder, corrupt
        self.injected = Injected()
        self._messages = 0
        self._rng = np.random.default_rng(seed)

    def __call__(self, group: journal.Group) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """The order in which the group's batches go out (indices of its entries), and which to spoil."""
        order = np.flatnonzero(group.entries["kind"] == journal.BATCH)
        number = self._messages + 1 + np.arange(len(order))
        self._messages += len(order)
        lost = self._dice(len(order), self.drop)
        if self.gap_every:
            lost |= number % self.gap_every == 0
        order = order[~lost]
        swap = np.flatnonzero(self._dice(max(0, len(order) - 1), self.reorder))
        swap = swap[np.insert(np.diff(swap) > 1, 0, True)] if len(swap) else swap
        order[swap], order[swap + 1] = order[swap + 1], order[swap]
        twice = self._dice(len(order), self.duplicate)
        order = np.repeat(order, 1 + twice)
        spoilt = self._dice(len(order), self.corrupt)
        self.injected.dropped += int(lost.sum())
        self.injected.reordered += len(swap)
        self.injected.duplicated += int(twice.sum())
        self.injected.corrupted += int(spoilt.sum())
        return order.astype(np.uint32), spoilt.astype(np.uint8)

    def _dice(self, n: int, share: float) -> NDArray[np.bool_]:
        if share == 0:
            return np.zeros(n, np.bool_)
        return self._rng.random(n) < share

    def __repr__(self) -> str:
        said = ", ".join(f"{f.name}={getattr(self.injected, f.name)}" for f in fields(self.injected))
        return f"Faults({said})"
