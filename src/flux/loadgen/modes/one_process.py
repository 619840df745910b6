"""The parent's side of a mode whose work one process does (`workers.work` is the other side).

    run ──{"command": "plan" ... | "go" | "stop"}──► worker
    run ◄─{"event": "ready" | "second" | "done" | "failed"}── worker

`ready` says that the worker has all it needs; at `go` it learns when the run starts. What it cannot do, it says
in `failed`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from flux.errors import ConfigError, FluxError
from flux.loadgen.faults import Faults
from flux.loadgen.histogram import Histogram
from flux.loadgen.merge import slips
from flux.loadgen.outcome import Outcome, Received, Sent
from flux.loadgen.plan import NS_PER_S, Audience, Plan
from flux.loadgen.process import Child, Children, Message

LEAD_NS: Final = NS_PER_S // 5  # from "go" to the run's start: the worker is in its loop by then
READY_LIMIT_NS: Final = 60 * NS_PER_S
END_LIMIT_NS: Final = 60 * NS_PER_S  # behind the plan's end
_SHOWN: Final = ("t_s", "sent", "received", "p50", "p99", "max", "missing")


@dataclass(slots=True)
class Told:
    """What a worker said: its `done`, and its seconds of measured time in the report's form."""

    complete: bool = True  # False: ended by Ctrl-C
    done: Message = field(default_factory=dict)
    intervals: list[Message] = field(default_factory=list)


def outcome_of(
    plan: Plan, told: Told, *, latency: dict[str, Histogram], own: dict[str, dict[str, Any]]
) -> Outcome:
    """A run in the report's form, where the mode says all of its numbers itself."""
    none = Histogram()
    return Outcome(
        plan=plan,
        complete=told.complete,
        publisher=Sent(0, 0, 0, none, 0.0),
        subscriber=Received(0, 0, 0, 0, 0, 0, 0, 0, none, none, 0.0),
        libzmq=told.done["libzmq"],
        intervals=told.intervals,
        latency=latency,
        own=own,
    )


def check_alone(plan: Plan) -> None:
    """ConfigError where the plan asks for what only modes with a publisher of their own have."""
    if plan.ramp or plan.burst or plan.replay:
        raise ConfigError(f"--mode {plan.mode} knows a constant --rate alone")
    if plan.publishers != 1 or plan.audience != Audience() or plan.faults != Faults():
        raise ConfigError(
            f"--mode {plan.mode}: no --publishers, --subscribers, --slow, --stopped and --fault"
        )


def counts(**known: int) -> dict[str, int | None]:
    """The report's counts; what is not known in a mode is None."""
    names = ("scheduled", "sent", "received", "missing", "duplicate", "reordered", "corrupt", "unread")
    return dict.fromkeys((*names, "send_blocked")) | known


def generator(cpu: dict[str, float], slip: Histogram | None = None) -> dict[str, Any]:
    """The report's `generator`: CPU by its names there, and how late requests or messages were, if they had a time."""
    shares = {name: round(share, 3) for name, share in cpu.items()}
    return {
        "slip_ns": None if slip is None else slips(slip),
        "cpu": dict.fromkeys(("publisher", "subscriber")) | shares,
    }


def _nothing() -> None:
    return


class Following:
    """From a worker's `ready` to its `done`. `line` makes a text of each second."""

    def __init__(
        self,
        plan: Plan,
        worker: Child,
        *,
        say: Callable[[str], None],
        line: Callable[[Message], str],
        interrupted: Callable[[], bool],
    ) -> None:
        self._plan, self._worker = plan, worker
        self._say, self._line, self._interrupted = say, line, interrupted
        self._told = Told()
        self._going = False
        self._deadline_ns = time.monotonic_ns() + READY_LIMIT_NS

    def follow(self, children: Children, idle: Callable[[], None] = _nothing) -> Told:
        """Until the worker is done. `idle` is called some ten times a second.

        Raises FluxError when a process ends early or takes too long, or when the worker says what went wrong,
        KeyboardInterrupt when interrupted before the run has started.
        """

        def look() -> None:
            self._look()
            if self._going:
                idle()

        for child, event in children.events(look):
            if child is self._worker and self._heard(event):
                return self._told
        raise AssertionError("events end by an exception")

    def _heard(self, event: Message) -> bool:
        match event.pop("event"):
            case "ready":
                start_ns = time.monotonic_ns() + LEAD_NS
                self._deadline_ns = start_ns + self._plan.run_ns + END_LIMIT_NS
                self._going = True
                self._worker.tell("go", start_ns=start_ns)
            case "second":
                self._say(self._line(event) + ("  (warm-up)" if event["t_s"] <= 0 else ""))
                if event["t_s"] > 0:
                    self._told.intervals.append({key: event[key] for key in _SHOWN})
            case "failed":
                raise (ConfigError if event["usage"] else FluxError)(event["why"])
            case "done":
                self._told.done = event
                return True
        return False

    def _look(self) -> None:
        if time.monotonic_ns() > self._deadline_ns:
            raise FluxError(f"the {self._worker.name} process did not get ready or finish in time")
        if self._told.complete and self._interrupted():
            if not self._going:
                raise KeyboardInterrupt
            self._told.complete = False
            self._worker.tell("stop")
