"""What requests may see of a server: committed heads, kept rows, epochs and their ends. Read-only protocols.

The request thread holds a `ServerView`; the store worker also a `StoreReader`, because the database may take
its time. Both may be asked while the server goes on: a `StreamView` is a snapshot, and `ring_rows` answers
None rather than rows that were overwritten meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypeAlias

from numpy.typing import NDArray

from flux.model import RowKind, State, StreamKey

Rows: TypeAlias = NDArray[Any]
"""Rows of `flux.CANDLE`, `flux.TRADE` or `flux.QUOTE`."""


class StreamView(NamedTuple):
    """One stream at one moment. Only committed rows count."""

    key: StreamKey
    stream_id: int  # from 1
    first: int  # oldest sequence kept; head + 1 when none is
    head: int  # 0: nothing yet
    latest_ts_ms: int  # of the row at the head
    v1: bool = True  # False: its v1 topic begins with another stream's, so v1 clients cannot follow it
    forming: Any = None  # the candle that is not closed yet: one CANDLE row, or None


class RunPosition(NamedTuple):
    """How far a feed's run is."""

    committed: int  # rows in the journal; 0 for a run never seen
    incarnation: int  # the process that has it; 0 where none ever claimed it
    refused_total: int  # rows refused since this server began
    refused: Rows  # REFUSED rows: committed ones, the last MAX_REFUSED_LISTED


class Claim(Enum):
    """What became of a process's claim to a run."""

    HELD = 0  # it stands in the journal
    ON_ITS_WAY = 1  # ask again
    NOT_TAKEN = 2  # too many others wait: ask again
    FORGOTTEN = 3  # the run may have had rows that are forgotten


class Health(NamedTuple):
    """How the server is, and why where it is not OK."""

    state: State
    reason: str = ""


class ServerView(Protocol):
    """The server as its requests see it. Every call returns at once."""

    @property
    def store_id(self) -> int:
        """Names this store for ever."""

    @property
    def epoch(self) -> int:
        """The running epoch, from 1."""

    @property
    def parent_store_id(self) -> int:
        """The store that this one branched from as a copy or a restore; 0: none."""

    def health(self) -> Health:
        """The state of now."""

    def stream(self, key: StreamKey) -> StreamView | None:
        """One stream by name, None when there is none."""

    def stream_by_id(self, stream_id: int) -> StreamView | None:
        """One stream by number."""

    def streams_after(self, stream_id: int) -> Iterable[StreamView]:
        """The streams with a higher number than `stream_id`, in order; drawn lazily."""

    def epoch_ends(self, stream_id: int) -> Mapping[int, int]:
        """Each earlier epoch -> the last sequence of this stream that survived it."""

    def rows_epoch(self, stream_id: int, sequence: int) -> tuple[int, int]:
        """The epoch in which this row was numbered, and the last sequence of the stream that was in it."""

    def ring_first(self, stream_id: int) -> int:
        """The oldest sequence still in memory; head + 1 when none is."""

    def ring_rows(self, stream_id: int, first: int, last: int) -> Rows | None:
        """A copy of the rows `first` to `last`, both inclusive; None unless all of them are in memory."""

    def run_position(self, source_id: str, run: int, refused_after: int) -> RunPosition | None:
        """How far a feed's run is, with the refused rows numbered above `refused_after`; None: it may be forgotten."""

    def claim_run(self, source_id: str, run: int, token: int) -> Claim:
        """Whether the process with this token has the run."""

    def journal_rows(
        self, stream_id: int, kind: RowKind, after: int, last: int, *, all_files: bool = False
    ) -> tuple[int, Rows]:
        """The first run of rows after `after` up to `last` out of the journal, as `StoreReader.read` has it: out of
        those of its files that hold what the store may lack, or out of `all_files`. It may take its time, and raise
        StorageError and DataError: in the worker's thread."""

    def stored(self, stream_id: int) -> int:
        """Up to which sequence the store has the stream, as far as is known; 0: none."""

    def cursor_ahead(self, key: StreamKey, epoch: int, sequence: int) -> None:
        """Hear that a client of this store has seen rows that are not here: the disk may be an older one."""


class StoreReader(Protocol):
    """What requests need of `store.base.Store`, read in the worker's own thread. May raise StorageError."""

    def read(
        self, stream_id: int, kind: RowKind, from_exclusive: int, to_inclusive: int, limit: int
    ) -> tuple[int, Rows]:
        """The first contiguous run of rows within the bounds: (its first sequence, rows), or (0, none)."""

    def sequence_range(
        self, stream_id: int, kind: RowKind, start_ms: int | None, end_ms: int | None
    ) -> tuple[int, int] | None:
        """First row with time >= start_ms to last with time < end_ms (epoch ms), None where there is none."""
