"""The verdict of a run of the load generator, worked out again from its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flux.loadgen.report import EXIT_NOT_HELD, EXIT_OK, HELD_SHARE, verdict


def check_verdict(made: Mapping[str, Any], code: int) -> None:
    """Whether the machine kept up or stalled at the end: word and exit code are what sent and achieved rate give."""
    counts, rate = made["counts"], made["rate"]
    assert made["complete"] is True
    if rate["target"] is None:
        assert code == EXIT_OK
        return
    held = counts["sent"] == counts["scheduled"] and rate["achieved"] + 0.05 >= HELD_SHARE * rate["target"]
    assert rate["held"] is held
    assert code == (EXIT_OK if held else EXIT_NOT_HELD)
    assert verdict(made).startswith("HELD: " if held else "NOT HELD: ")
