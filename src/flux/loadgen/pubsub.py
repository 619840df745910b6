"""Mode `pubsub`: start the two processes, let them go at one moment, show each second, put their numbers together.

    publisher   plan ► bound ──────► subscribed ► go ► second ... ► done ───────► stdin closed
    subscriber            └► plan ► (connects) ──► go ► second ... ► finish ► done ► stdin closed

The publisher waits for the subscription itself, so nothing is sent before it can arrive.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from flux.errors import FluxError
from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.process import Child, Children, Message, unpacked
from flux.loadgen.report import Outcome, Received, Sent, second_line

LEAD_NS: Final = NS_PER_S // 5  # from "go" to the run's start: both are in their loops by then
START_LIMIT_NS: Final = 30 * NS_PER_S
END_LIMIT_NS: Final = 60 * NS_PER_S  # behind the plan's end; a full backlog drains in less


class _Run:
    """The parent's state: what it has heard so far."""

    def __init__(self, plan: Plan, publisher: Child, subscriber: Child, say: Callable[[str], None]) -> None:
        self.publisher, self.subscriber = publisher, subscriber
        self.plan = plan
        self.complete = True
        self.libzmq = ""
        self.sent: Message | None = None
        self.received: Message | None = None
        self.seconds: dict[float, dict[str, Any]] = {}
        self._say = say
        self._config = {"plan": dataclasses.asdict(plan), "store_id": secrets.randbits(63)}
        self._deadline_ns = time.monotonic_ns() + START_LIMIT_NS
        self._going = False
        publisher.tell("plan", **self._config)

    def hear(self, child: Child, event: Message) -> None:
        match event.pop("event"):
            case "bound":
                self.libzmq = event["libzmq"]
                self.subscriber.tell("plan", endpoint=event["endpoint"], **self._config)
            case "subscribed":
                self._go()
            case "second":
                self._second(event)
            case "done" if child is self.publisher:
                self.sent = event
                self.subscriber.tell("finish", messages=event["messages"])
            case "done":
                self.received = event

    def _go(self) -> None:
        start_ns = time.monotonic_ns() + LEAD_NS
        self._deadline_ns = start_ns + self.plan.run_ns + END_LIMIT_NS
        self._going = True
        for child in (self.publisher, self.subscriber):
            child.tell("go", start_ns=start_ns)

    def _second(self, part: Message) -> None:
        second = self.seconds.setdefault(part["t_s"], {})
        second |= part
        if {"sent", "received"} <= second.keys():
            self._say(second_line(second, warmup=part["t_s"] <= 0))

    def interrupt(self) -> None:
        """Ctrl-C: end early, with the numbers so far."""
        if not self._going:
            raise KeyboardInterrupt
        self.complete = False
        self.publisher.tell("stop")

    def check_time(self) -> None:
        if time.monotonic_ns() > self._deadline_ns:
            waiting = "publisher" if self.sent is None else "subscriber"
            raise FluxError(f"the {waiting} process did not get ready or finish in time")

    def outcome(self) -> Outcome:
        assert self.sent is not None
        assert self.received is not None
        sent, got = self.sent, self.received
        keys = ("t_s", "sent", "received", "p50", "p99", "max", "missing")
        return Outcome(
            plan=self.plan,
            complete=self.complete,
            publisher=Sent(
                scheduled=sent["scheduled"],
                sent=sent["sent"],
                send_blocked=sent["send_blocked"],
                slip=unpacked(sent["slip"]),
                cpu=sent["cpu"],
            ),
            subscriber=Received(
                received=got["received"],
                missing=got["missing"],
                duplicate=got["duplicate"],
                reordered=got["reordered"],
                corrupt=got["corrupt"],
                unread=got["unread"],
                measured=got["measured"],
                last_ns=got["last_ns"],
                from_schedule=unpacked(got["from_schedule"]),
                from_send=unpacked(got["from_send"]),
                cpu=got["cpu"],
            ),
            libzmq=self.libzmq,
            intervals=[
                {key: second.get(key, 0) for key in keys}
                for t_s, second in sorted(self.seconds.items())
                if t_s > 0
            ],
        )


def run(plan: Plan, *, say: Callable[[str], None], interrupted: Callable[[], bool]) -> Outcome:
    """Carry out a plan of this mode, as `flux.loadgen.run.run` says."""
    children = Children("publisher", "subscriber")
    with children as (publisher, subscriber):
        state = _Run(plan, publisher, subscriber, say)

        def idle() -> None:
            state.check_time()
            if state.complete and interrupted():
                state.interrupt()

        for child, event in children.events(idle):
            state.hear(child, event)
            if state.sent is not None and state.received is not None:
                break
    return state.outcome()
