"""The ways to say no: one ErrorResponse, in the version that the peer speaks."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from flux.schema import messages


class Status(IntEnum):
    """ErrorResponse.status."""

    INVALID_ARGUMENT = 1
    NOT_FOUND = 2
    UNIMPLEMENTED = 3
    RESOURCE_EXHAUSTED = 4
    UNAVAILABLE = 5
    INTERNAL = 6


INTERNAL: Final = "the server met a fault of its own: its log has more"


_CODES: Final = {
    Status.INVALID_ARGUMENT: 400,
    Status.NOT_FOUND: 404,
    Status.UNIMPLEMENTED: 501,
    Status.RESOURCE_EXHAUSTED: 429,
    Status.UNAVAILABLE: 503,
    Status.INTERNAL: 500,
}


class Refusal(Exception):  # noqa: N818  it is an answer, not a fault
    """A request that gets an ErrorResponse. `text` is shown to people and holds no raw names."""

    def __init__(self, status: Status, text: str, retry_after_ms: int = 0) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.retry_after_ms = retry_after_ms

    def reply(self, version: int, correlation_id: str | None) -> bytes:
        """The frame. Version 1 has only code and message, and knows an unknown message as 404."""
        if version == 1:
            code = 404 if self.status is Status.UNIMPLEMENTED else _CODES[self.status]
            return messages.error_response(
                code=code, message=self.text, correlation_id=correlation_id, schema_version=1
            )
        return messages.error_response(
            code=_CODES[self.status],
            message=self.text,
            status=self.status,
            retry_after_ms=self.retry_after_ms,
            correlation_id=correlation_id,
            schema_version=version,
        )
