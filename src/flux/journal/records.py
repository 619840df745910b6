"""What the journal's records other than batches say, as msgpack (msgspec), and what a source's position is called.

    STREAM   a stream was given its number: once, never reused
    SOURCE   a source is this far: in the same group as the rows that took it there
    HEADS    everything a start needs to know at this point of the journal; the first record of every file
    HOLE     what is lost where groups no longer read: sequences, and streams that got their number there
    EPOCH    a new epoch begins, and where each stream ended in the one before

`FORMAT` is the version of these bodies and of the directory: a newer one is refused (exit 4), never guessed at.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from flux.errors import DataError
from flux.limits import ONE_LIFE_RUNS
from flux.model import StreamKey

FORMAT: Final = 2

FIRST_EPOCH: Final = 1

FEED: Final = "feed:"

Position = tuple[int, int]
"""How far a source is: (rows, running CRC-32C) of a file, (rows, incarnation) of a feed's run."""


class StreamRecord(msgspec.Struct, frozen=True, array_like=True):
    """A stream and its number."""

    stream_id: int
    source_id: str
    symbol: str
    interval: str

    @property
    def key(self) -> StreamKey:
        return StreamKey(self.source_id, self.symbol, self.interval)


class SourceRecord(msgspec.Struct, frozen=True, array_like=True):
    """A source's position behind the group's rows."""

    name: str
    position: Position


class StreamHead(msgspec.Struct, frozen=True, array_like=True):
    """A stream's head apart from its rows: retention or an empty journal never reset it."""

    stream: StreamRecord
    head: int
    latest_ts: int
    highest: int
    first_kept: int = 1


class EpochRecord(msgspec.Struct, frozen=True, array_like=True):
    """`ends` holds the last surviving sequence of each stream in the epoch before `epoch`."""

    epoch: int
    ends: dict[int, int]
    reason: str


class HeadsRecord(msgspec.Struct, frozen=True, array_like=True):
    """The state of the whole store where it stands in the journal."""

    format: int
    store_id: int
    epoch: int
    streams: list[StreamHead]
    epochs: list[EpochRecord]
    sources: dict[str, Position]
    parent_store_id: int = 0
    """The store that this one branched from as a copy or a restore; 0: none."""
    branch_epoch: int = 0
    """The epoch that began with it: its record in `epochs` has the heads at which this store branched."""


class HoleRecord(msgspec.Struct, frozen=True, array_like=True):
    """What `flux rebuild --salvage` puts in the place of groups that no longer read."""

    spans: dict[int, tuple[int, int]]
    """Of a stream, the first and the last sequence that is lost; the next one is the last and one."""
    streams: list[StreamRecord]
    fill: bytes = b""
    """It takes as many bytes as what it replaces."""


Record = TypeVar("Record", HoleRecord, StreamRecord, SourceRecord, EpochRecord, HeadsRecord)

_encode = msgspec.msgpack.Encoder().encode
_POSITION_BYTES: Final = 3  # of the packed position (0, 0)


def pack(record: HoleRecord | StreamRecord | SourceRecord | EpochRecord | HeadsRecord) -> bytes:
    """The body of a record."""
    return _encode(record)


def source_begins(name: str) -> bytes:
    """How the body of each SOURCE record of this source begins: all before the position, which compiled code puts there
    (`flux_group_append_source` in `ext/journal.h`)."""
    return pack(SourceRecord(name, (0, 0)))[:-_POSITION_BYTES]


def unpack(body: bytes | memoryview, kind: type[Record]) -> Record:
    """A record out of its body. Raises DataError when it is not one, or of a newer format."""
    try:
        if kind is HeadsRecord:
            found = msgspec.msgpack.decode(body, type=list[msgspec.Raw])
            newest = msgspec.msgpack.decode(found[0], type=int)
            if newest > FORMAT:
                raise DataError(
                    f"the data directory has format {newest}, this flux reads {FORMAT}: upgrade flux-marketdata"
                )
        return msgspec.msgpack.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, IndexError) as error:
        raise DataError(f"a {kind.__name__} of the journal does not read: {error}") from error


def feed_name(source_id: str, run: int) -> str:
    """The name under which a feed's run has its position."""
    return f"{FEED}{source_id}:{run}"


def is_durable(name: str, position: Position) -> bool:
    """Whether it is a run that processes take over from one another."""
    return position[1] > 0 and int(name.rpartition(":")[2]) < ONE_LIFE_RUNS
