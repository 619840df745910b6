"""The subscribing process: blocks until something is there, drains it into rings, accounts for it by column.

The time a message counts as received is taken once, after the drain that brought it: later than it was, never
earlier. `python -m flux.loadgen.subscriber`, started by `run`; talks as `process` says.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from flux.loadgen.histogram import Histogram, Load, Tally, percentile
from flux.loadgen.plan import HWM, NS_PER_S, Plan
from flux.loadgen.process import Commands, Usage, packed, settle, tell
from flux.loadgen.streams import INTERVAL, SOURCE, streams_of
from flux.transport.pump import Drained, Receiver, Streams
from flux.transport.sockets import Poller, Socket, Sockets
from flux.transport.topics import v2_prefix

QUIET_NS: Final = NS_PER_S // 2  # nothing more for so long behind the publisher's end: it is lost
_REFUSED: Final = (
    "short",
    "size",
    "checksum",
    "verify",
    "frames",
    "version",
    "sequence",
    "rows",
    "kind",
    "key",
)


class Receiving:
    """A run of the subscriber: counts in rows, times in ns since the run's start."""

    def __init__(self, plan: Plan, socket: Socket, streams: Streams) -> None:
        self.plan = plan
        self.schedule, self.send = Histogram(), Histogram()
        self._interval = Histogram()
        self._streams = streams
        self._receiver = Receiver(socket, self._streams)
        rings = [self._streams.ring(slot)._address for slot in range(plan.streams)]
        self.tally = Tally(Load(plan.rate, plan.streams, plan.rows, plan.seed), rings, plan.warmup_messages)
        self._told = 0

    def drain(self, start_ns: int) -> bool:
        """Take what waits; whether there was anything."""
        arrivals, status = self._receiver.receive()
        if status == Drained.UNKNOWN_STREAM:
            self._receiver.discard()
        if len(arrivals):
            now = time.monotonic_ns() - start_ns
            self.tally.account(arrivals, now, self.schedule, self.send, self._interval)
        return len(arrivals) > 0

    @property
    def corrupt(self) -> int:
        """Rows with other bytes than were sent, and the rows of messages refused for what they are."""
        counters = self._receiver.counters
        return self.tally.corrupt + sum(counters[name] for name in _REFUSED) * self.plan.rows

    def tell_second(self, t_s: float) -> None:
        interval, tally = self._interval, self.tally
        tell(
            "second",
            t_s=t_s,
            received=tally.received - self._told,
            missing=tally.reached - tally.received,
            p50=percentile(interval, 50.0),
            p99=percentile(interval, 99.0),
            max=interval.max,
        )
        self._told = tally.received
        interval.reset()

    def result(self, expected: int) -> dict[str, Any]:
        tally = self.tally
        return {
            "received": tally.received,
            "missing": expected - tally.received,
            "duplicate": tally.duplicate,
            "reordered": tally.reordered,
            "corrupt": self.corrupt,
            "unread": tally.unread,
            "measured": tally.measured,
            "last_ns": tally.last_ns,
            "from_schedule": packed(self.schedule),
            "from_send": packed(self.send),
        }


def receive(run: Receiving, socket: Socket, start_ns: int, commands: Commands) -> int:
    """Receive until all that was numbered is here, or nothing more comes; how many rows were numbered."""
    poller = Poller(socket, commands.wake)
    seconds = iter(run.plan.seconds())
    t_s, ends_ns = next(seconds)
    expected: int | None = None
    active_ns = time.monotonic_ns()
    while True:
        wait_ns = QUIET_NS // 5 if expected is not None else ends_ns - (time.monotonic_ns() - start_ns)
        ready = poller.wait(min(max(wait_ns, NS_PER_S // 1000), NS_PER_S) / NS_PER_S)
        drained = run.drain(start_ns)
        now = time.monotonic_ns()
        if drained:
            active_ns = now
        while now - start_ns >= ends_ns and ends_ns < run.plan.run_ns:
            run.tell_second(t_s)
            t_s, ends_ns = next(seconds)
        command = commands.taken() if commands.wake in ready else None
        if command is not None and command["command"] == "finish":
            expected, active_ns = sum(run.plan.heads(command["messages"])), now
        if commands.stopping:
            break
        if expected is not None and (run.tally.reached >= expected or now - active_ns > QUIET_NS):
            break
    run.tell_second(t_s)
    return expected or 0


def main() -> int:
    commands = Commands()
    plan_command = commands.take()
    if commands.stopping:
        return 0
    plan = Plan.of(plan_command["plan"])
    with Sockets() as sockets:
        prefix = v2_prefix("candles", SOURCE, INTERVAL)
        socket = sockets.subscriber(plan_command["endpoint"], [prefix], hwm=HWM)
        run = Receiving(plan, socket, streams_of(plan, store_id=plan_command["store_id"]))
        go = commands.take()
        if go["command"] == "go":
            settle()
            usage = Usage()
            expected = receive(run, socket, go["start_ns"], commands)
            tell("done", cpu=usage.share(), **run.result(expected))
            commands.wait_for_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
