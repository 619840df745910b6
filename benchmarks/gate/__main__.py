"""`tools/bench_gate`: runs the gates and says whether they hold. benchmarks/README.md says how to read its numbers."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.building import ROOT
from benchmarks.gate import baseline, runs
from benchmarks.gate.instructions import OUT, PARTS, WrongResultError, measure

GATES = ("instructions", "ratios", "load")
FAILED = 5


def instructions(given: argparse.Namespace) -> runs.Judged:
    """Every kernel's instructions beside the baseline's."""
    recorded = baseline.load(given.baseline)
    parts = tuple(given.part or PARTS)
    try:
        now = measure(given.root, given.out, parts)
    except WrongResultError as error:
        return runs.Judged([], [f"wrong result: {error}"], None)
    lines = baseline.judge(recorded, now, parts)
    failed = [str(line) for line in lines if line.failed]
    head = f"{'instructions of one operation':38}{'baseline':>14}{'now':>14}"
    return runs.Judged([head, *map(str, lines)], failed, now)


def run(given: argparse.Namespace) -> int:
    """The chosen gates, one after the other; 5 when one of them failed."""
    told: dict[str, Any] = {"environment": baseline.environment(), "failed": []}
    for gate in given.only or GATES:
        begin = time.monotonic()
        judged = instructions(given) if gate == "instructions" else getattr(runs, gate)()
        seconds = time.monotonic() - begin
        print(f"== {gate}, {seconds:.0f} s", *judged.lines, sep="\n", flush=True)
        told[gate] = judged.measured
        told["failed"] += judged.failed
    if given.json:
        given.json.write_text(json.dumps(told, indent=1) + "\n")
    for text in told["failed"]:
        print(f"FAILED {text}", file=sys.stderr)
    print("the gate failed" if told["failed"] else "the gate holds")
    return FAILED if told["failed"] else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench_gate", description="run the gates; exit code 5 if one fails"
    )
    parser.add_argument("--accept", metavar="WHY", help="measure, and write a new baseline with this reason")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured there")
    parser.add_argument("--only", action="append", choices=GATES, help="this gate; may be repeated (all)")
    parser.add_argument("--part", action="append", choices=PARTS, help="of the instructions; may be repeated")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree whose instructions are judged")
    parser.add_argument("--out", type=Path, default=OUT, help="where it is built (build/gate)")
    parser.add_argument("--baseline", type=Path, default=baseline.FILE)
    return parser.parse_args()


def main() -> int:
    """0; 1 where nothing could be judged, and where something does not build; 5 when a gate failed."""
    given = arguments()
    missing = [name for name in ("gcc", "valgrind", "git") if shutil.which(name) is None]
    if missing:
        print(f"tools/bench_gate: {', '.join(missing)} is not installed", file=sys.stderr)
        return 1
    try:
        if given.accept:
            baseline.committed()  # before anything takes time
            baseline.accept(given.baseline, given.accept, measure(given.root, given.out))
            return 0
        return run(given)
    except baseline.NotComparableError as error:
        print(f"tools/bench_gate: {error}", file=sys.stderr)
    except WrongResultError as error:
        print(f"tools/bench_gate: wrong result: {error}", file=sys.stderr)
    except (RuntimeError, subprocess.SubprocessError) as error:
        print(f"tools/bench_gate: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
