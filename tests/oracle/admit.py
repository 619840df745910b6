"""Admission again in plain Python, row by row: the specification of ext/admit.h and of what the server does with it.

A row is its bytes. `Stream` is one stream of a server: what its ring still holds, and what this turn brought.
"""

from __future__ import annotations

import math
import struct

CANDLE, TRADE, QUOTE = 1, 2, 3
LAYOUT = {CANDLE: "<q6dII", TRADE: "<qddQII", QUOTE: "<q4d"}
NEW, REPEAT, CORRECTION, LATE, NOT_FINITE, HIGH_LOW, OPEN_CLOSE, TIME = range(8)
ADMITTED = (NEW, CORRECTION, LATE)

CLOSED, CORRECTION_FLAG, SYNTHETIC, INJECTED, LATE_FLAG, TRADED = 1, 2, 4, 8, 16, 32
KNOWN = CLOSED | CORRECTION_FLAG | SYNTHETIC | INJECTED | LATE_FLAG | TRADED
FIRST_MS, END_MS = 946_684_800_000, 4_102_444_800_000  # 2000, 2100
SEARCH_ROWS = 4_096


def fault(kind: int, row: bytes) -> int:
    """Why the row cannot be admitted at all, or NEW (0)."""
    time, *values = struct.unpack(LAYOUT[kind], row)
    ms = time if kind == CANDLE else time // 1_000_000
    if not FIRST_MS <= ms < END_MS:
        return TIME
    if not all(math.isfinite(value) for value in values if isinstance(value, float)):
        return NOT_FINITE
    if kind == CANDLE:
        open_, high, low, close = values[:4]
        if high < low:
            return HIGH_LOW
        if not (low <= open_ <= high and low <= close <= high):
            return OPEN_CLOSE
    return NEW


def order(kind: int, row: bytes) -> int:
    """What the stream is ordered by: a trade's id, else the time."""
    return int(struct.unpack(LAYOUT[kind], row)[3 if kind == TRADE else 0])


def values(kind: int, row: bytes) -> bytes:
    """The bytes that make two rows the same: a candle's flags are not among them."""
    return row[:60] if kind == CANDLE else row


def look_back(kind: int, row: bytes, earlier: list[bytes]) -> int:
    """What a row is that is not newer than the newest of its stream."""
    same_order = [other for other in earlier if order(kind, other) == order(kind, row)]
    if any(values(kind, other) == values(kind, row) for other in same_order):
        return REPEAT
    if kind != CANDLE:
        return NEW
    return CORRECTION if same_order else LATE


def flags(given: int, outcome: int) -> int:
    """The flags that a candle is kept with."""
    kept = given & KNOWN & ~(CORRECTION_FLAG | LATE_FLAG) | CLOSED
    return kept | {CORRECTION: CORRECTION_FLAG, LATE: LATE_FLAG}.get(outcome, 0)


class Stream:
    def __init__(self, kind: int, capacity: int) -> None:
        self.kind = kind
        self.capacity = capacity
        self.highest = -(2**63) if kind == CANDLE else 0
        self.ring: list[bytes] = []
        self.turn: list[bytes] = []

    def admit(self, row: bytes) -> int:
        outcome = fault(self.kind, row)
        if outcome == NEW:
            outcome = self._place(row)
        if outcome in ADMITTED:
            if self.kind == CANDLE:
                row = row[:60] + struct.pack("<I", flags(struct.unpack_from("<I", row, 60)[0], outcome))
            self.turn.append(row)
        return outcome

    def _place(self, row: bytes) -> int:
        own = order(self.kind, row)
        if own > self.highest:
            self.highest = own
            return NEW
        if self.kind == TRADE and own == 0:
            return NEW  # the source has no ids
        return look_back(self.kind, row, self.ring[-SEARCH_ROWS:] + self.turn)

    def record(self) -> None:
        """The turn's rows go into the ring, the oldest go out."""
        self.ring = (self.ring + self.turn)[-self.capacity :]
        self.turn = []
