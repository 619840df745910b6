"""What the two ends of a bus tell each other beside the bus: eight numbers in memory that both map.

    HEARD     subscriber  1 once a probe came through: the way is open
    START     publisher   when the run starts, CLOCK_MONOTONIC ns
    RECEIVED  subscriber  messages so far; at saturation the publisher stays at most WINDOW ahead of it
    SENT      publisher   messages in all, once it is through; -1 before
    DONE      subscriber  1 when it has what it waits for
    ENDPOINT  publisher   the TCP port it is bound to (libzmq alone)

Nothing of it takes part in what is measured but one read of eight bytes a batch. `libzmq.c` knows the same order.
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from pathlib import Path

BYTES = 64


class Place(IntEnum):
    """Where a number stands."""

    HEARD = 0
    START = 1
    RECEIVED = 2
    SENT = 3
    DONE = 4
    ENDPOINT = 5


class Board:
    """The numbers of one trial, in a file of 64 bytes."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), BYTES)
        self._numbers = memoryview(self._map).cast("q")

    @classmethod
    def make(cls, path: Path) -> Board:
        """A new one at `path`: nothing heard, nothing sent."""
        path.write_bytes(bytes(BYTES))
        board = cls(path)
        board[Place.SENT] = -1
        return board

    def __getitem__(self, place: int) -> int:
        return self._numbers[place]

    def __setitem__(self, place: int, number: int) -> None:
        self._numbers[place] = number
