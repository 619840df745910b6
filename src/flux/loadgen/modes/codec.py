"""Mode `codec`: no sockets; rows to frames and back, from Python, as a service would call it.

`workers.codec` does it and says how it is timed; here its numbers become the report.
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
from flux.loadgen.workers.codec import BLOCK, DIRECTIONS

MAX_CODED: Final = 4_096  # streams; each has an encoder of its own


def _line(second: Message) -> str:
    return (
        f"{second['t_s']:>5g} s  rows {second['sent']:>10,}  p50 {duration_text(second['p50']):>8}"
        f"  p99 {duration_text(second['p99']):>8}  max {duration_text(second['max']):>8}"
    )


def _rate(plan: Plan, complete: bool, done: Message) -> dict[str, Any]:
    """Messages per second that went through both directions, the comparison included: the pace of the process, not
    of the codec, whose own is in `codec`."""
    least_ns = plan.duration_ns if complete and plan.rate else 1
    seconds = max(done["last_ns"] - plan.warmup_ns, least_ns) / NS_PER_S
    achieved = done["measured"] / seconds
    held = complete and done["messages"] == done["due"] and achieved >= HELD_SHARE * plan.rate
    return {
        "target": plan.rate or None,
        "achieved": round(achieved, 1),
        "held": held if plan.rate else None,
        "rows_per_s": round(achieved * plan.rows, 1),
        "bytes_per_s": round(achieved * done["frame_bytes"], 1),
    }


def _direction(plan: Plan, done: Message, name: str) -> dict[str, Any]:
    """One direction by itself: its time is in nothing but the calls."""
    per_message = done["spent"][name] / max(done["measured"], 1)
    per_second = NS_PER_S / per_message if per_message else 0.0
    return {
        "ns_per_message": round(per_message, 1),
        "ns_per_row": round(per_message / plan.rows, 2),
        "messages_per_s": round(per_second, 1),
        "bytes_per_s": round(per_second * done["frame_bytes"], 1),
        "message_ns": done["times"][name],
    }


def own_words(plan: Plan, complete: bool, done: Message) -> dict[str, dict[str, Any]]:
    """What the process said, in the report's form: nothing can be missing or out of order without a wire."""
    paced, rows = bool(plan.rate), done["messages"] * plan.rows
    due = {"scheduled": done["due"] * plan.rows} if paced else {}
    config = {
        "rate": plan.rate or None,
        "transport": "memory",
        "called_from": "Python, one call a message and direction",
        "timed": "each message" if paced else f"the mean of {BLOCK} messages",
    }
    return {
        "config": dict.fromkeys(("publishers", "audience", "hwm", "faults")) | config,
        "rate": _rate(plan, complete, done),
        "counts": counts(sent=rows, received=rows, corrupt=done["wrong"] * plan.rows, **due),
        "generator": generator({"publisher": done["cpu"]}, unpacked(done["slip"]) if paced else None),
        "codec": {
            "frame_bytes": done["frame_bytes"],
            **{name: _direction(plan, done, name) for name in DIRECTIONS},
        },
    }


def run(plan: Plan, *, say: Callable[[str], None], interrupted: Callable[[], bool]) -> Outcome:
    """Carry out a plan of this mode, as `flux.loadgen.run.run` says."""
    check_alone(plan)
    if plan.streams > MAX_CODED:
        raise ConfigError(f"--mode codec keeps an encoder a stream: at most {MAX_CODED:,} --streams")
    children = Children("codec")
    with children as (worker,):
        worker.tell("plan", plan=dataclasses.asdict(plan))
        following = Following(plan, worker, say=say, line=_line, interrupted=interrupted)
        told = following.follow(children)
    times = {"from_schedule": unpacked(told.done["schedule"])} if plan.rate else {}
    times |= {"from_send": unpacked(told.done["whole"])}
    return outcome_of(plan, told, latency=times, own=own_words(plan, told.complete, told.done))
