"""One life of a server over a data directory, without loop and requests: recovery, a real committer, rows by hand."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType

import numpy as np

from flux import journal
from flux.journal import Position
from flux.journal.records import StreamRecord, pack, source_begins
from flux.model import ROW_DTYPES, RowKind, StreamKey
from flux.server.pipeline.committer import Committer
from flux.server.pipeline.exchange import Exchange
from flux.server.pipeline.sessions import Runs
from flux.server.storage.recover import recover
from flux.server.vitals import Vitals
from flux.store.base import Rows
from flux.transport.pump import Receiver, Streams, record
from flux.transport.sockets import Sockets
from tests.numbered import number
from tests.patience import PATIENCE_S

BTC = StreamKey("SIM", "BTC", "1m")
ETH = StreamKey("SIM", "ETH", "1m")
TRADES = StreamKey("SIM", "BTC", "trade")
FILE_BYTES = 1 << 18


def rows_of(kind: RowKind, first: int, count: int) -> Rows:
    """The rows of sequences `first` and up; the same wherever they are asked for."""
    rows = np.zeros(count, ROW_DTYPES[kind])
    n = np.arange(first, first + count)
    if kind is RowKind.CANDLE:
        rows["ts_ms"], rows["flags"] = 1_700_000_040_000 + 60_000 * n, 1
        for name in ("open", "high", "low", "close", "volume"):
            rows[name] = n
    else:
        rows["ts_ns"], rows["trade_id"], rows["price"] = 1_700_000_000_000_000_000 + n, n, n
    return rows


class Life:
    """From `recover` to `stop` or `die`; each `write` is one committed and published group."""

    def __init__(self, directory: Path, *, disk: bool = True, file_bytes: int = FILE_BYTES) -> None:
        self.directory = directory
        self.recovered = recover(directory, disk=disk, file_bytes=file_bytes)
        self.vitals = Vitals()
        self.streams = Streams(64)
        self._sources = dict(self.recovered.sources)
        for stream_id, head in sorted(self.recovered.streams.items()):
            slot = self._add(head.stream.key, stream_id)
            self.streams.kernel.restore(slot, head.head, head.latest_ts, head.highest)
            self.streams.ring(slot).reset(head.head + 1)
        self._receiver = Receiver(None, self.streams, server=True)
        self._exchange = Exchange(FILE_BYTES // 4)
        self.failures: list[BaseException] = []
        self._sockets = Sockets()
        self.committer = Committer(
            identity=self.recovered.identity,
            journal=self.recovered.journal,
            fence=self.recovered.fence,
            publisher=self._sockets.publisher("tcp://127.0.0.1:*"),
            streams=self.streams,
            exchange=self._exchange,
            vitals=self.vitals,
            runs=Runs(self._receiver),
            records={number: head.stream for number, head in self.recovered.streams.items()},
            sources=self._sources,
            disk=disk,
            failed=self.failures.append,
        )
        self._thread = threading.Thread(target=self.committer.run)
        self._thread.start()

    def _add(self, key: StreamKey, stream_id: int) -> int:
        return self.streams.add(key, stream_id=stream_id, ring_rows=1_024)

    @property
    def epoch(self) -> int:
        return self.recovered.identity.epoch

    @property
    def heads(self) -> dict[str, int]:
        """What recovery found, by symbol and interval."""
        return {
            f"{head.stream.symbol} {head.stream.interval}": head.head
            for head in self.recovered.streams.values()
        }

    @property
    def reasons(self) -> str:
        return "; ".join(f"{state.name} {reason}" for _, state, reason in self.recovered.conditions)

    def write(self, key: StreamKey, count: int, rows: Rows | None = None) -> Position:
        """The next `count` rows of the stream and the source's position behind them; the position reached."""
        before = self.committer.committed
        self.fill(key, count, rows)
        reached = self.committer.wait_past(before, PATIENCE_S)
        assert reached > before, "not committed"
        return reached

    def fill(self, key: StreamKey, count: int, rows: Rows | None = None) -> None:
        """The same for the committer to find, without waiting for it."""
        new = self.streams.slot(key) is None
        slot = self._add(key, len(self.streams) + 1) if new else self.streams.slot(key)
        assert slot is not None
        first = self.streams.kernel.head(slot) + 1
        self._receiver.kernel.begin()
        offered = rows_of(key.kind, first, count) if rows is None else rows
        assert self._receiver.kernel.offer(slot, offered) == len(offered)
        identity = self.recovered.identity
        with self._exchange.fill() as filled:
            if new:
                stream = StreamRecord(slot + 1, *key)
                filled.group.append(journal.STREAM, pack(stream))
                filled.streams.append(stream)
            runs = number(self.streams, self._receiver.arrivals[:1])
            record(
                self.streams, filled.group, self._receiver.inbox, runs,
                store_id=identity.store_id, epoch=identity.epoch,
            )  # fmt: skip
            position = (first + count - 1, 7)
            filled.group.append_source(source_begins(f"file:{key.symbol}"), position)
            filled.sources[f"file:{key.symbol}"] = position

    def project(self) -> None:
        """What is committed goes into the store."""
        while self.recovered.projection.position < self.committer.committed:
            self.recovered.projection.step(self.committer.committed)

    def stored(self, number: int, kind: RowKind = RowKind.CANDLE) -> Rows:
        """What the store has of a stream; its sequences must be dense from the first."""
        first, rows = self.recovered.store.read(number, kind, 0, 0, 1_000_000)
        assert first == (1 if len(rows) else 0)
        return rows

    def stop(self) -> None:
        """A clean end."""
        self._end()

    def die(self) -> None:
        """An end like kill -9: no CLOSE in the journal, nothing projected."""
        position = self.committer.committed
        self._end()
        journal.truncate(self.directory, position)

    def _end(self) -> None:
        self.committer.close()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        self._sockets.close()
        self.recovered.fence.close()
        self.recovered.projected.close()
        self.recovered.store.close()
        self.recovered.lock.release()

    def __enter__(self) -> Life:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self.die()


def overwrite(path: Path, at: int, data: bytes) -> None:
    """Change bytes of a file in place."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, at)
    finally:
        os.close(fd)
