"""A subscribing process: blocks until something is there, drains it into rings, accounts for it in compiled code.

The time a message counts as received is taken once a bite (`drive.BITE` messages at most), behind the last of it:
later than it was, never earlier. `python -m flux.loadgen.workers.subscriber`, started by `pubsub`; talks as `process`
says. A slow one pauses behind each drain, a stopped one once does not read for a while, as the plan's `Audience`
says.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import numpy as np

from flux.limits import MAX_ARRIVALS
from flux.loadgen.drive import BITE, LOOK_NS, Drove, Flight, SubscriberLoop
from flux.loadgen.histogram import Histogram, Tally, percentile, sleep_until
from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.process import Commands, Usage, packed, settle, tell
from flux.loadgen.streams import INTERVAL, SOURCE, ready_topic, streams_of
from flux.transport.pump import UNREADABLE, Receiver, Streams
from flux.transport.sockets import Socket, Sockets
from flux.transport.topics import v2_prefix

QUIET_NS: Final = NS_PER_S // 10
QUIET_WAITS: Final = (
    5  # waits of QUIET_NS in which nothing came, behind the publisher's end: the rest is lost
)
MAX_STREAMS_LISTED: Final = 100  # of those that have something to say
_NEVER: Final = 2**63 - 1


class Receiving:
    """A run of the subscriber: counts in rows, times in ns since the run's start."""

    def __init__(
        self, plan: Plan, socket: Socket, streams: Streams, flight: Flight | None = None, number: int = 0
    ) -> None:
        self.plan = plan
        self.schedule, self.send = Histogram(), Histogram()
        self._interval = Histogram()
        self._socket, self._streams = socket, streams
        self._flight, self._number = flight, number
        self._receiver = Receiver(socket, streams)
        rings = [streams.ring(slot)._address for slot in range(plan.streams)]
        self.tally = Tally(plan.load(), rings, plan.warmup_messages)
        self._told = 0

    def loop(self, start_ns: int, commands: Commands, kind: str = "steady") -> SubscriberLoop:
        """What receives. A slow one takes as much at once as there is, and pauses behind it."""
        return SubscriberLoop(
            self.plan,
            self._socket,
            self._receiver,
            self.tally,
            (self.schedule, self.send, self._interval),
            commands.wake,
            start_ns=start_ns,
            bite=MAX_ARRIVALS if kind == "slow" else BITE,
            flight=self._flight,
            number=self._number,
        )

    def discard(self) -> None:
        """Drop the message that is of no stream here; it is counted."""
        self._receiver.discard()

    @property
    def refused(self) -> int:
        """Rows of messages refused for what they are: nobody can say whose they were."""
        counters = self._receiver.counters
        return sum(counters[name] for name in UNREADABLE) * self.plan.rows

    def tell_second(self, t_s: float) -> None:
        interval, tally = self._interval, self.tally
        times = {"p50": percentile(interval, 50.0), "p99": percentile(interval, 99.0), "max": interval.max}
        tell(
            "second",
            t_s=t_s,
            received=tally.received - self._told,
            missing=tally.reached - tally.received,
            **(dict.fromkeys(times) if self.plan.saturate else times),
        )
        self._told = tally.received
        interval.reset()

    def result(self, heads: list[int]) -> dict[str, Any]:
        """What `outcome.Received` wants to know, once it is known how far each stream was numbered."""
        tally = self.tally
        return {
            "received": tally.received,
            "missing": sum(heads) - tally.received,
            "duplicate": tally.duplicate,
            "reordered": tally.reordered,
            "corrupt": tally.corrupt + self.refused,
            "unread": tally.unread,
            "measured": tally.measured,
            "last_ns": tally.last_ns,
            "from_schedule": packed(self.schedule),
            "from_send": packed(self.send),
            "refused": self.refused,
            **self._streams_told(heads),
        }

    def _streams_told(self, heads: list[int]) -> dict[str, Any]:
        """How many streams have something to say, and the first of them; refused messages are in none."""
        counted = np.frombuffer(self.tally.streams(), np.int64).reshape(-1, 5)
        said = np.column_stack([np.array(heads) - counted[:, 1], counted[:, 2:]])
        faulty = np.flatnonzero(said.any(axis=1))
        names = ("missing", "duplicate", "reordered", "corrupt")
        listed = [
            {"stream": int(n), **dict(zip(names, said[n].tolist(), strict=True))}
            for n in faulty[:MAX_STREAMS_LISTED]
        ]
        return {"faulty_streams": len(faulty), "streams": listed}


class Manner:
    """How a subscriber of a kind reads: `steady` at once, `slow` with pauses, `stopped` not at all for a while."""

    def __init__(self, plan: Plan, kind: str, start_ns: int, commands: Commands) -> None:
        audience = plan.audience
        self.kind = kind
        self.stopped: list[int] = []  # from, until: ns of measured time, once it has happened
        self._pause_ns = audience.pause_ns if kind == "slow" else 0
        self._measured_ns = start_ns + plan.warmup_ns
        self._stop_ns = audience.stop_ns
        self.stop_at_ns = self._measured_ns + audience.stop_at_ns if kind == "stopped" else _NEVER
        self._commands = commands

    def rest(self, drained: bool) -> None:
        """Behind a drain, which brought something or not: the time in which this kind does not read."""
        now = time.monotonic_ns()
        if drained and self._pause_ns:
            self._sleep_until(now + self._pause_ns)
        elif now >= self.stop_at_ns:
            self._sleep_until(now + self._stop_ns)
            self.stopped = [now - self._measured_ns, time.monotonic_ns() - self._measured_ns]
            self.stop_at_ns = _NEVER

    def _sleep_until(self, end_ns: int) -> None:
        while (now := time.monotonic_ns()) < end_ns and not self._commands.stopping:
            sleep_until(min(end_ns, now + NS_PER_S // 10))


def receive(run: Receiving, start_ns: int, commands: Commands, manner: Manner | None = None) -> list[int]:
    """Receive until all that was numbered is here, or nothing more comes; the last sequence of each stream."""
    manner = manner or Manner(run.plan, "steady", start_ns, commands)
    loop = run.loop(start_ns, commands, manner.kind)
    seconds = iter(run.plan.seconds())
    t_s, ends_ns = next(seconds)
    heads: list[int] | None = None
    goal = 2**64 - 1
    quiet = 0  # waits, not time: who was stopped meanwhile has heard nothing because it did not listen
    now = time.monotonic_ns()
    drove = Drove.TIME
    while drove is not Drove.DONE and not commands.stopping and quiet < QUIET_WAITS:
        before = loop.messages
        second_ns = start_ns + ends_ns if now - start_ns < ends_ns else _NEVER
        until_ns = min(second_ns, manner.stop_at_ns, now + LOOK_NS) if heads is None else now + QUIET_NS
        drove = loop.run(until_ns, goal, once=manner.kind == "slow")
        if drove is Drove.HELD:
            run.discard()
        manner.rest(loop.messages > before)
        now = time.monotonic_ns()
        waited = heads is not None and drove is Drove.TIME and loop.messages == before
        quiet = quiet + 1 if waited else 0
        while now - start_ns >= ends_ns and ends_ns < run.plan.run_ns:
            run.tell_second(t_s)
            t_s, ends_ns = next(seconds)
        command = commands.taken()
        if command is not None and command["command"] == "finish":
            heads = run.plan.heads(*command["messages"])
            goal = sum(heads)
    run.tell_second(t_s)
    if heads == run.plan.all_heads():
        for t_s, _ in seconds:  # the last message may come seconds before the end
            run.tell_second(t_s)
    return heads or [0] * run.plan.streams


def main() -> int:
    commands = Commands()
    told = commands.take()
    if commands.stopping:
        return 0
    plan, number = Plan.of(told["plan"]), told["number"]
    kind = plan.audience.kinds[number]
    with Sockets() as sockets:
        wanted = [v2_prefix("candles", SOURCE, INTERVAL), ready_topic(number)]
        first, *others = told["endpoints"]
        socket = sockets.subscriber(first, wanted, hwm=plan.hwm)
        for endpoint in others:
            sockets.connect(socket, endpoint)
        flight = Flight(told["flight"], len(plan.audience.kinds)) if plan.saturate else None
        run = Receiving(plan, socket, streams_of(plan, store_id=told["store_id"]), flight, number)
        go = commands.take()
        if go["command"] == "go":
            settle()
            usage = Usage()
            manner = Manner(plan, kind, go["start_ns"], commands)
            heads = receive(run, go["start_ns"], commands, manner)
            tell("done", kind=kind, cpu=usage.share(), stopped=manner.stopped, **run.result(heads))
            commands.wait_for_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
