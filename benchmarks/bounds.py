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
    """A line of the table. `name` may quote the group's `extra_info`."""

    name: str
    group: str
    table: float
    most: bool
    unit: str
    gate: bool
    figure: Callable[[Group], float]


def _most(
    name: str,
    group: str,
    table: float,
    figure: Callable[[Group], float],
    unit: str = "x",
    gate: bool | None = None,
) -> Bound:
    return Bound(name, group, table, True, unit, unit == "x" if gate is None else gate, figure)


def _least(name: str, group: str, table: float, figure: Callable[[Group], float], unit: str = "x") -> Bound:
    return Bound(name, group, table, False, unit, unit == "x", figure)


BOUNDS: Final = (
    _most("codec: encode 1 row, from Python", "codec: encode 1 row", 250, lambda t: 1e9 * t["flux"], "ns"),
    _least(
        "codec: Python builder / ours", "codec: encode 1 row", 100, lambda t: t["flatbuffers"] / t["flux"]
    ),
    _most(
        "codec: decode 1 row, from Python, beyond the checksum",
        "codec: decode 1 row",
        350,
        lambda t: 1e9 * (t["flux"] - t["its checksum"]),
        "ns",
    ),
    _most(
        "codec: decode 1,000 rows, beyond the checksum",
        "codec: decode 1000 rows",
        350,
        lambda t: 1e9 * (t["flux"] - t["its checksum"]),
        "ns",
    ),
    _least(
        "codec: v1 1,000 candles into rows: Python accessors / ours",
        "codec: decode v1 1000 rows",
        2000,
        lambda t: t["flatbuffers"] / t["flux"],
    ),
    _most(
        "codec: in C, encode 1 row, checksum included / flatc C++",
        "codec in C: encode 1 row",
        0.25,
        lambda t: t["flux"] / t["flatc C++"],
    ),
    _most(
        "codec: in C, encode 1,000 rows / (memcpy + checksum)",
        "codec in C: encode 1000 rows",
        1.15,
        lambda t: t["flux"] / t["memcpy + checksum"],
    ),
    _least(
        "codec: v1, encode 1,000 candles: flatc C++ / ours",
        "codec in C: encode v1 1000 rows",
        20,
        lambda t: t["flatc C++"] / t["flux"],
    ),
    _most(
        "codec: in C, verify + view 1 row / C++ Verifier + access",
        "codec in C: decode 1 row",
        1.5,
        lambda t: t["flux, no checksum"] / t["flatc C++"],
    ),
    _most(
        "codec: the checksum, which C++ has not, included",
        "codec in C: decode 1 row",
        1.5,
        lambda t: t["flux"] / t["flatc C++"],
    ),
    _most(
        "codec: by a head that is known, checksum included",
        "codec in C: decode 1 row",
        1.5,
        lambda t: t["flux, known head"] / t["flatc C++"],
    ),
    _most(
        "codec: in C, verify + view 1,000 rows / C++",
        "codec in C: decode 1000 rows",
        1.5,
        lambda t: t["flux, no checksum"] / t["flatc C++"],
    ),
    _least(
        "codec: v1, verify + 1,000 candles into rows: C++ / ours",
        "codec in C: decode v1 1000 rows",
        1.5,
        lambda t: t["flatc C++"] / t["flux"],
    ),
    _least("codec: checksum, 8 KiB", "codec in C: checksum", 20, lambda t: 8192e-9 / t["8192 bytes"], "GB/s"),
    _least(
        "codec: checksum, 1 MiB",
        "codec in C: checksum",
        20,
        lambda t: (1 << 20) * 1e-9 / t["1048576 bytes"],
        "GB/s",
    ),
    _most("codec: checksum, 256 B", "codec in C: checksum", 20, lambda t: 1e9 * t["256 bytes"], "ns"),
    _most(
        "ring: merging {items:,} rows, half of them repeats / memcpy",
        "ring: merging",
        1.5,
        lambda t: t["flux"] / t["memcpy"],
    ),
    _least(
        "ring: merging {items:,} rows, polars / ours", "ring: merging", 3, lambda t: t["polars"] / t["flux"]
    ),
    _least(
        "ring: merging {items:,} rows, pandas / ours", "ring: merging", 3, lambda t: t["pandas"] / t["flux"]
    ),
    *(
        _most(
            f"ring: one row in order inside C ({memory})",
            "ring: one row in order inside C",
            60,
            lambda t, memory=memory: 1e9 * t[memory],
            "ns",
            gate=True,
        )
        for memory in ("mapped", "chunk")
    ),
    _most(
        "window: {items:,} rows of 1s into 1m / one read of their bytes",
        "window: 1s into 1m",
        1.6,
        lambda t: t["flux"] / t["one read"],
    ),
    *(
        _least(
            f"window: {{items:,}} rows of 1s into 1m, {peer} / ours",
            "window: 1s into 1m",
            table,
            lambda t, peer=peer: t[peer] / t["flux"],
        )
        for peer, table in (("polars", 2), ("pandas", 3), ("duckdb", 3))
    ),
    *(
        _least(f"{pump}: {peer} / pump", pump, table, lambda t, peer=peer: t.turns(peer, "flux"))
        for pump in ("pump receive", "pump send")
        for peer, table in (("pyzmq", 4.5), ("libzmq in C", 0.8))
    ),
    *(
        _least(f"{pump}: messages a second", pump, 1.3, lambda t: 1e-6 / t["flux"], "M/s")
        for pump in ("pump receive", "pump send")
    ),
    _most(
        "journal: append of {bytes} bytes, a call each / bytearray +=",
        "journal: append",
        2,
        lambda t: t["flux"] / t["bytearray +="],
    ),
    _least(
        "journal: append, a call each from Python", "journal: append", 1, lambda t: 1e-6 / t["flux"], "M/s"
    ),
    _most(
        "journal: scan of {mb:.0f} MB / one checksum of them",
        "journal: scan",
        4,
        lambda t: t["flux"] / t["one checksum"],
    ),
    _least("journal: scan, every checksum", "journal: scan", 1, lambda t: 1e-9 / t["flux"], "GB/s"),
    _most(
        "journal: commit of 16 MiB, not synced / one write + checksum",
        "journal: commit of 16 MiB, not synced",
        1.25,
        lambda t: t["flux"] / t["write + checksum"],
    ),
    _most(
        "journal: commit of 64 records, synced / write + fdatasync",
        "journal: commit of 64 records, synced",
        1.25,
        lambda t: t.medians("flux", "write + fdatasync"),
    ),
    *(
        _least(f"feed: {name}, Feed.send", f"feed: {name}", table, lambda t: 1e-6 / t["Feed.send"], "M/s")
        for name, table in (("single rows", 0.4), ("batches of 64", 3))
    ),
    _most(
        "store: projecting / DuckDB's own insert", "store: projecting", 2, lambda t: t["flux"] / t["duckdb"]
    ),
    _least(
        "store: projecting {items:,} rows into DuckDB",
        "store: projecting",
        1,
        lambda t: 1e-6 / t["flux"],
        "M rows/s",
    ),
    _most(
        "store: backfill from the ring / one copy of its rows",
        "store: backfill",
        12,
        lambda t: t["from the ring"] / t["one copy"],
    ),
    *(
        _least(
            f"store: backfill {place}",
            "store: backfill",
            table,
            lambda t, place=place: 1e-6 / t[place],
            "M rows/s",
        )
        for place, table in (("from the ring", 5), ("from DuckDB", 1))
    ),
    _most("start: client with {rows:,} cached rows", "start: client", 1, lambda t: t["flux"], "s"),
    _most(
        "start: server with {millions:g} M rows and a journal of {mb:,.0f} MB",
        "start: server",
        3,
        lambda t: t["flux"],
        "s",
    ),
    _most(
        "import: flux.codec, beyond numpy",
        "import",
        25,
        lambda t: 1e3 * (t["import flux.codec"] - t["import numpy"]),
        "ms",
    ),
    _most(
        "import: flux --help, beyond the interpreter",
        "import",
        100,
        lambda t: 1e3 * (t["flux --help"] - t["python"]),
        "ms",
    ),
)


def lines(told: Mapping[str, Any]) -> list[Ratio]:
    """Every line that a run of pytest-benchmark has all ways for."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for one in told["benchmarks"]:
        if one["group"] and "way" in (one["params"] or {}):
            groups.setdefault(one["group"], []).append(one)
    found = []
    for bound in BOUNDS:
        try:
            group = Group(groups[bound.group])
            value = bound.figure(group)
        except KeyError:
            continue  # its group or one of its ways was not run, or is not installed
        name = bound.name.format(**group.info)
        found.append(Ratio(name, value, bound.table, bound.most, bound.unit, bound.gate))
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
