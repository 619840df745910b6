"""What mode `rpc` asks, when, and what a right answer is. No sockets here.

Request k (from 0) is intended at k / rate after the run's start; its kind is the k-th of MIX, in turn for ever, its
stream and the page that it wants follow from the seed and k alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from flux import codec
from flux.errors import FluxError, RequestError, VersionError
from flux.loadgen.sample import Sample, stream_of
from flux.model import CANDLE, StreamKey
from flux.schema import messages

PAGE_ROWS: Final = 1_000
_MIX_OF: Final = {"backfill": 8, "status": 1, "cursor": 1}
MIX: Final = (
    *("backfill", "backfill", "status", "backfill", "backfill"),
    *("backfill", "backfill", "cursor", "backfill", "backfill"),
)
KINDS: Final = tuple(_MIX_OF)
_MASK: Final = 2**64 - 1

assert {kind: MIX.count(kind) for kind in KINDS} == _MIX_OF


def mixed(seed: int, k: int) -> int:
    """64 bits that follow from seed and k alone: splitmix64."""
    x = (seed + 0x9E3779B97F4A7C15 * (k + 1)) & _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)


@dataclass(slots=True)
class Target:
    """A stream that is asked about; `head` is the highest sequence heard of."""

    key: StreamKey
    first: int  # oldest kept, when the run began
    head: int
    epoch: int
    store_id: int


@dataclass(slots=True)
class Request:
    """One request: what to send, and what its answer must fit."""

    kind: str
    target: Target
    after: int = 0  # of a page: the sequence before its first
    head: int = 0  # of the stream, as known when it was asked

    @property
    def build(self) -> Callable[..., bytes]:
        """The function of `flux.schema.messages` that makes it."""
        return _BUILD[self.kind]

    @property
    def slots(self) -> dict[str, Any]:
        """Its arguments."""
        if self.kind != "backfill":
            return {"key": self.target.key}
        return {
            "key": self.target.key,
            "from_sequence_exclusive": self.after,
            "limit": PAGE_ROWS,
            "epoch": self.target.epoch,
            "store_id": self.target.store_id,
        }


_BUILD: Final[dict[str, Callable[..., bytes]]] = {
    "backfill": messages.backfill_rows_request,
    "status": messages.stream_status_request,
    "cursor": messages.get_cursor_request,
}


class Asking:
    """Makes the requests of a run."""

    def __init__(self, seed: int, targets: list[Target]) -> None:
        self._seed, self._targets = seed, targets

    def request(self, k: int) -> Request:
        """Request k."""
        bits = mixed(self._seed, k)
        target = self._targets[bits % len(self._targets)]
        kind = MIX[k % len(MIX)]
        if kind != "backfill":
            return Request(kind, target, head=target.head)
        pages = max(1, target.head - target.first + 2 - PAGE_ROWS)  # where a page may begin and still be full
        return Request(kind, target, target.first - 1 + (bits >> 20) % pages, target.head)


def fault_of(request: Request, reply: Any, sample: Sample | None) -> str | None:
    """What is wrong with an answer, or None. `sample`: what the rows must be; without it they must follow one
    another without a hole from the first that was asked for, and be candles that can be.

    A right answer moves the target's head on.
    """
    if reply.key != request.target.key:
        return "another stream's answer"
    match request.kind:
        case "backfill" if isinstance(reply, codec.BackfillRowsResponse):
            return _page_fault(request, reply, sample)
        case "status" if isinstance(reply, codec.StreamStatusResponse):
            head = reply.latest_sequence
        case "cursor" if isinstance(reply, codec.GetCursorResponse):
            head = 0 if reply.cursor is None else reply.cursor.latest_sequence
        case _:
            return f"an answer to another kind of request: {type(reply).__name__}"
    if head < request.head:
        return "a head that went back"
    request.target.head = max(request.target.head, head)
    return None


def _page_fault(request: Request, reply: codec.BackfillRowsResponse, sample: Sample | None) -> str | None:
    rows, due = reply.rows, min(PAGE_ROWS, request.head - request.after)
    if reply.status != 0:
        return f"status {reply.status}"
    if reply.start_sequence != request.after + 1:
        return "a page that begins elsewhere"
    if not (due <= len(rows) <= PAGE_ROWS or (0 < len(rows) < due and reply.has_more)):
        return "another number of rows"
    if sample is not None:
        expected = sample.rows(stream_of(request.target.key), request.after + 1, len(rows))
        return None if rows.tobytes() == expected.tobytes() else "other rows than were sent"
    if (
        rows.dtype == CANDLE
        and not (
            (rows["low"] <= rows["open"]) & (rows["open"] <= rows["high"]) & (rows["low"] <= rows["close"])
        ).all()
    ):
        return "candles that cannot be"
    return None


def error_class(error: FluxError) -> str:
    """Under which name an error is counted."""
    if isinstance(error, RequestError) and not isinstance(error, VersionError):
        return f"{type(error).__name__} {error.status or error.code}"
    return type(error).__name__
