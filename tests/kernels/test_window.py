"""The window kernel against its oracle: grids, folding, carries, rows out of order, what is kept, little room."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flux.kernels import window as kernel
from tests.oracle import window as oracle

CANDLE, TRADE, QUOTE = 1, 2, 3
NAN = struct.unpack("<d", struct.pack("<d", float("nan")))[0]
ALL = 2**63
MINUTE = 60_000
ANY_TIME = st.integers(oracle.LOWEST, oracle.HIGHEST)
NEAR_AN_END = st.sampled_from([0, oracle.LOWEST, oracle.HIGHEST - 3000, 1_700_000_000_000])
NUMBERS = st.one_of(st.floats(0.1, 1e6), st.sampled_from([0.0, -0.0, 1e300, 5e-324, 0.1, NAN]))


@dataclass
class Made:
    """A kernel, its oracle, and the bytes that go into both."""

    kind: int
    grid: oracle.Grid
    keep: int = 10_000
    row_ms: int = 0
    limit: int = 0
    by_hand: bool = False

    def __post_init__(self) -> None:
        grid = self.grid
        self.size = oracle.LAYOUT[self.kind].size
        self.kernel = kernel.Window(
            self.kind, grid.length, grid.origin, self.row_ms, self.keep, self.limit, self.by_hand
        )
        if grid.edges:
            self.kernel.set_edges(np.array(grid.edges, np.int64))

    def bytes(self, rows: list[oracle.Row]) -> bytes:
        return b"".join(oracle.LAYOUT[self.kind].pack(*row) for row in rows)

    def push(self, rows: list[oracle.Row], room: int = 8) -> list[bytes]:
        data, out, taken, written = self.bytes(rows), bytearray(64 * room), 0, room
        found: list[bytes] = []
        while written == room:
            taken, written = self.kernel.push(data, taken, out, None, True)
            found += [bytes(out[i * 64 : i * 64 + 64]) for i in range(written)]
        assert taken == len(rows)
        return found

    def partial(self) -> list[bytes]:
        out = bytearray(64)
        return [bytes(out)] if self.kernel.partial(out) else []


@st.composite
def grids(draw: st.DrawFn) -> oracle.Grid:
    shape = draw(st.sampled_from(["fixed", "months", "edges"]))
    if shape == "fixed":
        length = draw(st.sampled_from([1, 5, 1000, MINUTE, 7 * oracle.DAY]))
        return oracle.Grid(length=length, origin=draw(st.integers(0, length - 1)))
    if shape == "months":
        return oracle.Grid()
    edges = draw(st.lists(st.integers(-20, 20), min_size=1, max_size=9, unique=True))
    return oracle.Grid(edges=sorted(edge * 1000 for edge in edges))


def trade_id(ts: int, before: int) -> int:
    """Ascends with time, and with `before` among trades of one time."""
    return (ts + 2**63) // 1_000_000 * 64 + 1 + before


NEWS = ("new", "new", "new", "no id", "revised", "revised", "moved")


def row_of(
    draw: st.DrawFn, kind: int, ts: int, earlier: list[oracle.Row], news: tuple[str, ...]
) -> oracle.Row:
    if kind == CANDLE:
        flags = draw(st.sampled_from([1, 33, 33, 33, 35, 5, 9, 0, 32, 65, 65, 129, 97, 193]))
        count = draw(st.sampled_from([0, 1, 7, 2**32 - 1]))
        return (ts, *(draw(NUMBERS) for _ in range(6)), count, flags)
    if kind == TRADE:
        new = trade_id(ts, sum(row[0] == ts for row in earlier))
        how = draw(st.sampled_from(news))
        flags = draw(st.sampled_from([0, 1, 16])) | 64 * (how in ("no id", "revised", "moved"))
        old = draw(st.sampled_from(earlier)) if earlier and how != "new" else (ts, 0.0, 0.0, new)
        known = {"new": new, "no id": 0}.get(how, old[3])
        if how in ("revised", "repeat", "the same"):
            ts = old[0]
        if how == "the same":
            return (*old[:4], flags, 0)[:6]
        return (ts, draw(NUMBERS), draw(NUMBERS), known, flags, 0)
    return (ts, *(draw(NUMBERS) for _ in range(4)))


@st.composite
def streams(
    draw: st.DrawFn, row_ms: int = 0, news: tuple[str, ...] = (*NEWS, "repeat", "the same")
) -> tuple[int, oracle.Grid, list[list[oracle.Row]]]:
    """(kind, grid, pushes): mostly ascending times, some steps back, some not at all, some far."""
    kind = CANDLE if row_ms else draw(st.sampled_from([CANDLE, TRADE, QUOTE]))
    grid = draw(grids())
    unit = row_ms or (1 if kind == CANDLE else 1_000_000)
    size = max(1, (grid.length or 3000) // 4 // unit * (row_ms or 1))
    at = (draw(NEAR_AN_END) if not grid.edges else 0) // unit * unit
    pushes: list[list[oracle.Row]] = []
    earlier: list[oracle.Row] = []
    for count in draw(st.lists(st.integers(0, 5), max_size=12)):
        rows = []
        for _ in range(count):
            step = draw(st.sampled_from([1, 1, 1, 2, 5, 40, 0, -1, -3, -9]))
            at += step * size * unit
            at = min(max(at, oracle.LOWEST), oracle.HIGHEST) // unit * unit
            at = max(at, -(2**63) // unit * unit + unit)
            rows.append(row_of(draw, kind, at, earlier, news))
            earlier.append(rows[-1])
        pushes.append(rows)
    return kind, grid, pushes


@settings(max_examples=400, deadline=None)
@given(grids(), ANY_TIME)
def test_every_time_has_its_bucket(grid: oracle.Grid, ts: int) -> None:
    made = Made(CANDLE, grid)
    made.push([(ts, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0, 1)])
    assert oracle.CANDLE.unpack(made.partial()[0])[0] == grid.find(ts)[0]


@settings(max_examples=400, deadline=None)
@given(streams(), st.integers(1, 9))
def test_live_is_what_the_oracle_says(
    stream: tuple[int, oracle.Grid, list[list[oracle.Row]]], room: int
) -> None:
    kind, grid, pushes = stream
    made, twin = Made(kind, grid), oracle.Window(kind, grid)
    for rows in pushes:
        assert made.push(rows, room) == twin.push(rows)
        assert made.partial() == twin.partial()
    assert (made.kernel.corrected, made.kernel.late) == (twin.corrected, twin.late)


@settings(max_examples=200, deadline=None)
@given(streams(row_ms=500), st.integers(1, 9))
def test_a_bucket_is_out_with_its_last_row(
    stream: tuple[int, oracle.Grid, list[list[oracle.Row]]], room: int
) -> None:
    kind, grid, pushes = stream
    made, twin = Made(kind, grid, row_ms=500), oracle.Window(kind, grid, row_ms=500)
    for rows in pushes:
        assert made.push(rows, room) == twin.push(rows)
        assert made.partial() == twin.partial()


@settings(max_examples=200, deadline=None)
@given(streams())
def test_the_latest_revisions_are_the_bulk(stream: tuple[int, oracle.Grid, list[list[oracle.Row]]]) -> None:
    """What came out live, each bucket's latest, equals all rows at once but for the flags that say revised."""
    kind, grid, pushes = stream
    made = Made(kind, grid)
    out = [bucket for rows in pushes for bucket in made.push(rows)] + made.partial()
    if made.kernel.late:
        return  # a correction that would have left a bucket without trades
    latest = {bucket[:8]: bucket[:60] for bucket in out}
    bulk = oracle.resample(kind, grid, [row for rows in pushes for row in rows])
    assert latest == {bucket[:8]: bucket[:60] for bucket in bulk}


@settings(max_examples=400, deadline=None)
@given(streams(news=NEWS), st.integers(0, 6), st.sampled_from([1, 2, 5, ALL]), st.booleans())
def test_a_row_is_late_only_when_its_bucket_is_closed_and_gone(
    stream: tuple[int, oracle.Grid, list[list[oracle.Row]]], keep: int, limit: int, singly: bool
) -> None:
    """N1. Or, in the open bucket, when `limit` rows of it came after. F5: that is asked of the trades, too, that a
    correction replaces."""
    kind, grid, pushes = stream
    made, twin = Made(kind, grid, keep=keep, limit=limit), oracle.Window(kind, grid)
    refused: set[int] = set()
    for rows in [[row] for pushed in pushes for row in pushed] if singly else pushes:
        late = made.kernel.late
        found = made.push(rows)
        assert made.kernel.kept_count <= 2 * max(keep, min(limit, made.kernel.open_rows), 1) + len(rows)
        if made.kernel.late == late:
            assert found == twin.push(rows)
        elif singly:
            assert found == []
            row, may_go = rows[0], rows
            if oracle.revises(kind, row):
                may_go = [*rows, *(old for old in twin.rows if old[3] == row[3])]
            assert (
                any(is_gone(twin, old[0], keep, limit) for old in may_go)
                or (len(may_go) > 1 and twin.loses_a_bucket(row))
                or (len(may_go) == 1 and row[3] in refused)
            )
            refused.add(row[3])
        else:
            return  # of several rows the twin cannot know which
        assert made.partial() == twin.partial()


def is_gone(twin: oracle.Window, ts: int, keep: int, limit: int) -> bool:
    """Whether what happened at a time may be forgotten."""
    first = twin.grid.find(twin._ms(ts))[0]
    if first == twin.open:
        return sum(row[0] >= ts for row in twin.rows) >= limit
    return sum(twin._ms(row[0]) >= first for row in twin.rows) >= keep


def test_late_rows_of_a_long_open_bucket_are_those_of_the_bulk() -> None:
    """N1: thousands of rows in the open bucket, folded from the base that is near."""
    seed = 20_261
    print("seed", seed)
    rng, grid = np.random.default_rng(seed), oracle.Grid(length=1000 * MINUTE)
    rows = [(t * 1_000_000, float(p), 0.1, 0, 0, 0) for t, p in enumerate(rng.random(6000) + 9)]
    order = np.argsort(np.arange(6000) + rng.integers(0, 40, 6000) + 3000 * (rng.random(6000) < 0.01))
    pushed = [rows[i] for i in order]
    made = Made(TRADE, grid, keep=64, limit=ALL)
    for at in range(0, 6000, 7):
        made.push(pushed[at : at + 7])
    assert made.kernel.late == 0
    assert made.kernel.corrected > 1000
    assert made.partial() == [oracle.fold(TRADE, rows, 0, 0)]


@settings(max_examples=200, deadline=None)
@given(streams(), st.integers(0, 6))
def test_the_rows_of_a_bucket_are_kept_for_who_wants_them(
    stream: tuple[int, oracle.Grid, list[list[oracle.Row]]], keep: int
) -> None:
    kind, grid, pushes = stream
    made, twin = Made(kind, grid, keep=keep, limit=ALL, by_hand=True), oracle.Window(kind, grid)
    for rows in pushes:
        out, spans = bytearray(64 * (len(rows) + 1)), np.zeros((len(rows) + 1, 2), np.uint64)
        made.kernel.cut()
        taken, before, written = 0, -1, 0
        while taken > before or written:
            before = taken
            taken, written = made.kernel.push(made.bytes(rows), taken, out, spans, True)
            for i in range(written):
                low, count = map(int, spans[i])
                data = bytearray(count * made.size)
                made.kernel.kept(low, data)
                found = list(oracle.LAYOUT[kind].iter_unpack(data))
                candle = bytes(out[64 * i : 64 * i + 64])
                assert oracle.fold(kind, found, *oracle.CANDLE.unpack(candle)[:1], 0)[:60] == candle[:60]
        if made.kernel.late:
            return
        twin.push(rows)
        assert made.kernel.open_rows == (len(twin._of_bucket(twin.open)) if twin.open is not None else 0)
        assert made.partial() == twin.partial()


def test_bulk_stops_at_the_first_row_out_of_order() -> None:
    made = Made(CANDLE, oracle.Grid(length=MINUTE), keep=0)
    rows = [(t, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0, 1) for t in (0, 1, 1, 2)]
    assert made.kernel.push(made.bytes(rows), 0, bytearray(640), None, False) == (2, 0)


def test_rows_need_no_alignment() -> None:
    made, rows = Made(TRADE, oracle.Grid(length=MINUTE)), []
    for i in range(50):
        rows.append((i * 7_000_000_000, 1.1 * i, 0.3, i, 0, 0))
    data = b"x" + made.bytes(rows)
    out = bytearray(64 * 50 + 1)
    taken, written = made.kernel.push(memoryview(data)[1:], 0, memoryview(out)[1:], None, True)
    found = [bytes(out[1 + 64 * i : 65 + 64 * i]) for i in range(written)] + made.partial()
    assert (taken, found) == (50, oracle.resample(TRADE, made.grid, rows))


def test_more_trades_than_a_count_can_say() -> None:
    made = Made(CANDLE, oracle.Grid(length=MINUTE))
    made.push([(t, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2**32 - 1, 33) for t in range(3)])
    assert oracle.CANDLE.unpack(made.partial()[0])[7] == 2**32 - 1
