"""CSV bytes to candles: what the columns are, a quick pass for good blocks, an exact pass for the others.

Sans I/O. The quick pass is vectorised and knows only yes and no; a block that it refuses goes through the
exact pass, line by line, which says which line and column are at fault and why. Both give the same rows for
the same bytes, and every number is what `float()` makes of its text.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flux.errors import SourceFileError
from flux.model import CANDLE, CandleFlag

FIRST_TS_MS: Final = -2_208_988_800_000  # 1900-01-01, as in ext/admit.h
LAST_TS_MS: Final = 4_102_444_800_000  # 2100-01-01, exclusive

_ALIASES: Final = {
    "ts_ms": ("ts_ms", "timestamp", "timestamp_utc", "open_time", "datetime", "time", "date", "ts"),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
    "turnover": ("turnover", "quote_volume", "quote_asset_volume"),
    "trade_count": ("trade_count", "trades", "count", "number_of_trades"),
}
_OPTIONAL: Final = ("turnover", "trade_count")
_KLINE: Final = {
    "ts_ms": 0, "open": 1, "high": 2, "low": 3, "close": 4, "volume": 5, "turnover": 7, "trade_count": 8,
}  # fmt: skip
_KLINE_COLUMNS: Final = 12
_PRICES: Final = ("open", "high", "low", "close", "volume", "turnover")

_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_NOT_FINITE = re.compile(rb"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_INTEGER = re.compile(rb"\d{1,19}")
_COUNT = re.compile(rb"[+-]?\d+")
_DATETIME = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?)?(?:Z|\+00:00)?"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_COMMA, _NEWLINE = 0x2C, 0x0A
_TIME_UNITS: Final = ((10**11, 1_000, 1), (10**14, 1, 1), (10**17, 1, 1_000), (10**19, 1, 1_000_000))
"""(integer times below, multiplied by, divided by) to be ms: s, ms, us, ns."""

_NUMERIC = np.zeros(256, bool)
_NUMERIC[np.frombuffer(b"0123456789+-.eE", np.uint8)] = True


class Fault(NamedTuple):
    """A row that is refused: `line` and `column` in the file, from 1."""

    line: int
    column: int
    reason: str


@dataclass(frozen=True, slots=True)
class Layout:
    """What the columns of a file are."""

    columns: int
    fields: dict[str, int]  # name in CANDLE -> column, from 0
    header_bytes: int  # 0: the first line is a row
    multiply: int  # integer times: to ms; 0 when times are dates
    divide: int
    grid_ms: int = 1  # what times are whole multiples of

    @property
    def first_line(self) -> int:
        """Number of the line that holds the first row."""
        return 2 if self.header_bytes else 1

    @property
    def flags(self) -> int:
        """What every row of this file carries."""
        traded = all(name in self.fields for name in _OPTIONAL)
        return int(CandleFlag.CLOSED | CandleFlag.TRADED if traded else CandleFlag.CLOSED)


def read_layout(path: str, start: bytes) -> Layout:
    """The columns of a file that begins with `start` (at least its first two lines, or all of it).

    Raises `SourceFileError` where it is no CSV that we know.
    """
    if not start:
        raise SourceFileError(path, 0, 0, "is empty")
    if start.startswith(b"\xef\xbb\xbf"):
        raise SourceFileError(path, 1, 1, "begins with a byte order mark: save it as UTF-8 without one")
    line, _, rest = start.partition(b"\n")
    if line.endswith(b"\r"):
        reason = "lines end in CR LF: convert them to LF (dos2unix does)"
        raise SourceFileError(path, 1, len(line), reason)
    for at, byte in enumerate(line):
        if not 0x20 <= byte < 0x7F and byte != 0x09:
            raise SourceFileError(path, 1, at + 1, f"is not text: byte 0x{byte:02x}")
    if b"," not in line and b";" in line:
        at = line.index(b";") + 1
        raise SourceFileError(path, 1, at, "fields are separated by ';', ',' is expected")

    first = line.split(b",")[0]
    if not _NUMBER.fullmatch(first) and not _DATETIME.fullmatch(first):
        fields = _header(path, line)
        columns, header_bytes, first_row = line.count(b",") + 1, len(line) + 1, rest
    elif line.count(b",") + 1 == _KLINE_COLUMNS:
        fields, columns, header_bytes, first_row = dict(_KLINE), _KLINE_COLUMNS, 0, start
    else:
        reason = f"no header, and not the {_KLINE_COLUMNS} columns of a kline archive: name the columns"
        raise SourceFileError(path, 1, 1, f"{reason} (timestamp,open,high,low,close,volume)")
    if not first_row:
        raise SourceFileError(path, 0, 0, "has no rows")

    times = first_row.partition(b"\n")[0].split(b",")
    time = times[fields["ts_ms"]] if fields["ts_ms"] < len(times) else b""
    multiply, divide = 0, 1
    if _INTEGER.fullmatch(time):
        _, multiply, divide = next(unit for unit in _TIME_UNITS if int(time) < unit[0])
    return Layout(columns, fields, header_bytes, multiply, divide)


def _header(path: str, line: bytes) -> dict[str, int]:
    texts = line.split(b",")
    names = [text.decode("ascii").strip().lower() for text in texts]
    fields: dict[str, int] = {}
    for field, aliases in _ALIASES.items():
        alias = next((alias for alias in aliases if alias in names), None)
        if alias is not None:
            fields[field] = at = names.index(alias)
            if alias in names[at + 1 :]:
                again = names.index(alias, at + 1)
                column = sum(len(text) + 1 for text in texts[:again]) + 1
                raise SourceFileError(path, 1, column, f"column {alias} is there twice")
        elif field not in _OPTIONAL:
            raise SourceFileError(path, 1, len(line) + 1, f"missing column {' or '.join(aliases[:2])}")
    if not all(field in fields for field in _OPTIONAL):
        fields = {field: at for field, at in fields.items() if field not in _OPTIONAL}
    return fields


def parse(layout: Layout, block: bytes, last_ts: int) -> NDArray[np.void] | None:
    """The candles of a block of whole lines (each ended by LF), or None where it is not all good.

    `last_ts` is the time of the row before; times must rise.
    """
    if b"\r" in block:
        return None
    text = np.frombuffer(block, np.uint8)
    separators = np.flatnonzero((text == _COMMA) | (text == _NEWLINE))
    if not len(separators) or len(separators) % layout.columns:
        return None
    ends = separators.reshape(-1, layout.columns)
    if np.any(text[ends[:, -1]] != _NEWLINE) or np.any(text[ends[:, :-1]] != _COMMA):
        return None
    if not _only_numbers(layout, text, separators):
        return None

    rows = np.zeros(len(ends), CANDLE)
    rows["flags"] = layout.flags
    times = _times(layout, block, text, ends)
    if times is None:
        return None
    rows["ts_ms"] = times
    names = [name for name in layout.fields if name != "ts_ms"]
    try:
        values = np.loadtxt(
            io.BytesIO(block),
            dtype=[(name, "<i8" if name == "trade_count" else "<f8") for name in names],
            comments=None,
            delimiter=",",
            usecols=[layout.fields[name] for name in names],
            encoding="latin1",
            ndmin=1,
        )
    except ValueError:
        return None
    if len(values) != len(rows):
        return None
    if "trade_count" in names and np.any(values["trade_count"] >> 32):
        return None
    for name in names:
        rows[name] = values[name]
    return rows if _good(rows, last_ts, layout.grid_ms) else None


def _only_numbers(layout: Layout, text: NDArray[np.uint8], separators: NDArray[np.intp]) -> bool:
    """Whether our number columns hold nothing but the characters of numbers (loadtxt lets blanks pass)."""
    allowed = _NUMERIC[text]
    allowed[separators] = True
    strange = np.flatnonzero(~allowed)
    if not len(strange):
        return True
    columns = np.unique(np.searchsorted(separators, strange) % layout.columns)
    ours = {column for name, column in layout.fields.items() if name != "ts_ms"}
    return ours.isdisjoint(columns.tolist())


def _times(
    layout: Layout, block: bytes, text: NDArray[np.uint8], ends: NDArray[np.intp]
) -> NDArray[np.int64] | None:
    """The time column in ms; None where one is not as the first, or not a time."""
    column = layout.fields["ts_ms"]
    starts = ends[:, column - 1] + 1 if column else np.concatenate(([0], ends[:-1, -1] + 1))
    width = int(ends[0, column] - starts[0])
    if np.any(ends[:, column] - starts != width):
        return None
    sample = block[int(starts[0]) : int(starts[0]) + width]
    form = _DATETIME if not layout.multiply else _INTEGER
    if not form.fullmatch(sample):
        return None
    characters = text[starts[:, None] + np.arange(width)]
    digits = np.frombuffer(sample, np.uint8) - 48 < 10  # unsigned: what is below '0' wraps
    if np.any((characters - 48 < 10) != digits) or np.any((characters != characters[0])[:, ~digits]):
        return None
    if layout.multiply:
        if width == 19 and np.any(characters[:, 0] >= ord("9")):  # not in 64 bits
            return None
        values = characters.astype(np.int64) - 48
        whole: NDArray[np.int64] = values @ (10 ** np.arange(width - 1, -1, -1, dtype=np.int64))
        if np.any(whole % layout.divide):
            return None
        return whole * layout.multiply // layout.divide
    length = width - (1 if sample.endswith(b"Z") else 6 if sample.endswith(b"+00:00") else 0)
    try:
        exact = np.ascontiguousarray(characters[:, :length]).view(f"S{length}")[:, 0].astype("M8[us]")
    except ValueError:
        return None
    micros = exact.astype(np.int64)
    return None if np.any(micros % 1_000) else micros // 1_000


def _good(rows: NDArray[np.void], last_ts: int, grid_ms: int) -> bool:
    times = rows["ts_ms"]
    low, high = rows["low"], rows["high"]
    finite = all(np.isfinite(rows[name]).all() for name in _PRICES)
    return bool(
        finite
        and times[0] > last_ts
        and np.all(times[1:] > times[:-1])
        and times[0] >= FIRST_TS_MS
        and times[-1] < LAST_TS_MS
        and not np.any(times % grid_ms)
        and np.all(rows["volume"] >= 0)
        and np.all(low <= rows["open"])
        and np.all(rows["open"] <= high)
        and np.all(low <= rows["close"])
        and np.all(rows["close"] <= high)
    )


def parse_exactly(
    layout: Layout, block: bytes, first_line: int, last_ts: int
) -> tuple[NDArray[np.void], NDArray[np.intp], list[Fault]]:
    """Line by line: the good rows, the block's line (from 0) of each, and a fault for every other line."""
    rows, kept, faults = [], [], []
    for at, line in enumerate(block.removesuffix(b"\n").split(b"\n")):
        try:
            row = _checked(layout, line, last_ts)
        except _Refused as refused:
            faults.append(Fault(first_line + at, *refused.args))
        else:
            rows.append(row)
            kept.append(at)
            last_ts = int(row[0])
    return np.array(rows, CANDLE), np.array(kept, np.intp), faults


class _Refused(ValueError):  # noqa: N818  a word of this file, it never leaves it
    """A line is not a row: (column, reason)."""


def _checked(layout: Layout, line: bytes, last_ts: int) -> tuple[int | float, ...]:
    """One line as a tuple in the order of CANDLE; raises `_Refused`."""
    if not line:
        raise _Refused(1, "empty line")
    if line.endswith(b"\r"):
        raise _Refused(len(line), "the line ends in CR LF")
    texts = line.split(b",")
    starts = [1]
    for text in texts:
        starts.append(starts[-1] + len(text) + 1)
    if len(texts) != layout.columns:
        at = len(line) + 1 if len(texts) < layout.columns else starts[layout.columns]
        raise _Refused(at, f"{len(texts)} fields instead of {layout.columns}")

    values: dict[str, int | float] = {"turnover": 0.0, "trade_count": 0}
    for name, column in layout.fields.items():
        try:
            if name == "ts_ms":
                values[name] = _time(layout, texts[column])
            elif name == "trade_count":
                values[name] = _count(texts[column])
            else:
                values[name] = _number(texts[column])
        except ValueError as error:
            raise _Refused(starts[column], f"{name}: {error}") from None
    fault = _meaning(values, last_ts, layout.grid_ms)
    if fault is not None:
        raise _Refused(starts[layout.fields[fault[0]]], fault[1])
    return (values["ts_ms"], *(values[name] for name in _PRICES), values["trade_count"], layout.flags)


def _meaning(values: dict[str, int | float], last_ts: int, grid_ms: int) -> tuple[str, str] | None:
    """(field, reason) where the numbers are no candle that may follow."""
    ts, low, high = values["ts_ms"], values["low"], values["high"]
    if not FIRST_TS_MS <= ts < LAST_TS_MS:
        return "ts_ms", "time outside 1900 to 2100"
    if ts <= last_ts:
        return "ts_ms", "duplicate time" if ts == last_ts else "time before that of the row before"
    if ts % grid_ms:
        return "ts_ms", f"time is not on a whole {'minute' if grid_ms == 60_000 else f'{grid_ms // 1_000} s'}"
    if values["volume"] < 0:
        return "volume", "negative volume"
    if high < low:
        return "high", "high below low"
    for name in ("open", "close"):
        if not low <= values[name] <= high:
            return name, f"{name} outside low to high"
    return None


def _time(layout: Layout, text: bytes) -> int:
    if layout.multiply:
        if not _INTEGER.fullmatch(text):
            raise ValueError(f"{_shown(text)} is no integer time")
        if int(text) % layout.divide:
            raise ValueError("finer than a millisecond")
        return int(text) * layout.multiply // layout.divide
    found = _DATETIME.fullmatch(text)
    if not found:
        raise ValueError(f"{_shown(text)} is no time (YYYY-MM-DD HH:MM:SS)")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    micros = int((found[7] or b"").ljust(6, b"0"))
    moment = datetime(year, month, day, hour, minute, second, micros, tzinfo=UTC)
    if micros % 1_000:
        raise ValueError("finer than a millisecond")
    return (moment - _EPOCH) // _MS


def _number(text: bytes) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(
            f"{_shown(text)} is not finite" if _NOT_FINITE.fullmatch(text) else f"{_shown(text)} is no number"
        )
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{_shown(text)} is too large for a double")
    return value


def _count(text: bytes) -> int:
    if not _COUNT.fullmatch(text) or not 0 <= int(text) < 2**32:
        raise ValueError(f"{_shown(text)} is no count")
    return int(text)


def _shown(text: bytes) -> str:
    """The text so that it cannot alter a terminal, and not all of it."""
    return ascii(text[:40].decode("latin1"))
