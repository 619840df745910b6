"""The fence as somebody else reads it: opened, read and let go of."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from flux.journal import Fence, FenceMark


def mark_of(directory: Path) -> FenceMark | None:
    """The newest mark in `DIR/fence`."""
    with closing(Fence(directory)) as fence:
        return fence.load()
