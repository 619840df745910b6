"""A server of version 1 as other people's programs are: pyzmq and the generated FlatBuffers code, nothing of flux.

It knows requests 1, 3, 5 and 8, publishes candle batches, and sends every error with code 1, whatever it is about; only
the text tells them apart. A request of another schema version, or of a kind it does not know, is such an error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
import zmq
from numpy.typing import NDArray

from flux.schema.generated import (
    BackfillCandlesRequest,
    BackfillCandlesResponse,
    Candle,
    CandleBatch,
    Cursor,
    Envelope,
    ErrorResponse,
    GetCursorRequest,
    GetCursorResponse,
    HealthResponse,
    StreamKey,
)
from tests.patience import PATIENCE_S
from tests.unit.live_server import eventually

Key = tuple[str, str, str]
Rows = NDArray[np.void]
Fill = Callable[[flatbuffers.Builder], int]

HEALTH, CURSOR, BACKFILL = 1, 3, 8
PAGE_ROWS = 10_000


class V1Server:
    """Streams of candles by key; sequences count from 1."""

    def __init__(self, *, keep: int = 10**9) -> None:
        self.rows: dict[Key, Rows] = {}
        self.keep = keep  # rows of a stream that are kept
        self.asked: list[tuple[int, int]] = []  # (schema_version, tag) of each request
        self._context = zmq.Context()
        self._publisher = self._context.socket(zmq.XPUB)
        self._replier = self._context.socket(zmq.REP)
        for socket in (self._publisher, self._replier):
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind("tcp://127.0.0.1:*")
        self.pub = self._publisher.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        self.rep = self._replier.getsockopt(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        self.subscriptions: set[bytes] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._answer_all, daemon=True)
        self._thread.start()

    # -- live ------------------------------------------------------------------------------------------------

    def subscribed(self, topic: bytes) -> None:
        """Wait until somebody subscribes to exactly this."""

        def told() -> bool:
            while self._publisher.poll(0):
                frame = self._publisher.recv()
                (self.subscriptions.add if frame[0] else self.subscriptions.discard)(frame[1:])
            return topic in self.subscriptions

        eventually(told, f"nobody subscribed to {topic!r}: {self.subscriptions}")

    def publish(self, key: Key, rows: Rows, *, lose: bool = False) -> None:
        """These rows come next, in one message."""
        before = self.rows.get(key)
        first = 1 if before is None else len(before) + 1
        self.rows[key] = rows.copy() if before is None else np.concatenate([before, rows])
        if not lose:
            frame = envelope(7, lambda builder: _batch(CandleBatch, builder, key, first, rows))
            self._publisher.send_multipart([f"candles.{'.'.join(key)}".encode(), frame])

    # -- requests --------------------------------------------------------------------------------------------

    def _answer_all(self) -> None:
        while not self._stopping:
            if self._replier.poll(20):
                self._replier.send(self._answer(self._replier.recv()))

    def _answer(self, frame: bytes) -> bytes:
        asked = Envelope.Envelope.GetRootAs(frame, 0)
        tag, correlation_id = asked.MessageType(), asked.CorrelationId()
        self.asked.append((asked.SchemaVersion(), tag))
        try:
            answer, fill = self._reply(asked, frame)
        except LookupError as error:
            answer, fill = 10, _error(str(error.args[0]))
        return envelope(answer, fill, correlation_id)

    def _reply(self, asked: Any, frame: bytes) -> tuple[int, Fill]:
        if asked.SchemaVersion() != 1:
            raise LookupError("unsupported schema_version")
        if asked.MessageType() == HEALTH:
            return 2, _health
        if asked.MessageType() not in (CURSOR, BACKFILL):
            raise LookupError("unsupported message_type")
        kind: Any = GetCursorRequest.GetCursorRequest if asked.MessageType() == CURSOR else None
        message = (kind or BackfillCandlesRequest.BackfillCandlesRequest)()
        message.Init(frame, asked.Message().Pos)
        if message.Key() is None:
            raise LookupError("missing stream key")
        named = message.Key()
        key = tuple((part or b"").decode() for part in (named.SourceId(), named.Symbol(), named.Interval()))
        rows = self.rows.get(key)  # type: ignore[call-overload]  # three strings
        if rows is None:
            raise LookupError("unknown stream key")
        if asked.MessageType() == CURSOR:
            return 4, lambda builder: _cursor(builder, key, rows)  # type: ignore[arg-type]  # three strings
        return 9, self._page(message, key, rows)  # type: ignore[arg-type]  # three strings

    def _page(self, message: Any, key: Key, rows: Rows) -> Fill:
        oldest = max(0, len(rows) - self.keep)
        after = max(oldest, message.FromSequenceExclusive() if message.HasFromSequence() else 0)
        upto = min(len(rows), after + min(message.Limit() or PAGE_ROWS, PAGE_ROWS))
        page, more = rows[after:upto], upto < len(rows)
        return lambda builder: _batch(BackfillCandlesResponse, builder, key, after + 1, page, more, upto + 1)

    def close(self) -> None:
        self._stopping = True
        self._thread.join(PATIENCE_S)
        self._context.destroy(linger=0)

    def __enter__(self) -> V1Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def envelope(tag: int, fill: Fill, correlation_id: bytes | None = None) -> bytes:
    """Of version 1: no identifier, no checksum; the schema_version is its default."""
    builder = flatbuffers.Builder(1_024)
    message = fill(builder)
    told = None if correlation_id is None else builder.CreateString(correlation_id)
    Envelope.Start(builder)
    if told is not None:
        Envelope.AddCorrelationId(builder, told)
    Envelope.AddMessageType(builder, tag)
    Envelope.AddMessage(builder, message)
    builder.Finish(Envelope.End(builder))
    return bytes(builder.Output())


def _error(text: str) -> Fill:
    def fill(builder: flatbuffers.Builder) -> int:
        message = builder.CreateString(text)
        ErrorResponse.Start(builder)
        ErrorResponse.AddCode(builder, 1)
        ErrorResponse.AddMessage(builder, message)
        return int(ErrorResponse.End(builder))

    return fill


def _health(builder: flatbuffers.Builder) -> int:
    HealthResponse.Start(builder)
    return int(HealthResponse.End(builder))


def _key(builder: flatbuffers.Builder, key: Key) -> int:
    texts = [builder.CreateString(text) for text in key]
    StreamKey.Start(builder)
    StreamKey.AddSourceId(builder, texts[0])
    StreamKey.AddSymbol(builder, texts[1])
    StreamKey.AddInterval(builder, texts[2])
    return int(StreamKey.End(builder))


def _cursor(builder: flatbuffers.Builder, key: Key, rows: Rows) -> int:
    named = _key(builder, key)
    Cursor.Start(builder)
    Cursor.AddLatestSequence(builder, len(rows))
    Cursor.AddLatestTsMs(builder, int(rows["ts_ms"][-1]))
    at = Cursor.End(builder)
    GetCursorResponse.Start(builder)
    GetCursorResponse.AddKey(builder, named)
    GetCursorResponse.AddCursor(builder, at)
    return int(GetCursorResponse.End(builder))


def _batch(
    kind: Any,
    builder: flatbuffers.Builder,
    key: Key,
    first: int,
    rows: Rows,
    more: bool = False,
    after: int = 0,
) -> int:
    made = []
    for row in rows:
        Candle.Start(builder)
        Candle.AddTsMs(builder, int(row["ts_ms"]))
        for name in ("open", "high", "low", "close", "volume"):
            getattr(Candle, f"Add{name.capitalize()}")(builder, float(row[name]))
        made.append(Candle.End(builder))
    kind.StartCandlesVector(builder, len(made))
    for candle in reversed(made):
        builder.PrependUOffsetTRelative(candle)
    candles, named = builder.EndVector(), _key(builder, key)
    kind.Start(builder)
    kind.AddKey(builder, named)
    kind.AddStartSequence(builder, first)
    kind.AddCandles(builder, candles)
    if more:
        kind.AddHasMore(builder, True)
        kind.AddNextSequence(builder, after)
    return int(kind.End(builder))
