"""What a gate says when it is done."""

from __future__ import annotations

from typing import Any, NamedTuple


class Judged(NamedTuple):
    """What was measured, in lines and for a machine; what of it failed; what could not be judged, and why."""

    lines: list[str]
    failed: list[str]
    measured: Any
    unjudged: list[str] = []  # noqa: RUF012 a default that nobody writes to
