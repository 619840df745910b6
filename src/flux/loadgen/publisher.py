"""The publishing process: each tick it sends what is due, in compiled code, and sleeps until the next.

`python -m flux.loadgen.publisher`, started by `run`; talks as `process` says.
"""

from __future__ import annotations

import sys
import time
from typing import Final

import numpy as np

from flux.journal import Group
from flux.limits import MAX_HEAD_BYTES, MAX_TOPIC_BYTES
from flux.loadgen.histogram import Histogram, Load, Schedule, sharpen_sleep, sleep_until
from flux.loadgen.plan import HWM, TICK_NS, Plan
from flux.loadgen.process import Commands, Usage, packed, settle, tell
from flux.loadgen.streams import EPOCH, streams_of
from flux.model import CANDLE, RUN
from flux.transport.pump import Sender, record
from flux.transport.sockets import Poller, Publisher, Sockets, endpoint_of, libzmq_version

BATCH_ROWS: Final = 16_384  # rows sent at once when the process is behind; then it looks at the clock again


class Publishing:
    """A run of the publisher: counts in rows, times in ns."""

    def __init__(self, plan: Plan, publisher: Publisher, store_id: int) -> None:
        self.plan = plan
        self.batch = max(1, BATCH_ROWS // plan.rows)  # messages
        self.messages = 0  # numbered so far: sent, or dropped on purpose
        self.blocked = 0
        self.slip = Histogram()
        self._store_id = store_id
        self._streams = streams_of(plan, self.batch)
        self._sender = Sender(publisher.socket, self._streams)
        self._load = Load(plan.rate, plan.streams, plan.rows, plan.seed)
        self._rows = np.zeros(self.batch * plan.rows, CANDLE)
        self._runs = np.zeros(min(self.batch, plan.streams), RUN)
        most = self.batch + len(self._runs)  # the end of a ring cuts a message in two
        self._group = Group(most * (plan.rows * CANDLE.itemsize + MAX_HEAD_BYTES + MAX_TOPIC_BYTES + 64))
        self._numbers = np.zeros(self.batch, np.int64) if plan.faults.drop else None
        self._intended = self._rows["turnover"]
        self._inbox = self._rows.view(np.uint8)

    def send(self, count: int, elapsed_ns: int) -> None:
        """Number, encode and send the next `count` messages, all of them at `elapsed_ns` of the run."""
        first, rows = self.messages, count * self.plan.rows
        runs = self._load.fill(first, count, elapsed_ns, self._rows, self._runs, self._numbers)
        self._group.clear()
        record(
            self._streams,
            self._group,
            self._inbox,
            self._runs[:runs],
            store_id=self._store_id,
            epoch=EPOCH,
            max_rows=self.plan.rows,
        )
        order = None
        if self._numbers is not None:
            kept = (self._numbers[:count] + 1) % self.plan.faults.drop != 0
            order = np.flatnonzero(kept).astype(np.uint32)
        self.blocked += self._sender.send(self._group, order).blocked
        self.messages += count
        if first >= self.plan.warmup_messages:
            self.slip.record_since(self._intended[:rows], elapsed_ns)


def publish(run: Publishing, start_ns: int, commands: Commands) -> int:
    """Send until the plan is done or the parent says stop; how many messages were due by then."""
    plan, schedule = run.plan, Schedule(run.plan.rate, start_ns)
    seconds = iter(plan.seconds())
    t_s, ends_ns = next(seconds)
    told = due = 0
    while run.messages < plan.messages and not commands.stopping:
        now = time.monotonic_ns()
        due = min(schedule.due(now), plan.messages)
        count = min(due - run.messages, run.batch)
        if run.messages < plan.warmup_messages:  # a batch is warm-up or measured, never both
            count = min(count, plan.warmup_messages - run.messages)
        if count:
            run.send(count, now - start_ns)
        while now - start_ns >= ends_ns and ends_ns < plan.run_ns:
            tell("second", t_s=t_s, sent=(run.messages - told) * plan.rows)
            told = run.messages
            t_s, ends_ns = next(seconds)
        if run.messages == due:
            sleep_until(start_ns + ((now - start_ns) // TICK_NS + 1) * TICK_NS)
    tell("second", t_s=t_s, sent=(run.messages - told) * plan.rows)
    return due


def main() -> int:
    commands = Commands()
    plan_command = commands.take()
    if commands.stopping:
        return 0
    plan = Plan.of(plan_command["plan"])
    with Sockets() as sockets:
        publisher = sockets.publisher("tcp://127.0.0.1:*", hwm=HWM)
        run = Publishing(plan, publisher, plan_command["store_id"])
        tell("bound", endpoint=endpoint_of(publisher.socket), libzmq=libzmq_version())
        poller = Poller(publisher.socket, commands.wake)
        while not publisher.subscriptions.prefixes and not commands.stopping:
            poller.wait()
            publisher.drain()
        tell("subscribed")
        go = commands.take()
        if go["command"] == "go":
            sharpen_sleep()
            settle()
            usage = Usage()
            sleep_until(go["start_ns"])
            due = publish(run, go["start_ns"], commands)
            tell(
                "done",
                messages=run.messages,
                scheduled=due * plan.rows,
                sent=(run.messages - run.blocked) * plan.rows,
                send_blocked=run.blocked,
                slip=packed(run.slip),
                cpu=usage.share(),
            )
            commands.wait_for_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
