"""A bound XPUB socket and its subscribers. Its door is `sockets.py`."""

from __future__ import annotations

from flux.limits import SUBSCRIPTIONS_PER_LOOK
from flux.transport.frames import Socket, receive
from flux.transport.topics import Subscriptions


class Publisher:
    """A bound XPUB socket and what its subscribers asked for.

    Plain, never VERBOSE: so the subscription messages of each prefix balance (`topics.Subscriptions`).
    """

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self.subscriptions = Subscriptions()
        self.more = False
        """Whether `drain` left messages of subscribers waiting."""

    def hear(self, frame: bytes) -> list[bytes]:
        """Take one frame of a subscriber; the prefix whose topics it changed, if any (`Subscriptions.apply`)."""
        prefix = self.subscriptions.apply(frame)
        return [] if prefix is None else [prefix]

    def drain(self) -> list[bytes]:
        """Take what subscribers sent since the last call, at most `SUBSCRIPTIONS_PER_LOOK` messages (then `more` is
        True); the changed prefixes."""
        changed: list[bytes] = []
        self.more = False
        for _ in range(SUBSCRIPTIONS_PER_LOOK):
            frames = receive(self.socket)
            if frames is None:
                return changed
            if len(frames) == 1:
                changed += self.hear(frames[0])
        self.more = True
        return changed
