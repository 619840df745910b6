"""Requests and answers between the coordinator's words and the codec's: both versions of the wire meet
here.
"""

from __future__ import annotations

import contextlib
from typing import Any

from flux import codec
from flux.errors import (
    AnswerError,
    FluxError,
    InvalidNameError,
    NotFoundError,
    RequestError,
    RequestTimeout,
    VersionError,
)
from flux.model import StreamKey
from flux.protocol.effects import Ask, AskKind
from flux.protocol.replies import (
    Beat,
    Listing,
    Page,
    PageStatus,
    Refusal,
    RefusalStatus,
    Reply,
    Status,
    TimedOut,
)
from flux.schema import messages
from flux.transport.outbox import answered_rows
from flux.transport.requester import Outcome, Requester


def send(requester: Requester, ask: Ask) -> int:
    """Send the coordinator's request; the requester's id for it."""
    if ask.kind is AskKind.LIST:
        return requester.send(
            messages.stream_list_request,
            version=ask.version,
            prefix=ask.prefix,
            after_stream_id=ask.after_stream_id,
            limit=ask.limit,
        )
    if ask.kind is AskKind.STATUS:
        build = messages.stream_status_request if ask.version >= 2 else messages.get_cursor_request
        return requester.send(build, version=ask.version, key=ask.key)
    if ask.version >= 2:
        return requester.send(
            messages.backfill_rows_request,
            version=ask.version,
            key=ask.key,
            from_sequence_exclusive=ask.from_sequence,
            to_sequence_inclusive=ask.to_sequence,
            limit=ask.limit,
            epoch=ask.epoch,
            store_id=ask.store_id,
        )
    return requester.send(
        messages.backfill_candles_request,
        version=ask.version,
        key=ask.key,
        has_from_sequence=True,
        from_sequence_exclusive=ask.from_sequence,
        limit=ask.limit,
    )


def read(outcome: Outcome, endpoint: str) -> Reply:
    """What an answer of `endpoint` means to the coordinator."""
    if outcome.error is not None:
        return _refusal(outcome.error)
    reply: Any = outcome.reply
    if isinstance(reply, codec.StreamStatusResponse) and reply.key is not None:
        return _status(reply, reply.key)
    if isinstance(reply, codec.GetCursorResponse) and reply.key is not None:
        return Status(reply.key, reply.cursor.latest_sequence if reply.cursor is not None else 0)
    if isinstance(reply, codec.BackfillRowsResponse):
        return _page(reply, endpoint)
    if isinstance(reply, codec.BackfillCandlesResponse):
        return Page(reply.start_sequence, reply.rows)
    if isinstance(reply, codec.StreamListResponse):
        listed = tuple(_status(stream, key) for stream in reply.streams if (key := _named(stream.key)))
        return Listing(listed, reply.has_more)
    return Refusal(f"an answer to another question: {type(reply).__name__}")


def beat(message: codec.Heartbeat) -> Beat:
    """A heartbeat as the coordinator takes it."""
    return Beat(
        message.store_id,
        message.epoch,
        message.boot_id,
        message.number,
        message.interval_ms,
        message.state,
        message.marks,
    )


def _status(reply: codec.StreamStatusResponse, key: StreamKey) -> Status:
    return Status(
        key, reply.latest_sequence, reply.first_sequence, reply.store_id, reply.epoch, reply.stream_id
    )


def _named(key: StreamKey | None) -> StreamKey | None:
    """A listed key, unless it is none that could be followed."""
    with contextlib.suppress(InvalidNameError):
        return None if key is None else key.checked()
    return None


def _page(reply: codec.BackfillRowsResponse, endpoint: str) -> Page | Refusal:
    try:
        status, rows = PageStatus(reply.status), answered_rows(reply, endpoint)
    except (
        ValueError,
        AnswerError,
    ) as error:  # also a status of a newer minor version, or a broken compression
        return Refusal(str(error))
    return Page(
        reply.start_sequence,
        rows,
        status,
        reply.store_id,
        reply.epoch,
        reply.first_available_sequence,
        reply.watermark_sequence,
        reply.epoch_end_sequence,
        reply.rows_epoch,
    )


def _refusal(error: FluxError) -> Reply:
    if isinstance(error, RequestTimeout):
        return TimedOut()
    if isinstance(error, NotFoundError):
        return Refusal(str(error), error.code, RefusalStatus.NOT_FOUND)
    if isinstance(error, RequestError):
        return Refusal(str(error), error.code, error.status, error.retry_after_ms)
    if isinstance(error, VersionError):
        return Refusal(str(error), 400)
    return Refusal(str(error))
