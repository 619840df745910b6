"""How rows are written out: a table for people, ndjson and csv for programs. Formatting is not on any hot path."""

from __future__ import annotations

import csv
import json
import sys
from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from enum import IntFlag
from typing import IO, TYPE_CHECKING, Any, Final

from flux.model import CandleFlag, TradeFlag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flux.batch import Batch

FORMATS: Final = ("table", "ndjson", "csv")

WIDTH: Final = 9
_NOT_SHOWN: Final = ("key", "epoch", "ts_ms", "ts_ns", "turnover", "trade_count", "flags", "reserved")
_PLAIN: Final = ("CLOSED", "TRADED", "TURNOVER", "TRADE_COUNT")  # flags that mean nothing to a reader
_EPOCH: Final = datetime(1970, 1, 1)  # UTC, written without its zone


def default_format() -> str:
    """A table on a terminal, ndjson into a pipe."""
    return "table" if sys.stdout.isatty() else "ndjson"


def _records(batch: Batch, limit: int | None) -> Iterator[dict[str, Any]]:
    names = batch.rows.dtype.names or ()
    sequences = batch.sequences[:limit].tolist()
    for sequence, row in zip(sequences, batch.rows[:limit].tolist(), strict=True):
        yield {
            "key": str(batch.key),
            "sequence": sequence,
            "epoch": batch.epoch,
            **dict(zip(names, row, strict=True)),
        }


class Writer(ABC):
    """Writes batch after batch."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._columns: list[str] = []

    def write(self, batch: Batch, limit: int | None = None) -> None:
        """Write the batch's first `limit` rows (all when None)."""
        for record in _records(batch, limit):
            self._write(record, batch.time_field)
        self._file.flush()

    @abstractmethod
    def _write(self, record: dict[str, Any], time_field: str) -> None: ...


class _Ndjson(Writer):
    def _write(self, record: dict[str, Any], time_field: str) -> None:
        self._file.write(json.dumps(record) + "\n")


class _Csv(Writer):
    def _write(self, record: dict[str, Any], time_field: str) -> None:
        lines = csv.writer(self._file, lineterminator="\n")
        if list(record) != self._columns:
            self._columns = list(record)
            lines.writerow(self._columns)
        lines.writerow(record.values())


def shown_time(time: int, time_field: str) -> str:
    """Epoch ms or ns as UTC, cut (not rounded) to its millisecond; the number itself outside the years 1 to 9999."""
    ms = time if time_field == "ts_ms" else time // 1_000_000
    try:
        return str((_EPOCH + timedelta(milliseconds=ms)).isoformat(" ", "milliseconds"))
    except OverflowError:
        return str(time)


class _Table(Writer):
    """For a person at a terminal of 100 columns: what a row is about, not every field of it."""

    def _write(self, record: dict[str, Any], time_field: str) -> None:
        columns = [name for name in record if name not in _NOT_SHOWN]
        if columns != self._columns:
            self._columns = columns
            heads = " ".join(f"{name:>{WIDTH}}" for name in columns)
            self._file.write(f"{'stream':<16} {'time (UTC)':<23} {heads}\n")
        moment = shown_time(record[time_field], time_field)
        cells = " ".join(f"{_cell(record[name]):>{WIDTH}}" for name in columns)
        notes = _notes(record.get("flags", 0), time_field)
        self._file.write(f"{record['key']:<16} {moment:<23} {cells}{notes}\n")


def _cell(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else str(value)


def _notes(flags: int, time_field: str) -> str:
    """The flags that mean something to a reader, in words after it."""
    of: type[IntFlag] = CandleFlag if time_field == "ts_ms" else TradeFlag
    said = [flag.name.lower() for flag in of if flags & flag and flag.name and flag.name not in _PLAIN]
    return f" {' '.join(said)}" if said else ""


_WRITERS: Final[dict[str, type[_Ndjson | _Csv | _Table]]] = {"table": _Table, "ndjson": _Ndjson, "csv": _Csv}


def writer(output: str, file: IO[str]) -> Writer:
    """A writer of one of FORMATS."""
    return _WRITERS[output](file)
