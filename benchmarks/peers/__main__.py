"""`python -m benchmarks.peers`: flux beside other buses under the same load, one table.

All of it takes some 15 to 25 minutes for ten buses on a machine that nobody else uses: a search has the time that it
needs, and a rate that was not confirmed is not published. `--quick` is a smoke test: that each one installed passes
messages, not how fast. What is not installed is named and left out:

    pip install -e '.[peers]'; apt-get install redis-server nats-server gcc
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.building import ROOT
from benchmarks.peers.bus import table
from benchmarks.peers.bus.measure import FULL, QUICK, Measured, Size, met, rounds, searches
from benchmarks.peers.bus.peers import PEERS
from benchmarks.peers.bus.spec import Result
from flux.loadgen.environment import Surroundings
from flux.loadgen.report import duration_text

WRITTEN = ROOT / "benchmarks" / "peers.md"


def commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return ""


class Told:
    """What is said of each trial: a line on stderr, and one of JSON where it is wanted."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._commit = path, commit()
        self._begin = time.monotonic()

    def __call__(self, part: str, result: Result) -> None:
        asked = f"{result.rate:,}/s" if result.rate else "saturation"
        got = result.error or (
            f"{result.achieved:>11,.0f}/s  {'held' if result.held else 'NOT HELD'}  missing {result.missing:,}"
            f"  CPU {result.cpu_us_all:.3g} µs"
        )
        if result.rate and not result.error:
            got += f"  p50 {duration_text(result.p50)}  p99 {duration_text(result.p99)}"
        if part == "search":
            got += "  pass" if met(result) else "  FAIL"
        seconds = time.monotonic() - self._begin
        print(f"{seconds:5.0f} s  {result.peer:18}{asked:>13}  {got}", file=sys.stderr, flush=True)
        if self._path:
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            line = {"at": at, "commit": self._commit, "part": part, **dataclasses.asdict(result)}
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")


def measure(names: list[str], size: Size, told: Told) -> tuple[dict[str, Measured], dict[str, str]]:
    """What was measured of each, and why some were not."""
    missing = {name: PEERS[name].needs() for name in PEERS if name in names}
    with tempfile.TemporaryDirectory(prefix="flux-peers-") as folder:
        runs = {name: PEERS[name].make(Path(folder)) for name, why in missing.items() if not why}
        measured = rounds(runs, size, told)
        if size.search_ns:
            searches(runs, measured, size, told)
    return measured, {name: why for name, why in missing.items() if why}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description="flux beside other buses")
    parser.add_argument("--only", action="append", choices=PEERS, help="this one; may be repeated (all)")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test of seconds; its numbers mean nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="add a line of JSON for each trial")
    parser.add_argument("--write", action="store_true", help=f"write the table into {WRITTEN.name}")
    given = parser.parse_args()
    if given.quick and given.write:
        parser.error("--quick measures nothing that is worth writing down")
    return given


def main() -> int:
    """0; 1 where a peer that is installed gave no numbers."""
    given, begin, surroundings = arguments(), time.monotonic(), Surroundings()
    size = QUICK if given.quick else FULL
    measured, left_out = measure(given.only or list(PEERS), size, Told(given.json))
    made = table.table(measured, left_out, size)
    print(made, end="")
    if given.write:
        command = " ".join(["python -m benchmarks.peers", *sys.argv[1:]])
        minutes = (time.monotonic() - begin) / 60
        WRITTEN.write_text(table.heading(commit(), minutes, command, surroundings.seen()) + made)
    return 1 if any(found.error for found in measured.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
