"""Mode `sub`: measure somebody else's publisher, of which nothing is known but its endpoint.

`workers.sub` does it and says what it can and cannot see; here its numbers become the report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final

from flux.errors import ConfigError
from flux.loadgen.modes.one_process import Following, check_alone, counts, generator, outcome_of
from flux.loadgen.outcome import Outcome
from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.process import Children, Message, unpacked
from flux.loadgen.report import HELD_SHARE, duration_text
from flux.loadgen.workers.sub import prefixes_of

CAVEAT: Final = (
    "from_recorded and from_origin are the difference of two wall clocks, ours less the publisher's; recorded_ns is"
    " taken when a message is encoded, before it is synced and sent; the time of receipt is that of the drain which"
    " brought it"
)


def _line(second: Message) -> str:
    times = "  no times in its frames"
    if second["p50"] is not None:
        times = "".join(f"  {name} {duration_text(second[name]):>8}" for name in ("p50", "p99", "max"))
    return f"{second['t_s']:>5g} s  received {second['received']:>9,}  missing {second['missing']:>6,}{times}"


def _rate(plan: Plan, complete: bool, done: Message) -> dict[str, Any]:
    """Messages per second of the measured time. HELD is judged only where a rate was given as an expectation; one
    message may lie on the edge of the time."""
    seconds = max(done["measured_ns"], 1) / NS_PER_S
    held = (done["measured_messages"] + 1) / seconds >= HELD_SHARE * plan.rate
    return {
        "target": plan.rate or None,
        "achieved": round(done["measured_messages"] / seconds, 1),
        "held": complete and held if plan.rate else None,
        "rows_per_s": round(done["measured_rows"] / seconds, 1),
        "bytes_per_s": round(done["measured_bytes"] / seconds, 1),
    }


def own_words(plan: Plan, complete: bool, done: Message) -> dict[str, dict[str, Any]]:
    """What the process said, in the report's form: None is what only the other side knows."""
    names = ("streams_seen", "unlearned", "outside", "foreign", "restarts", "refused")
    heard = ("other_messages", "heartbeats", "missing_at_end")
    rows = ("received", "missing", "duplicate", "reordered", "corrupt")
    ours = ("schedule", "streams", "rows", "seed", "publishers", "audience", "tick_us", "faults")
    config = {"rate": plan.rate or None, "transport": plan.servers.pub, "topics": list(plan.topics)}
    clock = {"untimed": done["untimed"], "behind": done["behind"], "caveat": CAVEAT}
    return {
        "config": dict.fromkeys(ours) | config,
        "rate": _rate(plan, complete, done),
        "counts": counts(**{name: done[name] for name in rows}),
        "generator": generator({"subscriber": done["cpu"]}),
        "sub": {name: done[name] for name in (*names, *heard)} | {"clock": clock, "streams": done["streams"]},
    }


def run(plan: Plan, *, say: Callable[[str], None], interrupted: Callable[[], bool]) -> Outcome:
    """Carry out a plan of this mode, as `flux.loadgen.run.run` says."""
    check_alone(plan)
    if not plan.servers.pub:
        raise ConfigError("--mode sub measures a publisher that is there: say where with --pub")
    prefixes_of(plan)
    children = Children("sub")
    with children as (worker,):
        worker.tell("plan", plan=dataclasses.asdict(plan))
        following = Following(plan, worker, say=say, line=_line, interrupted=interrupted)
        told = following.follow(children)
    times = {f"from_{name}": unpacked(told.done[name]) for name in ("recorded", "origin")}
    timed = {name: histogram for name, histogram in times.items() if histogram.total}
    return outcome_of(plan, told, latency=timed, own=own_words(plan, told.complete, told.done))
