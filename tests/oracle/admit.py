"""Admission again in plain Python, row by row: the specification of ext/admit.h and of what the server does with it.

A row is its bytes. `Stream` is one stream of a server: what its ring still holds, and what this turn brought.
"""

from __future__ import annotations

import math
import struct

CANDLE, TRADE, QUOTE = 1, 2, 3
LAYOUT = {CANDLE: "<q6dII", TRADE: "<qddQII", QUOTE: "<q4d"}
NEW, REPEAT, CORRECTION, LATE, NOT_FINITE, HIGH_LOW, OPEN_CLOSE, TIME, VOLUME = range(9)
GRID, FUTURE, FORMING, SPENT, OLD = range(9, 14)
ADMITTED = (NEW, CORRECTION, LATE)

CLOSED, CORRECTION_FLAG, SYNTHETIC, INJECTED, LATE_FLAG, TRADED = 1, 2, 4, 8, 16, 32
TRADE_CORRECTION_FLAG = 64
KNOWN = 255  # of a candle; a trade keeps all but those that the server sets
FIRST_MS, END_MS = -2_208_988_800_000, 4_102_444_800_000  # 1900, 2100
GRIDS = {"1s": 1_000, "30s": 30_000, "1m": 60_000, "1h": 60_000, "1M": 60_000}


def ms_of(kind: int, row: bytes) -> int:
    """The row's time in ms, rounded down."""
    time = int(struct.unpack_from("<q", row)[0])
    return time if kind == CANDLE else time // 1_000_000


def fault(kind: int, row: bytes, grid_ms: int = 0, latest_ms: int = 2**63 - 1) -> int:
    """Why the row cannot be admitted to a stream with this grid, no later than that; or NEW (0)."""
    _, *values = struct.unpack(LAYOUT[kind], row)
    ms = ms_of(kind, row)
    if not FIRST_MS <= ms < END_MS:
        return TIME
    if not all(math.isfinite(value) for value in values if isinstance(value, float)):
        return NOT_FINITE
    if kind != QUOTE and values[4 if kind == CANDLE else 1] < 0:
        return VOLUME
    if kind == CANDLE:
        open_, high, low, close = values[:4]
        if high < low:
            return HIGH_LOW
        if not (low <= open_ <= high and low <= close <= high):
            return OPEN_CLOSE
        if not values[-1] & CLOSED:
            return FORMING
        if grid_ms and ms % grid_ms:
            return GRID
    return FUTURE if ms > latest_ms else NEW


def order(kind: int, row: bytes) -> int:
    """What the stream is ordered by: a trade's id, else the time."""
    return int(struct.unpack(LAYOUT[kind], row)[3 if kind == TRADE else 0])


def values(kind: int, row: bytes) -> bytes:
    """The bytes that make two rows the same: no flags of a candle, and of a trade only those that its source set."""
    if kind == CANDLE:
        return row[:60]
    if kind == TRADE:
        given = struct.unpack_from("<I", row, 32)[0] & ~(LATE_FLAG | TRADE_CORRECTION_FLAG)
        return row[:32] + struct.pack("<I", given) + row[36:]
    return row


def look_back(kind: int, row: bytes, earlier: list[bytes]) -> int:
    """What a row is that is not newer than the newest of its stream."""
    same_order = [other for other in earlier if order(kind, other) == order(kind, row)]
    if any(values(kind, other) == values(kind, row) for other in same_order):
        return REPEAT
    if kind == QUOTE:
        return NEW
    return CORRECTION if same_order else LATE


def flags(kind: int, given: int, outcome: int) -> int:
    """The flags that a candle or a trade is kept with: what its source claimed, and what the server found."""
    correction = TRADE_CORRECTION_FLAG if kind == TRADE else CORRECTION_FLAG
    kept = given & (2**32 - 1 if kind == TRADE else KNOWN) & ~(correction | LATE_FLAG)
    return kept | {CORRECTION: correction, LATE: LATE_FLAG}.get(outcome, 0)


def flagged(kind: int, row: bytes, outcome: int) -> bytes:
    """The row as it is kept."""
    if kind == QUOTE:
        return row
    at = 60 if kind == CANDLE else 32
    given = struct.unpack_from("<I", row, at)[0]
    return row[:at] + struct.pack("<I", flags(kind, given, outcome)) + row[at + 4 :]


class Stream:
    def __init__(self, kind: int, capacity: int, grid_ms: int = 0) -> None:
        self.kind = kind
        self.grid_ms = grid_ms
        self.capacity = capacity
        self.highest = -(2**63) if kind == CANDLE else 0
        self.evicted = False
        self.seen: set[int] = set()  # every time or trade id that was numbered
        self.floor = 2**64  # those that came from below are a page: from the lowest to `page`
        self.page = 2**64
        self.ring: list[bytes] = []
        self.turn: list[bytes] = []

    def admit(self, row: bytes) -> int:
        outcome = fault(self.kind, row, self.grid_ms)
        if outcome == NEW:
            outcome = self._place(row)
        if outcome in ADMITTED:
            self._saw(order(self.kind, row))
            self.turn.append(flagged(self.kind, row, outcome))
        return outcome

    def _place(self, row: bytes) -> int:
        own = order(self.kind, row)
        if own > self.highest:
            self.highest = own
            return NEW
        if self.kind == TRADE and own == 0:
            return NEW  # the source has no ids
        found = look_back(self.kind, row, self.ring + self.turn)
        if found == LATE and self.evicted and not (own < min(self.seen) or self.page < own < self.floor):
            return OLD  # the rows at hand do not say whether it was numbered before
        assert found != LATE or own not in self.seen, "numbered twice"
        return found

    def _saw(self, own: int) -> None:
        if self.kind == TRADE and own == 0:
            return
        if not self.seen:
            self.floor = self.page = own
        elif own < min(self.seen):
            self.floor, self.page = min(self.seen), own
        elif self.page < own < self.floor:
            self.page = own
        self.seen.add(own)

    def record(self) -> None:
        """The turn's rows go into the ring, the oldest go out."""
        self.evicted = self.evicted or len(self.ring + self.turn) > self.capacity
        self.ring = (self.ring + self.turn)[-self.capacity :]
        self.turn = []
