"""A feed of one's own: rows pushed to the server's ingest socket, kept until the server's journal has them.

    send(rows) ─► sound? ─► outbox (numbered from 1 for this run) ─► PUSH ─► server ─► journal
                              ▲                                                          │
                              └──── position: committed, refused; asked over ROUTER ◄────┘

What is not committed stays in the outbox and is sent again, from the first uncommitted row on, when the position stands
still or the server was away; the server drops what it has. So nothing is lost between feed and server, and nothing
comes twice, kill -9 of the server included. A durable run (`run="name"`) goes on when the feed itself is started again.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Final

import numpy as np

from flux.config import DEFAULT_INGEST_PULL, endpoints, value
from flux.errors import (
    BadRowsError,
    FluxError,
    RequestTimeout,
)
from flux.feed.delivery import Delivery, Refused
from flux.feed.position import FeedPosition as FeedPosition
from flux.feed.position import last_committed
from flux.model import StreamKey
from flux.tables import Table, rows_of
from flux.transport.forked import OfOneProcess, ending
from flux.transport.outbox import NO_ROOM, QUEUED, WOKEN, faults, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLOSE_S: Final = 5.0
BEGIN_S: Final = 2.0  # for a named run to begin where the one before ended


class Feed(OfOneProcess):
    """Sends rows of source `source` to a server; safe to use from several threads.

    `run`: the name of a durable run. The process that makes a Feed with it last has it, `committed` begins where the
    one before ended, and that one's next call raises InUseError. Without a name every Feed is a run of its own.

    `ingest` and `chunk_rep` are the server's PULL and ROUTER endpoints (default FLUX_INGEST_PULL, FLUX_CHUNK_REP, this
    machine). At most `limits.FEED_PENDING_BYTES` wait for the server; beyond that `send` waits. In a process that was
    forked since it was made every call raises FluxError.
    """

    def __init__(
        self, source: str, *, run: str | None = None, ingest: str | None = None, chunk_rep: str | None = None
    ) -> None:
        StreamKey(source, "X", "1m").checked()
        self.source = source
        self._ingest = value(ingest, "INGEST_PULL", DEFAULT_INGEST_PULL)
        self._chunk_rep = endpoints(chunk_rep=chunk_rep).chunk_rep
        self._closing = False  # no more rows are taken
        self._delivery = Delivery(source, run, self._ingest, self._chunk_rep)
        self._changed = self._delivery.changed
        self._outbox = self._delivery.outbox
        self._put = self._outbox.send

    @property
    def run(self) -> int:
        """The number under which the server has, or is about to have, this feed's position."""
        return self._delivery.run

    def send(
        self,
        symbol: str,
        interval: str,
        rows: NDArray[np.void] | Table,
        *,
        timeout: float | None = None,
        skip_bad: bool = False,
    ) -> None:
        """Queue rows (a 1-d array of the interval's dtype, a batch, or a table: see `flux.tables`; copied) for the
        server: all of them or none.

        Raises BadRowsError where the server would not keep some of them, a candle that is not CLOSED among them; with
        `skip_bad` the others are queued and those stand in `refused`. Waits while the server is behind: at most
        `timeout` seconds, then RequestTimeout, whose `queued` says how many rows were taken: none, unless the array is
        larger than all that may wait (`limits.FEED_PENDING_BYTES`). Raises EncodeError for rows of another dtype,
        TypeError for what holds no rows, InvalidNameError for names outside the grammar, FluxError from `close` on.
        """
        if self._delivery.begun:
            status = self._put(symbol, interval, rows)
            if status == QUEUED:
                return
            if status == WOKEN:
                self._delivery.wake.set()
                return
        self._send(symbol, interval, rows, timeout, skip_bad)

    def position(self, key: StreamKey | str, timeout: float = 2.0) -> FeedPosition | None:
        """The last row of `key` that the server has committed, whoever sent it; None when there is none.

        Where a feed goes on after a restart: with the row after it. What is sent again all the same is recognised.
        A durable run is claimed first, so that nothing of the process before follows. Raises RequestTimeout, and
        FluxError from `close` on.
        """
        key = StreamKey.parse(key) if isinstance(key, str) else key.checked()
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._delivery.failure or self._closing or self._delivery.begun, timeout
            ):
                raise RequestTimeout(
                    f"{self._chunk_rep}: no answer within {timeout} s{self._delivery.trouble}"
                )
            self._delivery.raise_failure()
            if self._closing:
                raise self._closed_error()
        return last_committed(self._chunk_rep, key, timeout)

    @property
    def refused(self) -> list[Refused]:
        """Rows that were not kept: skipped by `send(skip_bad=True)`, or refused by the server. The last
        `limits.MAX_FEED_REFUSED`; of very many in a short time the server tells only the last 256."""
        return list(self._delivery.refused)

    def flush(self, timeout: float = 2.0) -> None:
        """Wait until all that was sent is committed in the server's journal; RequestTimeout after `timeout` seconds,
        and at once after `close`, when nothing more can come.
        """
        with self._changed:
            queued = self._outbox.kernel.queued

            def all_in() -> bool:
                return self._delivery.begun and self._delivery.committed >= queued

            self._changed.wait_for(
                lambda: self._delivery.failure or self._delivery.ended or all_in(), timeout
            )
            self._delivery.raise_failure()
            if not all_in():
                raise RequestTimeout(
                    f"{self._ingest}: {queued - self._delivery.committed} of {queued} rows not committed in {timeout} s"
                    + self._delivery.trouble
                )

    @property
    def committed(self) -> int:
        """Rows of this feed that are in the server's journal.

        Of a named run it waits, once, up to 2 s until the server has said how far the run is, and raises RequestTimeout
        where it does not: a 0 would be taken for a run that begins, and all its rows be sent again.
        """
        delivery = self._delivery
        if delivery.durable and not delivery.begun:
            with self._changed:
                self._changed.wait_for(lambda: delivery.begun or delivery.failure or delivery.ended, BEGIN_S)
            delivery.raise_failure()
            if not delivery.begun:
                raise RequestTimeout(
                    f"{self._chunk_rep}: the server has not said in {BEGIN_S:g} s how far this run is"
                    + delivery.trouble
                )
        return delivery.committed

    @ending
    def close(self) -> None:
        """Take no more rows, flush for at most 5 s, then let go. Raises RequestTimeout when rows were left uncommitted,
        a second call too.

        So what a `send` took is committed once a `close` has returned, from whichever thread either came: a `send`
        that comes later, or that waits for room meanwhile, raises.
        """
        with self._changed:
            self._closing = True
            self._outbox.kernel.close()  # under its lock, beside every `send`: what is queued is final
            self._changed.notify_all()
        try:
            self.flush(CLOSE_S)
        finally:
            self._delivery.end()

    def __enter__(self) -> Feed:
        return self

    @ending
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _closed_error(self) -> FluxError:
        return FluxError(f"this Feed of {self.source} is closed")

    def _send(
        self,
        symbol: str,
        interval: str,
        rows: NDArray[np.void] | Table,
        timeout: float | None,
        skip_bad: bool,
    ) -> None:
        """The long way: a new stream, rows that are not as they should be, or no room."""
        if self._closing:
            raise self._delivery.failure or self._closed_error()
        key = StreamKey(self.source, symbol, interval).checked()
        rows = rows_of(rows, key.kind)
        found = faults(key, rows)
        bad = np.flatnonzero(found)
        if len(bad) and not skip_bad:
            raise BadRowsError(key, tuple(bad.tolist()), tuple(map(reason, found[bad].tolist())))
        self._delivery.refused.extend(
            Refused(key, rows[i].copy(), reason(int(found[i]))) for i in bad.tolist()
        )
        rows = np.ascontiguousarray(rows[found == 0] if len(bad) else rows)
        with self._changed:
            self._outbox.add(key)
        most = self._outbox.kernel.most_at_once(symbol, interval)
        deadline = None if timeout is None else time.monotonic() + timeout
        for begin in range(0, len(rows), most):
            self._wait_and_put(key, rows[begin : begin + most], deadline, begin, len(rows))

    def _wait_and_put(
        self, key: StreamKey, rows: NDArray[np.void], deadline: float | None, before: int, of: int
    ) -> None:
        with self._changed:
            while True:
                self._delivery.raise_failure()
                status = self._put(key.symbol, key.interval, rows) if self._delivery.begun else NO_ROOM
                if status in (QUEUED, WOKEN):
                    break
                queued = f"{before} of {of} rows were queued" if before else "nothing was queued"
                if self._closing:
                    raise FluxError(f"{self._closed_error()}; {queued}")
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    error = RequestTimeout(
                        f"{self._ingest}: the server does not take rows; {queued}{self._delivery.trouble}"
                    )
                    error.queued = before
                    raise error
                self._changed.wait(left)
        self._delivery.wake.set()
