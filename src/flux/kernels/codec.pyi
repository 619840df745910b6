from collections.abc import Callable, Sequence
from typing import Any, Final, final

import numpy as np
from typing_extensions import Buffer, disjoint_base

REASONS: Final[tuple[str, ...]]
MAX_FRAME_BYTES: Final[int]
MAX_VERIFY_TABLES: Final[int]

def shapes() -> tuple[tuple[tuple[str, int], ...], ...]: ...
def crc32c(data: Buffer, value: int = 0) -> int: ...
def crc32c_table(data: Buffer, value: int = 0) -> int: ...
def crc32c_hardware(data: Buffer, value: int = 0) -> int: ...
def crc32c_in_hardware() -> bool: ...
def matches(learned: Buffer, frame: Buffer) -> int: ...

@final
class Frame:
    @property
    def schema_version(self) -> int: ...
    @property
    def message_type(self) -> int: ...
    @property
    def type_hint(self) -> int: ...
    @property
    def correlation_id(self) -> str | None: ...
    @property
    def key(self) -> Any: ...
    @property
    def start_sequence(self) -> int: ...
    @property
    def epoch(self) -> int: ...
    @property
    def store_id(self) -> int: ...
    @property
    def stream_id(self) -> int: ...
    @property
    def origin_ns(self) -> int: ...
    @property
    def recorded_ns(self) -> int: ...
    @property
    def row_count(self) -> int: ...
    @property
    def rows(self) -> np.ndarray[Any, np.dtype[np.void]]: ...

@final
class Decoder:
    def __init__(
        self,
        rows: tuple[type, type, type],
        dtypes: tuple[np.dtype[np.void], ...],
        key: Callable[[str, str, str], Any],
        other: Callable[[int, int, int, str | None, tuple[Any, ...]], Any],
        error: Callable[[str, int], BaseException],
    ) -> None: ...
    def decode(self, frame: Buffer, checksum: bool = True) -> Any: ...

@disjoint_base
class Encoder:
    def __init__(
        self,
        key: tuple[str, str, str],
        kind: int,
        dtype: np.dtype[np.void],
        version: int,
        error: Callable[[str], BaseException],
    ) -> None: ...
    def encode(
        self,
        rows: np.ndarray[Any, np.dtype[np.void]],
        start_sequence: int = 1,
        *,
        out: Buffer | None = None,
        epoch: int = 0,
        store_id: int = 0,
        origin_ns: int = 0,
        recorded_ns: int = 0,
        stream_id: int = 0,
    ) -> Any: ...

@final
class Encoders:
    def __init__(
        self,
        encoders: Sequence[Encoder],
        stream_ids: np.ndarray[Any, np.dtype[np.uint32]],
        run: np.dtype[np.void],
        error: Callable[[str], BaseException],
    ) -> None: ...
    def encode(
        self,
        rows: Any,
        runs: np.ndarray[Any, np.dtype[np.void]],
        *,
        out: Buffer | None = None,
        epoch: int = 0,
        store_id: int = 0,
        recorded_ns: int = 0,
    ) -> tuple[Any, np.ndarray[Any, np.dtype[np.uint64]]]: ...

def encode_backfill_v1(
    key: tuple[str, str, str],
    rows: np.ndarray[Any, np.dtype[np.void]],
    dtype: np.dtype[np.void],
    start_sequence: int,
    has_more: bool,
    next_sequence: int,
    correlation_id: str | None,
    error: Callable[[str], BaseException],
) -> bytes: ...
def encode_backfill_v2(
    key: tuple[str, str, str],
    items: Buffer,
    slot: int,
    count: int,
    row_count: int,
    start_sequence: int,
    epoch: int,
    store_id: int,
    has_more: bool,
    first_available_sequence: int,
    watermark_sequence: int,
    status: int,
    epoch_end_sequence: int,
    rows_epoch: int,
    correlation_id: str | None,
    error: Callable[[str], BaseException],
) -> bytes: ...
