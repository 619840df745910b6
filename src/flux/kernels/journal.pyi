"""Stub of ext/journal.pyx. The door `flux.journal` checks lengths and types; an `object` is a buffer."""

from typing import Any, Final, TypeAlias, final

import numpy as np
from typing_extensions import Buffer

# numpy declares its arrays as buffers from Python 3.12 on only.
_Buffer: TypeAlias = Buffer | np.ndarray[Any, Any]

FORMAT: Final[int]
OLDEST_FORMAT: Final[int]
FILE_HEADER_SIZE: Final[int]
RECORD_HEADER_SIZE: Final[int]
COMMIT_SIZE: Final[int]
BATCH: Final[int]
STREAM: Final[int]
SOURCE: Final[int]
HEADS: Final[int]
EPOCH: Final[int]
COMMIT: Final[int]
CLOSE: Final[int]
HOLE: Final[int]
STOPS: Final[tuple[str, ...]]
PLACE_SPAN: Final[int]
SCRATCH_SIZE: Final[int]

@final
class Group(Buffer):
    def __new__(cls, capacity: int, entries: int) -> Group: ...
    def address(self) -> int: ...
    def append(self, kind: int, content: object, label: int, label2: int) -> bool: ...
    def seal(self, start: int, synced: int) -> int: ...
    def clear(self) -> None: ...
    def entries(self) -> bytes: ...
    @property
    def used(self) -> int: ...
    @property
    def count(self) -> int: ...
    @property
    def capacity(self) -> int: ...

def file_header(number: int, before: int, version: int) -> bytes: ...
def scan(
    data: object, start: int, version: int
) -> tuple[bytearray, int, int, int, int, bool, int, int, int]: ...
def last_byte(data: object, start: int) -> int: ...
def crc32c(data: object) -> int: ...
def gather(
    data: _Buffer, at: int, out: _Buffer, candles: _Buffer, trades: _Buffer, quotes: _Buffer
) -> tuple[int, int, int, int, int]: ...
def places(
    data: _Buffer, have: int, end: int, base: int, latest: _Buffer, out: _Buffer
) -> tuple[int, int]: ...
def past_read(
    fd: int,
    end: int,
    places: _Buffer,
    stream_id: int,
    kind: int,
    first: int,
    last: int,
    out: _Buffer,
    row_size: int,
    scratch: _Buffer,
    budget: int,
) -> tuple[int, int, int, int]: ...
