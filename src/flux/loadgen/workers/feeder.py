"""The feeding process of mode `through`: each tick it pushes what is due to a server, in compiled code.

The server's high-water mark holds it back: what the socket does not take is late, and sent with the next tick.
`python -m flux.loadgen.workers.feeder`, started by `through`; talks as `process` says.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from flux.loadgen.drive import FeederLoop, send_all
from flux.loadgen.histogram import Histogram, sharpen_sleep, sleep_until
from flux.loadgen.plan import Plan
from flux.loadgen.process import Commands, Usage, packed, settle, tell
from flux.loadgen.streams import streams_of
from flux.transport.sockets import Poller, Socket, Sockets, libzmq_version, writable

POLL_S: Final = 0.01


def _ready(socket: Socket, commands: Commands) -> None:
    """Wait until the socket is connected: before that it takes nothing."""
    poller = Poller(commands.wake)
    while not writable(socket) and not commands.stopping:
        poller.wait(POLL_S)


def _feed(loop: FeederLoop, plan: Plan, slip: Histogram, start_ns: int, commands: Commands) -> dict[str, Any]:
    """Push from `start_ns` until the plan is done or the parent says stop; the feeder's part of the report."""
    sharpen_sleep()
    settle()
    usage = Usage()
    sleep_until(start_ns)
    send_all(loop, plan, start_ns, commands)
    return {
        "messages": loop.messages,
        "scheduled": loop.due * plan.rows,
        "sent": loop.messages * plan.rows,
        "send_blocked": loop.blocked,
        "slip": packed(slip),
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
        streams, slip = streams_of(plan, 1, source=told["source"]), Histogram()
        _ready(socket, commands)
        tell("connected", libzmq=libzmq_version())
        go = commands.take()
        if go["command"] == "go":
            start_ns = go["start_ns"]
            loop = FeederLoop(plan, socket, streams, slip, run=told["run"], start_ns=start_ns)
            tell("done", **_feed(loop, plan, slip, start_ns, commands))
            commands.wait_for_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
