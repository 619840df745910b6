"""The whole table of what each station must reach, beside what is measured here: one run, all peers in it, in turns.

    tools/bench_table                       the table; about four minutes
    tools/bench_table --write               also into benchmarks/README.md, and the picture benchmarks/table.png
    tools/bench_table --quick               small sizes, as the gate takes them, or still less with FLUX_BENCH_SMALL=1
    tools/bench_table --only ring           one file's lines

Every figure comes from the benchmarks that the gate runs (`benchmarks/bounds.py`), at the table's own sizes, and from
those of processes under load.
A line whose benchmark does not exist or did not run says "not measured".
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks import ratios, sizes
from benchmarks.bench_scale import processor
from benchmarks.building import ROOT
from benchmarks.ratios import Ratio

HERE: Final = ROOT / "benchmarks"
MARKS: Final = ("<!-- table: written by tools/bench_table -->", "<!-- end of table -->")
STATIONS: Final = (
    "codec",
    "ring",
    "window",
    "pump receive",
    "pump send",
    "journal",
    "bridge",
    "feed",
    "store",
    "start",
    "import",
)
"""What a line's name begins with, in the order of the table."""

FILES: Final = ("codec", "ring", "window", "pump", "send", "journal", "bridge", "feed", "store", "start")


def measure(quick: bool, only: Sequence[str] = FILES) -> tuple[list[Ratio], list[str]]:
    """(lines in the table's order, what failed). A process for each file, one after the other: nothing measures beside
    another."""
    found, failed = [], []
    for name in only:
        print(f"... bench_{name}", file=sys.stderr)
        environment = {} if quick else {sizes.FULL: "1"}
        lines, said = ratios.measure(Path(sys.executable), ROOT, [HERE / f"bench_{name}.py"], environment)
        found += lines
        failed += [said] if said else []
    return sorted(found, key=station_of), failed


def station_of(line: Ratio) -> int:
    """Where in the table a line belongs."""
    named = [i for i, station in enumerate(STATIONS) if line.name.startswith(f"{station}:")]
    return named[0] if named else len(STATIONS)


def about() -> str:
    """Date, machine and versions."""
    names = ("numpy", "pyzmq", "duckdb", "polars", "pandas", "flatbuffers")
    versions = []
    for name in names:
        if importlib.util.find_spec({"pyzmq": "zmq"}.get(name, name)):
            versions.append(f"{name} {importlib.metadata.version(name)}")
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {processor()}, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, {', '.join(versions)}"
    )


def figure_of(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(lines: Sequence[Ratio]) -> str:
    """The table, and under it what no benchmark said."""
    out = ["| what | bound | measured | measured / bound | |", "|---|---:|---:|---:|---|"]
    for line in lines:
        sign, verdict = "≤" if line.most else "≥", "" if line.reached else "**short**"
        unit = "" if line.unit == "x" else f" {line.unit}"
        out.append(
            f"| {line.name} | {sign} {line.table:g}{unit} | {figure_of(line.value)}{unit} | "
            f"{line.value / line.table:.2f} | {verdict} |"
        )
    missing = [s for i, s in enumerate(STATIONS) if all(station_of(line) != i for line in lines)]
    out += [f"| {station} | | not measured | | |" for station in missing]
    reached = sum(line.reached for line in lines)
    out += [
        "",
        f'{reached} of {len(lines)} lines reached. An "at most" is better below 1, an "at least" above.',
    ]
    return "\n".join(out)


def plot(file: Path, lines: Sequence[Ratio]) -> None:
    """A bar for each line: how much of its bound was used up. Left of 1 is within."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.2 + 0.24 * len(lines)), layout="constrained")
    axes = figure.subplots()
    places = range(len(lines))
    axes.barh(
        places,
        [line.spent for line in lines],
        color=["#2a7f62" if line.reached else "#c0392b" for line in lines],
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set(
        xscale="log", xlabel="share of the bound used up (bound = 1, less is better)", ylim=(len(lines), -1)
    )
    axes.set_yticks(places, [line.name for line in lines], fontsize=7)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=110)


def write(text: str, lines: Sequence[Ratio]) -> None:
    """Into benchmarks/README.md between its marks, and the picture beside it."""
    readme = HERE / "README.md"
    told = readme.read_text()
    between = re.compile(re.escape(MARKS[0]) + ".*?" + re.escape(MARKS[1]), re.DOTALL)
    if not between.search(told):
        raise SystemExit(f"{readme} has no {MARKS[0]}")
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("no picture: matplotlib is not installed")
    plot(HERE / "table.png", lines)
    inside = f"{MARKS[0]}\n{text}\n\n![share of each bound used up](table.png)\n{MARKS[1]}"
    readme.write_text(between.sub(lambda _: inside, told))


def main() -> int:
    """0; 1 when a benchmark failed, which the table says too."""
    parser = argparse.ArgumentParser(prog="tools/bench_table", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--write", action="store_true", help="into benchmarks/README.md and benchmarks/table.png"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it runs")
    parser.add_argument("--only", action="append", choices=FILES, help="of this file; may be repeated (all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the picture there")
    given = parser.parse_args()
    lines, failed = measure(given.quick, given.only or FILES)
    text = f"{about()}.\n\n{markdown(lines)}"
    print(text)
    if given.json:
        given.json.write_text(json.dumps([line._asdict() for line in lines], indent=1) + "\n")
    if given.png:
        plot(given.png, lines)
    if given.write:
        write(text, lines)
    for problem in failed:
        print(problem, file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
