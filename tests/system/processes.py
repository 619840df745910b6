"""Real processes for the system tests: started, watched through what they write, ended by pid."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from flux.journal import Position
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.fences import mark_of
from tests.patience import PATIENCE_S, readable

READY_S = 2 * PATIENCE_S  # the start of a Python is the slowest thing on a loaded machine

_PORTS = random.SystemRandom().sample(range(20_000, 32_000), 12_000)


class Flux:
    """A `flux` command as a process of its own."""

    def __init__(self, *arguments: str | Path, module: str = "flux.cli.main", **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # `line` polls: a second line must not wait in a buffer of ours
            env={**os.environ, **environment},
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self, timeout: float = READY_S) -> str:
        """The next line on its standard output; fails with its errors when it ends or says nothing."""
        assert self.process.stdout is not None
        found = self.process.stdout.readline().decode() if readable(self.process.stdout, timeout) else ""
        if not found:
            self.kill()
            raise AssertionError(f"no line in {timeout} s; it said: {self.errors()}")
        return found

    def errors(self) -> str:
        """All it wrote to its standard error; it must have ended."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout: float = READY_S) -> int:
        """SIGTERM, and its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = READY_S) -> int:
        """Its exit code, once it ends by itself."""
        return self.process.wait(timeout)

    def __enter__(self) -> Flux:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()


class FluxServer(Flux):
    """`flux serve` on free ports of this machine, ready when the object is made; `faulty`: the one with fault dials;
    `file_bytes`: of its journal's files, so that a short life has several."""

    def __init__(
        self,
        data: Path,
        *arguments: str | Path,
        pub: str = "tcp://127.0.0.1:*",
        rpc: str = "tcp://127.0.0.1:*",
        faulty: bool = False,
        file_bytes: int = 0,
    ) -> None:
        endpoints = ("--data", data, "--pub", pub, "--rpc", rpc)
        if file_bytes:
            super().__init__(str(file_bytes), *endpoints, *arguments, module="tests.disk.serve")
        elif faulty:
            super().__init__(*endpoints, *arguments, module="flux.testing")
        else:
            super().__init__("serve", *endpoints, *arguments)
        self.data = data
        said = self.line().split()
        self.pub = said[said.index("pub") + 1]
        self.rpc = said[said.index("rpc") + 1]
        self.ingest = said[said.index("ingest") + 1] if "ingest" in said else ""
        self.state = said[said.index("state") + 1]

    def heads(self) -> dict[str, int]:
        """The committed head of each of its streams, asked for as a client would."""
        with Sockets() as sockets:
            listed = Requester(sockets, self.rpc).ask(messages.stream_list_request, timeout=PATIENCE_S)
        return {str(stream.key): stream.latest_sequence for stream in listed.streams}

    def committed(self) -> Position:
        """How far its journal is, read from the fence as a stranger would."""
        mark = mark_of(self.data)
        return Position(0, 0) if mark is None else Position(mark.file, mark.offset)


def free_port() -> int:
    """A port for a server that is to come back at the same place, a new one each time: below those that the system
    hands out by itself (ip_local_port_range), so that no other socket gets it while the server is away."""
    while True:
        port = _PORTS.pop()
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # somebody has it
        return port


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 2 * PATIENCE_S) -> None:
    """Look again and again, for at most `timeout` seconds, at something that gives no event to wait for."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.002)
