"""The gates that take time, not instructions: ratios to peers, and the load generator's 20 seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.building import ROOT
from benchmarks.ratios import KEPT_IN, Ratio, kept

LOAD: Final = ("--rate", "100k", "--duration", "20s", "--json", "-")
P99_NS: Final = 3_000_000
SLIP_NS: Final = 1_000_000
"""A generator that is later than this itself (p99) says more of the machine than of flux: it runs once more."""


class Judged(NamedTuple):
    """What was measured, in lines, and what of it failed."""

    lines: list[str]
    failed: list[str]
    measured: Any


def ratios() -> Judged:
    """Every benchmark with the mark `gate`, and the codec beside its peers; each in a process of its own."""
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "ratios"
        environment = os.environ | {KEPT_IN: str(file)}
        files = [p for p in sorted(ROOT.glob("benchmarks/bench_*.py")) if "pytest.mark.gate" in p.read_text()]
        marked = ["-m", "pytest", "-q", "-m", "gate", "-p", "no:cacheprovider", *files]
        for command in (marked, [ROOT / "benchmarks" / "bench_codec_peers.py", "--rounds", "100"]):
            done = subprocess.run(
                [sys.executable, *command],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                failed.append(
                    f"{command[0]} exit code {done.returncode}:\n{done.stdout[-3000:]}{done.stderr[-2000:]}"
                )
        found: list[Ratio] = kept(file)
    failed += [str(ratio) for ratio in found if not ratio.held]
    if not found:
        failed.append("no ratio was measured")
    return Judged([str(ratio) for ratio in found], failed, [ratio._asdict() for ratio in found])


def _load() -> dict[str, Any]:
    command = [sys.executable, "-m", "flux.cli.loadgen", *LOAD]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode not in (0, 6):
        raise RuntimeError(f"flux-loadgen exit code {done.returncode}:\n{done.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def load() -> Judged:
    """100,000 messages a second for 20 s: rate held, nothing unaccounted, p99 at most 3 ms."""
    report = _load()
    if report["generator"]["slip_ns"]["p99"] > SLIP_NS:
        report = _load()
    counts, slip = report["counts"], report["generator"]["slip_ns"]["p99"]
    p99 = report["latency_ns"]["from_schedule"]["p99"]
    line = (
        f"flux-loadgen, 100,000 messages/s for 20 s, HWM {report['config']['hwm']:,}: achieved "
        f"{report['rate']['achieved']:,.0f}, missing {counts['missing']}, p99 {p99 / 1e6:.2f} ms, "
        f"the generator's own slip p99 {slip / 1e6:.2f} ms"
    )
    failed = []
    # A generator that itself is later than the bound can show nothing about it, nor hold a rate.
    judged = slip <= P99_NS
    if not judged:
        line += "; rate and latency are not judged: this machine could not keep the generator's schedule"
    if counts["missing"] or counts["corrupt"] or counts["duplicate"] or counts["send_blocked"]:
        failed.append(f"{line}: unaccounted {counts}")
    elif judged and (p99 > P99_NS or not report["rate"]["held"]):
        failed.append(line)
    return Judged([line], failed, {key: report[key] for key in ("rate", "counts", "latency_ns", "generator")})
