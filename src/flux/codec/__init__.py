"""Frames to messages and rows to frames: the door of `ext/codec.pyx`. Loads numpy and the kernel alone.

`decode` gives, by the message's tag, `flux.batch.Candles`, `Trades` or `Quotes` for live rows, and one of the
classes below for all others: their attributes are named as the schema's slots (`schemas/market_data.fbs` has
the units), with the schema's defaults for what a message leaves out, and `schema_version`, `type_hint`,
`correlation_id` and `message_type` (the union's tag) on each. They are declared in `messages.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from flux import limits
from flux.batch import Candles, Quotes, Trades
from flux.codec.messages import (
    MESSAGES,
    BackfillCandlesRequest,
    BackfillCandlesResponse,
    BackfillRowsRequest,
    BackfillRowsResponse,
    ErrorResponse,
    Forming,
    GapListRequest,
    GapListResponse,
    GapRecord,
    GetCursorRequest,
    GetCursorResponse,
    Head,
    HealthRequest,
    HealthResponse,
    Heartbeat,
    Message,
    Rows,
    SourcePositionRequest,
    SourcePositionResponse,
    StreamListRequest,
    StreamListResponse,
    StreamStatusRequest,
    StreamStatusResponse,
    SubscribeCandlesAck,
    SubscribeCandlesRequest,
    Unknown,
)
from flux.errors import DecodeError, EncodeError
from flux.kernels import codec as _kernel
from flux.model import CANDLE, MARK, QUOTE, REFUSED, ROW_DTYPES, RUN, TRADE, RowKind, StreamKey

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Buffer

__all__ = [
    "MESSAGES",
    "REASONS",
    "BackfillCandlesRequest",
    "BackfillCandlesResponse",
    "BackfillRowsRequest",
    "BackfillRowsResponse",
    "Candles",
    "DecodeError",
    "EncodeError",
    "Encoder",
    "Encoders",
    "ErrorResponse",
    "Forming",
    "Frames",
    "GapListRequest",
    "GapListResponse",
    "GapRecord",
    "GetCursorRequest",
    "GetCursorResponse",
    "Head",
    "HealthRequest",
    "HealthResponse",
    "Heartbeat",
    "Message",
    "Quotes",
    "Rows",
    "SourcePositionRequest",
    "SourcePositionResponse",
    "StreamListRequest",
    "StreamListResponse",
    "StreamStatusRequest",
    "StreamStatusResponse",
    "SubscribeCandlesAck",
    "SubscribeCandlesRequest",
    "Trades",
    "Unknown",
    "crc32c",
    "decode",
    "encode",
    "encode_backfill",
    "get_include",
]

REASONS: Final = _kernel.REASONS
"""Why a frame is refused, by the kernel's number; `DecodeError.reason` is one of these, or `zstd`."""

assert _kernel.MAX_FRAME_BYTES == limits.MAX_FRAME_BYTES
assert _kernel.MAX_VERIFY_TABLES == limits.MAX_VERIFY_TABLES


def _fill(message: Message, slots: tuple[Any, ...]) -> None:
    made = message._made
    for name, value in zip(type(message).__slots__, slots, strict=True):
        setattr(message, name, made[name](value) if name in made else value)


def _message(
    tag: int, version: int, hint: int, correlation_id: str | None, slots: tuple[Any, ...]
) -> Message:
    """What the kernel calls for all that is not a row message."""

    def of(kind: type[Message], tag: int) -> Message:
        message = kind.__new__(kind)
        message.schema_version, message.type_hint = version, hint
        message.correlation_id, message.message_type = correlation_id, tag
        return message

    message = of(MESSAGES.get(tag, Unknown), tag)
    if isinstance(message, StreamListResponse):
        streams = []
        for values in slots[0] or ():
            stream = of(StreamStatusResponse, tag)
            _fill(stream, values)
            streams.append(stream)
        slots = (streams, slots[1])
    if type(message) is not Unknown:
        _fill(message, slots)
    return message


def _key(source_id: str, symbol: str, interval: str) -> StreamKey:
    return StreamKey(source_id, symbol, interval)


_decode = _kernel.Decoder(
    (Candles, Trades, Quotes), (CANDLE, TRADE, QUOTE, MARK, REFUSED), _key, _message, DecodeError
).decode


def decode(frame: Buffer, *, verify: bool = True) -> Any:
    """The message in `frame`: any bytes-like object, at any address.

    Size, checksum (where the frame says there is one) and the whole structure are checked before anything is
    believed; the version, names, times and sequences are not judged. Rows are lent, not copied: they are
    read-only, and keep the frame alive. Who writes into a writable frame later finds the new bytes in the rows and
    names of what it gave, within their old bounds, and nothing worse; nobody may write while this runs.
    `verify=False` leaves out the checksum alone, for a frame whose checksum was checked before; the structure is
    always verified.

    Raises `DecodeError(reason, offset)`, its reason `short`, `size`, `checksum` or `verify`.
    """
    return _decode(frame, verify)


class Encoder(_kernel.Encoder):
    """Encodes the rows of one stream; what is constant is laid out once.

    `.encode(rows, start_sequence=1, *, out=None, epoch=0, store_id=0, origin_ns=0, recorded_ns=0,
    stream_id=0)` gives the message as bytes. `rows` is a 1-d array of the dtype that the key's interval says
    (CANDLE, TRADE, QUOTE); a message of version 1 holds candles alone.

    With `out`, a writable buffer at any address (a bytearray, an array, a slice of either), the message is
    written from its first byte on and its size is given. The same buffer may be used again for the next message
    as soon as this one is sent or copied: nothing is allocated, and what lies behind the size is left alone.

    Raises `EncodeError` for names too long for a head (384 bytes), rows of another dtype, more than a frame
    of 4 MiB holds, or an `out` that is too small.
    """

    def __init__(self, key: StreamKey | tuple[str, str, str], *, version: int = 2) -> None:
        kind = StreamKey(*key).kind
        if version not in (1, 2):
            raise EncodeError(f"schema version {version}: this flux writes 1 and 2")
        if version == 1 and kind != RowKind.CANDLE:
            raise EncodeError(f"version 1 has no messages for interval {key[2]!a}")
        super().__init__(key, kind, ROW_DTYPES[kind], version, EncodeError)
        self.key = StreamKey(*key)


class Frames:
    """Messages that stand behind one another: `frames[i]` is a memoryview of the i-th, `len(frames)` their number.

    `data` is what holds them all (the `out` that was given, or bytes of their own), `offsets` (u8, one more
    than there are messages) where each begins.
    """

    __slots__ = ("_view", "data", "offsets")

    def __init__(self, data: Buffer, offsets: np.ndarray[Any, np.dtype[np.uint64]]) -> None:
        self.data, self.offsets = data, offsets
        self._view = memoryview(data).cast("B")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> memoryview:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self._view[int(self.offsets[index]) : int(self.offsets[index + 1])]


class Encoders:
    """Encodes the rows of many streams, of any kinds, in one call (version 2).

    `keys` are the streams, which a run names by their place here; `stream_ids` (u4) what each is called on the
    wire, 0 where left out. Raises `EncodeError` as `Encoder` does.
    """

    def __init__(
        self, keys: Iterable[StreamKey | tuple[str, str, str]], *, stream_ids: ArrayLike | None = None
    ) -> None:
        encoders = [Encoder(key) for key in keys]
        self.keys = tuple(encoder.key for encoder in encoders)
        ids = np.zeros(len(encoders), np.uint32) if stream_ids is None else np.array(stream_ids, np.uint32)
        self._kernel = _kernel.Encoders(encoders, ids, RUN, EncodeError)

    def encode(
        self,
        rows: Buffer | Rows,
        runs: np.ndarray[Any, np.dtype[np.void]],
        *,
        out: Buffer | None = None,
        epoch: int = 0,
        store_id: int = 0,
        recorded_ns: int = 0,
    ) -> Frames:
        """One message for each run, in the order of `runs` (1-d, dtype `flux.model.RUN`): `rows` rows from byte
        `at` of the contiguous buffer `rows` become sequences `first`, `first + 1`, ... of stream `stream`. The
        kinds of rows may be mixed in the buffer: a run's bytes are read as its stream's kind.

        With `out`, a writable buffer, the messages are written there, one behind the other from its first byte,
        and it may be used again when they are no longer needed: nothing is allocated for them. Raises
        `EncodeError` for a run that names no stream, rows outside the buffer or more than a frame of 4 MiB
        holds, and for an `out` that is too small; then nothing is written.
        """
        return Frames(
            *self._kernel.encode(rows, runs, out=out, epoch=epoch, store_id=store_id, recorded_ns=recorded_ns)
        )


def encode(
    rows: Rows,
    key: StreamKey | tuple[str, str, str],
    start_sequence: int = 1,
    *,
    version: int = 2,
    out: Buffer | None = None,
    epoch: int = 0,
    store_id: int = 0,
    origin_ns: int = 0,
    recorded_ns: int = 0,
    stream_id: int = 0,
) -> bytes | int:
    """`Encoder(key, version=version).encode(rows, start_sequence, ...)`: use that for more than a few
    messages."""
    made: bytes | int = Encoder(key, version=version).encode(
        rows,
        start_sequence,
        out=out,
        epoch=epoch,
        store_id=store_id,
        origin_ns=origin_ns,
        recorded_ns=recorded_ns,
        stream_id=stream_id,
    )
    return made


def encode_backfill(
    key: StreamKey | tuple[str, str, str],
    start_sequence: int,
    rows: Rows,
    *,
    version: int = 2,
    has_more: bool = False,
    next_sequence: int = 0,
    epoch: int = 0,
    store_id: int = 0,
    first_available_sequence: int = 0,
    watermark_sequence: int = 0,
    status: int = 0,
    epoch_end_sequence: int = 0,
    rows_epoch: int = 0,
    zstd: bool = False,
    correlation_id: str | None = None,
) -> bytes:
    """A reply with rows: BackfillCandlesResponse (version 1: only `has_more` and `next_sequence` of the
    keywords count) or BackfillRowsResponse (version 2: all but `next_sequence`). `zstd` compresses the rows.

    Raises `EncodeError` for rows of another dtype than the key's interval says, or a reply over 4 MiB.
    """
    kind = StreamKey(*key).kind
    dtype = ROW_DTYPES[kind]
    if version == 1:
        if kind != RowKind.CANDLE:
            raise EncodeError(f"version 1 has no messages for interval {key[2]!a}")
        return _kernel.encode_backfill_v1(
            key, rows, dtype, start_sequence, has_more, next_sequence, correlation_id, EncodeError
        )
    if rows.dtype != dtype or rows.ndim != 1:
        raise EncodeError(f"rows are {rows.ndim}-d {rows.dtype}, this stream's are 1-d {dtype}")
    items: Any = np.ascontiguousarray(rows).view(np.uint8)
    slot, count = {RowKind.TRADE: 12, RowKind.QUOTE: 13}.get(kind, 2), len(rows)
    if zstd:
        items = _packed(rows)
        slot, count = 11, len(items)
    return _kernel.encode_backfill_v2(
        key,
        items,
        slot,
        count,
        len(rows),
        start_sequence,
        epoch,
        store_id,
        has_more,
        first_available_sequence,
        watermark_sequence,
        status,
        epoch_end_sequence,
        rows_epoch,
        correlation_id,
        EncodeError,
    )


def get_include() -> str:
    """The folder for the include path of C, C++ and Cython that uses the codec without Python: `flux/codec.h` and
    what it needs, with `flux/crc32c.c`, which is compiled as C and linked with it. `flux/kernels/codec.pxd`
    declares them: `from flux.kernels.codec cimport flux_verify`."""
    return str(Path(_kernel.__file__).parents[1] / "include")


def crc32c(data: Buffer, value: int = 0) -> int:
    """CRC-32C (Castagnoli) of bytes-like `data`, going on from `value`: crc32c(b, crc32c(a)) is of a + b."""
    return _kernel.crc32c(data, value)


def _packed(rows: Rows) -> bytes:
    import zstandard  # late: `import flux.codec` loads numpy and the kernel alone

    fields = [np.ascontiguousarray(rows[name]).tobytes() for name in rows.dtype.names or ()]
    return zstandard.ZstdCompressor(level=1, write_content_size=True).compress(b"".join(fields))
