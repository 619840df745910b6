"""The client's process of mode `through`: follows the server's PUB socket, and accounts for it by sequence.

The server numbers each fresh stream from 1 and joins rows under load, so sequences and rows are the feeder's,
messages are not. `python -m flux.loadgen.workers.follower`, started by `through`; talks as `process` says.
"""

from __future__ import annotations

import sys
from typing import Final

from flux.limits import MAX_ARRIVALS, MAX_LIVE_ROWS
from flux.loadgen.plan import HWM, Plan
from flux.loadgen.process import Commands, Usage, settle, tell
from flux.loadgen.streams import INTERVAL, streams_of
from flux.loadgen.workers.subscriber import Receiving, receive
from flux.transport.sockets import Poller, Socket, Sockets
from flux.transport.sockets import receive as receive_frames
from flux.transport.topics import BEAT, v2_prefix

POLL_S: Final = 1.0


def _hear_beat(socket: Socket, commands: Commands) -> None:
    """Wait for a heartbeat: both subscriptions travel together, and the run's start is some time away."""
    poller = Poller(socket, commands.wake)
    while not commands.stopping:
        poller.wait(POLL_S)
        if receive_frames(socket) is not None:
            return


def main() -> int:
    commands = Commands()
    told = commands.take()
    if commands.stopping:
        return 0
    plan = Plan.of(told["plan"])
    with Sockets() as sockets:
        source = told["source"]
        socket = sockets.subscriber(told["pub"], [v2_prefix("candles", source, INTERVAL), BEAT], hwm=HWM)
        joined = MAX_ARRIVALS * MAX_LIVE_ROWS // plan.rows
        streams = streams_of(plan, joined, told["store_id"], source=source, epoch=told["epoch"])
        run = Receiving(plan, socket, streams)
        _hear_beat(socket, commands)
        tell("subscribed")
        go = commands.take()
        if go["command"] == "go":
            settle()
            usage = Usage()
            heads = receive(run, go["start_ns"], commands)
            tell("done", cpu=usage.share(), **run.result(heads))
            commands.wait_for_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
