"""Mode `through`: a feed pushes to a flux server, which numbers, journals, stores and publishes; a client follows.

    server     started (or given) ► store_id, epoch
    follower   plan ► (a heartbeat) ─► subscribed ┐
    feeder     plan ► (connects) ────► connected ─┴► go ► second ... ► done ► follower: finish ► done

Three processes beside this one, which only waits. The source is new with every run, so its streams are fresh and the
server numbers them as the feeder does.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from flux.errors import ConfigError, FluxError
from flux.loadgen.outcome import Outcome, Received, Sent
from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.process import Child, Children, Message, unpacked
from flux.loadgen.report import second_line
from flux.loadgen.workers.server_process import ServerProcess

LEAD_NS: Final = NS_PER_S // 5  # from "go" to the run's start: both are in their loops by then
START_LIMIT_NS: Final = 30 * NS_PER_S
END_LIMIT_NS: Final = 60 * NS_PER_S  # behind the plan's end; a full backlog drains in less


class _Run:
    """The parent's state: what it has heard so far."""

    def __init__(self, plan: Plan, server: ServerProcess, feeder: Child, follower: Child) -> None:
        self.plan = plan
        self.server = server
        self.feeder, self.follower = feeder, follower
        self.complete = True
        self.libzmq = ""
        self.sent: Message | None = None
        self.received: Message | None = None
        self.seconds: dict[float, dict[str, Any]] = {}
        self.source = f"LOAD{secrets.token_hex(6)}"
        self.run = secrets.randbits(62) + 1
        self.cpu_s = self.wall_s = 0.0
        self._ready: set[str] = set()
        self._deadline_ns = time.monotonic_ns() + START_LIMIT_NS
        told = {"plan": dataclasses.asdict(plan), "source": self.source}
        follower.tell("plan", pub=server.pub, store_id=server.store_id, epoch=server.epoch, **told)
        feeder.tell("plan", ingest=server.ingest, run=self.run, **told)

    def hear(self, child: Child, event: Message, say: Callable[[str], None]) -> None:
        match event.pop("event"):
            case "connected":
                self.libzmq = event["libzmq"]
                self._get_ready("feeder")
            case "subscribed":
                self._get_ready("follower")
            case "second":
                second = self.seconds.setdefault(event["t_s"], {})
                second |= event
                if {"sent", "received"} <= second.keys():
                    say(second_line(second, warmup=event["t_s"] <= 0))
            case "done" if child is self.feeder:
                self.sent = event
                self.follower.tell("finish", messages=[event["messages"]])
            case "done":
                self.received = event
                self.cpu_s = self.server.cpu_s() - self.cpu_s
                self.wall_s = time.monotonic() - self.wall_s

    @property
    def going(self) -> bool:
        return len(self._ready) == 2

    def _get_ready(self, name: str) -> None:
        self._ready.add(name)
        if not self.going:
            return
        start_ns = time.monotonic_ns() + LEAD_NS
        self._deadline_ns = start_ns + self.plan.run_ns + END_LIMIT_NS
        self.cpu_s, self.wall_s = self.server.cpu_s(), time.monotonic()
        for child in (self.feeder, self.follower):
            child.tell("go", start_ns=start_ns)

    def look(self, interrupted: Callable[[], bool]) -> None:
        """What is to be done when nothing is heard: see to Ctrl-C and the time."""
        if self.complete and interrupted():
            if not self.going:
                raise KeyboardInterrupt
            self.complete = False
            self.feeder.tell("stop")
        if time.monotonic_ns() > self._deadline_ns:
            raise FluxError("the feeder or the follower did not get ready or finish in time")

    def outcome(self, server: dict[str, Any]) -> Outcome:
        assert self.sent is not None
        assert self.received is not None
        times = {key: unpacked(self.received[key]) for key in ("from_schedule", "from_send")}
        told = {key: value for key, value in self.sent.items() if key != "messages"}
        publisher = Sent(**{**told, "slip": unpacked(told["slip"])})
        subscriber = Received(**{**self.received, **times})
        keys = ("t_s", "sent", "received", "p50", "p99", "max", "missing")
        return Outcome(
            plan=self.plan,
            complete=self.complete,
            publisher=publisher,
            subscriber=subscriber,
            libzmq=self.libzmq,
            intervals=[
                {key: second.get(key, 0) for key in keys}
                for t_s, second in sorted(self.seconds.items())
                if t_s > 0
            ],
            publishers=[publisher],
            subscribers=[subscriber],
            own={"server": server},
        )


def run(plan: Plan, *, say: Callable[[str], None], interrupted: Callable[[], bool]) -> Outcome:
    """Carry out a plan of this mode, as `flux.loadgen.run.run` says.

    Raises ConfigError for a plan that the feeder cannot carry out.
    """
    if plan.publishers != 1 or len(plan.audience.kinds) != 1 or plan.faults:
        raise ConfigError("--mode through has one feed and one client, and no --fault")
    if plan.servers.pub and not (plan.servers.rpc and plan.servers.ingest):
        raise ConfigError("--mode through with a server that runs needs its --pub, --rpc and --ingest")
    with ServerProcess(plan) as server:
        children = Children("feeder", "follower")
        with children as (feeder, follower):
            state = _Run(plan, server, feeder, follower)
            for child, event in children.events(lambda: state.look(interrupted)):
                state.hear(child, event, say)
                if state.sent is not None and state.received is not None:
                    break
        return state.outcome(_of_server(state))


def _of_server(state: _Run) -> dict[str, Any]:
    """The server's part of the report: what its journal and its database have, and its CPU (null: not known)."""
    assert state.sent is not None
    server = state.server
    return {
        "started": server.started,
        "durability": state.plan.durability if server.started else None,
        "cpu": round(state.cpu_s / max(state.wall_s, 1e-9), 3) if server.started else None,
        "journalled": server.committed(state.source, state.run, state.sent["sent"]),
        "stored": server.stored(state.source),
    }
