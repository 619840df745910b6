"""What comes out of a run: the JSON whose keys are a contract, the text, the verdict and the exit code.

Counts are rows, by sequence, over the whole run (a row lost in the warm-up is lost); `rate` is messages per
second and, like latency and slip, covers the measured time behind the warm-up. The rate is HELD when all that
was scheduled was sent and the messages received of the measured time, over the time until the last of them
was here, are at least 99.5 % of the rate asked: a run that ends with a backlog has not held its rate.

Intervals end at `t_s` of the measured time; their p50, p99 and max are ns from the intended send time of the
rows that came in them, `missing` what was missing at their end (`counts` says what stayed so). `cpu` is a
share of one core, all threads of the process; `commit` is null for a copy that is not a checkout.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import flux
from flux.loadgen.gates import Gate
from flux.loadgen.histogram import Histogram, percentile, summary
from flux.loadgen.plan import NS_PER_S, Plan

SCHEMA_VERSION: Final = 1
HELD_SHARE: Final = 0.995

EXIT_OK: Final = 0
EXIT_GATE: Final = 5
EXIT_NOT_HELD: Final = 6
EXIT_INTERRUPTED: Final = 130


@dataclass(slots=True)
class Sent:
    """What the publisher says at its end. Rows, except where a unit is named."""

    scheduled: int  # due while it ran
    sent: int  # handed to the socket
    send_blocked: int  # times the socket was full
    slip: Histogram  # ns from the intended to the actual send time, measured time only
    cpu: float  # share of one core


@dataclass(slots=True)
class Received:
    """What the subscriber says at its end. Rows, except where a unit is named."""

    received: int  # distinct sequences
    missing: int
    duplicate: int
    reordered: int
    corrupt: int
    unread: int  # received, but not looked at: the ring had no room for them
    measured: int  # distinct sequences of the measured time
    last_ns: int  # when the last of these was here, ns since the run's start; 0 = none
    from_schedule: Histogram
    from_send: Histogram
    cpu: float  # share of one core


@dataclass(slots=True)
class Outcome:
    """A run as it happened; `report` turns it into the contract."""

    plan: Plan
    complete: bool  # False: ended by Ctrl-C
    publisher: Sent
    subscriber: Received
    libzmq: str
    intervals: list[dict[str, Any]] = field(default_factory=list)
    server: dict[str, Any] | None = None  # of mode `through`: started, durability, cpu, journalled, stored


def _rate(outcome: Outcome) -> dict[str, Any]:
    plan, got = outcome.plan, outcome.subscriber
    measured_ns = max(plan.duration_ns, got.last_ns - plan.warmup_ns)
    if not outcome.complete:
        measured_ns = max(1, got.last_ns - plan.warmup_ns)
    achieved = got.measured / plan.rows * NS_PER_S / measured_ns
    all_sent = outcome.publisher.sent == outcome.publisher.scheduled
    held = outcome.complete and all_sent and achieved >= HELD_SHARE * plan.target
    return {"target": plan.target, "achieved": round(achieved, 1), "held": held}


def _commit() -> str | None:
    """The commit of the source tree that this package is run from; None for an installed copy."""
    package = Path(flux.__file__).resolve().parent
    if package.parent.name != "src" or not (package.parent.parent / ".git").exists():
        return None
    command = ["git", "-C", str(package), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _environment(libzmq: str) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "libzmq": libzmq,
    }


def report(outcome: Outcome, gates: Sequence[Gate] = ()) -> dict[str, Any]:
    """The contract of `flux-loadgen --json`, as plain objects; the head of this file says what it covers."""
    sent, got = outcome.publisher, outcome.subscriber
    made: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "complete": outcome.complete,
        "tool": {
            "name": "flux-loadgen",
            "version": metadata.version("flux-marketdata"),
            "commit": _commit(),
        },
        "env": _environment(outcome.libzmq),
        "config": outcome.plan.config(),
        "rate": _rate(outcome),
        "counts": {
            "scheduled": sent.scheduled,
            "sent": sent.sent,
            "received": got.received,
            "missing": got.missing,
            "duplicate": got.duplicate,
            "reordered": got.reordered,
            "corrupt": got.corrupt,
            "unread": got.unread,
            "send_blocked": sent.send_blocked,
        },
        "latency_ns": {"from_schedule": summary(got.from_schedule), "from_send": summary(got.from_send)},
        "generator": {
            "slip_ns": {"p99": percentile(sent.slip, 99.0), "max": sent.slip.max},
            "cpu": {
                "publisher": round(sent.cpu, 3),
                "subscriber": round(got.cpu, 3),
            },
        },
        "intervals": outcome.intervals,
    }
    if outcome.server is not None:
        made["server"] = outcome.server
    made["gates"] = [gate.judged(made) for gate in gates]
    return made


def exit_code(made: Mapping[str, Any]) -> int:
    """130 after Ctrl-C, 6 when the rate was not held, 5 when a gate failed, else 0.

    Not held goes before a gate: the other numbers say little about a rate that was not there.
    """
    if not made["complete"]:
        return EXIT_INTERRUPTED
    if not made["rate"]["held"]:
        return EXIT_NOT_HELD
    return EXIT_OK if all(gate["pass"] for gate in made["gates"]) else EXIT_GATE


def to_json(made: Mapping[str, Any]) -> str:
    return json.dumps(made, indent=2, allow_nan=False) + "\n"


def duration_text(ns: float) -> str:
    """Three digits and a unit: 950 ns, 12.3 µs, 4.56 ms, 1.20 s."""
    for unit, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if ns >= scale:
            value = ns / scale
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{ns:.0f} ns"


def _times_line(label: str, times: Mapping[str, float]) -> str:
    shown = (
        f"{name} {duration_text(times[name])}" for name in ("p50", "p90", "p99", "p99.9", "p99.99", "max")
    )
    return f"{label:<22}" + "  ".join(shown)


def _server_line(server: Mapping[str, Any]) -> str:
    said = f"{'server':<22}"
    said += f"durability {server['durability']}  CPU {server['cpu']:.0%}" if server["started"] else "given"
    said += f"  rows journalled {server['journalled']:,}"
    return said + (f"  stored {server['stored']:,}" if server["stored"] is not None else "")


def verdict(made: Mapping[str, Any]) -> str:
    """One line: was the rate there."""
    rate = made["rate"]
    word = "HELD" if rate["held"] else "NOT HELD" if made["complete"] else "INTERRUPTED"
    return f"{word}: {rate['achieved']:,.0f} of {rate['target']:,.10g} messages/s"


def to_text(made: Mapping[str, Any]) -> str:
    """The report for people."""
    config, counts, generator = made["config"], made["counts"], made["generator"]
    lines = [
        verdict(made),
        f"{'plan':<22}{config['mode']} over {config['transport']}, {config['duration_s']:g} s behind"
        f" {config['warmup_s']:g} s of warm-up, {config['streams']:,} streams,"
        f" {config['rows']} row(s) a message, HWM {config['hwm']:,} messages",
        _times_line("from intended send", made["latency_ns"]["from_schedule"]),
        _times_line("from actual send", made["latency_ns"]["from_send"]),
        f"{'rows':<22}" + "  ".join(f"{name} {count:,}" for name, count in counts.items()),
        f"{'generator':<22}slip p99 {duration_text(generator['slip_ns']['p99'])}"
        f"  max {duration_text(generator['slip_ns']['max'])}"
        f"  CPU publisher {generator['cpu']['publisher']:.0%}"
        f"  subscriber {generator['cpu']['subscriber']:.0%}",
    ]
    if "server" in made:
        lines.append(_server_line(made["server"]))
    lines += [
        f"{'gate':<22}{'pass' if gate['pass'] else 'FAIL'}  fail if {gate['expr']}  (is {gate['value']:,})"
        for gate in made["gates"]
    ]
    return "\n".join(lines) + "\n"


def second_line(interval: Mapping[str, Any], warmup: bool) -> str:
    """What stderr shows once a second."""
    return (
        f"{interval['t_s']:>5g} s  sent {interval['sent']:>9,}  received {interval['received']:>9,}"
        f"  missing {interval['missing']:>6,}  p50 {duration_text(interval['p50']):>8}"
        f"  p99 {duration_text(interval['p99']):>8}  max {duration_text(interval['max']):>8}"
        f"{'  (warm-up)' if warmup else ''}"
    )
