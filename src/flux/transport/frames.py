"""Messages from and to a socket, which never wait. Their door is `sockets.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import zmq

from flux.limits import MAX_ENVELOPE_FRAMES

Socket: TypeAlias = "zmq.Socket[bytes]"


def receive(socket: Socket) -> list[bytes] | None:
    """The next message's frames, copied; None when there is none now. Of more than a message may have, the first."""
    try:
        frames = [socket.recv(zmq.DONTWAIT)]
    except zmq.Again:
        return None
    while socket.getsockopt(zmq.RCVMORE):
        frame = socket.recv()
        if len(frames) <= MAX_ENVELOPE_FRAMES + 2:
            frames.append(frame)
    return frames


def receive_some(socket: Socket, most: int) -> Iterator[list[bytes]]:
    """The messages that are there now, at most so many: a peer that sends faster than they are taken ends no loop."""
    for _ in range(most):
        frames = receive(socket)
        if frames is None:
            return
        yield frames


def send(socket: Socket, frames: Sequence[bytes]) -> bool:
    """Queue one message if there is room for it now; False when there is none."""
    try:
        socket.send_multipart(frames, zmq.DONTWAIT)
    except zmq.Again:
        return False
    return True


def writable(socket: Socket) -> bool:
    """Whether a message would be queued now."""
    return bool(socket.poll(0, zmq.POLLOUT))


def send_back(socket: Socket, frames: Sequence[bytes]) -> bool | None:
    """As `send`, by a router, whose first frame is the peer; None when that peer is gone."""
    try:
        return send(socket, frames)
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return None
        raise
