"""Connections of libzmq by their descriptors: how much came by one, and its end.

libzmq has no call for either. Its monitor gives the descriptor of every connection, though; the system counts the bytes
that came by it, and shutdown(2) ends it. On ipc, and where the system is not Linux, no bytes are counted.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from typing import Final, NamedTuple

_BYTES_RECEIVED: Final = 128  # of Linux' struct tcp_info


class Connection(NamedTuple):
    """A peer of a socket. The inode distinguishes its connection from another that got the number since."""

    descriptor: int
    inode: int
    peer: str
    look: int = 0  # those found in one look have no order among them


def connection_at(descriptor: int) -> Connection | None:
    """What a descriptor is now, if it is a connection."""
    try:
        inode = os.fstat(descriptor).st_ino
        with _borrowed(descriptor) as connection:
            name = connection.getpeername()
    except OSError:
        return None
    return Connection(
        descriptor, inode, ":".join(map(str, name[:2])) if isinstance(name, tuple) else str(name)
    )


def received_bytes(descriptor: int) -> int:
    """Bytes that a peer sent so far; 0 where the system does not count them."""
    try:
        with _borrowed(descriptor) as connection:
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
    except OSError:
        return 0
    return int.from_bytes(info[_BYTES_RECEIVED:], sys.byteorder)


def unread_bytes(descriptor: int) -> int:
    """Those of them that libzmq has not taken from the system yet."""
    try:
        return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def end(connection: Connection) -> bool:
    """End this connection, if it is still the one; what libzmq had of an unfinished message it frees in time."""
    if connection_at(connection.descriptor) != connection._replace(look=0):
        return False
    try:
        with _borrowed(connection.descriptor) as made:
            # What still comes is received after a shutdown too: without room for it the end is soon.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            # And libzmq's close is a reset: the peer would wait for that room otherwise.
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            made.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False  # it left meanwhile
    return True


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """libzmq's own descriptor as a socket, which stays open: a copy of it might not be had. Raises OSError."""
    held = socket.socket(fileno=descriptor)
    try:
        yield held
    finally:
        held.detach()
