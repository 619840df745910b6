"""A run as it happened: what publishers and subscribers report at its end. `report` makes the contract of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flux.loadgen.histogram import Histogram
from flux.loadgen.plan import Plan


@dataclass(slots=True)
class Sent:
    """What a publisher says at its end. Rows, except where a unit is named."""

    scheduled: int  # due while it ran
    sent: int  # handed to the socket
    send_blocked: int | None  # times the socket was full; None where it drops instead (PUB)
    slip: Histogram  # ns from the intended to the actual send time, measured time only
    cpu: float  # share of one core
    faults: dict[str, int] = field(default_factory=dict)  # messages that it wronged on purpose, by kind


@dataclass(slots=True)
class Received:
    """What a subscriber says at its end. Rows, except where a unit is named."""

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
    kind: str = "steady"  # or slow, stopped
    refused: int = 0  # of `corrupt`: in messages whose stream nobody can say
    faulty_streams: int = 0  # with anything missing, duplicate, reordered or corrupt
    streams: list[dict[str, int]] = field(default_factory=list)  # the first of these, their counts
    stopped: list[int] = field(default_factory=list)  # from, until: ns of measured time


@dataclass(slots=True)
class Outcome:
    """A run as it happened; `report` turns it into the contract."""

    plan: Plan
    complete: bool  # False: ended by Ctrl-C
    publisher: Sent  # all of them together
    subscriber: Received  # the steady ones together
    libzmq: str
    intervals: list[dict[str, Any]] = field(default_factory=list)
    publishers: list[Sent] = field(default_factory=list)  # each, where there are processes of their own
    subscribers: list[Received] = field(default_factory=list)
    # What a mode says in its own words, instead of what follows from the above: what it timed, and keys of the
    # report, whose items replace or join those there. None stands for what has no meaning in the mode.
    latency: dict[str, Histogram] | None = None
    own: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def curves(self) -> dict[str, Histogram]:
        """What was timed, by its name in the report's `latency_ns`; the first is what the mode is about."""
        if self.latency is not None:
            return self.latency
        if self.plan.saturate:
            return {"from_send": self.subscriber.from_send}
        return {"from_schedule": self.subscriber.from_schedule, "from_send": self.subscriber.from_send}
