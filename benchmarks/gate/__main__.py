"""`tools/bench_gate`: runs the gates and says whether they hold. benchmarks/README.md says how to read its numbers."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.building import ROOT
from benchmarks.gate import against, baseline, history, imports, repeat, size
from benchmarks.gate.accepted import NotComparableError, committed
from benchmarks.gate.installed import install
from benchmarks.gate.instructions import OUT, PARTS, WrongResultError, measure
from benchmarks.gate.judged import OPEN, Judged
from benchmarks.gate.load import load
from benchmarks.gate.peers import ratios

FAILED: Final = 5
INTERRUPTED: Final = 130


def instructions(given: argparse.Namespace) -> Judged:
    """Every kernel's instructions beside the baseline's."""
    recorded = baseline.load(given.baseline)
    parts = tuple(given.part or PARTS)
    try:
        now = measure(given.root, given.out, parts)
    except WrongResultError as error:
        return Judged([], [f"wrong result: {error}"], None)
    lines = baseline.judge(recorded, now, parts)
    failed = [str(line) for line in lines if line.failed]
    head = f"{'instructions of one operation':38}{'baseline':>14}{'now':>14}"
    return Judged([head, *map(str, lines)], failed, now)


def sizes(given: argparse.Namespace) -> Judged:
    """Bytes of the wheel beside the baseline's."""
    return size.judge(baseline.sizes(baseline.load(given.baseline)), size.measure(install(ROOT, OUT)))


GATES: Final[dict[str, Callable[[argparse.Namespace], Judged]]] = {
    "instructions": instructions,
    "size": sizes,
    "import": lambda _: imports.judge(imports.measure(install(ROOT, OUT).python)),
    "ratios": lambda _: ratios(),
    "load": lambda _: load(),
}


def judged(given: argparse.Namespace) -> dict[str, Any]:
    """The chosen gates, one after the other: what each measured, what failed, what could not be judged."""
    told: dict[str, Any] = history.stamp() | {"failed": [], "unjudged": [], "nothing": [], "verdicts": {}}
    for gate in given.only or GATES:
        begin = time.monotonic()
        try:
            found = GATES[gate](given)
        except NotComparableError as error:
            told["nothing"].append(f"{gate}: nothing is judged: {error}")
            told["verdicts"][gate] = {"verdict": OPEN, "why": [str(error)], "lines": []}
            print(f"== {gate}: nothing is judged: {error}", flush=True)
            continue
        seconds = time.monotonic() - begin
        print(f"== {gate}, {seconds:.0f} s", *found.lines, sep="\n", flush=True)
        told[gate], told["verdicts"][gate] = found.measured, found.verdict()
        told["failed"] += found.failed
        told["unjudged"] += found.unjudged
    return told


def run(given: argparse.Namespace) -> int:
    """0; 1 where a gate had nothing to compare with; 5 where one failed."""
    told = judged(given)
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(told, indent=1) + "\n")
    if given.record:
        history.record(told)
    for text in told["failed"]:
        print(f"FAILED {text}", file=sys.stderr)
    for text in told["nothing"]:
        print(f"tools/bench_gate: {text}", file=sys.stderr)
    if told["failed"]:
        print("the gate failed")
        return FAILED
    if told["nothing"]:
        print("the gate has judged a part only")
        return 1
    print(*["the gate holds", *(f"not judged: {text}" for text in told["unjudged"])], sep="; ")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="tools/bench_gate", description="run the gates; exit code 5 if one fails"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--accept", metavar="WHY", help="measure, and write a new baseline with this reason")
    instead.add_argument("--against", metavar="REF", help="this tree and that of a commit, side by side")
    instead.add_argument("--repeat", type=int, metavar="N", help="the chosen gates, so many times")
    instead.add_argument("--history", type=Path, metavar="PNG", help="draw what was recorded")
    instead.add_argument(
        "--why",
        nargs="?",
        const="",
        metavar="RUN",
        help="the verdicts recorded of a version or commit (the last)",
    )
    parser.add_argument(
        "--beside-spinner", type=int, default=0, metavar="M", help="the last M of N, beside busy processors"
    )
    parser.add_argument(
        "--record", action="store_true", help=f"add measurements and verdicts to {history.FILE.name}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured there")
    parser.add_argument("--only", action="append", choices=GATES, help="this gate; may be repeated (all)")
    parser.add_argument("--part", action="append", choices=PARTS, help="of the instructions; may be repeated")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree whose instructions are judged")
    parser.add_argument("--out", type=Path, default=OUT, help="where it is built (build/gate)")
    parser.add_argument("--baseline", type=Path, default=baseline.FILE)
    return parser.parse_args()


def chosen(given: argparse.Namespace) -> int:
    """What was asked for."""
    if given.accept:
        committed()  # before anything takes time
        now, bytes_of = measure(given.root, given.out), size.measure(install(ROOT, OUT))
        baseline.accept(given.baseline, given.accept, now, bytes_of)
        return 0
    if given.history:
        return history.draw(given.history)
    if given.why is not None:
        return history.explain(given.why)
    if given.against:
        return FAILED if against.compare(given.against, given.only, given.part or PARTS, given.json) else 0
    if given.repeat:
        return FAILED if repeat.repeated(given.repeat, given.beside_spinner, lambda: judged(given)) else 0
    return run(given)


def main() -> int:
    """0; 1 where nothing could be judged, and where something does not build; 5 when a gate failed; 130: Ctrl-C."""
    given = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was put up is taken down
    missing = [name for name in ("gcc", "valgrind", "git") if shutil.which(name) is None]
    if missing:
        print(f"tools/bench_gate: {', '.join(missing)} is not installed", file=sys.stderr)
        return 1
    try:
        return chosen(given)
    except NotComparableError as error:
        print(f"tools/bench_gate: {error}", file=sys.stderr)
    except WrongResultError as error:
        print(f"tools/bench_gate: wrong result: {error}", file=sys.stderr)
    except subprocess.CalledProcessError as error:
        print(f"tools/bench_gate: {error}\n{(error.stderr or '')[-4000:]}", file=sys.stderr)
    except (RuntimeError, subprocess.SubprocessError) as error:
        print(f"tools/bench_gate: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("tools/bench_gate: interrupted", file=sys.stderr)
        return INTERRUPTED
    return 1


if __name__ == "__main__":
    sys.exit(main())
