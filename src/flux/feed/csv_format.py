"""CSV bytes to candles: what the columns are, a quick pass for good blocks, an exact pass for the others.

Sans I/O. The quick pass is vectorised and knows only yes and no; a block that it refuses goes through the
exact pass, line by line, which says which line and column are at fault and why. Both give the same rows for
the same bytes, and every number is what `float()` makes of its text.
"""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flux.errors import SourceFileError
from flux.feed.csv_times import INTEGER, TIME_OF_DAY, WHOLE_NUMBERS, form_of, shown, time_of, unit
from flux.model import CANDLE, known_flags

FIRST_TS_MS: Final = -2_208_988_800_000  # 1900-01-01, as in ext/admit.h
LAST_TS_MS: Final = 4_102_444_800_000  # 2100-01-01, exclusive

_ALIASES: Final = {
    "ts_ms": (
        *("ts_ms", "timestamp", "timestamp_utc", "open_time", "datetime", "time", "date", "ts", "unix"),
        *("gmt_time", "local_time"),
    ),
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume", "tickvol"),
    "turnover": ("turnover", "quote_volume", "quote_asset_volume"),
    "trade_count": ("trade_count", "trades", "count", "number_of_trades"),
}
_OPTIONAL: Final = ("turnover", "trade_count")
_MARK: Final = b"\xef\xbb\xbf"  # of byte order, which Windows puts in front
_KLINE: Final = {
    "ts_ms": 0, "open": 1, "high": 2, "low": 3, "close": 4, "volume": 5, "turnover": 7, "trade_count": 8,
}  # fmt: skip
_KLINE_COLUMNS: Final = 12
_PRICES: Final = ("open", "high", "low", "close", "volume", "turnover")

_NUMBER = re.compile(rb"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_NOT_FINITE = re.compile(rb"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_COUNT = re.compile(rb"[+-]?\d+")
_DATETIME = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(?:Z|\+00:00)?)?"
)
_FIRST_HEADLESS_MS: Final = (
    631_152_000_000  # 1990: a lower number in front of a file without a header is no time
)
_ROW_COLUMNS: Final = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "trade_count",
)  # after the time, without a header
_NEWLINE = 0x0A
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
    header_bytes: int  # before the first row: names, a byte order mark
    separator: bytes = b","
    form: int = 0  # of its times, which all rows share: an index of FORMS, or WHOLE_NUMBERS
    quoted: bool = False  # values stand in quotes
    clock: int | None = None  # the column of the time of day, where date and time are apart
    grid_ms: int = 1  # what times are whole multiples of

    @property
    def first_line(self) -> int:
        """Number of the line that holds the first row."""
        return 2 if self.header_bytes > len(_MARK) else 1

    @property
    def flags(self) -> int:
        """What every row of this file carries."""
        return int(known_flags("turnover" in self.fields, "trade_count" in self.fields))


def read_layout(path: str, start: bytes) -> Layout:
    """The columns of a file that begins with `start` (at least its first two lines, or all of it).

    Raises `SourceFileError` where it is no CSV that we know.
    """
    if not start:
        raise SourceFileError(path, 0, 0, "is empty")
    mark = len(_MARK) if start.startswith(_MARK) else 0
    start = start[mark:]
    line, _, rest = start.partition(b"\n")
    before = mark + len(line) + 1
    line = line.removesuffix(b"\r")
    for at, byte in enumerate(line):
        if not 0x20 <= byte < 0x7F and byte != 0x09:
            raise SourceFileError(path, 1, at + 1, f"is not text: byte 0x{byte:02x}")
    separator = max((b",", b";", b"\t"), key=line.count)
    if separator not in line:
        raise SourceFileError(
            path, 1, 1, "line 1 has one field: neither names of columns nor a row; take it out"
        )
    first = _bare(line.split(separator)[0])
    if not _NUMBER.fullmatch(first) and form_of(first) is None:
        names = [_name(text) for text in line.split(separator)]
        layout = Layout(len(names), _header(path, line, separator, names), before, separator)
        if "date" in names and names.index("date") == layout.fields["ts_ms"] and "time" in names:
            layout = replace(layout, clock=names.index("time"))
        elif "date" in names and "time" in names and names.index("time") == layout.fields["ts_ms"]:
            layout = replace(
                layout, fields=layout.fields | {"ts_ms": names.index("date")}, clock=names.index("time")
            )
        first_rows = rest
    else:
        layout, first_rows = replace(_without_header(path, line, separator), header_bytes=mark), start
    if not first_rows:
        raise SourceFileError(path, 0, 0, "has no rows")
    layout = replace(layout, quoted=line.startswith(b'"'))
    texts = first_rows.partition(b"\n")[0].rstrip(b"\r").split(separator)
    form = form_of(_time_text(layout, texts)) if len(texts) == layout.columns else None
    layout = replace(layout, form=0 if form is None else form)
    _refuse_newest_first(path, layout, first_rows)
    return layout


def _without_header(path: str, line: bytes, separator: bytes) -> Layout:
    """The columns of a file whose first line is a row: a kline archive, or a time, prices and a volume."""
    texts = [_bare(text) for text in line.split(separator)]
    if len(texts) == _KLINE_COLUMNS:
        return Layout(_KLINE_COLUMNS, dict(_KLINE), 0, separator)
    form = form_of(texts[0])
    dated = form is not None and (form != WHOLE_NUMBERS or time_of(texts[0], form) >= _FIRST_HEADLESS_MS)
    clock = 1 if len(texts) > 1 and b":" in texts[1] and TIME_OF_DAY.fullmatch(texts[1]) else None
    values = texts[1 if clock is None else 2 :]
    if not dated or len(values) not in (5, 6) or not all(_NUMBER.fullmatch(text) for text in values):
        reason = f"no header, and neither the {_KLINE_COLUMNS} columns of a kline archive nor a time, four prices and a"
        raise SourceFileError(
            path, 1, 1, f"{reason} volume: name the columns (timestamp,open,high,low,close,volume)"
        )
    if len(values) == 6 and not _COUNT.fullmatch(values[5]):
        raise SourceFileError(
            path, 1, 1, "no header, and a last column that is no count of trades: name the columns"
        )
    begin = len(texts) - len(values)
    fields = {name: begin + at for at, name in enumerate(_ROW_COLUMNS[: len(values)])}
    return Layout(len(texts), {"ts_ms": 0, **fields}, 0, separator, clock=clock)


def _refuse_newest_first(path: str, layout: Layout, rows: bytes) -> None:
    """A file in falling order would be one fault a row: it is said once, with the way out."""
    times = []
    for line in rows.split(b"\n", 4)[:3]:
        try:
            times.append(time_of(_time_text(layout, line.rstrip(b"\r").split(layout.separator)), layout.form))
        except (ValueError, IndexError):
            return
    if len(times) == 3 and times[0] > times[1] > times[2]:
        tail = "(head -n 1 F; tail -n +2 F | tac) > G" if layout.first_line > 1 else "tac F > G"
        raise SourceFileError(
            path, layout.first_line + 1, 1, f"its rows are newest first: turn it round, {tail}"
        )


def _bare(text: bytes, quoted: bool = True) -> bytes:
    """A field without the quotes around it, in a file that has them."""
    return text[1:-1] if quoted and len(text) > 1 and text[:1] == text[-1:] == b'"' else text


def _name(text: bytes) -> str:
    """What a column is called, as the aliases are written: <TICKVOL>, "Open time" and Quote asset volume, too."""
    return _bare(text.strip()).decode("ascii").strip().strip("<>").lower().replace(" ", "_")


def _time_text(layout: Layout, texts: list[bytes]) -> bytes:
    date = _bare(texts[layout.fields["ts_ms"]], layout.quoted)
    return date if layout.clock is None else date + b" " + _bare(texts[layout.clock], layout.quoted)


def _header(path: str, line: bytes, separator: bytes, names: list[str]) -> dict[str, int]:
    fields: dict[str, int] = {}
    for field, aliases in _ALIASES.items():
        alias = next((alias for alias in aliases if alias in names), None)
        if alias is not None:
            fields[field] = at = names.index(alias)
            if alias in names[at + 1 :]:
                again = names.index(alias, at + 1)
                column = sum(len(text) + 1 for text in line.split(separator)[:again]) + 1
                raise SourceFileError(path, 1, column, f"column {alias} is there twice")
        elif field not in _OPTIONAL:
            raise SourceFileError(path, 1, len(line) + 1, f"missing column {' or '.join(aliases[:2])}")
    if "tickvol" in names and ("vol" in names or "volume" in names):
        raise SourceFileError(
            path, 1, 1, "has tickvol and vol: name the one that counts volume, and the other not"
        )
    return fields


def parse(layout: Layout, block: bytes, last_ts: int) -> NDArray[np.void] | None:
    """The candles of a block of whole lines (each ended by LF or CR LF), or None where it is not all good.

    `last_ts` is the time of the row before; times must rise.
    """
    block = block.replace(b"\r\n", b"\n")
    if layout.form > 0 or layout.clock is not None or b"\r" in block or b'"' in block:
        return None
    text = np.frombuffer(block, np.uint8)
    separators = np.flatnonzero((text == layout.separator[0]) | (text == _NEWLINE))
    if not len(separators) or len(separators) % layout.columns:
        return None
    ends = separators.reshape(-1, layout.columns)
    if np.any(text[ends[:, -1]] != _NEWLINE) or np.any(text[ends[:, :-1]] != layout.separator[0]):
        return None
    if not _only_numbers(layout, text, separators):
        return None

    rows = np.zeros(len(ends), CANDLE)
    rows["flags"] = layout.flags
    times = _times(layout.fields["ts_ms"], block, text, ends)
    if times is None:
        return None
    rows["ts_ms"] = times
    names = [name for name in layout.fields if name != "ts_ms"]
    try:
        values = np.loadtxt(
            io.BytesIO(block),
            dtype=[(name, "<i8" if name == "trade_count" else "<f8") for name in names],
            comments=None,
            delimiter=layout.separator.decode("ascii"),
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
    column: int, block: bytes, text: NDArray[np.uint8], ends: NDArray[np.intp]
) -> NDArray[np.int64] | None:
    """The time column in ms; None where one is not as the first, or not a time."""
    starts = ends[:, column - 1] + 1 if column else np.concatenate(([0], ends[:-1, -1] + 1))
    width = int(ends[0, column] - starts[0])
    if np.any(ends[:, column] - starts != width):
        return None
    sample = block[int(starts[0]) : int(starts[0]) + width]
    whole_number = INTEGER.fullmatch(sample) is not None
    if not (whole_number and width > 8) and not _DATETIME.fullmatch(sample):
        return None
    characters = text[starts[:, None] + np.arange(width)]
    digits = np.frombuffer(sample, np.uint8) - 48 < 10  # unsigned: what is below '0' wraps
    if np.any((characters - 48 < 10) != digits) or np.any((characters != characters[0])[:, ~digits]):
        return None
    if whole_number:
        if width == 19 and np.any(characters[:, 0] >= ord("9")):  # not in 64 bits
            return None
        values = characters.astype(np.int64) - 48
        whole: NDArray[np.int64] = values @ (10 ** np.arange(width - 1, -1, -1, dtype=np.int64))
        multiply, divide = unit(int(whole.min()))
        if unit(int(whole.max())) != (multiply, divide) or np.any(whole % divide):
            return None
        return whole * multiply // divide
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
    line = line.removesuffix(b"\r")
    if not line:
        raise _Refused(1, "empty line")
    texts = line.split(layout.separator)
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
                values[name] = time_of(_time_text(layout, texts), layout.form)
            elif name == "trade_count":
                values[name] = _count(_bare(texts[column], layout.quoted))
            else:
                values[name] = _number(_bare(texts[column], layout.quoted))
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


def _number(text: bytes) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(
            f"{shown(text)} is not finite" if _NOT_FINITE.fullmatch(text) else f"{shown(text)} is no number"
        )
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{shown(text)} is too large for a double")
    return value


def _count(text: bytes) -> int:
    if not _COUNT.fullmatch(text) or len(text) > 40 or int(text) < 0:
        raise ValueError(f"{shown(text)} is no count")
    if int(text) >= 2**32:
        raise ValueError(f"{shown(text)} is more than a trade_count holds (2^32 - 1)")
    return int(text)
