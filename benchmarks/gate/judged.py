"""What a gate says when it is done."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

HOLDS: Final = "holds"
FAILED: Final = "failed"
OPEN: Final = "not judged"
"""What a gate's verdict is, in the report and in the history; OPEN: a busy machine, or nothing to compare with."""


class Judged(NamedTuple):
    """What was measured, in lines and for a machine; what of it failed; what could not be judged, and why."""

    lines: list[str]
    failed: list[str]
    measured: Any
    unjudged: list[str] = []  # noqa: RUF012 a default that nobody writes to

    def verdict(self) -> dict[str, Any]:
        """{"verdict", "why": what failed or was left open, "lines": each figure beside its bound}, to be kept."""
        said = FAILED if self.failed else OPEN if self.unjudged else HOLDS
        return {"verdict": said, "why": self.failed + self.unjudged, "lines": self.lines}
