"""Inputs that live in the server's process: a file that is replayed, read ahead by a thread of its own.

    CsvSource ──► reader thread (pacing) ──► two chunks waiting ──► the loop's turn: offered whole, or not yet

A chunk goes into one group together with the position after it, so a restart goes on exactly after its last
committed row.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from flux.errors import ConfigError, FluxError
from flux.feed.pacing import Pacing
from flux.feed.replay import CsvSource
from flux.journal.records import Position
from flux.model import StreamKey
from flux.named_files import no_name
from flux.slices import usual_slice
from flux.threads import WatchedThread

if TYPE_CHECKING:
    from flux.config import Replay
    from flux.feed.replay import Chunk
    from flux.transport.sockets import Wake

_LOG = logging.getLogger("flux.server")

CHUNK_ROWS: Final = 4_096
AHEAD: Final = 2  # chunks read ahead


class ReplayInput:
    """Reads a source ahead of the loop, no faster than its pacing says.

    `error` is what ended it early; `finished` is true once every chunk was taken by the loop.
    """

    def __init__(
        self,
        source: CsvSource,
        owner: int,
        ring_rows: int,
        pacing: Pacing | None,
        paced_rows: int,
        wake: Wake,
        ended: Callable[[ReplayInput], None],
    ) -> None:
        self.source = source
        self.key = source.key
        self.name = source.name
        self.owner = owner
        self.error: BaseException | None = None
        self.finished = False
        self._chunk_rows = max(1, min(CHUNK_ROWS if pacing is None else paced_rows, ring_rows // 2))
        self._pacing = pacing
        self._wake = wake
        self._ended = ended
        self._chunks: queue.Queue[Chunk | None] = queue.Queue(AHEAD)
        self._next: Chunk | None = None
        self._stopping = threading.Event()
        self._thread = WatchedThread(self._read, name=f"flux replay {source.key.symbol}", failed=self._fail)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the reading; chunks not yet taken are dropped (their rows come again after a restart)."""
        self._stopping.set()
        while self._thread.is_alive():
            self._drop()
            self._thread.join(0.01)
        self._drop()

    def peek(self) -> Chunk | None:
        """The next chunk, if it is there already; the same until `take`."""
        if self._next is None and not self.finished:
            try:
                self._next = self._chunks.get_nowait()
            except queue.Empty:
                return None
            self.finished = self._next is None
        return self._next

    def take(self) -> Position:
        """The peeked chunk went into a group: the position after it."""
        assert self._next is not None
        position = self._next.position
        self._next = None
        return position

    def _drop(self) -> None:
        while True:
            try:
                self._chunks.get_nowait()
            except queue.Empty:
                return

    def _read(self) -> None:
        usual_slice()  # it computes
        try:
            while not self._stopping.is_set():
                chunk = self.source.read(self._chunk_rows)
                if chunk is None or not self._wait_until_due(chunk):
                    break
                self._chunks.put(chunk)
                self._wake.set()
        except FluxError as error:
            self.error = error
        self._end()

    def _fail(self, error: BaseException) -> None:
        """What nobody foresaw ended the reading."""
        if self.error is None:
            self.error = error
            self._end()

    def _end(self) -> None:
        self._list_faults()
        self._chunks.put(None)
        self._wake.set()
        if not self._stopping.is_set():
            self._ended(self)

    def _list_faults(self) -> None:
        """Say which rows were skipped."""
        skipped, faults = self.source.skipped, self.source.faults
        if skipped:
            rows = "".join(f"\n  {self.source.path}:{line}:{column}: {why}" for line, column, why in faults)
            first = f", the first {len(faults)}" if skipped > len(faults) else ""
            _LOG.warning("%s: skipped %d faulty rows%s:%s", self.name, skipped, first, rows)

    def _wait_until_due(self, chunk: Chunk) -> bool:
        """Whether the chunk may go; False when stopped meanwhile."""
        if self._pacing is None:
            return True
        times = chunk.rows["ts_ms"]
        while self._pacing.due(times, time.monotonic_ns()) < len(times):
            if self._stopping.wait(self._pacing.wait_ns(times[-1:], time.monotonic_ns()) / 1e9):
                return False
        self._pacing.took(len(times))
        return True


def open_replay(replay: Replay, source_id: str) -> CsvSource:
    """A file to replay. Raises SourceFileError where it does not open, ConfigError where the journal cannot name it."""
    if why := no_name(replay.path):
        raise ConfigError(why)
    return CsvSource(
        replay.path,
        None if replay.key is None else StreamKey.parse(replay.key),
        default_source=source_id,
        skip_bad_rows=replay.skip_bad_rows,
        limit=replay.limit,
        loop=replay.loop,
    )


def pacing_of(replay: Replay) -> Pacing | None:
    """How fast its rows come; None: as fast as they are taken."""
    if replay.tick_s is not None:
        return Pacing(tick_ns=round(replay.tick_s * 1e9), batch_rows=replay.batch_rows)
    return None if replay.speed is None else Pacing(replay.speed)
