"""What the text of an endpoint says, and its address held for whoever binds it later."""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import Final

_MAX_PORT: Final = 65_535

OpenAddress = socket.socket
"""An address that is held; its `close` gives it back."""


def malformed(endpoint: str) -> str:
    """A sentence where this is no endpoint, else ""."""
    if "://" not in endpoint:
        return f"{endpoint!a} is no endpoint: write it like tcp://127.0.0.1:5556"
    # libzmq keeps the low 16 bits of a larger port and binds another one than was asked for.
    port = endpoint.rpartition(":")[2]
    if endpoint.startswith("tcp://") and port.isdigit() and int(port) > _MAX_PORT:
        return f"{endpoint!a}: a port is at most {_MAX_PORT}"
    return ""


def is_local(endpoint: str) -> bool:
    """Whether only this machine can reach a bound endpoint."""
    if endpoint.startswith(("inproc://", "ipc://")):
        return True
    host = re.fullmatch(r"tcp://\[?([^\]]*?)\]?:(?:\d+|\*)", endpoint)
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host[1]).is_loopback
    except ValueError:
        return host[1] in ("localhost", "lo")


def refusal(endpoint: str) -> str:
    """Why an endpoint that is not local is not bound, and what to do."""
    port = endpoint.rpartition(":")[2]
    return (
        f"{endpoint!a} can be reached from other machines, and nothing would ask them for a key. Either bind "
        f"tcp://127.0.0.1:{port} and let others in through a tunnel (ssh -L); or give both sides CURVE keys "
        f"(flux keygen, in a later version); or say --insecure, and whoever reaches the port may read and ask"
    )


def hold(endpoint: str) -> OpenAddress | None:
    """The address of an endpoint bound, and nobody let in; None where it is not an IPv4 address with its port. Raises
    `OSError` where it cannot be had.

    libzmq has one call for both, and peers that wait for the port take a descriptor each as soon as it listens.
    """
    found = re.fullmatch(r"tcp://(\*|[\d.]+):(\d+|\*)", endpoint)
    if found is None:
        return None
    host, port = "0.0.0.0" if found[1] == "*" else found[1], 0 if found[2] == "*" else int(found[2])
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as libzmq does
        held.bind((host, port))
    except OSError:
        held.close()
        raise
    return held
