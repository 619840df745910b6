"""Mode `pubsub`: start the processes, let them go at one moment, show each second, put their numbers together.

    publishers    plan ► bound ──────► subscribed ► go ► second ... ► done ───────► stdin closed
    subscribers           └► plan ► (connects) ───► go ► second ... ► finish ► done ► stdin closed

A publisher waits for every subscription itself, so nothing is sent before it can arrive.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from flux.errors import FluxError
from flux.limits import MAX_ARRIVALS
from flux.loadgen.drive import Flight
from flux.loadgen.merge import merged_received, merged_sent
from flux.loadgen.outcome import Outcome, Received, Sent
from flux.loadgen.plan import HWM, NS_PER_S, Plan
from flux.loadgen.process import Child, Children, Message, unpacked
from flux.loadgen.report import second_line

LEAD_NS: Final = NS_PER_S // 5  # from "go" to the run's start: all are in their loops by then
START_LIMIT_NS: Final = 30 * NS_PER_S
END_LIMIT_NS: Final = 60 * NS_PER_S  # behind the plan's end; a full backlog drains in less
_BACKLOG_DRAINS: Final = (
    3 * HWM // MAX_ARRIVALS
)  # of a slow subscriber: full queues on both sides, and in between


class _Seconds:
    """What the publishers and the steady subscribers tell each second, as one line and one entry of the report."""

    def __init__(self, parts: int, plan: Plan, say: Callable[[str], None]) -> None:
        self._parts = parts  # how many processes tell of each second
        self._sent = "planned" if plan.faults else "sent"
        self._say = say
        self._told: dict[float, list[Message]] = {}

    def add(self, told: Message) -> None:
        of = self._told.setdefault(told["t_s"], [])
        of.append(told)
        if len(of) == self._parts:
            self._say(second_line(self._joined(told["t_s"]), warmup=told["t_s"] <= 0, sent=self._sent))

    def _joined(self, t_s: float) -> dict[str, Any]:
        """Rows add up; of times the worst counts, and none is none (a closed loop)."""
        parts = self._told[t_s]
        sums = {key: sum(part.get(key, 0) for part in parts) for key in ("sent", "received")}
        times = {key: [part[key] for part in parts if key in part] for key in ("p50", "p99", "max")}
        worst = {key: None if None in each else max(each, default=0) for key, each in times.items()}
        return {"t_s": t_s, **sums, **worst, "missing": sum(part.get("missing", 0) for part in parts)}

    def measured(self) -> list[dict[str, Any]]:
        """The seconds behind the warm-up, in order."""
        return [self._joined(t_s) for t_s in sorted(self._told) if t_s > 0]


class _Run:
    """The parent's state: what it has heard so far."""

    def __init__(
        self, plan: Plan, children: Sequence[Child], flight: int | None, say: Callable[[str], None]
    ) -> None:
        """`flight`: the descriptor of the counts that a closed loop shares."""
        self.plan = plan
        self.complete = True
        self.libzmq = ""
        self._publishers = children[: plan.publishers]
        self._subscribers = children[plan.publishers :]
        self._steady = self._subscribers[: plan.audience.steady]
        self._seconds = _Seconds(len(self._publishers) + len(self._steady), plan, say)
        self._endpoints: dict[Child, str] = {}
        self._ready = 0
        self._sent: dict[Child, Message] = {}
        self._received: dict[Child, Message] = {}
        self._config = {
            "plan": dataclasses.asdict(plan),
            "store_id": secrets.randbits(63),
            "flight": flight,
        }
        self._deadline_ns = time.monotonic_ns() + START_LIMIT_NS
        self._going = False
        for part, publisher in enumerate(self._publishers):
            publisher.tell("plan", part=part, **self._config)

    @property
    def done(self) -> bool:
        return len(self._received) == len(self._subscribers)

    def hear(self, child: Child, event: Message) -> None:
        match event.pop("event"):
            case "bound":
                self.libzmq = event["libzmq"]
                self._endpoints[child] = event["endpoint"]
                self._connect()
            case "subscribed":
                self._ready += 1
                self._go()
            case "second":
                if child in self._publishers or child in self._steady:
                    self._seconds.add(event)
            case "done" if child in self._publishers:
                self._sent[child] = event
                self._finish()
            case "done":
                self._received[child] = event

    def _connect(self) -> None:
        """Once every publisher is bound."""
        if len(self._endpoints) == len(self._publishers):
            endpoints = [self._endpoints[publisher] for publisher in self._publishers]
            for number, subscriber in enumerate(self._subscribers):
                subscriber.tell("plan", endpoints=endpoints, number=number, **self._config)

    def _go(self) -> None:
        """Once every publisher has its subscribers."""
        if self._ready == len(self._publishers):
            start_ns = time.monotonic_ns() + LEAD_NS
            pauses_ns = self.plan.audience.pause_ns * _BACKLOG_DRAINS if self.plan.audience.slow else 0
            self._deadline_ns = start_ns + self.plan.run_ns + END_LIMIT_NS + pauses_ns
            self._going = True
            for child in (*self._publishers, *self._subscribers):
                child.tell("go", start_ns=start_ns)

    def _finish(self) -> None:
        """Once every publisher is done."""
        if len(self._sent) == len(self._publishers):
            messages = [self._sent[publisher]["messages"] for publisher in self._publishers]
            for subscriber in self._subscribers:
                subscriber.tell("finish", messages=messages)

    def interrupt(self) -> None:
        """Ctrl-C: end early, with the numbers so far."""
        if not self._going:
            raise KeyboardInterrupt
        self.complete = False
        for publisher in self._publishers:
            publisher.tell("stop")

    def check_time(self) -> None:
        if time.monotonic_ns() > self._deadline_ns:
            waiting = "subscriber" if len(self._sent) == len(self._publishers) else "publisher"
            raise FluxError(f"the {waiting} process did not get ready or finish in time")

    def outcome(self) -> Outcome:
        publishers = [_sent(self._sent[child]) for child in self._publishers]
        subscribers = [_received(self._received[child]) for child in self._subscribers]
        return Outcome(
            plan=self.plan,
            complete=self.complete,
            publisher=merged_sent(publishers),
            subscriber=merged_received(subscribers[: len(self._steady)]),
            libzmq=self.libzmq,
            intervals=self._seconds.measured(),
            publishers=publishers,
            subscribers=subscribers,
        )


def _sent(told: Message) -> Sent:
    told = {key: value for key, value in told.items() if key != "messages"}
    return Sent(**{**told, "slip": unpacked(told["slip"])})


def _received(told: Message) -> Received:
    times = {key: unpacked(told[key]) for key in ("from_schedule", "from_send")}
    return Received(**{**told, **times})


def run(plan: Plan, *, say: Callable[[str], None], interrupted: Callable[[], bool]) -> Outcome:
    """Carry out a plan of this mode, as `flux.loadgen.run.run` says."""
    names = [*["publisher"] * plan.publishers, *["subscriber"] * len(plan.audience.kinds)]
    with contextlib.ExitStack() as stack:
        fds = [stack.enter_context(Flight.shared(len(plan.audience.kinds)))] if plan.saturate else []
        children = Children(*names, pass_fds=fds)
        state = _Run(plan, stack.enter_context(children), fds[0] if fds else None, say)

        def idle() -> None:
            state.check_time()
            if state.complete and interrupted():
                state.interrupt()

        for child, event in children.events(idle):
            state.hear(child, event)
            if state.done:
                break
    return state.outcome()
