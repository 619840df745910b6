"""How the load generator's processes talk: one JSON object a line, commands on stdin, events on stdout.

    run ──{"command": "plan" | "go" | "finish" | "stop"}──► publisher, subscriber
    run ◄─{"event": "bound" | "subscribed" | "second" | "done"}── publisher, subscriber

A process whose stdin ends has lost its parent and stops: a killed load generator leaves nothing running.
"""

from __future__ import annotations

import base64
import contextlib
import gc
import json
import os
import queue
import resource
import selectors
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

from flux.errors import FluxError
from flux.loadgen.histogram import Histogram
from flux.threads import WatchedThread
from flux.transport.sockets import Wake

Message = dict[str, Any]


def packed(histogram: Histogram) -> str:
    """A histogram as text for an event."""
    return base64.b64encode(zlib.compress(histogram.dump(), 1)).decode()


def unpacked(text: str) -> Histogram:
    return Histogram.load(zlib.decompress(base64.b64decode(text)))


class Commands:
    """The child's side: what the parent says, read by a thread of its own: a loop never waits for it."""

    def __init__(self) -> None:
        # Who ends a service sends SIGTERM to all of its processes: this one ends when the parent has its numbers.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        self.stopping = False  # told to stop, or the parent is gone
        self._ended = False  # the parent is gone, or wants nothing more
        self.wake = Wake()  # up while there may be something to take
        self._waiting: queue.SimpleQueue[Message] = queue.SimpleQueue()
        WatchedThread(self._read, name="flux commands", failed=lambda _: self._leave()).start()

    def _read(self) -> None:
        for line in sys.stdin:
            command: Message = json.loads(line)
            self._put(command)
        self._leave()

    def _leave(self) -> None:
        self._ended = True
        self._put({"command": "stop"})

    def _put(self, command: Message) -> None:
        if command["command"] == "stop":
            self.stopping = True
        self._waiting.put(command)
        self.wake.set()

    def take(self) -> Message:
        """The next command, waiting for it."""
        return self._waiting.get()

    def taken(self) -> Message | None:
        """The next command, if there is one now."""
        try:
            return self._waiting.get_nowait()
        except queue.Empty:
            self.wake.clear()
            return None if self._waiting.empty() else self._waiting.get()

    def wait_for_end(self) -> None:
        """Until stdin ends: the parent has read all it wants. Who was told to stop early waits for this too: others
        may still be receiving what it sent."""
        while not self._ended:
            self.take()


def tell(event: str, **fields: Any) -> None:
    """Say something to the parent; where there is none any more, this process has no purpose."""
    try:
        sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os._exit(0)


class Usage:
    """CPU of this process, all threads, as a share of one core since this object was made."""

    def __init__(self) -> None:
        self._cpu, self._wall = self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        used = resource.getrusage(resource.RUSAGE_SELF)
        return used.ru_utime + used.ru_stime, time.monotonic()

    def share(self) -> float:
        cpu, wall = self._now()
        return (cpu - self._cpu) / max(wall - self._wall, 1e-9)


def settle() -> None:
    """What a process does once before its loop: a short wait for the GIL, no garbage collection inside."""
    sys.setswitchinterval(0.0001)
    gc.collect()
    gc.freeze()
    gc.disable()


class Child:
    """The parent's side of one process, `python -m flux.loadgen.workers.<name>`."""

    def __init__(self, name: str, pass_fds: Sequence[int] = ()) -> None:
        """`pass_fds`: descriptors that it has too, under the same numbers."""
        self.name = name
        # A process group of its own: Ctrl-C on the terminal reaches the parent alone, which asks for the numbers. No
        # session: Linux shares the processor out between sessions first (autogroup), so two ends would compete as two.
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"flux.loadgen.workers.{name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,
            pass_fds=pass_fds,
        )
        self._partial = b""

    def fileno(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def tell(self, command: str, **fields: Any) -> None:
        assert self._process.stdin is not None
        line = json.dumps({"command": command, **fields}) + "\n"
        try:
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._gone() from error

    def events(self) -> list[Message]:
        """What it said since the last call; waits for at least a part of a line. Raises when it has ended."""
        data = os.read(self.fileno(), 1 << 20)
        if not data:
            raise self._gone()
        *lines, self._partial = (self._partial + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _gone(self) -> FluxError:
        return FluxError(f"the {self.name} process ended early, with code {self._process.wait()}")

    def end(self) -> None:
        """Close its stdin, which ends it; kill it if that takes more than a moment."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


class Children:
    """The processes of one run; leaving the `with` ends them."""

    def __init__(self, *names: str, pass_fds: Sequence[int] = ()) -> None:
        self._children = [Child(name, pass_fds) for name in names]
        self._selector = selectors.DefaultSelector()
        for child in self._children:
            self._selector.register(child.fileno(), selectors.EVENT_READ, child)

    def __enter__(self) -> list[Child]:
        return self._children

    def events(self, idle: Callable[[], None], idle_s: float = 0.1) -> Iterator[tuple[Child, Message]]:
        """Events as they come, for ever; `idle` is called at least each `idle_s` and may raise."""
        while True:
            for key, _ in self._selector.select(idle_s):
                for event in key.data.events():
                    yield key.data, event
            idle()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._selector.close()
        for child in self._children:
            child.end()
