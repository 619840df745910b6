"""A publishing process: each tick it sends what is due, in compiled code, and sleeps until the next.

`python -m flux.loadgen.workers.publisher`, started by `pubsub`; talks as `process` says. With several, each has its
share of the streams and counts its own messages from 0. In a closed loop (`--rate max`) it sends while few enough
messages are under way, until the plan's time is over.
"""

from __future__ import annotations

import sys
from typing import Any

from flux.loadgen.drive import Flight, PublisherLoop, piece_of, send_all
from flux.loadgen.histogram import Histogram, sharpen_sleep, sleep_until
from flux.loadgen.plan import Plan
from flux.loadgen.process import Commands, Usage, packed, settle, tell
from flux.loadgen.streams import ready_topic, streams_of
from flux.loadgen.workers.inject import Wrongdoing
from flux.transport.pump import Sender
from flux.transport.sockets import Poller, Publisher, Sockets, endpoint_of, libzmq_version


class Publishing:
    """A run of one publisher: counts in messages, times in ns."""

    def __init__(self, plan: Plan, publisher: Publisher, told: dict[str, Any]) -> None:
        """`told` is the parent's word on what is this publisher's: `part`, `store_id`, `flight`."""
        self.plan, self.part = plan, int(told["part"])
        self.slip = Histogram()
        self._store_id = told["store_id"]
        self._flight = Flight(told["flight"], len(plan.audience.kinds)) if plan.saturate else None
        self._socket = publisher.socket
        self._streams = streams_of(plan, piece_of(plan), part=self.part)

    def publish(self, start_ns: int, commands: Commands) -> dict[str, Any]:
        """Send from `start_ns` until the plan is done or the parent says stop; its part of the report."""
        plan = self.plan
        loop = PublisherLoop(
            plan,
            self.part,
            self._socket,
            self._streams,
            self.slip,
            store_id=self._store_id,
            start_ns=start_ns,
            flight=self._flight,
        )
        sender = Sender(self._socket, self._streams)
        wrong = Wrongdoing(plan.faults, sender, loop.all, len(self._streams))

        def send_wronged() -> None:
            assert loop.numbers is not None
            wrong.send(loop.group, loop.numbers[: loop.group.count])

        sharpen_sleep()
        settle()
        usage = Usage()
        sleep_until(start_ns)
        send_all(loop, plan, start_ns, commands, send_wronged)
        wrong.finish()
        return {
            "messages": loop.messages,
            "scheduled": loop.due * plan.rows,
            "sent": loop.messages * plan.rows,
            "send_blocked": None,  # a PUB socket is never full: what a subscriber has no room for it drops
            "slip": packed(self.slip),
            "cpu": usage.share(),
            "faults": wrong.done if plan.faults else {},
        }


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
        publisher = sockets.publisher("tcp://127.0.0.1:*", hwm=plan.hwm)
        run = Publishing(plan, publisher, told)
        tell("bound", endpoint=endpoint_of(publisher.socket), libzmq=libzmq_version())
        _wait_for(publisher, len(plan.audience.kinds), commands)
        tell("subscribed")
        go = commands.take()
        if go["command"] == "go":
            tell("done", **run.publish(go["start_ns"], commands))
            commands.wait_for_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
