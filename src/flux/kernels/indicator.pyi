"""Stub of ext/indicator.pyx. The door `flux.indicator` checks lengths and types; an `object` is a buffer."""

from typing import Final, final

SMA: Final[int]
EMA: Final[int]
RSI: Final[int]
ATR: Final[int]
VWAP: Final[int]
VWAP_ANCHORED: Final[int]

@final
class Indicator:
    def __new__(cls, kind: int, n: int, length: int, origin: int) -> Indicator: ...
    def set_edges(self, edges: object) -> None:
        """Where the anchor's buckets open, ascending epoch ms (int64): held until the next ones."""

    def set_origin(self, origin: int) -> None:
        """An even grid again, with this open (0 to below its length)."""

    def push(self, rows: object, field: int | None, out: object) -> None: ...
    @property
    def value(self) -> float: ...
    @property
    def skipped(self) -> int: ...
