"""What comes out of a run: the JSON whose keys are a contract, the text, the verdict and the exit code.

Counts are rows, by sequence, over the whole run (a row lost in the warm-up is lost); `rate` is messages per
second and, like latency and slip, covers the measured time behind the warm-up. The rate is HELD when all that
was scheduled was sent and the messages received of the measured time, over the time until the last of them
was here, are at least 99.5 % of the rate asked: a run that ends with a backlog has not held its rate. A closed loop
(`--rate max`) asks for no rate and has no schedule: it is held when all of it arrived, and what would count from
the schedule (that latency, the slip, the times of the intervals) is null.

Intervals end at `t_s` of the measured time; their p50, p99 and max are ns from the intended send time of the
rows that came in them, `missing` what was missing at their end (`counts` says what stayed so). `cpu` is a
share of one core, all threads of the process; `commit` is null for a copy that is not a checkout.

With several publishers or steady subscribers rows and CPU add up (each subscriber receives everything), latency and
slip are those of all in one distribution, the rate is that of the slowest, and of an interval's times the worst counts.
`publishers` and `subscribers` say it of each; slow and stopped subscribers are there alone.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from typing import Any, Final

import flux
from flux.loadgen.environment import environment
from flux.loadgen.gates import Gate
from flux.loadgen.histogram import summary
from flux.loadgen.merge import counts_of, publisher_entry, slips, subscriber_entry
from flux.loadgen.outcome import Outcome
from flux.loadgen.plan import NS_PER_S

SCHEMA_VERSION: Final = 1
HELD_SHARE: Final = 0.995

_COLUMNS: Final = {
    "t_s": "t_s",
    "sent": "sent_rows",
    "received": "received_rows",
    "missing": "missing_rows",
    "p50": "p50_ns",
    "p99": "p99_ns",
    "max": "max_ns",
}

_COUNTED: Final = {"rpc": "requests"}  # what a mode counts, where it is not rows, and messages a second

EXIT_OK: Final = 0
EXIT_GATE: Final = 5
EXIT_NOT_HELD: Final = 6
EXIT_INTERRUPTED: Final = 130


def _rate(outcome: Outcome) -> dict[str, Any]:
    plan, got = outcome.plan, outcome.subscriber
    measured_ns = max(plan.duration_ns, got.last_ns - plan.warmup_ns)
    if not outcome.complete:
        measured_ns = max(1, got.last_ns - plan.warmup_ns)
    achieved = got.measured / plan.rows * NS_PER_S / measured_ns
    all_sent = outcome.publisher.sent == outcome.publisher.scheduled
    enough = got.missing == 0 if plan.target is None else achieved >= HELD_SHARE * plan.target
    held = outcome.complete and all_sent and enough
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


def report(
    outcome: Outcome, gates: Sequence[Gate] = (), surroundings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The contract of `flux-loadgen --json`, as plain objects; `schema` says what each key is.

    `surroundings` is what `environment.Surroundings` has seen of the machine, where somebody looked.
    """
    sent, got, paced = outcome.publisher, outcome.subscriber, not outcome.plan.saturate
    made: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "complete": outcome.complete,
        "tool": {
            "name": "flux-loadgen",
            "version": metadata.version("flux-marketdata"),
            "commit": _commit(),
        },
        "env": environment(outcome.libzmq) | dict(surroundings or {}),
        "config": outcome.plan.config(),
        "rate": _rate(outcome),
        "counts": {
            "scheduled": sent.scheduled,
            "sent": sent.sent,
            **counts_of(got),
            "send_blocked": sent.send_blocked,
        },
        "latency_ns": {
            **dict.fromkeys(("from_schedule", "from_send")),
            **{name: summary(times) for name, times in outcome.curves.items()},
        },
        "generator": {
            "slip_ns": slips(sent.slip) if paced else None,
            "cpu": {"publisher": round(sent.cpu, 3), "subscriber": round(got.cpu, 3)},
        },
        "publishers": [publisher_entry(each, paced=paced) for each in outcome.publishers],
        "subscribers": [subscriber_entry(each, paced=paced) for each in outcome.subscribers],
        "intervals": outcome.intervals,
    }
    made |= {key: made.get(key, {}) | items for key, items in outcome.own.items()}
    made["gates"] = [gate.judged(made) for gate in gates]
    return made


def nothing_came(made: Mapping[str, Any]) -> bool:
    """Whether a subscriber of somebody else's publisher got no row at all: then nothing was measured."""
    return "sub" in made and made["counts"]["received"] == 0


def exit_code(made: Mapping[str, Any]) -> int:
    """130 after Ctrl-C, 6 when the rate was not held, none was found or nothing came, 5 when a gate failed, else 0.

    Not held goes before a gate: the other numbers say little about a rate that was not there.
    """
    if not made["complete"]:
        return EXIT_INTERRUPTED
    not_held = made["rate"]["held"] is False or nothing_came(made)  # held null: no rate was asked for
    if not_held or ("find_max" in made and made["find_max"]["rate"] is None):
        return EXIT_NOT_HELD
    return EXIT_OK if all(gate["pass"] for gate in made["gates"]) else EXIT_GATE


def schema() -> dict[str, Any]:
    """The JSON schema of a report (draft 2020-12), as it is installed: `flux/schemas` in the package."""
    file = resources.files("flux").joinpath("schemas", "loadgen_report.schema.json")
    made: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return made


def to_csv(made: Mapping[str, Any]) -> str:
    """The report's seconds, one a line, the last may be a part of one; the header's keys end in their units."""
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(_COLUMNS.values())
    writer.writerows([second[key] for key in _COLUMNS] for second in made["intervals"])
    return lines.getvalue()


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


def value_text(gate: Gate, value: float | None) -> str:
    """The number that an expression is about, for people."""
    if value is None:
        return "not in this report"
    if gate.unit == "ns":
        return duration_text(value)
    return f"{value:.2f}" if gate.unit == "share" else f"{value:,.0f}"


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


def _subscriber_line(each: Mapping[str, Any]) -> str:
    counts, times = each["counts"], each["latency_ns"]["from_schedule"] or each["latency_ns"]["from_send"]
    return (
        f"{'subscriber, ' + each['kind']:<22}received {counts['received']:,}  missing {counts['missing']:,}"
        f"  p50 {duration_text(times['p50'])}  p99 {duration_text(times['p99'])}"
        f"  max {duration_text(times['max'])}  CPU {each['cpu']:.0%}"
    )


def _closed(config: Mapping[str, Any]) -> bool:
    return config["schedule"] is not None and config["schedule"]["shape"] == "closed"


def verdict(made: Mapping[str, Any]) -> str:
    """One line: was the rate there; of a closed loop what it carried, and whether all of it arrived."""
    rate, unit = made["rate"], _COUNTED.get(made["config"]["mode"], "messages")
    of = f" of {rate['target']:,.9g}" if rate["target"] is not None else ""
    words = {True: "HELD", False: "NOT HELD", None: "MEASURED"}
    if _closed(made["config"]):
        words = {True: "CARRIED", False: "NOT ALL ARRIVED"}
    word = words[rate["held"]] if made["complete"] else "INTERRUPTED"
    if nothing_came(made) and made["complete"]:
        word = "NOTHING CAME"
    return f"{word}: {rate['achieved']:,.0f}{of} {unit}/s"


def _plan_line(config: Mapping[str, Any]) -> str:
    behind = f"{config['duration_s']:g} s behind {config['warmup_s']:g} s of warm-up"
    parts = [f"{config['mode']} over {config['transport']}", behind]
    parts += [f"{config['streams']:,} streams"] if config["streams"] is not None else []
    parts += [f"{config['rows']} row(s) a message"] if config["rows"] is not None else []
    if _closed(config):
        parts.append(f"closed loop: {config['schedule']['under_way']:,} messages under way at most")
    parts += [f"HWM {config['hwm']:,} messages"] if config["hwm"] is not None else []
    return f"{'plan':<22}" + ", ".join(parts)


def _generator_line(generator: Mapping[str, Any]) -> str:
    slip, cpu = generator["slip_ns"], generator["cpu"]
    lateness = slip and "  ".join(f"{name} {duration_text(slip[name])}" for name in ("p50", "p99", "max"))
    parts = [f"slip {lateness}"] if slip else []
    parts += [f"CPU {name} {share:.0%}" for name, share in cpu.items() if share is not None]
    return f"{'generator':<22}" + "  ".join(parts)


def _gate_line(judged: Mapping[str, Any]) -> str:
    is_now = value_text(Gate.parse(judged["expr"]), judged["value"])
    return f"{'gate':<22}{'pass' if judged['pass'] else 'FAIL'}  fail if {judged['expr']}  (is {is_now})"


def _found(made: Mapping[str, Any]) -> str:
    """One line: what `--find-max` found."""
    search = made["find_max"]
    slo, runs = search["slo"], f"{len(search['trials'])} runs"
    if not made["complete"]:
        so_far = "nothing" if search["rate"] is None else f"{search['rate']:,} messages/s"
        return f"INTERRUPTED: the search for {slo} had confirmed {so_far} ({runs}); what follows is the last"
    if search["rate"] is None:
        lowest = min((trial["rate"] for trial in search["trials"]), default=0)
        return f"NOT FOUND: no rate from {lowest:,} messages/s up keeps {slo} ({runs})"
    failed = [t["rate"] for t in search["trials"] if not t["pass"] and t["rate"] > search["rate"]]
    above = f"; {min(failed):,} does not" if failed else ""
    confirmed = f"in {search['passes']} of {search['tries']} long runs"
    return f"FOUND: {search['rate']:,} messages/s keep {slo} {confirmed}{above} ({runs})"


def _nothing_line(made: Mapping[str, Any]) -> str:
    """Why that may be."""
    heard, topics = made["sub"]["other_messages"], made["config"]["topics"]
    asked = " ".join(topics) or "all rows in version 2"
    if made["counts"]["corrupt"]:
        why = f"{made['counts']['corrupt']:,} messages came and none could be read"
    elif heard:
        why = f"{heard:,} other messages came, so the publisher is there, but nothing of {asked}"
    else:
        why = f"nothing of {asked}; a publisher that speaks version 1 needs --topic candles."
    return f"{'warning':<22}{why}"


def to_text(made: Mapping[str, Any]) -> str:
    """The report for people."""
    config, labels = made["config"], {"from_schedule": "from intended send", "from_send": "from actual send"}
    # With faults on purpose the rows were numbered, and some of them left out: the wire carried fewer.
    wrong = any((config.get("faults") or {}).values())
    named = {"sent": "planned"} if wrong else {}
    counts = (
        f"{named.get(name, name)} {count:,}" for name, count in made["counts"].items() if count is not None
    )
    lines = [_found(made)] if "find_max" in made else []
    lines += [verdict(made)]
    lines += [_nothing_line(made)] if nothing_came(made) else []
    lines += [_plan_line(config)]
    if _closed(config):
        lines.append(
            f"{labels['from_schedule']:<22}none: a closed loop sends when there is room, nothing is ever due"
        )
    lines += [
        _times_line(labels.get(name, name.replace("_", " ")), times)
        for name, times in made["latency_ns"].items()
        if times is not None
    ]
    if "server" in made:
        lines.append(_server_line(made["server"]))
    lines += [
        f"{_COUNTED.get(config['mode'], 'rows'):<22}" + "  ".join(counts),
        _generator_line(made["generator"]),
    ]
    if len(made["subscribers"]) > 1:
        lines += [_subscriber_line(each) for each in made["subscribers"]]
    lines += [_gate_line(judged) for judged in made["gates"]]
    return "\n".join(lines) + "\n"


def second_line(interval: Mapping[str, Any], warmup: bool, sent: str = "sent") -> str:
    """What stderr shows once a second; `sent`: what the messages are that left, where they may have been left out."""
    times = ""
    if interval["p50"] is not None:
        times = "".join(f"  {name} {duration_text(interval[name]):>8}" for name in ("p50", "p99", "max"))
    return (
        f"{interval['t_s']:>5g} s  {sent} {interval['sent']:>9,}  received {interval['received']:>9,}"
        f"  missing {interval['missing']:>6,}{times}{'  (warm-up)' if warmup else ''}"
    )
