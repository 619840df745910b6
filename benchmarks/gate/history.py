"""What was measured at which commit: a line of JSON for each run, and a page that draws them.

    tools/bench_gate --record              the gates, and a line for `benchmarks/history.jsonl`
    tools/bench_gate --history page.png    all lines, drawn
    tools/bench_gate --why 0.1.0           why that version passed: the verdicts of its last line

A line: `date`, `version`, `commit` (with `+` behind it where the tree had changes), `environment`, and by gate
`verdicts` (`judged.Judged.verdict`) and `measured`. A gate that was not run is not there; lines of before 2026-11-29
have neither version nor verdicts.

    instructions  {operation: count}           ratios  {name: value}         import  {way: ms}
    size          {wheel, installed: bytes}    load    {p99_ns, slip_p99_ns, achieved, missing, others, late_p99_ns}
"""

from __future__ import annotations

import datetime
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.building import ROOT
from benchmarks.gate.accepted import DEPENDS, NotComparableError, git
from benchmarks.gate.baseline import environment
from benchmarks.gate.judged import FAILED

FILE: Final = ROOT / "benchmarks" / "history.jsonl"


def stamp() -> dict[str, Any]:
    """When, of what, and where."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    try:
        commit = git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", *DEPENDS) else "")
    except NotComparableError:  # not a checkout
        commit = ""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": now, "version": version, "commit": commit, "environment": environment()}


def line(told: Mapping[str, Any]) -> dict[str, Any]:
    """A run as it is kept."""
    measured: dict[str, Any] = {}
    if counts := told.get("instructions"):
        measured["instructions"] = {name: round(n, 1) for name, n in counts.items()}
    if ratios := told.get("ratios"):
        measured["ratios"] = {ratio["name"]: round(ratio["value"], 4) for ratio in ratios}
    load = told.get("load")
    if load and "rate" in load:
        machine = load["machine"]
        measured["load"] = {
            "p99_ns": load["latency_ns"]["from_schedule"]["p99"],
            "slip_p99_ns": load["generator"]["slip_ns"]["p99"],
            "achieved": load["rate"]["achieved"],
            "missing": load["counts"]["missing"],
            "others": machine["others"],
            "late_p99_ns": machine["late_p99_ns"],
        }
    if "import" in told:
        measured["import"] = told["import"]["ms"]
    if "size" in told:
        measured["size"] = told["size"]
    kept = ("date", "version", "commit", "environment", "verdicts")
    return {key: told[key] for key in kept} | {"measured": measured}


def record(told: Mapping[str, Any]) -> None:
    """Adds a run to the file."""
    with FILE.open("a") as file:
        file.write(json.dumps(line(told), separators=(",", ":")) + "\n")


def lines(file: Path = FILE) -> list[dict[str, Any]]:
    """All that was recorded, in the order of the file."""
    return [json.loads(text) for text in file.read_text().splitlines()] if file.exists() else []


def explain(asked: str = "", file: Path | None = None) -> int:
    """Prints each gate's verdict of the last run of a version or commit (its beginning is enough), or of the last run
    of all. 1 where a gate had failed then. Raises NotComparableError where no such run was recorded."""
    runs = [
        run
        for run in lines(file or FILE)
        if "verdicts" in run and (asked == run["version"] or run["commit"].startswith(asked))
    ]
    if not runs:
        raise NotComparableError(f"no verdicts of {asked or 'any run'} are recorded in {FILE.name}")
    run = runs[-1]
    print(f"{run['version']}, commit {run['commit'][:12]}, {run['date']}")
    print(*(f"  {name}: {value}" for name, value in run["environment"].items()), sep="\n")
    for gate, found in run["verdicts"].items():
        print(
            f"== {gate}: {found['verdict']}", *(f"  {why}" for why in found["why"]), *found["lines"], sep="\n"
        )
    return int(any(found["verdict"] == FAILED for found in run["verdicts"].values()))


def series(kept: Sequence[Mapping[str, Any]], gate: str) -> dict[str, list[float | None]]:
    """By name, a value for each line; None where it was not measured."""
    found = [line["measured"].get(gate, {}) for line in kept]
    names = sorted({name for values in found for name in values})
    return {name: [values.get(name) for values in found] for name in names}


def _relative(values: Sequence[float | None]) -> list[float]:
    first = next((value for value in values if value), 1.0)
    return [float("nan") if value is None else value / first for value in values]


def _panels(kept: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, list[float]]]]:
    """Title and curves of each panel. What has many names is drawn relative to its first value."""
    load, ms = series(kept, "load"), series(kept, "import")

    def plain(values: Sequence[float | None], scale: float = 1.0) -> list[float]:
        return [float("nan") if value is None else value / scale for value in values]

    return [
        (
            "instructions, relative to the first",
            {n: _relative(v) for n, v in series(kept, "instructions").items()},
        ),
        (
            "ratios to peers, relative to the first",
            {n: _relative(v) for n, v in series(kept, "ratios").items()},
        ),
        (
            "load at 100,000/s, ms",
            {
                name: plain(load[key], 1e6)
                for name, key in (("p99", "p99_ns"), ("own slip p99", "slip_p99_ns"))
                if key in load
            },
        ),
        ("import, ms of processor", {name: plain(values) for name, values in ms.items()}),
        ("size, KB", {name: plain(values, 1e3) for name, values in series(kept, "size").items()}),
    ]


def draw(to: Path, file: Path = FILE) -> int:
    """Draws the page into `to` (PNG, SVG or PDF, by its name). 1 where nothing was recorded."""
    kept = lines(file)
    if not kept:
        raise NotComparableError(f"nothing is recorded in {file.name}: tools/bench_gate --record")
    import matplotlib as mpl  # late: a gate draws nothing

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = _panels(kept)
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(12, 3.4 * len(panels)), layout="constrained")
    at = range(len(kept))
    for axis, (title, curves) in zip(axes, panels, strict=True):
        for name, values in curves.items():
            axis.plot(at, values, marker=".", label=name)
        axis.set_title(title, loc="left")
        axis.grid(alpha=0.3)
        axis.set_xticks(list(at), [f"{run['date'][:10]}\n{run['commit'][:9]}" for run in kept], fontsize=7)
        if curves:
            axis.legend(fontsize=6, ncols=1 + len(curves) // 16, loc="center left", bbox_to_anchor=(1, 0.5))
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=110)
    print(f"{len(kept)} runs, {kept[0]['date'][:10]} to {kept[-1]['date'][:10]}: {to}")
    return 0
