"""The window in plain Python, all rows remembered: the specification of ext/grid.h, ext/window.h and ext/revise.h.

Rows are tuples in the order of their struct. A NaN is left out of its column. Sums are taken in
order of time, one row after the other.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isnan, nan

CLOSED, CORRECTION, SYNTHETIC, INJECTED, LATE, TRADED, TURNOVER, TRADE_COUNT = 1, 2, 4, 8, 16, 32, 64, 128
TRADE_CORRECTION = 64
LOWEST, HIGHEST = -(2**63), 2**63 - 1
DAY = 86_400_000

CANDLE = struct.Struct("<q6dII")
TRADE = struct.Struct("<q2dQII")
QUOTE = struct.Struct("<q4d")
LAYOUT = {1: CANDLE, 2: TRADE, 3: QUOTE}

Row = tuple  # as struct.unpack gives it


def cut(value: int) -> int:
    return min(max(value, LOWEST), HIGHEST)


def leap(year: int) -> int:
    return int(year % 4 == 0 and (year % 100 != 0 or year % 400 == 0))


def months() -> list[int]:
    """Epoch ms at which the months of 1970 to 2369 and one more open, by counting days."""
    opens = [0]
    for year in range(1970, 2370):
        for days in (31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31):
            opens.append(opens[-1] + days * DAY)
    return opens


MONTHS = months()


@dataclass
class Grid:
    length: int = 0
    origin: int = 0
    edges: list[int] = field(default_factory=list)

    def find(self, ts_ms: int) -> tuple[int, int]:
        """(open, last) of the bucket, both inclusive."""
        if self.edges:
            at = bisect_right(self.edges, ts_ms)
            opens = [LOWEST, *self.edges, HIGHEST + 1]
            return opens[at], opens[at + 1] - 1
        if self.length:
            low = (ts_ms - self.origin) // self.length * self.length + self.origin
            return cut(low), cut(low + self.length - 1)
        era = ts_ms // MONTHS[-1] * MONTHS[-1]  # after 400 years the calendar comes again
        at = bisect_right(MONTHS, ts_ms - era) - 1
        return cut(MONTHS[at] + era), cut(MONTHS[at + 1] + era - 1)


def numbers(values: Sequence[float]) -> list[float]:
    """Those that are one; a NaN when none is."""
    return [value for value in values if not isnan(value)] or [nan]


def fold(kind: int, rows: list[Row], open_ms: int, flags: int) -> bytes:
    """One bucket out of its rows, in order of time."""
    if kind == 1:
        prices = [row[1:5] for row in rows]
        sizes = [row[5:8] for row in rows]
    elif kind == 2:
        prices = [(row[1],) * 4 for row in rows]
        sizes = [(row[2], row[1] * row[2], 1) for row in rows]
    else:
        middles = [row[1] * 0.5 + row[2] * 0.5 for row in rows]
        prices = [(middle,) * 4 for middle in middles]
        sizes = [(0.0, 0.0, 0) for _ in rows]
    opens, highs, lows, closes = (numbers(column) for column in zip(*prices, strict=True))
    # Candles go on from the first one's sums, trades from nothing: -0.0 is the difference.
    volume, turnover, count = 0.0, 0.0, 0
    for at, size in enumerate(sizes):
        if at == 0 and kind == 1:
            volume, turnover = (0.0 if isnan(value) else value for value in size[:2])
        else:
            volume = volume if isnan(size[0]) else volume + size[0]
            turnover = turnover if isnan(size[1]) else turnover + size[1]
        count += size[2]
    if kind == 1:
        known = next((bit for bit in (TRADED, TURNOVER) if all(row[8] & bit for row in rows)), 0)
        if known != TRADED and all(row[8] & TRADE_COUNT for row in rows):
            known |= TRADE_COUNT
        flags |= SYNTHETIC * any(row[8] & SYNTHETIC for row in rows)
        flags |= INJECTED * any(row[8] & INJECTED for row in rows)
    else:
        known = TRADED * (kind == 2)
    turnover = turnover if known & (TRADED | TURNOVER) else 0.0
    count = count if known & (TRADED | TRADE_COUNT) else 0
    flags |= known
    high, low = highs[0], lows[0]
    for value in highs:
        high = value if value > high else high
    for value in lows:
        low = value if value < low else low
    return CANDLE.pack(
        open_ms, opens[0], high, low, closes[-1], volume, turnover, min(count, 2**32 - 1), flags
    )


def revises(kind: int, row: Row) -> bool:
    """Whether a row replaces those of its id that came before."""
    return kind == 2 and bool(row[4] & TRADE_CORRECTION) and row[3] != 0


def replaced(rows: list[Row], row: Row) -> list[Row]:
    """`rows`, by time, with `row` for those of its id: at the first one's place that has its time, or by time."""
    at = next((i for i, old in enumerate(rows) if (old[0], old[3]) == (row[0], row[3])), None)
    if at is None:
        at = bisect_right([old[0] for old in rows], row[0])
    before, after = ([old for old in part if old[3] != row[3]] for part in (rows[:at], rows[at:]))
    return [*before, row, *after]


class Window:
    """Every row is remembered, so nothing is ever `late` but a correction that would leave a bucket without trades."""

    def __init__(self, kind: int, grid: Grid, row_ms: int = 0) -> None:
        self.kind = kind
        self.grid = grid
        self.row_ms = row_ms
        self.rows: list[Row] = []
        self.newest: int | None = None
        self.open: int | None = None  # open of the bucket that is not out yet
        self.corrected = self.late = 0

    def push(self, rows: list[Row]) -> list[bytes]:
        out: list[bytes] = []
        for row in rows:
            if revises(self.kind, row) and any(old[3] == row[3] for old in self.rows):
                out += self._revised(row)
            else:
                out += self._in_order(row) if self._ascends(row[0]) else self._amended(row)
            if self.open is not None and self._complete():
                out.append(self._bucket(self.open, CLOSED))
                self.newest = self.grid.find(self.open)[1]
                self.open = None
        return out

    def partial(self) -> list[bytes]:
        return [] if self.open is None else [self._bucket(self.open, 0)]

    def _ascends(self, ts: int) -> bool:
        return self.newest is None or ts > self.newest or (self.kind != 1 and ts == self.newest)

    def _ms(self, ts: int) -> int:
        return ts if self.kind == 1 else ts // 1_000_000

    def _open_of(self, row: Row) -> int:
        return self.grid.find(self._ms(row[0]))[0]

    def _of_bucket(self, open_ms: int) -> list[Row]:
        return [row for row in self.rows if self._open_of(row) == open_ms]

    def _bucket(self, open_ms: int, flags: int) -> bytes:
        return fold(self.kind, self._of_bucket(open_ms), open_ms, flags)

    def _in_order(self, row: Row) -> list[bytes]:
        open_ms = self._open_of(row)
        out = [] if self.open in (None, open_ms) else [self._bucket(self.open, CLOSED)]
        self.rows.append(row)
        self.newest, self.open = row[0], open_ms
        return out

    def _amended(self, row: Row) -> list[bytes]:
        times = [kept[0] for kept in self.rows]
        at = bisect_left(times, row[0]) if self.kind == 1 else bisect_right(times, row[0])
        if self.kind == 1 and at < len(times) and times[at] == row[0]:
            if CANDLE.pack(*self.rows[at]) == CANDLE.pack(*row):
                return []
            self.rows[at], added = row, False
        else:
            self.rows.insert(at, row)
            added = True
        self.corrected += 1
        open_ms = self._open_of(row)
        if open_ms == self.open:
            return []
        new = added and len(self._of_bucket(open_ms)) == 1
        return [self._bucket(open_ms, CLOSED | (LATE if new else CORRECTION))]

    def loses_a_bucket(self, row: Row) -> bool:
        """Whether a bucket would have no trade left if `row` replaced those of its id."""
        left = {self._open_of(old) for old in replaced(self.rows, row)}
        return any(self._open_of(old) not in left for old in self.rows)

    def _revised(self, row: Row) -> list[bytes]:
        old = [kept for kept in self.rows if kept[3] == row[3]]
        if [TRADE.pack(*kept) for kept in old] == [TRADE.pack(*row)]:
            return []
        if self.loses_a_bucket(row):
            self.late += 1
            return []
        self.corrected += 1
        target, left = self._open_of(row), {self._open_of(kept) for kept in old}
        self.rows = replaced(self.rows, row)
        out = [self._bucket(open_ms, CLOSED | CORRECTION) for open_ms in sorted(left - {target, self.open})]
        if target > self.open:
            out.append(self._bucket(self.open, CLOSED))
            self.open = target
        elif target < self.open:
            new = target not in left and len(self._of_bucket(target)) == 1
            out.append(self._bucket(target, CLOSED | (LATE if new else CORRECTION)))
        self.newest = max(self.newest, row[0])
        return out

    def _complete(self) -> bool:
        last = self._of_bucket(self.open)[-1]
        return bool(self.row_ms and last[8] & CLOSED and self.grid.find(last[0])[1] - last[0] < self.row_ms)


def resample(kind: int, grid: Grid, rows: list[Row], row_ms: int = 0) -> list[bytes]:
    """All rows at once: sorted by time, of candles with the same time the latest, corrections for what they correct."""
    ordered: list[Row] = []
    for row in rows:
        if revises(kind, row):
            ordered = replaced(ordered, row)
        else:
            ordered.insert(bisect_right([old[0] for old in ordered], row[0]), row)
    if kind == 1:
        ordered = list({row[0]: row for row in ordered}.values())
    if kind == 2:
        ordered = [(*row[:4], row[4] & ~TRADE_CORRECTION, *row[5:]) for row in ordered]
    window = Window(kind, grid, row_ms)
    return window.push(ordered) + window.partial()
