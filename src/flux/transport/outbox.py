"""The door of the outbox: a feed's rows on their way to a server, kept until its journal has them (`ext/push.h`).

What a server would refuse is found here by the same kernel, before anything is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from flux import limits
from flux.codec import BackfillRowsResponse
from flux.errors import AnswerError, EncodeError
from flux.kernels import admit as judge
from flux.kernels import pump as kernel
from flux.model import ROW_DTYPES, RefusedReason, RowKind, StreamKey
from flux.transport.pump import NATIVE, _error, _handle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux.transport.sockets import Socket

QUEUED: Final = kernel.QUEUED
WOKEN: Final = kernel.WOKEN
NO_ROOM: Final = kernel.NO_ROOM
UNSOUND: Final = kernel.UNSOUND

_KINDS: Final = (RowKind.CANDLE, RowKind.TRADE, RowKind.QUOTE)


def faults(key: StreamKey, rows: NDArray[np.void]) -> NDArray[np.uint8]:
    """For each row why no server would keep it, a `RefusedReason`, or 0; the server's clock and streams apart."""
    found = np.zeros(len(rows), np.uint8)
    grid = judge.grid(key.kind, key.interval.encode())
    judge.faults(key.kind, np.ascontiguousarray(rows).view(np.uint8), found, grid)
    return found


def first_fault(rows: NDArray[np.void]) -> tuple[int, str] | None:
    """The place of the first row that no server would number, and why; None when there is none. Clock and grid apart.
    `rows`: 1-d, of a row's dtype."""
    kind = next(kind for kind in _KINDS if ROW_DTYPES[kind] == rows.dtype)
    found = judge.first_fault(kind, np.ascontiguousarray(rows).view(np.uint8)) if len(rows) else None
    return None if found is None else (found[0], reason(found[1]))


def reason(number: int) -> str:
    """The word of a `RefusedReason`, also of one that a later server may have."""
    try:
        return RefusedReason(number).name.lower()
    except ValueError:
        return f"reason {number}"


def answered_rows(reply: BackfillRowsResponse, endpoint: str) -> NDArray[np.void]:
    """The rows of a version 2 answer (version 1 promises nothing of their values). Raises AnswerError where one of them
    is such as no server numbers, DecodeError where they do not decompress."""
    rows = reply.rows
    found = first_fault(rows)
    if found is not None:
        raise AnswerError(
            f"{endpoint} answered with a corrupt batch of {reply.key}: sequence {reply.start_sequence + found[0]} is a "
            f"row that no server numbers ({found[1]})"
        )
    return rows


class Outbox:
    """Rows of one run. `send` from any thread, the others from the thread that owns the socket."""

    def __init__(self, run: int) -> None:
        self.kernel = kernel.Outbox(
            native=NATIVE,
            capacity=limits.FEED_PENDING_BYTES + limits.MAX_FRAME_BYTES,
            most_rows=limits.MAX_INGEST_ROWS,
            stream_limit=limits.MAX_STREAMS,
            dtypes=[None, *(ROW_DTYPES[kind] for kind in _KINDS)],
        )
        self._run = run
        self._socket: Socket | None = None
        self.send: Final = self.kernel.send
        """(symbol, interval, rows) -> QUEUED, WOKEN, NO_ROOM, UNSOUND or another number: it is none of these."""

    def begin(self, incarnation: int, committed: int) -> None:
        """Rows are numbered behind what is committed, in the name of this process."""
        self.kernel.begin(self._run, incarnation, committed)

    def begin_anew(self, run: int, incarnation: int) -> None:
        """Go on as another run: what waits, of which nothing was sent, is numbered from 1 again behind what is
        committed."""
        self._run = run
        self.kernel.begin_anew(run, incarnation)

    def connect(self, socket: Socket | None) -> None:
        """The PUSH socket; None: there is none any more."""
        self._socket = socket  # kept alive
        self.kernel.connect(0 if socket is None else _handle(socket, NATIVE))

    def add(self, key: StreamKey) -> None:
        """Rows of this stream may be sent."""
        try:
            self.kernel.add(key.source_id.encode(), key.symbol, key.interval, key.kind)
        except ValueError as error:
            raise EncodeError(f"{key}: {error}") from error

    def resend(self, *, everything: bool) -> bool:
        """Send what waits, or also what was sent and is not committed; whether something still waits.

        Raises `zmq.ZMQError` when the socket failed.
        """
        try:
            return self.kernel.resend(everything)
        except OSError as error:
            raise _error(error.errno or 0) from error

    def find(self, refused: NDArray[np.void]) -> list[tuple[str, str, Any] | None]:
        """For each REFUSED record, by ascending numbers: (symbol, interval, the row) that waits here, or None."""
        found = self.kernel.find(refused.view(np.uint8))
        return [
            None
            if one is None
            else (one[0], one[1], np.frombuffer(one[2], ROW_DTYPES[StreamKey("", *one[:2]).kind])[0])
            for one in found
        ]
