"""The vocabulary: rows as numpy sees them, stream keys, intervals, cursors and gaps. Pure data, no I/O.

Times are epoch milliseconds UTC (`ts_ms`, the interval's open) or epoch nanoseconds UTC (`ts_ns`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

import numpy as np

from flux.errors import InvalidNameError

CANDLE: Final = np.dtype(
    [
        ("ts_ms", "<i8"),
        ("open", "<f8"),
        ("high", "<f8"),
        ("low", "<f8"),
        ("close", "<f8"),
        ("volume", "<f8"),
        ("turnover", "<f8"),
        ("trade_count", "<u4"),
        ("flags", "<u4"),
    ]
)
"""A candle: 64 bytes, the same on the wire, in the ring, in the journal and here (`ext/row.h`)."""

TRADE: Final = np.dtype(
    [
        ("ts_ns", "<i8"),
        ("price", "<f8"),
        ("size", "<f8"),
        ("trade_id", "<u8"),
        ("flags", "<u4"),
        ("reserved", "<u4"),
    ]
)
"""A trade: 40 bytes."""

QUOTE: Final = np.dtype(
    [("ts_ns", "<i8"), ("bid", "<f8"), ("ask", "<f8"), ("bid_size", "<f8"), ("ask_size", "<f8")]
)
"""A quote: 40 bytes."""

MARK: Final = np.dtype(
    [("latest_sequence", "<u8"), ("latest_ts_ms", "<i8"), ("stream_id", "<u4"), ("reserved", "<u4")]
)
"""A stream's committed head in a heartbeat: 24 bytes."""


ARRIVAL: Final = np.dtype(
    [
        ("stream", "<u4"),  # slot
        ("rows", "<u4"),  # newly placed (client) or laid into the inbox (server)
        ("start", "<u8"),  # sequence of the first row: the server's on a client, the feed's own on a server
        ("at", "<u8"),  # server: byte of the first row in the inbox
        ("store_id", "<u8"),
        ("epoch", "<u4"),
        ("outcome", "<u2"),  # Outcome
        ("kind", "u1"),  # RowKind
        ("tag", "u1"),
        ("count", "<u4"),  # rows in the message
        ("run", "<u4"),  # server: index of the feed's run, NO_RUN for a source in this process
        ("origin_ns", "<i8"),
        ("recorded_ns", "<i8"),
    ]
)
"""What became of one received message (`ext/receiver.h`): 64 bytes."""

RUN: Final = np.dtype(
    [("stream", "<u4"), ("rows", "<u4"), ("at", "<u8"), ("first", "<u8"), ("origin_ns", "<i8")]
)
"""Rows of the inbox (from byte `at`) that are to become sequence `first` and those after it: 32 bytes."""

HEAD: Final = np.dtype(
    [
        ("stream_id", "<u4"),
        ("kind", "<u4"),
        ("committed", "<u8"),
        ("committed_ts", "<i8"),
        ("moved_ns", "<i8"),
        ("first", "<u8"),  # oldest in the ring
        ("highest", "<i8"),  # highest time or trade id among committed rows
    ]
)
"""The committed head of a stream, as other threads may see it: 48 bytes."""

GATHERED: Final = np.dtype(
    [("kind", "<u4"), ("stream_id", "<u4"), ("first", "<u8"), ("count", "<u4"), ("epoch", "<u4")]
)
"""One journal record on its way into the store (`ext/gather.h`): 24 bytes."""

REFUSED: Final = np.dtype([("row", "<u8"), ("reason", "<u4"), ("reserved", "<u4")])
"""A row of a feed's run that the server refused (`ext/receiver.h`), with its `RefusedReason`: 16 bytes."""

NO_RUN: Final = 2**32 - 1


class Outcome(IntEnum):
    """`ARRIVAL['outcome']` on a client: what became of a message's rows, the most telling thing."""

    PLACED = 0
    OTHER_EPOCH = 1
    CONFLICT = 2
    BEYOND = 3


class CandleFlag(IntFlag):
    """Bits of `CANDLE['flags']`."""

    CLOSED = 1
    CORRECTION = 2
    SYNTHETIC = 4
    INJECTED = 8
    LATE = 16
    TRADED = 32  # turnover and trade_count are known
    TURNOVER = 64  # turnover alone is known, trade_count is 0
    TRADE_COUNT = 128  # trade_count alone is known, turnover is 0


def known_flags(turnover: bool, trade_count: bool) -> CandleFlag:
    """Flags of a closed candle of which these are known."""
    if turnover and trade_count:
        return CandleFlag.CLOSED | CandleFlag.TRADED
    if turnover:
        return CandleFlag.CLOSED | CandleFlag.TURNOVER
    return CandleFlag.CLOSED | CandleFlag.TRADE_COUNT if trade_count else CandleFlag.CLOSED


class TradeFlag(IntFlag):
    """Bits of `TRADE['flags']`."""

    BUY = 1  # the aggressor bought
    SELL = 2
    LATE = 16  # its id is lower than the stream's highest, and was not seen before
    CORRECTION = 64  # revises an earlier trade with the same id


class RefusedReason(IntEnum):
    """Why a row was refused (`enum flux_admitted` and `flux_refused_reason` in C)."""

    NOT_FINITE = 4
    HIGH_LOW = 5
    OPEN_CLOSE = 6
    TIME = 7
    VOLUME = 8
    GRID = 9
    FUTURE = 10
    FORMING = 11
    SPENT = 12
    OLD = 13  # older than the rows at hand: it may be numbered already
    OWNER = 32
    STREAM = 33


class RowKind(IntEnum):
    """What rows a stream carries; `CANDLE_V1` appears only as the encoding of a message."""

    NONE = 0
    CANDLE = 1
    TRADE = 2
    QUOTE = 3
    CANDLE_V1 = 4


ROW_DTYPES: Final = {
    RowKind.CANDLE: CANDLE,
    RowKind.TRADE: TRADE,
    RowKind.QUOTE: QUOTE,
    RowKind.CANDLE_V1: CANDLE,
}

_SECOND_MS: Final = 1_000
_MINUTE_MS: Final = 60 * _SECOND_MS
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS

INTERVALS_MS: Final[dict[str, int]] = {
    **{f"{n}s": n * _SECOND_MS for n in (1, 3, 5, 10, 15, 30)},
    **{f"{n}m": n * _MINUTE_MS for n in (1, 3, 5, 10, 15, 30)},
    **{f"{n}h": n * _HOUR_MS for n in (1, 2, 4, 6, 8, 12)},
    "1d": _DAY_MS,
    "3d": 3 * _DAY_MS,
    "1w": 7 * _DAY_MS,
    "1M": 0,
}
"""The closed set of candle intervals and their length in ms; 0 where it varies (`1M`)."""


def grid_ms(interval: str) -> int:
    """What the times of this interval's candles are whole multiples of: the interval itself, or a minute for a longer
    one, which sessions and zones shift."""
    return min(INTERVALS_MS[interval] or _DAY_MS, _MINUTE_MS)


ROW_INTERVALS: Final = {"trade": RowKind.TRADE, "quote": RowKind.QUOTE}
"""What stands as the interval of a stream that has none."""

MAX_SEQUENCE: Final = 2**63 - 1

_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,32}")
_SYMBOL = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")


class StreamKey(NamedTuple):
    """What names a stream, in every request, mark, table and file."""

    source_id: str
    symbol: str
    interval: str

    @classmethod
    def parse(cls, text: str) -> StreamKey:
        """`SOURCE/SYMBOL/INTERVAL`, split at the first and the last slash (a symbol may hold slashes).

        Raises `InvalidNameError` where the text has no two slashes or a name breaks the grammar.
        """
        source, slash, rest = text.partition("/")
        symbol, last, interval = rest.rpartition("/")
        if not slash or not last:
            raise InvalidNameError(f"a key is SOURCE/SYMBOL/INTERVAL, not {text!a}")
        return cls(source, symbol, interval).checked()

    def checked(self) -> StreamKey:
        """This key, once its names are known to follow the grammar of `schemas/market_data.fbs`."""
        if not _SOURCE.fullmatch(self.source_id):
            raise InvalidNameError(f"source {self.source_id[:80]!a} is not 1 to 32 of A-Z a-z 0-9 _ -")
        if not _SYMBOL.fullmatch(self.symbol):
            raise InvalidNameError(
                f"symbol {self.symbol[:80]!a} is not 1 to 64 printable ASCII characters without a space at its ends"
            )
        if self.interval not in INTERVALS_MS and self.interval not in ROW_INTERVALS:
            raise InvalidNameError(
                f"interval {self.interval[:80]!a} is none of {' '.join(INTERVALS_MS)} trade quote"
            )
        return self

    @property
    def kind(self) -> RowKind:
        """The rows this stream carries, told by its interval."""
        return ROW_INTERVALS.get(self.interval, RowKind.CANDLE)

    def __str__(self) -> str:
        return f"{self.source_id}/{self.symbol}/{self.interval}"


class Cursor(NamedTuple):
    """How far a reader is in a stream: meaningful only together with the store and the epoch it was read in."""

    store_id: int
    epoch: int
    sequence: int


class GapCause(IntEnum):
    """Why rows are missing for good."""

    UPSTREAM = 1
    TIME = 2
    REFUSED = 3
    QUEUE_FULL = 4
    LOST_TAIL = 5


@dataclass(frozen=True, slots=True)
class Gap:
    """Sequences `first_sequence` to `last_sequence` (both inclusive) of `key` that will not come, and why."""

    key: StreamKey
    first_sequence: int
    last_sequence: int
    reason: str


class State(IntEnum):
    """Health of a server as its heartbeats and its health reply carry it."""

    OK = 0
    DEGRADED = 1
    UNHEALTHY = 2
    CLOSING = 3
