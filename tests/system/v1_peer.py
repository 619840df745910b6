"""A version 1 client as other people's program is one: pyzmq and the generated FlatBuffers code, nothing of flux.

Like that program it opens a REQ socket per request and believes what the topic lets through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import flatbuffers
import zmq

from flux.schema.generated import (
    BackfillCandlesRequest,
    BackfillCandlesResponse,
    CandleBatch,
    Envelope,
    ErrorResponse,
    GetCursorRequest,
    GetCursorResponse,
    HealthRequest,
    HealthResponse,
    StreamKey,
    StreamStatusRequest,
    StreamStatusResponse,
    SubscribeCandlesAck,
    SubscribeCandlesRequest,
)
from tests.patience import PATIENCE_S

Key = tuple[str, str, str]
PATIENCE_MS = int(PATIENCE_S * 1_000)

_REPLIES: dict[int, Any] = {
    2: HealthResponse.HealthResponse,
    4: GetCursorResponse.GetCursorResponse,
    6: SubscribeCandlesAck.SubscribeCandlesAck,
    7: CandleBatch.CandleBatch,
    9: BackfillCandlesResponse.BackfillCandlesResponse,
    10: ErrorResponse.ErrorResponse,
    12: StreamStatusResponse.StreamStatusResponse,
}


class Reply(NamedTuple):
    """One decoded envelope."""

    correlation_id: str | None
    tag: int
    message: Any


class Row(NamedTuple):
    """A candle as version 1 has it."""

    ts_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float


def decode(frame: bytes) -> Reply:
    """The envelope; its schema_version must be exactly 1, as that client demands before anything else."""
    envelope = Envelope.Envelope.GetRootAs(frame, 0)
    assert envelope.SchemaVersion() == 1
    assert frame[4:8] != b"FLX2"
    correlation_id = envelope.CorrelationId()
    message = _REPLIES[envelope.MessageType()]()
    message.Init(frame, envelope.Message().Pos)
    told = None if correlation_id is None else correlation_id.decode()
    return Reply(told, envelope.MessageType(), message)


def rows_of(message: Any) -> list[Row]:
    """The candles of a batch or of a backfill's page."""
    candles = map(message.Candles, range(message.CandlesLength()))
    return [Row(c.TsMs(), c.Open(), c.High(), c.Low(), c.Close(), c.Volume()) for c in candles]


def key_of(message: Any) -> Key:
    key = message.Key()
    return key.SourceId().decode(), key.Symbol().decode(), key.Interval().decode()


def topic_of(key: Key) -> bytes:
    return f"candles.{key[0]}.{key[1]}.{key[2]}".encode()


def request(
    tag: int,
    fill: Callable[[flatbuffers.Builder], int],
    *,
    correlation_id: str | None = None,
    schema_version: int = 1,
) -> bytes:
    """An envelope around the table that `fill` builds."""
    builder = flatbuffers.Builder(256)
    message = fill(builder)
    told = None if correlation_id is None else builder.CreateString(correlation_id)
    Envelope.Start(builder)
    Envelope.AddSchemaVersion(builder, schema_version)
    Envelope.AddTypeHint(builder, min(tag, 100))
    if told is not None:
        Envelope.AddCorrelationId(builder, told)
    Envelope.AddMessageType(builder, tag)
    Envelope.AddMessage(builder, message)
    builder.Finish(Envelope.End(builder))
    return bytes(builder.Output())


def _key(builder: flatbuffers.Builder, key: Key) -> int:
    texts = [builder.CreateString(text) for text in key]
    StreamKey.Start(builder)
    StreamKey.AddSourceId(builder, texts[0])
    StreamKey.AddSymbol(builder, texts[1])
    StreamKey.AddInterval(builder, texts[2])
    return int(StreamKey.End(builder))


def health(**head: Any) -> bytes:
    def fill(builder: flatbuffers.Builder) -> int:
        HealthRequest.Start(builder)
        return int(HealthRequest.End(builder))

    return request(1, fill, **head)


def _keyed(module: Any, key: Key | None, **slots: Any) -> Callable[[flatbuffers.Builder], int]:
    def fill(builder: flatbuffers.Builder) -> int:
        named = None if key is None else _key(builder, key)
        module.Start(builder)
        if named is not None:
            module.AddKey(builder, named)
        for slot, value in slots.items():
            getattr(module, f"Add{slot}")(builder, value)
        return int(module.End(builder))

    return fill


def cursor(key: Key | None, **head: Any) -> bytes:
    return request(3, _keyed(GetCursorRequest, key), **head)


def subscribe(key: Key | None, after: int | None = None, **head: Any) -> bytes:
    slots = {} if after is None else {"HasFromSequence": True, "FromSequenceExclusive": after}
    return request(5, _keyed(SubscribeCandlesRequest, key, **slots), **head)


def backfill(
    key: Key | None, *, after: int | None = None, end_ts_ms: int | None = None, limit: int = 0, **head: Any
) -> bytes:
    slots: dict[str, Any] = {"Limit": limit}
    if after is not None:
        slots |= {"HasFromSequence": True, "FromSequenceExclusive": after}
    if end_ts_ms is not None:
        slots |= {"HasEndTsMs": True, "EndTsMs": end_ts_ms}
    return request(8, _keyed(BackfillCandlesRequest, key, **slots), **head)


def status(key: Key | None, **head: Any) -> bytes:
    return request(11, _keyed(StreamStatusRequest, key), **head)


def empty_batch(key: Key) -> bytes:
    """A message that is none to ask with."""
    return request(7, _keyed(CandleBatch, key))


class Client:
    """Asks and listens."""

    def __init__(self, rpc: str, pub: str = "") -> None:
        self._context = zmq.Context()
        self._rpc = rpc
        self._pub = pub

    def ask_raw(self, *frames: bytes) -> bytes:
        """The one frame that a request of these frames is answered with."""
        with self._context.socket(zmq.REQ) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._rpc)
            socket.send_multipart(frames)
            assert socket.poll(PATIENCE_MS), "no reply"
            (frame,) = socket.recv_multipart()
        return bytes(frame)

    def ask(self, *frames: bytes) -> Reply:
        return decode(self.ask_raw(*frames))

    def pages(self, key: Key, *, after: int | None = None, limit: int = 0) -> Iterator[tuple[int, list[Row]]]:
        """(start_sequence, rows) of one page after the other, as that client walks them: by next_sequence."""
        while True:
            reply = self.ask(backfill(key, after=after, limit=limit))
            assert reply.tag == 9, reply.message.Message()
            page, rows = reply.message, rows_of(reply.message)
            yield page.StartSequence(), rows
            if not page.HasMore():
                assert page.NextSequence() == 0
                return
            assert page.NextSequence() == page.StartSequence() + len(rows) - 1
            after = page.NextSequence()

    def listen(self, *prefixes: bytes) -> zmq.Socket[bytes]:
        """A SUB socket on these prefixes; closed with the client."""
        socket = self._context.socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 0)
        for prefix in prefixes:
            socket.setsockopt(zmq.SUBSCRIBE, prefix)
        socket.connect(self._pub)
        return socket

    def close(self) -> None:
        self._context.destroy(linger=0)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
