"""Where a subscription begins: what `Live.subscribe(start=)` takes, and the sequence of a time."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np

from flux.client.historical import Historical
from flux.client.loop import Start
from flux.errors import ConfigError, NotFoundError
from flux.model import MAX_SEQUENCE, StreamKey
from flux.units import Time, moment_of, time_ns

Begin: TypeAlias = Time | None
"""None, "cache", "oldest", a sequence (an int) or a time (all else that `flux.units` takes)."""

_WORDS: Final = ("cache", "oldest")


class TimeStart:
    """A time, epoch ns: which sequence has it is for the server to say."""

    def __init__(self, ns: int) -> None:
        self.ns = ns

    def sequence(self, key: StreamKey, rep: str | None) -> Start:
        """Of the first row that was numbered with that time or a later one; after the newest where there is none, and
        the oldest of a stream that the server does not know yet.

        One or two requests; raises what `Historical.get_range` raises.
        """
        with Historical(rep=rep) as server:
            try:
                head = server.get_status(key).latest_sequence
                found = server.get_range(
                    key.symbol,
                    interval=key.interval,
                    source=key.source_id,
                    start=moment_of(self.ns),
                    limit=1,
                    revisions=True,
                )
            except NotFoundError:
                return "oldest"
        return found.start_sequence if len(found) else head + 1


def begin_of(start: Begin) -> Start | TimeStart:
    """What was asked for, checked. Raises `ConfigError`."""
    if start is None or (isinstance(start, str) and start in _WORDS):
        return start
    if isinstance(start, int | np.integer) and not isinstance(start, bool | np.timedelta64):
        if not 1 <= start <= MAX_SEQUENCE:
            raise ConfigError(f"sequences are 1 to {MAX_SEQUENCE}, not {start}")
        return int(start)
    try:
        return TimeStart(time_ns(start))
    except ConfigError as error:
        shown: Any = ascii(start[:60]) if isinstance(start, str) else ascii(start)[:60]
        raise ConfigError(f"start is None, 'cache', 'oldest', a sequence or a time, not {shown}") from error
