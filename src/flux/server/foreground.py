"""A server as the whole business of a process: ready line, signals, exit code.

SIGTERM and the first Ctrl-C drain and stop it; a second one leaves at once, and the next start is clean all the same.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Final

from flux.config import ServeConfig
from flux.errors import FluxError
from flux.server.descriptors import allow_many
from flux.server.pipeline.committer import Faults
from flux.server.pipeline.inputs import ReplayInput
from flux.server.service import Server

EXIT_INTERRUPTED: Final = 130
LOOK_S: Final = 0.1


def serve(config: ServeConfig, faults: Faults | None = None) -> int:
    """Serve until a signal or a failure, and give the exit code.

    Raises what starting raises, and the error that ended the server early.
    """
    until = threading.Event()
    interrupted = False

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal interrupted
        if until.is_set():
            os._exit(EXIT_INTERRUPTED if number == signal.SIGINT else 0)
        interrupted = number == signal.SIGINT
        until.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    allow_many()
    server = Server(config, faults=faults)
    server.start()
    try:
        _say_ready(server)
        replaying = list(server.inputs)
        while not until.is_set() and not server.wait(LOOK_S):
            replaying = [source for source in replaying if not _say_ended(source)]
    finally:
        server.stop()
        if server.left_open:  # ending the interpreter would close, or wait for, what a thread still uses
            print(f"flux serve: {server.failure}", file=sys.stderr, flush=True)
            os._exit(1)
    if isinstance(server.failure, FluxError):
        raise server.failure
    if server.failure is not None:
        raise FluxError(
            f"the server met a fault of its own, which the log has: {server.failure!r}"
        ) from server.failure
    return EXIT_INTERRUPTED if interrupted else 0


def _say_ready(server: Server) -> None:
    """One line that people read and programs wait for."""
    ingest = f" ingest {server.ingest}" if server.ingest else ""
    print(
        f"flux serve: ready pub {server.live_pub} rpc {server.chunk_rep}{ingest} state {server.vitals.state.name}",
        flush=True,
    )
    for source in server.inputs:
        print(f"flux serve: {source.source.path} is replayed as {source.key}", file=sys.stderr, flush=True)
    if server.vitals.reason:
        print(f"flux serve: {server.vitals.reason}", file=sys.stderr, flush=True)


def _say_ended(source: ReplayInput) -> bool:
    """Whether a replay has ended: then a line that says so."""
    if not source.finished:
        return False
    rows = source.source.position.row
    print(f"flux serve: {source.key}: replayed to its end, row {rows}", file=sys.stderr, flush=True)
    return True
