"""A server in memory (`ServerView` and `StoreReader`), and how the tests of requests ask it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flux import codec
from flux.limits import MAX_REPLY_BYTES
from flux.model import REFUSED, ROW_DTYPES, RowKind, State, StreamKey
from flux.schema import messages
from flux.server.requests.answers import Answers
from flux.server.requests.listing import AGAIN
from flux.server.requests.view import Claim, Health, Rows, RunPosition, StreamView

KEY = StreamKey("SIM", "TEST", "1s")
TRADES = StreamKey("SIM", "TEST", "trade")
OTHER = StreamKey("SIM", "BTC/USDT", "1m")
STORE_ID = 0x1234_5678_9ABC_DEF0


def rows_at(times_ms: Iterable[int], kind: RowKind = RowKind.CANDLE) -> Rows:
    """One row per time; every field differs from row to row."""
    times = list(times_ms)
    rows = np.zeros(len(times), ROW_DTYPES[kind])
    for name in rows.dtype.names or ():
        rows[name] = np.arange(1, len(times) + 1)
    if kind is RowKind.CANDLE:
        rows["ts_ms"] = times
        rows["flags"] = 1
    else:
        rows["ts_ns"] = np.array(times, "i8") * 1_000_000
    return rows


@dataclass
class Stream:
    """Sequences 1 ... len(rows); kept from `first`, in memory from `ring_first`, in the store to `stored`; the journal
    at hand begins at `journal_first`, all of it at `journal_kept`; by default it has nothing."""

    key: StreamKey
    stream_id: int
    rows: Rows
    first: int = 1
    ring_first: int = 1
    stored: int = 0
    journal_first: int = 2**63
    journal_kept: int = 2**63
    lost: set[int] = field(default_factory=set)
    v1: bool = True
    forming: Any = None
    epoch_ends: dict[int, int] = field(default_factory=dict)

    @property
    def head(self) -> int:
        return len(self.rows)


class Served:
    """Both sides of the seam, over a handful of streams."""

    def __init__(self, *streams: Stream, epoch: int = 1) -> None:
        self.all = list(streams)
        self.store_id = STORE_ID
        self.epoch = epoch
        self.parent_store_id = 0
        self.state = Health(State.OK)
        self.runs = {("FEED", 7): 42}
        self.claimed: dict[tuple[str, int], int] = {}
        self.ahead: list[tuple[StreamKey, int, int]] = []
        self.store_reads = 0
        self.journal_reads = 0
        self.ring_fails = False  # as when every row was overwritten while it was copied

    def _by_id(self, stream_id: int) -> Stream:
        return next(stream for stream in self.all if stream.stream_id == stream_id)

    def _view(self, stream: Stream) -> StreamView:
        kind = stream.key.kind
        times = stream.rows["ts_ms"] if kind is RowKind.CANDLE else stream.rows["ts_ns"] // 1_000_000
        latest = int(times[-1]) if stream.head else 0
        return StreamView(
            stream.key, stream.stream_id, stream.first, stream.head, latest, stream.v1, stream.forming
        )

    def health(self) -> Health:
        return self.state

    def stream(self, key: StreamKey) -> StreamView | None:
        return next((self._view(stream) for stream in self.all if stream.key == key), None)

    def stream_by_id(self, stream_id: int) -> StreamView | None:
        return next((self._view(stream) for stream in self.all if stream.stream_id == stream_id), None)

    def streams_after(self, stream_id: int) -> Iterator[StreamView]:
        return (self._view(stream) for stream in self.all if stream.stream_id > stream_id)

    def epoch_ends(self, stream_id: int) -> Mapping[int, int]:
        return self._by_id(stream_id).epoch_ends

    def rows_epoch(self, stream_id: int, sequence: int) -> tuple[int, int]:
        ends = self._by_id(stream_id).epoch_ends
        for of in sorted(ends, reverse=True):
            if sequence > ends[of]:
                return of + 1, min((end for later, end in ends.items() if later > of), default=2**63 - 1)
        return min(ends, default=self.epoch), min(ends.values(), default=2**63 - 1)

    def ring_first(self, stream_id: int) -> int:
        return self._by_id(stream_id).ring_first

    def ring_rows(self, stream_id: int, first: int, last: int) -> Rows | None:
        stream = self._by_id(stream_id)
        if self.ring_fails or first < stream.ring_first or last > stream.head:
            return None
        return stream.rows[first - 1 : last].copy()

    def run_position(self, source_id: str, run: int, refused_after: int) -> RunPosition:
        refused = np.array([(3, 4, 0), (9, 32, 0)], REFUSED)
        claimed = self.claimed.get((source_id, run), 0)
        return RunPosition(
            self.runs.get((source_id, run), 0), claimed, 2, refused[refused["row"] > refused_after]
        )

    def claim_run(self, source_id: str, run: int, token: int) -> Claim:
        """A claim holds when it is asked for the second time."""
        asked_before = (source_id, run) in self.claimed
        self.claimed[source_id, run] = token
        return Claim.HELD if asked_before else Claim.ON_ITS_WAY

    def journal_rows(
        self, stream_id: int, kind: RowKind, after: int, last: int, *, all_files: bool = False
    ) -> tuple[int, Rows]:
        """As a journal does of which `journal_first` and all behind it stands in the files at hand."""
        self.journal_reads += 1
        stream = self._by_id(stream_id)
        oldest = min(stream.journal_first, stream.journal_kept if all_files else 2**63)
        have = [n for n in range(after + 1, min(last, stream.head) + 1) if n not in stream.lost]
        run = [n for at, n in enumerate(have) if n == have[0] + at]
        if after + 1 < oldest or not run:
            return 0, stream.rows[:0]
        return run[0], stream.rows[[n - 1 for n in run]]

    def stored(self, stream_id: int) -> int:
        return self._by_id(stream_id).stored

    def cursor_ahead(self, key: StreamKey, epoch: int, sequence: int) -> None:
        self.ahead.append((key, epoch, sequence))

    def read(
        self, stream_id: int, kind: RowKind, from_exclusive: int, to_inclusive: int, limit: int
    ) -> tuple[int, Rows]:
        self.store_reads += 1
        stream = self._by_id(stream_id)
        have = [
            sequence
            for sequence in range(max(from_exclusive + 1, stream.first), min(to_inclusive, stream.stored) + 1)
            if sequence not in stream.lost
        ]
        run = [sequence for at, sequence in enumerate(have) if sequence == have[0] + at][:limit]
        return (run[0] if run else 0), stream.rows[[sequence - 1 for sequence in run]]

    def sequence_range(
        self, stream_id: int, kind: RowKind, start_ms: int | None, end_ms: int | None
    ) -> tuple[int, int] | None:
        self.store_reads += 1
        stream = self._by_id(stream_id)
        times = stream.rows["ts_ms"] if kind is RowKind.CANDLE else stream.rows["ts_ns"] // 1_000_000
        kept = range(stream.first, stream.stored + 1)
        first = next((n for n in kept if start_ms is None or times[n - 1] >= start_ms), None)
        last = next((n for n in reversed(kept) if end_ms is None or times[n - 1] < end_ms), None)
        return None if first is None or last is None or last < first else (first, last)


def served() -> Served:
    return Served(
        Stream(KEY, 1, rows_at(range(1_000, 11_000, 1_000))),
        Stream(TRADES, 2, rows_at([5, 6, 7], RowKind.TRADE)),
        Stream(OTHER, 3, rows_at([])),
    )


def answer(server: Served, *frames: bytes, store: bool = True) -> Any:
    """The reply, decoded; whatever it takes to get it."""
    reply = Answers(server, software="9.9", now_ms=lambda: 123).answer(frames)
    if not isinstance(reply, bytes):
        while (piece := reply.from_memory()) == AGAIN:
            pass
        reply = reply.from_store(server) if piece is None else piece
    assert isinstance(reply, bytes)
    assert len(reply) <= MAX_REPLY_BYTES
    assert (reply[4:8] == b"FLX2") == (codec.decode(reply).schema_version == 2)
    return codec.decode(reply)


def ask(server: Served, build: Any, version: int = 1, **slots: Any) -> Any:
    reply = answer(server, build(correlation_id="c-1", schema_version=version, **slots))
    assert reply.correlation_id == "c-1"
    assert reply.schema_version == version
    return reply


def candles(server: Served, version: int = 1, key: StreamKey | None = KEY, **slots: Any) -> Any:
    return ask(server, messages.backfill_candles_request, version, key=key, **slots)


def rows(server: Served, key: StreamKey = KEY, **slots: Any) -> Any:
    return ask(server, messages.backfill_rows_request, 2, key=key, **slots)


def sequences(reply: Any) -> list[int]:
    return list(range(reply.start_sequence, reply.start_sequence + len(reply.rows)))


def is_error(reply: Any, code: int, text: str, status: int = 0) -> bool:
    assert isinstance(reply, codec.ErrorResponse)
    return (reply.code, reply.status) == (code, status) and text in (reply.message or "")
