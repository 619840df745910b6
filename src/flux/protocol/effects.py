"""What the coordinator wants done. The driver carries these out in the order in which they stand.

All are frozen: an effect is a fact about a moment, and a test compares it by value.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from flux.model import Gap, StreamKey
from flux.protocol.stream_state import StreamState


class AskKind(IntEnum):
    """What a request is for."""

    STATUS = 1
    ROWS = 2
    LIST = 3
    PROOF = 4


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request; answer with `Coordinator.answer(number, reply, now)`, also when nothing came in time.

    `version` is the schema version to speak (1 or 2). ROWS: the rows after `from_sequence` up to
    `to_sequence`, at most `limit`. PROOF: one row that the client
    has, to compare. LIST: `prefix` and the stream_id after which the page begins.
    """

    number: int
    kind: AskKind
    version: int
    slot: int
    key: StreamKey | None = None
    from_sequence: int = 0
    to_sequence: int = 0
    limit: int = 0
    epoch: int = 0
    store_id: int = 0
    prefix: str = ""
    after_stream_id: int = 0


@dataclass(frozen=True, slots=True)
class Deliver:
    """Rows up to `to_sequence` became contiguous.

    The driver hands over from behind what it delivered last up to the ring's contiguous mark, which may have
    moved since, and says how far it came with `Coordinator.delivered`.
    """

    slot: int
    from_sequence: int
    to_sequence: int


@dataclass(frozen=True, slots=True)
class DeliverGap:
    """Every row before the gap was handed over; the gap comes now, before any later row."""

    slot: int
    gap: Gap


@dataclass(frozen=True, slots=True)
class Rewind:
    """The epoch ended at `to_sequence`: the consumer's and the cache's rows above it are void."""

    slot: int
    key: StreamKey
    to_sequence: int
    last_sequence: int
    """The highest sequence that was delivered."""


@dataclass(frozen=True, slots=True)
class SetAside:
    """What is kept of this stream does not belong to this server's store (or is to be forgotten); it is
    filled anew.
    """

    slot: int
    key: StreamKey
    reason: str
    last_sequence: int = 0
    """The highest sequence that the consumer has, and that is void; 0: none, or it asked for this itself."""


@dataclass(frozen=True, slots=True)
class SetExpected:
    """From now on the receive loop places this stream's rows only from this store and epoch."""

    slot: int
    store_id: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Join:
    """A stream that the server lists falls under a wildcard: give it a slot and a ring, then `subscribe`
    it.
    """

    key: StreamKey
    start: str | int | None


@dataclass(frozen=True, slots=True)
class Speak:
    """The server understands this schema version only: subscribe to its topics as well."""

    version: int


@dataclass(frozen=True, slots=True)
class Tell:
    """A stream's state changed."""

    slot: int
    key: StreamKey
    state: StreamState
    reason: str


@dataclass(frozen=True, slots=True)
class Warn:
    """Nothing comes, and this is why: one warning for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """Nothing more can be got from this server; the reason says what to do. No retry follows."""

    reason: str
    wrong_version: bool


Effect: TypeAlias = (
    Ask | Deliver | DeliverGap | Rewind | SetAside | SetExpected | Join | Speak | Tell | Warn | Fail
)
