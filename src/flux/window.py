"""The window's door: rows into candles of a longer interval, in bulk, live, and in several intervals at once.

A bucket is labelled by its open. Buckets are those of `timezone`: days, weeks (from Monday) and months follow its
calendar, shorter ones its clock on the wall (see `flux.zone`), `offset` later: `timezone="Asia/Kolkata",
offset="09:15"` for hours of the session there, `timezone="America/New_York", offset="17:00"` (or `"-07:00"`, which
counts in weeks and months) for trading days. A bucket without rows does not exist. The result is always that of the
rows sorted by time, and of candles with the same time the latest, so that live and in bulk are equal to the bit: the
rules are drawn in `ext/window.h`.

A trade with `TradeFlag.CORRECTION` and an id replaces the trades of that id that came before: a bucket is what it would
be if only the last version had been there, of the same time in the same place. A trade without an id (0) replaces none,
and an id that comes again without the flag is one more trade. A candle replaces the one of the same time, flag or not.

Flags of a bucket: CLOSED once something came behind it; SYNTHETIC and INJECTED if any of its rows has it; TRADED,
TURNOVER or TRADE_COUNT if all have it, else turnover and trade_count are 0. Trades give all of it. Quotes give candles
of the mid price, bid / 2 + ask / 2, with volume 0 and not TRADED: nothing was traded. A trade_count over 2^32 - 1
stands as that.

NaN is no value: every column leaves it out, as pandas does, so that the open is the first one that is a number, the
close the last, and volume and turnover are the sums of the others. A bucket without any price has NaN there.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple, cast, overload

import numpy as np
import numpy.typing as npt

from flux import zone
from flux.batch import Batch, Candles
from flux.compiled import Aggregate, compiled
from flux.errors import InvalidNameError
from flux.kernels import window as _kernel
from flux.limits import (
    AGGREGATE_ROWS,
    MAX_BUCKET_ROWS,
    RESAMPLED_BYTES,
    WINDOW_KEPT_ROWS,
    WINDOW_OPEN_ROWS,
    WINDOW_OUT_ROWS,
)
from flux.model import CANDLE, INTERVALS_MS, QUOTE, TRADE, CandleFlag, RowKind, StreamKey, TradeFlag
from flux.revisions import latest
from flux.tables import Table, rows_of

Rows = npt.NDArray[np.void]

_KINDS: Final = {CANDLE: RowKind.CANDLE, TRADE: RowKind.TRADE, QUOTE: RowKind.QUOTE}
_SMALL_BYTES: Final = 8_192  # not worth a copy
_MONDAY_MS: Final = 4 * INTERVALS_MS["1d"]  # the first one after the epoch
_REVISED: Final = np.uint32(CandleFlag.CORRECTION | CandleFlag.LATE)


@overload
def resample(
    rows: Rows, interval: str, *, timezone: str = ..., offset: str = ..., of: str | None = ...
) -> Rows: ...
@overload
def resample(
    rows: Table, interval: str, *, timezone: str = ..., offset: str = ..., of: str | None = ...
) -> Candles: ...
def resample(
    rows: Rows | Table, interval: str, *, timezone: str = "UTC", offset: str = "00:00", of: str | None = None
) -> Rows | Candles:
    """All buckets of `rows`, oldest first; the last one without CLOSED.

    Of an array (CANDLE, TRADE or QUOTE, one dimension, contiguous) an array of CANDLE, its own. Of a batch, or a table
    (`flux.tables`), a batch: with the key of the one that was given and the new interval (None for a table), numbered
    from 1, since these rows have no sequences of a server.

    Rows may be in any order: out of order costs a sort, as corrections do; of candles with the same time and of
    trades with the same id and CORRECTION the last counts. `of`, the interval of candle `rows`, closes the last
    bucket too if a closed row ends with it. Raises `InvalidNameError` for an interval or a zone that is none,
    `ValueError` for other rows, an `of` (or a batch of an interval) that `interval` is no multiple of, and in a named
    zone for times outside `limits.ZONE_YEARS`, `TypeError` for what holds no rows.
    """
    if isinstance(rows, Batch) and rows.key is not None:
        zone.check_step(rows.key, interval)
    if isinstance(rows, np.ndarray):
        taken = rows_of(rows) if rows.dtype.names and rows.dtype not in _KINDS else rows
        return _resampled(taken, interval, timezone, offset, of)
    made = _resampled(np.ascontiguousarray(rows_of(rows)), interval, timezone, offset, of)
    key = rows.key if isinstance(rows, Batch) else None
    return Candles(None if key is None else key._replace(interval=interval), 1, made)


def _resampled(rows: Rows, interval: str, timezone: str, offset: str, of: str | None) -> Rows:
    plan = _Plan.of(interval, timezone, offset, of)
    kernel = plan.kernel(_kind(rows), keep=0)
    plan.reach(kernel, rows)
    taken, pieces = _push(kernel, rows, _room(rows, plan), amending=False)
    if taken < len(rows):
        return _resampled(latest(rows), interval, timezone, offset, of)
    return _joined([*pieces, _partial(kernel)])


class Window:
    """Closes buckets as rows come. One thread at a time pushes (another gets `RuntimeError`); the window copies what
    it needs and lends nothing.

    It remembers the rows of the open bucket (`limits.WINDOW_OPEN_ROWS` at most) and the newest `keep` rows, 64 or 40
    bytes each. A row out of order (a correction, a late one, the same forming candle again) is put in its place there
    and its bucket made anew: the open one silently, one that was out comes again with CORRECTION (LATE if it had no
    rows before). The latest revision of each bucket then has the numbers that `resample` gives for all rows together.
    A row changes nothing and counts as `late` only when its bucket is out and no longer wholly among the newest `keep`
    rows, or when more than `limits.WINDOW_OPEN_ROWS` rows of its own open bucket came after it.

    A trade with CORRECTION takes those of its id out of their buckets; one that was out comes again. It changes nothing
    and counts as `late` when a bucket that it would change is gone, as above; when the trade it replaces had to go from
    the rows (ids are taken to ascend with time); or when a bucket would lose its only trade. The old values stay then.

    `of`, the interval of the pushed candles, lets a bucket out with its last row, when that has CLOSED; without it a
    bucket is out when the first row behind it comes.

    `aggregate` is a function of yours, compiled by numba, over the rows of each bucket in order of time: with
    `values=0` it is `fn(rows) -> float`, with `values=k` it is `fn(rows, out)` and writes `out[0]` to `out[k - 1]`
    (zeroed before). Buckets then have one more field, `value`. It is compiled at the first push, and all rows of the
    open bucket are kept, at most `limits.MAX_BUCKET_ROWS`.
    """

    def __init__(
        self,
        interval: str,
        *,
        timezone: str = "UTC",
        offset: str = "00:00",
        of: str | None = None,
        keep: int = WINDOW_KEPT_ROWS,
        aggregate: Aggregate | None = None,
        values: int = 0,
    ) -> None:
        """Raises as `resample` does, and `ImportError` where `aggregate` is given and numba is missing."""
        if not 0 <= keep <= MAX_BUCKET_ROWS or values < 0:
            raise ValueError(f"keep {keep} is not in 0 to {MAX_BUCKET_ROWS}, or values {values} below 0")
        self.interval = interval
        self._plan = _Plan.of(interval, timezone, offset, of)
        self._keep = keep
        self._kernel: _kernel.Window | None = None
        self._dtype = CANDLE
        self._checked: StreamKey | None = None  # the key of the batch before
        self._each: Aggregate | None = None
        self._shape: tuple[int, ...] = (values,) if values else ()
        self._out = CANDLE
        if aggregate is not None:
            self._each = compiled(aggregate, values)
            self._out = np.dtype([*CANDLE.descr, ("value", "<f8", self._shape)])

    def push(self, rows: Rows | Batch) -> Rows:
        """Take `rows` (an array or a batch); the buckets that are out with them, closed and corrected, in order of
        happening.

        An array of its own: CANDLE, with `aggregate` also `value`. All pushes have rows of one dtype (CANDLE, TRADE
        or QUOTE), else `ValueError`; also for an open bucket of more rows than an aggregate may have.
        """
        if isinstance(rows, Batch):
            if rows.key is not None and rows.key is not self._checked:
                zone.check_step(rows.key, self.interval)
                self._checked = rows.key
            rows = rows.rows
        kernel = self._made(rows)
        self._plan.reach(kernel, rows)
        if self._each is not None:
            return self._push_with_rows(kernel, rows)
        return _joined(_push(kernel, rows, min(len(rows) + 1, WINDOW_OUT_ROWS), amending=True)[1])

    def partial(self) -> Rows:
        """The open bucket as it stands, without CLOSED: one row, or none."""
        if self._kernel is None:
            return np.empty(0, self._out)
        candles = _partial(self._kernel)
        if self._each is None:
            return candles
        count = self._kernel.open_rows * len(candles)
        spans = np.array([(self._kernel.kept_count - count, count)] * len(candles), np.uint64)
        return self._valued(self._kernel, candles, spans.reshape(-1, 2))

    @property
    def late(self) -> int:
        """Rows too old to be put in their place, and corrections of trades that cannot be replaced any more."""
        return self._kernel.late if self._kernel else 0

    @property
    def corrected(self) -> int:
        """Rows out of order that were put in their place, and corrections that replaced a trade."""
        return self._kernel.corrected if self._kernel else 0

    def _made(self, rows: Rows) -> _kernel.Window:
        kind = _kind(rows)
        if self._kernel is None:
            kernel = self._plan.kernel(
                kind, keep=self._keep, limit=WINDOW_OPEN_ROWS, by_hand=self._each is not None
            )
            self._kernel, self._dtype = kernel, rows.dtype
            if self._each is not None:
                self._valued(kernel, np.empty(0, CANDLE), np.empty((0, 2), np.uint64))
        elif rows.dtype != self._dtype:
            raise ValueError(f"rows are {rows.dtype}, those before were {self._dtype}")
        return self._kernel

    def _push_with_rows(self, kernel: _kernel.Window, rows: Rows) -> Rows:
        pieces = []
        for at in range(0, len(rows), AGGREGATE_ROWS):
            part = rows[at : at + AGGREGATE_ROWS]
            out = np.empty(len(part) + 1, CANDLE)
            spans = np.empty((len(out), 2), np.uint64)
            kernel.cut()
            taken, before, written = 0, -1, 0
            while taken > before or written:
                before = taken
                taken, written = kernel.push(part, taken, out, spans, True)
                pieces.append(self._valued(kernel, out[:written], spans[:written]))
            if kernel.open_rows > MAX_BUCKET_ROWS:
                raise ValueError(f"more than {MAX_BUCKET_ROWS} rows in a bucket of {self.interval}")
        return _joined(pieces, self._out)

    def _valued(self, kernel: _kernel.Window, candles: Rows, spans: npt.NDArray[np.uint64]) -> Rows:
        """`candles` with the user's value: numba gets a copy of their rows, which it may keep."""
        out = np.empty(len(candles), self._out)
        for name in CANDLE.names or ():
            out[name] = candles[name]
        low = int(spans[:, 0].min()) if len(spans) else 0
        high = int(spans.sum(axis=1).max()) if len(spans) else 0
        rows = np.empty(high - low, self._dtype)
        kernel.kept(low, rows)
        values = np.zeros((len(candles), *self._shape))
        cast(Aggregate, self._each)(rows, spans.astype(np.int64) - (low, 0), values)
        out["value"] = values
        return out


class Resampler:
    """The same rows in several intervals, each resampled once: for a chart whose user goes to and fro.

    Rows that are pushed later reach an interval when it is next asked for, and cost what is new. The rows stay with
    their owner, who does not change them; buckets of at most `limit_bytes` are remembered, the intervals used
    longest ago are forgotten first.
    """

    def __init__(
        self,
        rows: Rows,
        *,
        timezone: str = "UTC",
        offset: str = "00:00",
        of: str | None = None,
        limit_bytes: int = RESAMPLED_BYTES,
    ) -> None:
        """Raises `ValueError` for rows that are none and `InvalidNameError` for a zone that is none."""
        _kind(rows)
        self._pieces = [rows]
        self._timezone = zone.checked(timezone)
        zone.offset_ms(offset)
        self._offset = offset
        self._of = of
        self._limit = limit_bytes
        self._views: OrderedDict[str, _View] = OrderedDict()

    def push(self, rows: Rows) -> None:
        """More rows of the same dtype; in any order, as `Window` takes them."""
        if rows.dtype != self._pieces[0].dtype:
            raise ValueError(f"rows are {rows.dtype}, those before are {self._pieces[0].dtype}")
        _kind(rows)
        self._pieces.append(rows)

    def get(self, interval: str) -> Rows:
        """All buckets of `interval`, the last one as it stands: what `resample` gives, read-only."""
        view = self._views.pop(interval, None) or _View(
            Window(interval, timezone=self._timezone, offset=self._offset, of=self._of), self._pieces
        )
        if not view.follow():
            whole = np.concatenate(self._pieces)
            view = _View(
                Window(interval, timezone=self._timezone, offset=self._offset, of=self._of), [latest(whole)]
            )
            view.follow()
            view.resume(self._pieces)
        self._views[interval] = view
        while (
            len(self._views) > 1 and sum(held.buckets.nbytes for held in self._views.values()) > self._limit
        ):
            self._views.popitem(last=False)
        return view.buckets


class _View:
    """One interval of a Resampler: how many pieces it has seen, and what came of them."""

    def __init__(self, window: Window, pieces: list[Rows]) -> None:
        self._window = window
        self._pieces = pieces
        self._seen = 0
        self._closed: Rows = np.empty(0, CANDLE)
        self.buckets: Rows = self._closed

    def resume(self, pieces: list[Rows]) -> None:
        self._pieces, self._seen = pieces, len(pieces)

    def follow(self) -> bool:
        """Take what is new; false when a row came too late for that."""
        if self._seen == len(self._pieces) and self._seen:
            return True
        late = self._window.late
        found = [self._window.push(piece) for piece in self._pieces[self._seen :]]
        self._seen = len(self._pieces)
        self._closed = _latest(_joined([self._closed, *found]))
        self.buckets = _joined([self._closed, self._window.partial()])
        self.buckets.flags.writeable = False
        return self._window.late == late


class _Plan(NamedTuple):
    """What was asked for, checked."""

    interval: str
    timezone: str
    offset: int
    row_ms: int

    @classmethod
    def of(cls, interval: str, timezone: str, offset: str, of: str | None) -> _Plan:
        length = INTERVALS_MS.get(interval)
        if length is None:
            raise InvalidNameError(f"interval {interval[:80]!a} is none of {' '.join(INTERVALS_MS)}")
        row_ms = 0
        if of is not None:
            row_ms = INTERVALS_MS.get(of, 0)
            if not row_ms or not zone.fits(of, interval):
                raise ValueError(
                    f"of={of[:80]!a} is no interval of fixed length of which {interval} is a multiple"
                )
        return cls(interval, zone.checked(timezone), zone.offset_ms(offset), row_ms)

    @property
    def zoned(self) -> bool:
        return self.timezone != "UTC" or (self.interval == "1M" and self.offset != 0)

    def kernel(self, kind: RowKind, *, keep: int, limit: int = 0, by_hand: bool = False) -> _kernel.Window:
        if self.row_ms and kind is not RowKind.CANDLE:
            raise ValueError("of= is the interval of candles; trades and quotes have none")
        length = INTERVALS_MS[self.interval]
        origin = ((_MONDAY_MS if self.interval == "1w" else 0) + self.offset) % length if length else 0
        return _kernel.Window(kind, length, origin, self.row_ms, keep, limit, by_hand)

    def reach(self, kernel: _kernel.Window, rows: Rows) -> None:
        """See that the edges of a named zone cover these rows, and with corrections those that they may replace."""
        if self.zoned and len(rows):
            times = rows["ts_ms"] if rows.dtype == CANDLE else rows["ts_ns"]
            low, high = int(times.min()), int(times.max())
            revising = rows.dtype == TRADE and np.any(rows["flags"] & TradeFlag.CORRECTION)
            if revising and (kept := kernel.kept_times()):
                low, high = min(low, kept[0]), max(high, kept[1])
            if rows.dtype != CANDLE:
                low, high = low // 1_000_000, high // 1_000_000
            grid = zone.grid(self.interval, self.timezone, self.offset, low, high)
            if isinstance(grid, int):
                kernel.set_origin(grid)
            else:
                kernel.set_edges(grid)


def _kind(rows: Rows) -> RowKind:
    # A dtype of fields takes a microsecond to hash, and most rows have this one.
    kind = RowKind.CANDLE if rows.dtype is CANDLE else _KINDS.get(rows.dtype)
    if kind is None or rows.ndim != 1 or not rows.flags.c_contiguous:
        raise ValueError(
            f"rows are {rows.dtype} of shape {rows.shape}, not CANDLE, TRADE or QUOTE, contiguous"
        )
    return kind


def _room(rows: Rows, plan: _Plan) -> int:
    """Buckets to make room for at once: as many as the times say, so that they stay in one piece."""
    room = min(len(rows) + 1, WINDOW_OUT_ROWS)
    length = INTERVALS_MS[plan.interval]
    if length and len(rows) > WINDOW_OUT_ROWS:
        field, unit = ("ts_ms", 1) if rows.dtype == CANDLE else ("ts_ns", 1_000_000)
        spanned = (int(rows[field][-1]) - int(rows[field][0])) // (length * unit) + 2
        room = min(max(room, spanned), len(rows) + 1)
    return room


def _push(kernel: _kernel.Window, rows: Rows, room: int, *, amending: bool) -> tuple[int, list[Rows]]:
    """Push all rows, or up to the first out of order; how many, and what was written."""
    taken, written, pieces = 0, room, []
    while written == room:
        out = np.empty(room, CANDLE)
        taken, written = kernel.push(rows, taken, out, None, amending)
        pieces.append(out[:written])
    return taken, pieces


def _partial(kernel: _kernel.Window) -> Rows:
    out = np.empty(1, CANDLE)
    return out[: kernel.partial(out)]


def _joined(pieces: list[Rows], dtype: np.dtype[np.void] = CANDLE) -> Rows:
    """One array of its own; a single piece that wastes little of its memory is it already."""
    if len(pieces) > 1:
        pieces = [piece for piece in pieces if len(piece)]
    if len(pieces) == 1:
        (piece,) = pieces
        memory = piece.nbytes if piece.base is None else cast(Rows, piece.base).nbytes
        if memory <= max(2 * piece.nbytes, _SMALL_BYTES):
            return piece
    if not pieces:
        return np.empty(0, dtype)
    # As bytes: numpy joins and copies rows field by field.
    return np.concatenate([piece.view(np.uint8) for piece in pieces]).view(dtype)


def _latest(candles: Rows) -> Rows:
    """Each bucket once, its latest revision, without the flags that say it is one."""
    if np.any(candles["flags"] & _REVISED):
        candles = latest(candles)
        candles["flags"] &= ~_REVISED
    return candles
