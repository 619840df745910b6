"""Where a stream stands on a server, for a feed that goes on there."""

from __future__ import annotations

from typing import Any, NamedTuple

from flux.errors import NotFoundError
from flux.model import StreamKey
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets


class FeedPosition(NamedTuple):
    """The last row of a stream that the server has committed, and its sequence."""

    sequence: int
    row: Any


def last_committed(endpoint: str, key: StreamKey, timeout: float) -> FeedPosition | None:
    """The last row of `key` that the server at `endpoint` has committed; None when there is none. Raises
    RequestTimeout after `timeout` seconds.
    """
    with Sockets() as made:
        requester = Requester(made, endpoint)
        try:
            status: Any = requester.ask(messages.stream_status_request, key=key, timeout=timeout)
        except NotFoundError:
            return None
        last = status.latest_sequence
        if not last:
            return None
        reply: Any = requester.ask(
            messages.backfill_rows_request,
            key=key,
            from_sequence_exclusive=last - 1,
            limit=1,
            timeout=timeout,
        )
    rows = [rows for rows in (reply.rows, reply.trades, reply.quotes) if rows is not None and len(rows)]
    return FeedPosition(reply.start_sequence, rows[0][0].copy()) if rows else None
