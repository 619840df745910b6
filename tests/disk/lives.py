"""Lives of a server on one data directory, recorded: what it did to the disk, and what it had shown to whom by when.

    start ─► rows of this life's own files ─► killed before some entry of the log, at some moment, or stopped ─► next
      │               │
      │               └─ a subscriber notes each row and when it came
      └─ what the server answers with is shown too

The rows of a life are no other life's: a sequence that is given twice shows. Times are CLOCK_MONOTONIC here and in
the log, so what had come before an entry was noted was shown by then.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zmq
from numpy.typing import NDArray

from flux import codec
from flux.batch import Candles
from flux.errors import FluxError
from flux.feed import synth
from flux.model import CANDLE, StreamKey
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from flux.transport.topics import BEAT
from tests.disk import images, log
from tests.disk.build import environment
from tests.patience import PATIENCE_S, readable
from tests.system.processes import Flux, free_port

KEYS = (StreamKey("SIM", "A", "1m"), StreamKey("SIM", "B", "1m"))
ROWS_PER_LIFE = 1_000
FILE_BYTES = 256 * 1024  # holds all rows of a life as one group, which a machine that stalls makes of them
QUIET_S = 2.0
_MINUTE_MS = 60_000

SHOWN = np.dtype(
    [("time_ns", "<i8"), ("stream", "<u4"), ("epoch", "<u4"), ("sequence", "<u8"), ("row", CANDLE)]
)
"""A row that somebody was shown, and when it had come: 88 bytes. `stream` indexes KEYS."""


@dataclass(eq=False)
class Recording:
    """What is known of some lives on one directory."""

    data: Path
    log: Path
    base: dict[str, tuple[int, bytes | None]]
    """What the directory held, on the disk, before the first of them."""
    files: list[Path] = field(default_factory=list)
    source: list[NDArray[np.void]] = field(default_factory=lambda: [np.zeros(0, CANDLE) for _ in KEYS])
    shown: list[NDArray[np.void]] = field(default_factory=list)

    @property
    def shown_rows(self) -> NDArray[np.void]:
        """All that was shown, in order of time; a `SHOWN` array."""
        return np.concatenate([*self.shown, np.zeros(0, SHOWN)])


class Lives:
    """Starts them one after the other; `folder` gets the rows' files and the log."""

    def __init__(
        self,
        folder: Path,
        data: Path,
        rng: random.Random,
        durability: str,
        before: Recording | None = None,
        heads: Sequence[int] = (0,) * len(KEYS),
        file_bytes: int = FILE_BYTES,
        rows: int = ROWS_PER_LIFE,
        tick: str = "1ms",
    ) -> None:
        """`before` made the state that `data` is in now, in which the streams end at `heads`."""
        self._rng = rng
        self._folder = folder
        self._durability = durability
        self._file_bytes = file_bytes
        self._rows_per_life, self._tick = rows, tick
        self.recording = Recording(data, folder / "log", images.base_of(data))
        if before is not None:
            self.recording.source = list(before.source)
        self._lives = 0
        self._latest = list(heads)  # what was asked for, by stream
        self.states: list[str] = []

    def live(
        self,
        *,
        kill_at: int | None = None,
        entries: int = 0,
        stop: bool = False,
        idle: bool = False,
        when: Callable[[], None] = lambda: None,
    ) -> str:
        """One life: killed before the `kill_at`th entry of its log, or from outside once `entries` are there and `when`
        returns, or stopped then; an `idle` one takes no rows. What it printed when it was ready; empty if it was
        killed before."""
        recording = self.recording
        pub, number = f"tcp://127.0.0.1:{free_port()}", self._lives
        self._lives += 1
        arguments: list[str | Path] = ["--data", recording.data, "--pub", pub, "--rpc", "tcp://127.0.0.1:*"]
        arguments += ["--durability", self._durability, "--tick", self._tick]
        arguments += ["--batch-rows", str(self._rng.choice((5, 10, 20)))]
        for at, key in enumerate(() if idle else KEYS):
            arguments += ["--replay", f"{key}={self._rows(at, number)}"]
        variables = environment(recording.data, recording.log, kill=kill_at)
        begun = recording.log.stat().st_size if recording.log.exists() else 0
        with (
            _Subscriber(pub) as subscriber,
            Flux(str(self._file_bytes), *arguments, module="tests.disk.serve", **variables) as process,
        ):
            said = self._ready(process, subscriber)
            self._follow(process, subscriber, begun, None if kill_at else entries)
            when()
            if stop:
                assert process.stop() == 0, process.errors()
            else:
                process.kill()
            assert process.process.returncode == (0 if stop else -9), process.errors()
            subscriber.drain(100)
            recording.shown.append(subscriber.rows)
        return said

    def _follow(self, process: Flux, subscriber: _Subscriber, begun: int, entries: int | None) -> None:
        """Until the log has grown by `entries`, or the process is gone, or has had all its rows and does nothing."""
        size, quiet_since = 0, time.monotonic()
        while process.process.poll() is None:
            subscriber.drain(5)
            if entries is not None and self._grown(begun) >= entries:
                return
            if self._grown(begun) > size:
                size, quiet_since = self._grown(begun), time.monotonic()
            if time.monotonic() - quiet_since > QUIET_S:
                return

    def _grown(self, begun: int) -> int:
        """Entries of this life, about: a group's take 4 to 8 KiB."""
        return (self.recording.log.stat().st_size - begun) // 2048 if self.recording.log.exists() else 0

    def _rows(self, stream: int, life: int) -> Path:
        """A file of rows that no other life has: each life's are later than all before."""
        source = self.recording.source[stream]
        begin = int(source["ts_ms"][-1]) + _MINUTE_MS if len(source) else 1_700_000_040_000
        rows = synth.candles(self._rows_per_life, seed=self._rng.randrange(2**31), start_ms=begin)
        path = self._folder / f"{KEYS[stream].symbol}-{self._folder.name}-{life}.csv"
        synth.write_csv(path, rows)
        self.recording.source[stream] = np.concatenate((source, rows))
        return path

    def _ready(self, process: Flux, subscriber: _Subscriber) -> str:
        """Wait until it is ready, and note what it then answers with."""
        assert process.process.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        while not readable(process.process.stdout, 0.005):
            subscriber.drain(0)
            assert time.monotonic() < deadline, f"not ready in {PATIENCE_S} s"
        said = process.process.stdout.readline().decode().split()
        if not said:
            return ""  # killed on the way
        self.states.append(said[-1])
        self._answered(said[said.index("rpc") + 1], subscriber)
        return " ".join(said)

    def _answered(self, rpc: str, subscriber: _Subscriber) -> None:
        with Sockets() as sockets:
            asker = Requester(sockets, rpc)
            for at, key in enumerate(KEYS):
                first = self._latest[at]
                try:
                    reply = asker.ask(
                        messages.backfill_rows_request, timeout=1.0, key=key, from_sequence_exclusive=first
                    )
                except FluxError:
                    continue  # no such stream yet, or killed meanwhile
                if len(reply.rows):
                    epoch = getattr(reply, "rows_epoch", 0) or reply.epoch
                    subscriber.note(at, epoch, reply.start_sequence, reply.rows)
                    self._latest[at] = reply.start_sequence + len(reply.rows) - 1


class _Subscriber:
    """A bare SUB socket that notes what comes, and when."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 5)
        for prefix in (BEAT, b"v2\x1fcandles\x1f"):
            self._socket.setsockopt(zmq.SUBSCRIBE, prefix)
        self._socket.connect(endpoint)
        self._parts: list[NDArray[np.void]] = []

    def drain(self, timeout_ms: int) -> None:
        """Note what waits, or comes within `timeout_ms`."""
        while self._socket.poll(timeout_ms):
            topic, frame = self._socket.recv_multipart()
            timeout_ms = 0
            if topic == BEAT:
                continue
            batch = codec.decode(frame)
            assert isinstance(batch, Candles)
            self.note(KEYS.index(batch.key), batch.epoch, batch.start_sequence, batch.to_numpy())

    def note(self, stream: int, epoch: int, first: int, rows: NDArray[np.void]) -> None:
        made = np.zeros(len(rows), SHOWN)
        made["time_ns"], made["stream"], made["epoch"] = time.monotonic_ns(), stream, epoch
        made["sequence"] = np.arange(first, first + len(rows))
        made["row"] = rows
        self._parts.append(made)

    @property
    def rows(self) -> NDArray[np.void]:
        return np.concatenate([*self._parts, np.zeros(0, SHOWN)])

    def __enter__(self) -> _Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)


def entries_of(recording: Recording) -> list[log.Entry]:
    """Its log, read."""
    return log.read(recording.log)
