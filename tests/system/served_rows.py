"""What a server kept and sent, read from outside it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import duckdb
import numpy as np
import zmq
from numpy.typing import NDArray

from flux import codec
from flux.batch import Candles
from flux.model import CANDLE, ROW_DTYPES, RowKind, StreamKey
from flux.transport.topics import BEAT
from tests.system.checker import Account

TABLES = {RowKind.CANDLE: "candles", RowKind.TRADE: "trades", RowKind.QUOTE: "quotes"}
COLUMNS = ", ".join(CANDLE.names or ())


def stored(path: Path) -> tuple[NDArray[np.uint64], NDArray[np.void]]:
    """(sequences, rows) of the only stream in a server's database, in order of sequence; the server must have ended."""
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM streams").fetchall() == [(1,)], (
            "rows of another stream too"
        )
        found = connection.execute(f"SELECT sequence, {COLUMNS} FROM candles ORDER BY sequence").fetchnumpy()
    rows = np.zeros(len(found["sequence"]), CANDLE)
    for name in CANDLE.names or ():
        rows[name] = found[name]
    return found["sequence"].astype(np.uint64), rows


def stored_streams(path: Path) -> dict[StreamKey, tuple[NDArray[np.uint64], NDArray[np.void]]]:
    """The same for each stream of a server's database."""
    found: dict[StreamKey, tuple[NDArray[np.uint64], NDArray[np.void]]] = {}
    with duckdb.connect(str(path), read_only=True) as connection:
        for number, *names in connection.execute("FROM streams ORDER BY stream_id").fetchall():
            key = StreamKey(*names)
            dtype = ROW_DTYPES[key.kind]
            columns = connection.execute(
                f"SELECT sequence, {', '.join(dtype.names or ())} FROM {TABLES[key.kind]}"
                f" WHERE stream_id = {number} ORDER BY sequence"
            ).fetchnumpy()
            rows = np.zeros(len(columns["sequence"]), dtype)
            for name in dtype.names or ():
                rows[name] = columns[name]
            found[key] = columns["sequence"].astype(np.uint64), rows
    return found


class Listener:
    """A bare SUB socket that takes whatever version 2 rows come and checks them against the truth by sequence."""

    def __init__(self, endpoint: str, truth: NDArray[np.void]) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 10)
        for prefix in (BEAT, b"v2\x1fcandles\x1f"):
            self._socket.setsockopt(zmq.SUBSCRIBE, prefix)
        self._socket.connect(endpoint)
        self._truth = truth
        self.seen = np.zeros(len(truth), np.uint32)
        self.epochs: set[int] = set()
        self.beats = 0
        self.highest = 0
        self._arrived: list[Candles] = []

    def drain(self, timeout_ms: int = 0) -> bool:
        """Take what waits; every row must be the truth's row of its sequence. Always true."""
        while self._socket.poll(timeout_ms):
            topic, frame = self._socket.recv_multipart()
            if topic == BEAT:
                self.beats += 1
                continue
            batch = codec.decode(frame)
            assert isinstance(batch, Candles)
            at = batch.start_sequence - 1
            rows = batch.to_numpy()
            assert rows.tobytes() == self._truth[at : at + len(rows)].tobytes(), (
                f"sequence {at + 1} is another row"
            )
            self._arrived.append(batch)
            self.seen[at : at + len(rows)] += 1
            self.epochs.add(batch.epoch)
            self.highest = max(self.highest, at + len(rows))
        return True

    @property
    def account(self) -> Account:
        """What came, in order of arrival; what was sent while it was still connecting is not in it."""
        sequences = [np.arange(batch.start_sequence, batch.end_sequence + 1) for batch in self._arrived]
        epochs = [np.full(len(batch), batch.epoch) for batch in self._arrived]
        rows = [batch.to_numpy() for batch in self._arrived]
        return Account(
            "a subscriber",
            np.concatenate(epochs or [np.zeros(0)]).astype(np.uint32),
            np.concatenate(sequences or [np.zeros(0)]).astype(np.uint64),
            np.concatenate(rows or [np.zeros(0, CANDLE)]),
            whole=False,
        )

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(linger=0)
