"""What each station must reach, line by line, and how a line follows from a run's JSON.

    python -m pytest benchmarks --benchmark-only --benchmark-json out.json
    python -m benchmarks.bounds out.json        every line; exit code 5 when a gate among them is not held

A benchmark belongs to a group and is one of its ways: ours ("flux"), a peer or a floor. Its `extra_info` says how many
`items` (rows, messages, bytes) a call has. `t["flux"]` is the least time of an item in seconds: on a shared machine the
least of many rounds moves by 3 % where the mean moves by half.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.ratios import Ratio

FAILED: Final = 5


class Group:
    """The benchmarks of one group, by way; KeyError for a way that was not measured."""

    def __init__(self, benchmarks: Sequence[Mapping[str, Any]]) -> None:
        self._ways: dict[str, list[Mapping[str, Any]]] = {}
        self.info: dict[str, Any] = {}
        for one in benchmarks:
            self._ways.setdefault(one["params"]["way"], []).append(one)
            self.info |= one["extra_info"]

    def __getitem__(self, way: str) -> float:
        """Seconds of an item, in the shortest round."""
        return min(one["stats"]["min"] / one["extra_info"].get("items", 1) for one in self._ways[way])

    def medians(self, way: str, other: str) -> float:
        """Of the one's median to the other's: for what waits for a disk, which has its moods."""
        (one,), (two,) = self._ways[way], self._ways[other]
        return float(one["stats"]["median"] / two["stats"]["median"])

    def turns(self, way: str, other: str) -> float:
        """The median of the turns' own ratios: of what is measured in turns, one benchmark for each way and turn."""
        pairs = zip(self._by_turn(way), self._by_turn(other), strict=True)
        return statistics.median(one / two for one, two in pairs)

    def _by_turn(self, way: str) -> list[float]:
        turns = sorted(self._ways[way], key=lambda one: int(one["params"]["turn"]))
        return [one["stats"]["min"] for one in turns]


class Bound(NamedTuple):
    """A line of the table: what must be reached of a group. `name` may quote the group's `extra_info`."""

    table: float
    unit: str
    name: str
    figure: Callable[[Group], float]
    most: bool
    gate: bool

    def of(self, group: Group) -> Ratio:
        """The line of a run. Raises KeyError where a way was not measured."""
        name, value = self.name.format(**group.info), self.figure(group) * UNITS[self.unit]
        return Ratio(name, value, self.table, self.most, self.unit, self.gate)


UNITS: Final = {"x": 1, "s": 1, "ms": 1e3, "ns": 1e9, "M/s": 1e-6, "M rows/s": 1e-6, "GB/s": 1e-9}
"""What a ratio, seconds, or items a second are multiplied by."""


def _most(
    table: float, unit: str, name: str, figure: Callable[[Group], float], *, gate: bool | None = None
) -> Bound:
    return Bound(table, unit, name, figure, True, unit == "x" if gate is None else gate)


def _least(table: float, unit: str, name: str, figure: Callable[[Group], float]) -> Bound:
    return Bound(table, unit, name, figure, False, unit == "x")


def _of(way: str) -> Callable[[Group], float]:
    return lambda t: t[way]


def _over(way: str, other: str) -> Callable[[Group], float]:
    return lambda t: t[way] / t[other]


def _beyond(way: str, other: str) -> Callable[[Group], float]:
    return lambda t: t[way] - t[other]


def _rate(way: str, items: int = 1) -> Callable[[Group], float]:
    return lambda t: items / t[way]


def _pump(name: str) -> list[Bound]:
    found = [
        _least(table, "x", f"{name}: {peer} / pump", lambda t, peer=peer: t.turns(peer, "flux"))
        for peer, table in (("pyzmq", 4.5), ("libzmq in C", 0.8))
    ]
    return [*found, _least(1.3, "M/s", f"{name}: messages a second", _rate("flux"))]


BOUNDS: Final = {
    "codec: encode 1 row": [
        _most(250, "ns", "codec: encode 1 row, from Python", _of("flux")),
        _least(100, "x", "codec: Python builder / ours", _over("flatbuffers", "flux")),
    ],
    "codec: decode 1 row": [
        _most(
            350,
            "ns",
            "codec: decode 1 row, from Python, beyond the checksum",
            _beyond("flux", "its checksum"),
        ),
    ],
    "codec: decode 1000 rows": [
        _most(350, "ns", "codec: decode 1,000 rows, beyond the checksum", _beyond("flux", "its checksum")),
    ],
    "codec: decode v1 1000 rows": [
        _least(
            2000,
            "x",
            "codec: v1 1,000 candles into rows: Python accessors / ours",
            _over("flatbuffers", "flux"),
        ),
    ],
    "codec in C: encode 1 row": [
        _most(
            0.25, "x", "codec: in C, encode 1 row, checksum included / flatc C++", _over("flux", "flatc C++")
        ),
    ],
    "codec in C: encode 1000 rows": [
        _most(
            1.15,
            "x",
            "codec: in C, encode 1,000 rows / (memcpy + checksum)",
            _over("flux", "memcpy + checksum"),
        ),
    ],
    "codec in C: encode v1 1000 rows": [
        _least(20, "x", "codec: v1, encode 1,000 candles: flatc C++ / ours", _over("flatc C++", "flux")),
    ],
    "codec in C: decode 1 row": [
        _most(
            1.5,
            "x",
            "codec: in C, verify + view 1 row / C++ Verifier + access",
            _over("flux, no checksum", "flatc C++"),
        ),
        _most(1.5, "x", "codec: the checksum, which C++ has not, included", _over("flux", "flatc C++")),
        _most(
            1.5,
            "x",
            "codec: by a head that is known, checksum included",
            _over("flux, known head", "flatc C++"),
        ),
    ],
    "codec in C: decode 1000 rows": [
        _most(
            1.5, "x", "codec: in C, verify + view 1,000 rows / C++", _over("flux, no checksum", "flatc C++")
        ),
    ],
    "codec in C: decode v1 1000 rows": [
        _least(
            1.5, "x", "codec: v1, verify + 1,000 candles into rows: C++ / ours", _over("flatc C++", "flux")
        ),
    ],
    "codec in C: checksum": [
        _least(20, "GB/s", "codec: checksum, 8 KiB", _rate("8192 bytes", 8192)),
        _least(20, "GB/s", "codec: checksum, 1 MiB", _rate("1048576 bytes", 1 << 20)),
        _most(20, "ns", "codec: checksum, 256 B", _of("256 bytes")),
    ],
    "ring: merging": [
        _most(
            1.5, "x", "ring: merging {items:,} rows, half of them repeats / memcpy", _over("flux", "memcpy")
        ),
        _least(3, "x", "ring: merging {items:,} rows, polars / ours", _over("polars", "flux")),
        _least(3, "x", "ring: merging {items:,} rows, pandas / ours", _over("pandas", "flux")),
    ],
    "ring: one row in order inside C": [
        _most(60, "ns", f"ring: one row in order inside C ({memory})", _of(memory), gate=True)
        for memory in ("mapped", "chunk")
    ],
    "window: 1s into 1m": [
        _most(
            1.6,
            "x",
            "window: {items:,} rows of 1s into 1m / one read of their bytes",
            _over("flux", "one read"),
        ),
        *(
            _least(table, "x", f"window: {{items:,}} rows of 1s into 1m, {peer} / ours", _over(peer, "flux"))
            for peer, table in (("polars", 2), ("pandas", 3), ("duckdb", 3))
        ),
    ],
    "pump receive": _pump("pump receive"),
    "pump send": _pump("pump send"),
    "journal: append": [
        _most(
            2,
            "x",
            "journal: append of {bytes} bytes, a call each / bytearray +=",
            _over("flux", "bytearray +="),
        ),
        _least(1, "M/s", "journal: append, a call each from Python", _rate("flux")),
    ],
    "journal: scan": [
        _most(4, "x", "journal: scan of {mb:.0f} MB / one checksum of them", _over("flux", "one checksum")),
        _least(1, "GB/s", "journal: scan, every checksum", _rate("flux")),
    ],
    "journal: commit of 16 MiB, not synced": [
        _most(
            1.25,
            "x",
            "journal: commit of 16 MiB, not synced / one write + checksum",
            _over("flux", "write + checksum"),
        ),
    ],
    "journal: commit of 64 records, synced": [
        _most(
            1.25,
            "x",
            "journal: commit of 64 records, synced / write + fdatasync",
            lambda t: t.medians("flux", "write + fdatasync"),
        ),
    ],
    "feed: single rows": [_least(0.4, "M/s", "feed: single rows, Feed.send", _rate("Feed.send"))],
    "feed: batches of 64": [_least(3, "M/s", "feed: batches of 64, Feed.send", _rate("Feed.send"))],
    "store: projecting": [
        _most(2, "x", "store: projecting / DuckDB's own insert", _over("flux", "duckdb")),
        _least(1, "M rows/s", "store: projecting {items:,} rows into DuckDB", _rate("flux")),
    ],
    "store: backfill": [
        _most(
            12,
            "x",
            "store: backfill from the ring / one copy of its rows",
            _over("from the ring", "one copy"),
        ),
        _least(5, "M rows/s", "store: backfill from the ring", _rate("from the ring")),
        _least(1, "M rows/s", "store: backfill from DuckDB", _rate("from DuckDB")),
    ],
    "start: client": [_most(1, "s", "start: client with {rows:,} cached rows", _of("flux"))],
    "start: server": [
        _most(3, "s", "start: server with {millions:g} M rows and a journal of {mb:,.0f} MB", _of("flux")),
    ],
    "import": [
        _most(25, "ms", "import: flux.codec, beyond numpy", _beyond("import flux.codec", "import numpy")),
        _most(100, "ms", "import: flux --help, beyond the interpreter", _beyond("flux --help", "python")),
    ],
}
"""The table, by group."""


def lines(told: Mapping[str, Any]) -> list[Ratio]:
    """Every line that a run of pytest-benchmark has all ways for."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in told["benchmarks"]:
        if one["group"] and "way" in (one["params"] or {}):
            groups.setdefault(one["group"], []).append(one)
    found = []
    for name, bounds in BOUNDS.items():
        group = Group(groups.get(name, []))
        for bound in bounds:
            with suppress(KeyError):  # a way was not run, or is not installed
                found.append(bound.of(group))
    return found


def read(path: Path) -> list[Ratio]:
    """The lines of a file that `--benchmark-json` wrote; none where there is no such file."""
    return lines(json.loads(path.read_text())) if path.exists() else []


def main() -> int:
    """0; 5 when a gate is not held; 1 when the run has no line of the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounds", description="what a run reached")
    parser.add_argument("json", type=Path, help="as --benchmark-json wrote it")
    found = read(parser.parse_args().json)
    print(*found, sep="\n")
    return FAILED if any(not ratio.held for ratio in found) else 0 if found else 1


if __name__ == "__main__":
    sys.exit(main())
