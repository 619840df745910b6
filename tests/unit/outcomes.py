"""A run of the load generator as it might have been, without one."""

from __future__ import annotations

import dataclasses
from typing import Any

from flux.loadgen.histogram import Histogram
from flux.loadgen.outcome import Outcome, Received, Sent
from flux.loadgen.plan import NS_PER_S, Plan


def histogram(*values: int) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


PLAN = Plan(rate=1000, duration_ns=2 * NS_PER_S, warmup_ns=NS_PER_S)


def outcome(**received: Any) -> Outcome:
    got = Received(
        received=3000,
        missing=0,
        duplicate=0,
        reordered=0,
        corrupt=0,
        unread=0,
        measured=2000,
        last_ns=3 * NS_PER_S,
        from_schedule=histogram(1_000_000, 2_000_000, 7_000_000),
        from_send=histogram(900_000, 1_900_000),
        cpu=0.5,
    )
    return Outcome(
        plan=PLAN,
        complete=True,
        publisher=Sent(scheduled=3000, sent=3000, send_blocked=None, slip=histogram(60_000), cpu=0.3),
        subscriber=dataclasses.replace(got, **received),
        libzmq="4.3.5",
        intervals=[{"t_s": 1, "sent": 1000, "received": 1000, "p50": 1, "p99": 2, "max": 3, "missing": 0}],
    )


def closed(**received: Any) -> Outcome:
    """The same without a schedule, `--rate max`, by one publisher and one subscriber."""
    ran = outcome(**received)
    return dataclasses.replace(
        ran,
        plan=dataclasses.replace(PLAN, rate=0, saturate=True),
        publishers=[ran.publisher],
        subscribers=[ran.subscriber],
        intervals=[{**each, "p50": None, "p99": None, "max": None} for each in ran.intervals],
    )
