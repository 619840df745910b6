"""The pump over real sockets: hostile frames through PUSH and PULL, to a server's receiver and to a client's.

The frame of the corpus that decoding.py has just damaged is sent as it is, now and then with a frame too many or too
few, and `receive` is called until the socket is empty. Streams and runs that a message names are taken up while there
is room, as server and client do; more are dropped. Nothing may be raised, and every message must be counted.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flux.transport.pump import Receiver

NAME = b"sockets".ljust(12, b"\0")
STREAMS = 24
RUNS = 8
RING_ROWS = 64
FRESH = 20_000
"""Messages after which both sides begin anew, so that streams are met for the first time again."""


class Side:
    """A PUSH socket and the receiver at the other end; `server` says which half of the pump that is."""

    def __init__(self, server: bool) -> None:
        import zmq

        from flux.transport.pump import Receiver, Streams

        self.server, self.sent = server, 0
        self.context = zmq.Context()
        self.pull, self.push = self.context.socket(zmq.PULL), self.context.socket(zmq.PUSH)
        self.pull.bind("inproc://hostile")
        self.push.connect("inproc://hostile")
        self.streams = Streams(STREAMS)
        self.receiver: Receiver = Receiver(self.pull, self.streams, server=server)

    def send(self, frame: bytes, chance: random.Random) -> None:
        """One message, then all that the receiver makes of it."""
        frames = [frame] if self.server else [b"topic", frame]
        if chance.random() < 0.05:
            frames.insert(chance.randrange(len(frames) + 1), frame[: chance.randrange(64)])
        elif chance.random() < 0.02:
            frames = frames[:-1] or [b""]
        self.push.send_multipart(frames)
        self.sent += 1
        for _ in range(64):
            arrivals, status = self.receiver.receive()
            arrivals.tobytes()
            assert all(isinstance(other, bytes) for other in self.receiver.others)
            if self._go_on(status):
                return
        raise AssertionError("a message that is never done with")

    def _go_on(self, status: int) -> bool:
        """Deals with what the receiver asks for; whether the socket is empty."""
        from flux.transport.pump import Drained

        if status == Drained.EMPTY:
            return True
        if status == Drained.UNKNOWN_STREAM:
            self._take_up()
        elif status == Drained.UNKNOWN_RUN:
            unknown = self.receiver.unknown
            assert unknown is not None
            self.receiver.kernel.add_run(unknown.key[0], unknown.store_id, 0, owner=1)
        elif status == Drained.HELD:
            self.receiver.discard()
        return False

    def _take_up(self) -> None:
        from flux.errors import FluxError
        from flux.limits import MAX_RUNS
        from flux.model import StreamKey

        assert MAX_RUNS >= RUNS
        unknown = self.receiver.unknown
        assert unknown is not None
        try:
            key = StreamKey(*(name.decode("ascii") for name in unknown.key)).checked()
            if len(self.streams) == STREAMS or key.kind is not unknown.kind:
                self.receiver.discard()
                return
        except (UnicodeDecodeError, FluxError):
            self.receiver.discard()
            return
        slot = self.streams.add(key, stream_id=len(self.streams), ring_rows=RING_ROWS)
        if not self.server:
            self.streams.expect(slot, unknown.store_id, unknown.epoch)

    def close(self) -> None:
        """Every message was counted; then the sockets go."""
        counted = self.receiver.counters
        assert counted["messages"] + counted["frames"] == self.sent, counted
        self.push.close(0)
        self.pull.close(0)
        self.context.term()


class Sockets:
    """Both sides, begun anew after FRESH messages."""

    def __init__(self, seed: int) -> None:
        self.executions = self.rounds = 0
        self._chance = random.Random(seed)
        self._sides: list[Side] = []

    def send(self, frame: bytes) -> None:
        """The frame to a server and to a client."""
        if not self._sides:
            self._sides = [Side(server) for server in (True, False)]
            self.rounds += 1
        for side in self._sides:
            side.send(frame, self._chance)
            self.executions += 1
        if self._sides[0].sent == FRESH:
            self.close()

    def close(self) -> None:
        """See `Side.close`."""
        for side in self._sides:
            side.close()
        self._sides = []
