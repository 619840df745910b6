"""The servers: Debian's own programs, on a free port of the loopback, with an empty folder that goes with them.

redis-server: no snapshots and, but for `appendonly`, no log, which is never rewritten within a trial; no limit on what
a slow subscriber may leave waiting, which would cut it off. nats-server: as it comes, JetStream's store in the folder.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.peers.bus.trial import Broker, Started, TrialError, die_with_parent

START_LIMIT_S: Final = 10.0
REDIS: Final = (
    *("--bind", "127.0.0.1", "--save", "", "--auto-aof-rewrite-percentage", "0", "--loglevel", "warning"),
    *("--client-output-buffer-limit", "pubsub 0 0 0"),
)


def installed(program: str) -> str:
    """Where a server is, "" when it is not installed. Debian keeps nats-server where users do not look."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin") or ""


@functools.cache
def version(program: str) -> str:
    """As the server says it."""
    done = subprocess.run([installed(program), "--version"], capture_output=True, text=True, check=True)
    words = done.stdout.split()
    return next(word.removeprefix("v=").removeprefix("v") for word in words if word.strip("v=")[:1].isdigit())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def _serving(argv: Sequence[str], port: int, address: str) -> Iterator[Broker]:
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, stdout=quiet, stderr=quiet, preexec_fn=die_with_parent) as process:
        try:
            limit = time.monotonic() + START_LIMIT_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > limit:
                    raise TrialError(f"{Path(argv[0]).name} does not start")
                time.sleep(0.01)
            yield Broker(address, process.pid)
        finally:
            process.kill()


def redis(*options: str) -> Started:
    """A redis-server with these options beside REDIS."""

    @contextlib.contextmanager
    def started(folder: Path) -> Iterator[Broker]:
        port = _free_port()
        argv = [installed("redis-server"), "--port", str(port), "--dir", str(folder), *REDIS, *options]
        with _serving(argv, port, str(port)) as broker:
            yield broker

    return started


def nats(*options: str) -> Started:
    """A nats-server with these options."""

    @contextlib.contextmanager
    def started(folder: Path) -> Iterator[Broker]:
        port = _free_port()
        argv = [installed("nats-server"), "-a", "127.0.0.1", "-p", str(port), "-sd", str(folder), *options]
        with _serving(argv, port, f"nats://127.0.0.1:{port}") as broker:
            yield broker

    return started
