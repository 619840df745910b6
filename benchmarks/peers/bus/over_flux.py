"""flux itself, by the command that a user runs: one `flux-loadgen` is one trial, read from its JSON.

Its publisher numbers and encodes a candle, with a checksum, and its subscriber verifies each, finds the stream and lays
the row into a ring, where a peer passes opaque bytes on. `through` runs a server between the two that numbers, journals
and stores; its journal is synced each 100 ms (`--durability process`, which is what it does unasked).

Saturation of `pubsub` is `--rate max`: a closed loop with as many messages under way as the peers have, in which none
is dropped. `through` needs no such loop, because the server's high-water mark holds its feeder back: it is asked for a
rate that is too high, in the first round by far, and later for a tenth above the best so far.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any, Final

from benchmarks.building import ROOT
from benchmarks.peers.bus.spec import STREAMS, WINDOW, Result, Spec
from flux.loadgen.plan import MAX_UNDER_WAY, NS_PER_S

assert MAX_UNDER_WAY == WINDOW, "as many under way as the peers have"

TOO_MUCH: Final = 600_000  # messages per second, of the first round of `through`
ABOVE: Final = 1.1  # times what was carried at best: what later rounds ask
LIMIT_S: Final = 90  # beside the run: a start, a server's start and end, a backlog
HELD, NOT_HELD = 0, 6  # flux-loadgen's exit codes


class Loadgen:
    """`flux-loadgen --mode MODE`, which remembers how much is too much."""

    def __init__(self, name: str, mode: str) -> None:
        self._name, self._mode = name, mode
        self._ask = TOO_MUCH
        self._best = 0.0

    def __call__(self, spec: Spec) -> Result:
        """One run. What fails is in `Result.error`."""
        made = Result(self._name, spec.rate)
        told = self._run(spec, self._rate(spec), made)
        if told is None:
            return made
        read(told, made)
        if not spec.rate:
            self._best = max(self._best, made.achieved)
            self._ask = 2 * self._ask if told["rate"]["held"] else round(ABOVE * self._best)
        return made

    def _rate(self, spec: Spec) -> str:
        if spec.rate:
            return str(spec.rate)
        return "max" if self._mode == "pubsub" else str(self._ask)

    def _run(self, spec: Spec, rate: str, made: Result) -> dict[str, Any] | None:
        argv = [sys.executable, "-m", "flux.cli.loadgen", "--mode", self._mode, "--rate", rate]
        argv += ["--duration", f"{spec.duration_ns // 1_000}us", "--warmup", f"{spec.warmup_ns // 1_000}us"]
        argv += ["--streams", str(STREAMS), "--json", "-"]
        limit = spec.run_ns / NS_PER_S + LIMIT_S
        try:
            done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, timeout=limit, check=False)
        except subprocess.TimeoutExpired:
            made.error = f"not over within {limit:.0f} s"
            return None
        if done.returncode not in (HELD, NOT_HELD):
            made.error = (done.stderr.strip().splitlines() or ["?"])[-1]
            return None
        told: dict[str, Any] = json.loads(done.stdout)
        return told


def read(told: dict[str, Any], made: Result) -> None:
    """A report of flux-loadgen as a result. Its CPU is a share of a core over the run."""
    counts, times = told["counts"], told["latency_ns"]["from_schedule"]
    made.achieved, made.held = told["rate"]["achieved"], told["rate"]["held"] or not made.rate
    made.scheduled, made.sent, made.received = (counts[name] for name in ("scheduled", "sent", "received"))
    made.missing, made.disorder = counts["missing"], counts["duplicate"] + counts["reordered"]
    if made.rate:
        made.p50, made.p99, made.p999, made.max = (times[name] for name in ("p50", "p99", "p99.9", "max"))
    ends, server = told["generator"]["cpu"], told.get("server", {"cpu": 0.0})
    shares = {"publisher": ends["publisher"], "broker": server["cpu"], "subscriber": ends["subscriber"]}
    if made.achieved:
        made.cpu_us = {who: round(share * 1e6 / made.achieved, 3) for who, share in shares.items()}
