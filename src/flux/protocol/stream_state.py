"""One stream as the coordinator keeps it, and the state that is shown of it."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from flux.model import MAX_SEQUENCE, Cursor, StreamKey


class PlacedLike(Protocol):
    """What placing rows did."""

    @property
    def placed(self) -> int: ...


class RingLike(Protocol):
    """What the coordinator knows of a ring (`flux.ring.Ring`; in tests its plain twin)."""

    keep: int

    @property
    def capacity(self) -> int: ...
    @property
    def first(self) -> int: ...
    @property
    def contiguous(self) -> int: ...
    @property
    def top(self) -> int: ...
    @property
    def conflicts(self) -> int: ...

    def gaps(self) -> NDArray[Any]: ...
    def window(self, first: int, last: int, /) -> NDArray[Any]: ...
    def place(self, start: int, rows: Any, /) -> PlacedLike: ...
    def reset(self, first: int, /) -> None: ...
    def skip(self, first: int, /) -> None: ...


class StreamState(IntEnum):
    """What a client shows of a stream. Quiet is not stalled."""

    CONNECTING = 0
    DISCONNECTED = 1
    IDLE = 2
    RECEIVING = 3
    STALLED = 4
    BACKFILLING = 5
    FAILED = 6


class Phase(IntEnum):
    """Where a stream is in its life: its beginning unknown, going on, or between two epochs."""

    JOINING = 0
    LIVE = 1
    ENDING = 2


class Proof(IntEnum):
    """Whether the server's history is this client's: its last row is asked for and compared."""

    NONE = 0
    WANTED = 1
    HOLDING = 2
    """Wanted, and rows are held back until it is there."""


NONE, WANTED, HOLDING = Proof.NONE, Proof.WANTED, Proof.HOLDING
# By these names in loops: Python 3.11 looks a member up in its class by way of `__getattr__`, ten times
# slower.
FAILED, RECEIVING, STALLED = StreamState.FAILED, StreamState.RECEIVING, StreamState.STALLED
JOINING, LIVE, ENDING = Phase.JOINING, Phase.LIVE, Phase.ENDING


class Stream:
    """The coordinator's record of one stream; `heads` and the like stand in arrays by slot beside it."""

    __slots__ = (
        "ahead",
        "asking",
        "begin",
        "claim",
        "conflicts",
        "cursor",
        "delivered",
        "earlier",
        "epoch",
        "failures",
        "fault",
        "from_oldest",
        "gap",
        "halted",
        "key",
        "known",
        "left_at",
        "open_start",
        "phase",
        "proof",
        "proof_at",
        "proof_row",
        "ring",
        "slot",
        "start",
        "store_id",
        "stream_id",
        "suspect",
        "verified_ns",
        "verify",
    )

    def __init__(
        self, key: StreamKey, slot: int, ring: RingLike, start: str | int | None, cursor: Cursor | None
    ) -> None:
        self.key = key
        self.slot = slot
        self.ring = ring
        self.start = start
        self.cursor = cursor
        self.phase = Phase.JOINING
        self.store_id = 0
        self.epoch = 0
        self.stream_id = 0  # 0: not known yet
        self.begin = 1  # the first sequence this run asks for
        self.delivered = 0  # handed to the consumer up to here
        self.asking = 0  # number of the one request in flight, 0 for none
        self.failures = 0  # answers in a row without progress
        self.ahead = 0  # answers in a row that had this client ahead of the server
        self.conflicts = 0  # the ring's counter when it was last looked at
        self.verify = False  # the store or the epoch may have changed: ask for the status
        self.verified_ns = -(10**18)
        self.known = True  # the server knows this stream
        self.from_oldest = False  # the next rows asked for are the oldest there are (version 1)
        self.open_start = False  # the first page says where the stream begins: no gap before it
        self.gap: tuple[int, str] | None = (
            None  # last missing sequence and reason, until what is before is delivered
        )
        self.fault = ""  # why the state is FAILED
        self.halted = False  # nothing is asked for any more
        # Rows in the ring from earlier epochs: (last sequence, epoch), the oldest first.
        self.earlier: list[tuple[int, int]] = []
        self.left_at = 0  # the contiguous mark when the link was lost; 0: it was not
        self.proof = NONE
        self.proof_at = 0  # the row to compare, and what it is where the ring has it not (of the cache)
        self.proof_row: Any = None
        self.suspect = False  # a conflict that another history may explain
        self.claim = False  # the server is to be shown the cursor that it is behind of

    def was_numbered(self, last: int, epoch: int) -> None:
        """Rows up to `last`, from where an earlier epoch ends in `earlier`, were numbered in that epoch."""
        if epoch and epoch != self.epoch and (not self.earlier or last > self.earlier[-1][0]):
            self.earlier.append((last, epoch))

    def ends_at(self, end: int) -> None:
        """The running epoch ended at `end`: what the ring still holds up to there keeps its epoch."""
        spans = [*self.earlier, (MAX_SEQUENCE, self.epoch)]
        inside = sum(last < end for last, _ in spans)
        self.earlier = [*spans[:inside], (end, spans[inside][1])]

    def epoch_at(self, sequence: int) -> tuple[int, int]:
        """The epoch of a row in the ring, and the last sequence that has the same one."""
        self.earlier = [(last, epoch) for last, epoch in self.earlier if last >= sequence]
        return self.earlier[0][::-1] if self.earlier else (self.epoch, MAX_SEQUENCE)

    def room(self) -> int:
        """Rows behind the contiguous mark that the ring can take without dropping what is not delivered."""
        ring = self.ring
        return self.delivered + ring.capacity - ring.contiguous


def state_of(
    *,
    fault: bool,
    linked: bool,
    was_linked: bool,
    ready: bool,
    beats_missing: bool,
    joining: bool,
    behind: bool,
    progressing: bool,
    arrived_recently: bool,
) -> StreamState:
    """The state of a stream: C4 as a function of facts.

    `behind`: rows are known to exist that are not here; `progressing`: the last request for them did not fail
    and the consumer leaves room for the next.
    """
    if fault:
        return StreamState.FAILED
    if not linked:
        return StreamState.DISCONNECTED if was_linked else StreamState.CONNECTING
    if not ready:
        return StreamState.CONNECTING
    if beats_missing:
        return StreamState.STALLED
    if joining or behind:
        return StreamState.BACKFILLING if progressing else StreamState.STALLED
    return StreamState.RECEIVING if arrived_recently else StreamState.IDLE


class Columns:
    """What the coordinator looks at for many streams at once: arrays by slot, grown by doubling."""

    def __init__(self) -> None:
        self.head = np.zeros(64, np.uint64)  # highest sequence known to exist
        self.seen = np.zeros(64, np.uint64)  # contiguous mark up to which rows were offered
        self.arrived_ns = np.full(64, -(10**18), np.int64)
        self.state = np.zeros(64, np.uint8)
        self.slot_of_id = np.full(64, -1, np.int64)  # by stream_id

    def hold(self, slot: int) -> None:
        """Make room for `slot` and clear it."""
        size = len(self.head)
        if slot >= size:
            more = max(size, slot + 1 - size)
            self.head = np.concatenate([self.head, np.zeros(more, np.uint64)])
            self.seen = np.concatenate([self.seen, np.zeros(more, np.uint64)])
            self.arrived_ns = np.concatenate([self.arrived_ns, np.full(more, -(10**18), np.int64)])
            self.state = np.concatenate([self.state, np.zeros(more, np.uint8)])
        self.head[slot] = self.seen[slot] = self.state[slot] = 0
        self.arrived_ns[slot] = -(10**18)

    def learn(self, stream_id: int, slot: int) -> None:
        """Marks of `stream_id` are about `slot` (-1: about none)."""
        size = len(self.slot_of_id)
        if stream_id >= size:
            self.slot_of_id = np.concatenate(
                [self.slot_of_id, np.full(max(size, stream_id + 1 - size), -1, np.int64)]
            )
        self.slot_of_id[stream_id] = slot
