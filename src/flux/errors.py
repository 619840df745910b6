"""Every error a caller can meet.

FluxError                      exit 1: something went wrong while running
├── ConfigError                exit 2: usage, flags, FLUX_* values
│   ├── InvalidNameError       a source, symbol, interval or key outside the grammar
│   └── SourceFileError        file:line:column and the reason
├── InUseError                 exit 3: data directory or port, with the pid or the endpoint
├── DataError                  exit 4: data that needs a decision (newer format, corrupt journal, changed file)
│   ├── DamagedError           a database that does not read: the journal can fill it anew
│   └── NewerFormatError       written by a newer flux or DuckDB: upgrade, it is not damaged
├── DecodeError                a frame that is not what it says: reason and byte offset
├── EncodeError                rows or a key that cannot go on the wire
│   └── BadRowsError           rows that no server would keep: their indexes and reasons
├── VersionError               the peer speaks another major version of the schema
├── RequestError               the server's answer to a request was an error: status, retry_after_ms
│   ├── NotFoundError
│   ├── InvalidArgumentError
│   └── UnavailableError
├── AnswerError                the server's answer is none to what was asked, or says what cannot be
│   └── FloodError             it sent more than a client keeps for it, and its connection was dropped
├── RequestTimeout             no answer within the deadline
└── StorageError               disk full or a database failure: nothing acknowledged is lost
"""

from __future__ import annotations

from typing import ClassVar


class FluxError(Exception):
    """The root: catch this to catch all that flux raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(FluxError):
    """What was asked for cannot be: a wrong flag, value, file or name."""

    exit_code = 2


class InvalidNameError(ConfigError, ValueError):
    """A source, symbol, interval or key outside the grammar; the message holds the name escaped."""


class SourceFileError(ConfigError):
    """A file to replay has a fault at `line`, `column` (both from 1; 0 = the file as a whole)."""

    def __init__(self, path: str, line: int, column: int, reason: str) -> None:
        super().__init__(f"{path}:{line}:{column}: {reason}" if line else f"{path}: {reason}")
        self.path = path
        self.line = line
        self.column = column
        self.reason = reason

    def __reduce__(self) -> tuple[type[SourceFileError], tuple[object, ...]]:
        return type(self), (self.path, self.line, self.column, self.reason)


class InUseError(FluxError):
    """The data directory or the endpoint belongs to another process."""

    exit_code = 3


class DataError(FluxError):
    """Data on disk that only a person can decide about; nothing was changed."""

    exit_code = 4


class DamagedError(DataError):
    """A database file that does not read. The server goes on without it; the journal can fill it anew."""


class NewerFormatError(DataError):
    """Data on disk that a newer flux or DuckDB wrote: intact, only not for us."""


class DecodeError(FluxError, ValueError):
    """A frame was refused before anything in it was believed.

    `reason` is one word (`short`, `size`, `checksum`, `verify` ...), `offset` the byte in the frame at which it was
    found.
    """

    def __init__(self, reason: str, offset: int, detail: str = "") -> None:
        super().__init__(f"{reason} at byte {offset}" + (f": {detail}" if detail else ""))
        self.reason = reason
        self.offset = offset
        self.detail = detail

    def __reduce__(self) -> tuple[type[DecodeError], tuple[object, ...]]:
        # As it was made, so that it survives the way from a worker process: pickle would give __init__ the message.
        return type(self), (self.reason, self.offset, self.detail)


class EncodeError(FluxError, ValueError):
    """Rows, a key or a sequence that cannot be put on the wire."""


class BadRowsError(EncodeError):
    """Rows that no server would keep: nothing of the array was sent.

    `indexes` and `reasons` name them, in order; `skip_bad=True` sends the others.
    """

    def __init__(self, key: object, indexes: tuple[int, ...], reasons: tuple[str, ...]) -> None:
        first = ", ".join(f"row {i}: {why}" for i, why in zip(indexes[:5], reasons, strict=False))
        more = f" and {len(indexes) - 5} more" if len(indexes) > 5 else ""
        super().__init__(f"{key}: {first}{more}; nothing was sent (skip_bad=True sends the others)")
        self.key = key
        self.indexes = indexes
        self.reasons = reasons

    def __reduce__(self) -> tuple[type[BadRowsError], tuple[object, ...]]:
        return type(self), (self.key, self.indexes, self.reasons)


class VersionError(FluxError):
    """The peer speaks another major version of the schema."""


class RequestError(FluxError):
    """The server answered with an error; `status` is the schema's ErrorResponse.status."""

    def __init__(self, message: str, status: int = 0, code: int = 0, retry_after_ms: int = 0) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_ms = retry_after_ms


class NotFoundError(RequestError):
    """No such stream; the message holds up to five near names."""


class InvalidArgumentError(RequestError):
    """The request itself is wrong."""


class UnavailableError(RequestError):
    """Not now: draining, overloaded or out of space; `retry_after_ms` says when to ask again."""


class AnswerError(FluxError):
    """What came as an answer is of another kind, of another stream, or holds a number that cannot be meant."""


class FloodError(AnswerError):
    """The server sent more than a client keeps for it (a message that never ends, say): its connection was dropped,
    and is made again."""


class RequestTimeout(FluxError, TimeoutError):  # noqa: N818  the field calls it a timeout
    """No answer within the deadline. Of `Feed.send`: `queued` rows of the array were taken, the others were not."""

    queued: int = 0


class StorageError(FluxError):
    """The disk or the database refused; what was acknowledged stays."""

    @classmethod
    def of(cls, path: object, error: OSError) -> StorageError:
        """What the operating system said about `path`."""
        return cls(f"{path}: {error.strerror or error}")
