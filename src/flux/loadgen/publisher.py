"""A publishing process: each tick it sends what is due, in compiled code, and sleeps until the next.

`python -m flux.loadgen.publisher`, started by `pubsub`; talks as `process` says. With several, each has its share of
the streams and counts its own messages from 0.
"""

from __future__ import annotations

import sys
import time
from typing import Final

import numpy as np

from flux.journal import Group
from flux.limits import MAX_HEAD_BYTES, MAX_TOPIC_BYTES
from flux.loadgen.histogram import Histogram, sharpen_sleep, sleep_until
from flux.loadgen.plan import HWM, TICK_NS, Plan
from flux.loadgen.process import Commands, Usage, packed, settle, tell
from flux.loadgen.streams import EPOCH, ready_topic, streams_of
from flux.loadgen.wrongdoing import Wrongdoing
from flux.model import CANDLE, RUN
from flux.transport.pump import Sender, record
from flux.transport.sockets import Poller, Publisher, Sockets, endpoint_of, libzmq_version

# Rows sent at once when the processes are behind; then they look at the clock again. All publishers together, because a
# batch goes out stream by stream, and a stream's part of it must fit the subscriber's ring.
BATCH_ROWS: Final = 16_384


class Publishing:
    """A run of one publisher: counts in rows, times in ns."""

    def __init__(self, plan: Plan, publisher: Publisher, store_id: int, part: int) -> None:
        self.plan, self.part = plan, part
        self.batch = max(1, BATCH_ROWS // plan.rows // plan.publishers)  # messages
        self.all = plan.shared(plan.messages, part)  # messages of the run
        self.warmup = plan.shared(plan.warmup_messages, part)
        self.messages = 0  # numbered so far: sent, or wronged on purpose
        self.slip = Histogram()
        streams = plan.streams // plan.publishers
        self._store_id = store_id
        self._streams = streams_of(plan, self.batch, part=part)
        self._load = plan.share(part)
        self._rows = np.zeros(self.batch * plan.rows, CANDLE)
        self._runs = np.zeros(min(self.batch, streams), RUN)
        most = self.batch + len(self._runs)  # the end of a ring cuts a message in two
        self._group = Group(most * (plan.rows * CANDLE.itemsize + MAX_HEAD_BYTES + MAX_TOPIC_BYTES + 64))
        self._sender = Sender(publisher.socket, self._streams)
        self._blocked = 0
        self.wrong = Wrongdoing(plan.faults, self._sender, self.all, streams) if plan.faults else None
        self._numbers = np.zeros(self.batch, np.int64) if plan.faults else None
        self._intended = self._rows["turnover"]
        self._inbox = self._rows.view(np.uint8)

    @property
    def blocked(self) -> int:
        """Messages that the socket had no room for."""
        return self._blocked + (self.wrong.blocked if self.wrong else 0)

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
        if self.wrong is not None and self._numbers is not None:
            self.wrong.send(self._group, self._numbers[:count])
        else:
            self._blocked += self._sender.send(self._group).blocked
        self.messages += count
        if first >= self.warmup:
            self.slip.record_since(self._intended[:rows], elapsed_ns)


def publish(run: Publishing, start_ns: int, commands: Commands) -> int:
    """Send until the plan is done or the parent says stop; how many messages were due by then."""
    plan, schedule = run.plan, run.plan.schedule(start_ns)
    seconds = iter(plan.seconds())
    t_s, ends_ns = next(seconds)
    told = due = 0
    while run.messages < run.all and not commands.stopping:
        now = time.monotonic_ns()
        due = min(plan.shared(schedule.due(now), run.part), run.all)
        count = min(due - run.messages, run.batch)
        if run.messages < run.warmup:  # a batch is warm-up or measured, never both
            count = min(count, run.warmup - run.messages)
        if count:
            run.send(count, now - start_ns)
        while now - start_ns >= ends_ns and ends_ns < plan.run_ns:
            tell("second", t_s=t_s, sent=(run.messages - told) * plan.rows)
            told = run.messages
            t_s, ends_ns = next(seconds)
        if run.messages == due:
            sleep_until(start_ns + ((now - start_ns) // TICK_NS + 1) * TICK_NS)
    if run.wrong is not None:
        run.wrong.finish()
    rest = seconds if run.messages == run.all else ()  # its last message may come seconds before the end
    tell("second", t_s=t_s, sent=(run.messages - told) * plan.rows)
    for later_s, _ in rest:
        tell("second", t_s=later_s, sent=0)
    return due


def _wait_for(publisher: Publisher, audience: int, commands: Commands) -> None:
    """Until each of so many subscribers has asked for everything; `ready_topic` says how that is seen."""
    ready = {ready_topic(number) for number in range(audience)}
    poller = Poller(publisher.socket, commands.wake)
    while not ready <= publisher.subscriptions.prefixes and not commands.stopping:
        poller.wait()
        publisher.drain()


def main() -> int:
    commands = Commands()
    told = commands.take()
    if commands.stopping:
        return 0
    plan = Plan.of(told["plan"])
    with Sockets() as sockets:
        publisher = sockets.publisher("tcp://127.0.0.1:*", hwm=HWM)
        run = Publishing(plan, publisher, told["store_id"], told["part"])
        tell("bound", endpoint=endpoint_of(publisher.socket), libzmq=libzmq_version())
        _wait_for(publisher, len(plan.audience.kinds), commands)
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
                faults=run.wrong.done if run.wrong else {},
            )
            commands.wait_for_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
