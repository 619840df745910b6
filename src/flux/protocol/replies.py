"""Answers as the coordinator takes them: one shape for both versions of the wire.

Version 1 knows no stores, epochs and retention: its answers carry 0 there, and `first_sequence` 0 means
unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flux.model import StreamKey


class PageStatus(IntEnum):
    """BackfillRowsResponse.status."""

    OK = 0
    RETENTION_EXCEEDED = 1
    CURSOR_AHEAD = 2
    EPOCH_ENDED = 3
    HOLE = 4


class RefusalStatus(IntEnum):
    """ErrorResponse.status."""

    UNSET = 0
    INVALID_ARGUMENT = 1
    NOT_FOUND = 2
    UNIMPLEMENTED = 3
    RESOURCE_EXHAUSTED = 4
    UNAVAILABLE = 5
    INTERNAL = 6


@dataclass(frozen=True, slots=True)
class Status:
    """Where a stream stands on the server: committed head, oldest row kept (0 = unknown), store and epoch."""

    key: StreamKey
    latest_sequence: int
    first_sequence: int = 0
    store_id: int = 0
    epoch: int = 0
    stream_id: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """Rows `start_sequence` and on, or why there are none."""

    start_sequence: int
    rows: NDArray[np.void]
    status: PageStatus = PageStatus.OK
    store_id: int = 0
    epoch: int = 0
    first_available_sequence: int = 0
    watermark_sequence: int = 0
    epoch_end_sequence: int = 0
    rows_epoch: int = 0
    """In which these rows were numbered; 0: as `epoch`."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A page of the server's streams in order of stream_id."""

    streams: tuple[Status, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class Refusal:
    """The server's error."""

    message: str
    code: int = 0
    status: int = 0
    retry_after_ms: int = 0

    @property
    def wrong_version(self) -> bool:
        """The peer does not speak the version it was asked in: the text says so, whatever the code is."""
        return self.status == RefusalStatus.UNSET and "unsupported schema_version" in self.message.lower()

    @property
    def not_found(self) -> bool:
        """There is no such stream."""
        return self.status == RefusalStatus.NOT_FOUND


@dataclass(frozen=True, slots=True)
class TimedOut:
    """No answer within the deadline."""


Reply: TypeAlias = Status | Page | Listing | Refusal | TimedOut


@dataclass(frozen=True, slots=True)
class Beat:
    """A heartbeat. `marks` has the fields latest_sequence and stream_id."""

    store_id: int
    epoch: int
    boot_id: int
    number: int
    interval_ms: int
    state: int
    marks: NDArray[Any]
