"""The feeding process of mode `through`: each tick it pushes what is due to a server, in compiled code.

The server's high-water mark holds it back: what the socket does not take is late, and sent with the next tick.
`python -m flux.loadgen.feeder`, started by `through`; talks as `process` says.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import numpy as np

from flux.loadgen.histogram import Histogram, sharpen_sleep, sleep_until
from flux.loadgen.plan import FEED_TICK_NS, Plan
from flux.loadgen.process import Commands, Usage, packed, settle, tell
from flux.loadgen.streams import streams_of
from flux.model import CANDLE
from flux.transport.bridge import Pusher
from flux.transport.sockets import Poller, Socket, Sockets, libzmq_version, writable

BATCH_ROWS: Final = 1_024  # rows with one send time when it is behind; then it looks at the clock again
POLL_S: Final = 0.01


class Feeding:
    """A run of the feeder: counts in messages, times in ns since the run's start."""

    def __init__(self, plan: Plan, socket: Socket, source: str, run: int) -> None:
        self.plan = plan
        self.batch = max(1, BATCH_ROWS // plan.rows)
        self.messages = 0
        self.blocked = 0  # times the socket was full
        self.slip = Histogram()
        self._pusher = Pusher(socket, streams_of(plan, 1, source=source), run)
        self._load = plan.load()
        self._rows = np.zeros(self.batch * plan.rows, CANDLE)
        self._slots = np.zeros(self.batch, np.uint32)
        self._intended = self._rows["turnover"]

    def send(self, count: int, elapsed_ns: int) -> bool:
        """Push the next `count` messages; whether the socket took all of them."""
        rows = count * self.plan.rows
        self._load.lay(self.messages, count, elapsed_ns, self._rows, self._slots)
        taken = self._pusher.push(self._rows[:rows], self._slots, count)
        if taken and self.messages >= self.plan.warmup_messages:
            self.slip.record_since(self._intended[: taken * self.plan.rows], elapsed_ns)
        self.messages += taken
        self.blocked += taken < count
        return taken == count


def feed(run: Feeding, start_ns: int, commands: Commands) -> int:
    """Send until the plan is done or the parent says stop; how many messages were due by then."""
    plan, schedule = run.plan, run.plan.schedule(start_ns)
    seconds = iter(plan.seconds())
    t_s, ends_ns = next(seconds)
    told = due = 0
    while run.messages < plan.messages and not commands.stopping:
        now = time.monotonic_ns()
        due = min(schedule.due(now), plan.messages)
        count = min(due - run.messages, run.batch)
        if run.messages < plan.warmup_messages:  # a batch is warm-up or measured, never both
            count = min(count, plan.warmup_messages - run.messages)
        all_taken = run.send(count, now - start_ns) if count else True
        while now - start_ns >= ends_ns and ends_ns < plan.run_ns:
            tell("second", t_s=t_s, sent=(run.messages - told) * plan.rows)
            told = run.messages
            t_s, ends_ns = next(seconds)
        if run.messages == due or not all_taken:
            sleep_until(start_ns + ((now - start_ns) // FEED_TICK_NS + 1) * FEED_TICK_NS)
    rest = (
        seconds if run.messages == plan.messages else ()
    )  # its last message may come seconds before the end
    tell("second", t_s=t_s, sent=(run.messages - told) * plan.rows)
    for later_s, _ in rest:
        tell("second", t_s=later_s, sent=0)
    return due


def _ready(socket: Socket, commands: Commands) -> None:
    """Wait until the socket is connected: before that it takes nothing."""
    poller = Poller(commands.wake)
    while not writable(socket) and not commands.stopping:
        poller.wait(POLL_S)


def _done(run: Feeding, due: int, usage: Usage) -> dict[str, Any]:
    return {
        "messages": run.messages,
        "scheduled": due * run.plan.rows,
        "sent": run.messages * run.plan.rows,
        "send_blocked": run.blocked,
        "slip": packed(run.slip),
        "cpu": usage.share(),
    }


def main() -> int:
    commands = Commands()
    told = commands.take()
    if commands.stopping:
        return 0
    plan = Plan.of(told["plan"])
    with Sockets() as sockets:
        socket = sockets.pusher(told["ingest"])
        run = Feeding(plan, socket, told["source"], told["run"])
        _ready(socket, commands)
        tell("connected", libzmq=libzmq_version())
        go = commands.take()
        if go["command"] == "go":
            sharpen_sleep()
            settle()
            usage = Usage()
            sleep_until(go["start_ns"])
            due = feed(run, go["start_ns"], commands)
            tell("done", **_done(run, due, usage))
            commands.wait_for_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
