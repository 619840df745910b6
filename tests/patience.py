"""How long a test waits for what must happen."""

from __future__ import annotations

import select
from typing import IO, Final

PATIENCE_S: Final = 60.0
"""Seconds. What is waited for takes milliseconds; a machine that is stalled, or shared with five others, is no
failure of the code. A test that expects nothing to happen does not wait this long."""


def readable(source: int | IO[bytes], timeout: float = PATIENCE_S) -> bool:
    """Whether there is something to read, or an end, within `timeout` seconds; of any descriptor, however many are
    open (`select.select` refuses those from 1,024 on)."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    return bool(poll.poll(timeout * 1000))
